//! Lies about names: a server of the agent's own says what the agent wants. None of it makes a protected host another one.

use ana_tests::{
    Ground, Net,
    attempt::{assert_all, assert_none_granted},
    machine::{machine, path_str},
    net::{API, Dns, INNOCENT, NAMELESS},
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
