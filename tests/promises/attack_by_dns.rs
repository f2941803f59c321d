//! Lies about names: a server of the agent's own says what the agent wants. None of it makes a protected host another one.

use ana_tests::{
    Ground, Net,
    attempt::{assert_all, assert_none_granted},
    machine::{machine, path_str},
    net::{API, Dns, Https, INNOCENT, NAMELESS, Name, SHARED},
};

const POLICY: &str = "[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\nverdict = \"deny\"\n";

/// A DNS server at an address of the agent's choice.
fn liar(net: &Net) -> Dns {
    let liar = net.at_hosts(|| Dns::start(&[(NAMELESS.0, 53).into()]));
    // The innocent host is at the protected one's address, and the protected one nowhere near it.
    liar.put("www.innocent.test", &[API.0.into()]);
    liar.put("api.protected.test", &[INNOCENT.0.into()]);
    liar
}

fn lying(ground: &Ground) -> Vec<String> {
    let dns = ground.script("dns.py");
    let hello = machine().program("attack-net-hello");
    let script = format!(
        "for name in www.innocent.test api.protected.test; do for how in '' tcp; do python3 {dns} 192.0.2.40 $name 1 $how; \
         done; done\n{0} innocent 192.0.2.10 443 api.protected.test\n{0} http-innocent 192.0.2.10 80 api.protected.test",
        path_str(&hello)
    );
    ["bash", "-c", &script].map(str::to_owned).into()
}

#[test]
fn lies_without_ana() {
    let (ground, net) = (Ground::bare("liar-bare"), Net::new("liar-bare"));
    let liar = liar(&net);
    let told = net.run_without_ana(&ground, &lying(&ground)).assert_code(0).stdout();
    assert_all(&told, &["innocent", "http-innocent"], "ok");
    assert_eq!(liar.asked().len(), 4);
}

/// Who shows the innocent host's name has to be where that host is, and a liar does not say where.
#[test]
fn lies() {
    let (ground, net) = (Ground::new("liar"), Net::new("liar"));
    ground.connecting(POLICY);
    let _liar = liar(&net);
    let told = net.start(&ground, &lying(&ground)).finish().assert_code(0).stdout();
    assert_none_granted(&told, &["innocent", "http-innocent"]);
    net.assert_untouched(API);
    ground.verify();
}

/// An HTTPS record of the allowed host, or of a name that is served by it: it is at the attacker's own address.
fn hint(target: Option<&str>) -> Name {
    let https = Https {
        target: target.map(str::to_owned),
        ech: Vec::new(),
        hints: vec![NAMELESS.0.into(), NAMELESS.1.into()],
    };
    Name { addresses: vec![NAMELESS.0.into()], https: Some(https), ttl: 60, ..Name::default() }
}

/// The attacker serves DNS at an address where the agent may ask, and owns a zone that the host's own servers ask about.
fn hinting(net: &Net) -> Dns {
    let liar = net.at_hosts(|| Dns::start(&[(SHARED.0, 53).into()]));
    liar.put_name("www.innocent.test", hint(None));
    net.dns.put_name("www.evil.test", hint(Some("www.innocent.test")));
    liar
}

/// Has the hints told, over UDP and TCP, and goes there as if to the allowed host; then to where that really is.
fn hinted(ground: &Ground) -> Vec<String> {
    let dns = ground.script("dns.py");
    let hello = machine().program("attack-net-hello").display().to_string();
    let mut script = String::new();
    for (server, name) in [("192.0.2.30", "www.innocent.test"), ("192.0.2.53", "www.evil.test")] {
        for kind in [65, 1] {
            script.push_str(&format!(
                "python3 {dns} {server} {name} {kind}; python3 {dns} {server} {name} {kind} tcp\n"
            ));
        }
    }
    for (way, port) in [("innocent", 443), ("http-innocent", 80), ("encrypted", 8443)] {
        script.push_str(&format!("{hello} {way} 192.0.2.40 {port} -; "));
    }
    script.push_str(&format!("{hello} none-of-it 2001:db8::40 443 www.innocent.test\n"));
    script.push_str("curl -sS http://www.innocent.test/itself");
    ["bash", "-c", &script].map(str::to_owned).into()
}

const HINTED: [&str; 4] = ["innocent", "http-innocent", "encrypted", "none-of-it"];

#[test]
fn hints_without_ana() {
    let (ground, net) = (Ground::bare("hints-bare"), Net::new("hints-bare"));
    let liar = hinting(&net);
    let told = net.run_without_ana(&ground, &hinted(&ground)).assert_code(0).stdout();
    assert_eq!(told.matches("answer ").count(), 8, "{told}");
    assert_all(&told, &HINTED, "ok");
    assert_eq!((liar.asked().len(), net.arrivals_at(NAMELESS).len()), (4, 4));
}

/// Where only what is listed may be reached, a hint lists nothing: a name is where the host's own servers have its address.
#[test]
fn hints() {
    let (ground, net) = (Ground::new("hints"), Net::new("hints"));
    ground.connecting(
        "[network]\ndefault = \"deny\"\n\
         [[connect]]\nname = \"server\"\ncidr = [\"192.0.2.30\"]\nverdict = \"allow\"\n\
         [[connect]]\nname = \"harmless\"\nhost = [\"www.innocent.test\"]\nverdict = \"allow\"\n",
    );
    let liar = hinting(&net);
    let told = net.start(&ground, &hinted(&ground)).finish().assert_code(0).stdout();
    // The hints were heard: it is not that nobody asked.
    assert_eq!((told.matches("answer ").count(), liar.asked().len()), (8, 4), "{told}");
    assert_none_granted(&told, &HINTED);
    assert!(told.contains("1.1 www.innocent.test /itself"), "{told}");
    net.assert_untouched(NAMELESS);
    ground.verify();
}

/// More names than anybody remembers, all with addresses; what is protected is remembered.
#[test]
fn a_flood() {
    let (ground, net) = (Ground::new("dns-flood"), Net::new("dns-flood"));
    ground.connecting(POLICY);
    net.dns.put("*.flood.test", &[INNOCENT.0.into(), NAMELESS.0.into()]);
    let (flood, hello) = (machine().program("attack-net-names"), machine().program("attack-net-hello"));
    let script = format!(
        "{} 192.0.2.53 3000; {} none 192.0.2.10 443 api.protected.test; curl -sS http://www.innocent.test/after",
        path_str(&flood),
        path_str(&hello)
    );
    let told = net.start(&ground, &["bash", "-c", &script]).finish().assert_code(0).stdout();
    let answered = told.lines().find_map(|line| line.strip_prefix("answered ")?.parse::<u32>().ok());
    assert!(answered.is_some_and(|count| count > 2000), "{told}");
    assert_none_granted(&told, &["none"]);
    assert!(told.contains("1.1 www.innocent.test /after"), "{told}");
    net.assert_untouched(API);
    ground.verify();
}

/// glibc's own aliases, from a file of the agent's.
fn aliased(ground: &Ground) -> Vec<String> {
    ground.write_home("aliases", 0o644, "harmless api.protected.test\n");
    let script = "HOSTALIASES=$HOME/aliases curl -sS http://harmless/alias";
    ["bash", "-c", script].map(str::to_owned).into()
}

#[test]
fn aliases_without_ana() {
    let (ground, net) = (Ground::bare("aliases-bare"), Net::new("aliases-bare"));
    net.run_without_ana(&ground, &aliased(&ground)).assert_stdout("1.1 harmless /alias");
    assert_eq!(net.arrivals_at(API).len(), 1);
}

#[test]
fn aliases() {
    let (ground, net) = (Ground::new("aliases"), Net::new("aliases"));
    ground.connecting(POLICY);
    let finished = net.start(&ground, &aliased(&ground)).finish().assert_code(0);
    assert!(!finished.stdout().contains("1.1 harmless"), "{}", finished.stdout());
    net.assert_untouched(API);
    ground.verify();
}
