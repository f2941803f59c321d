//! Names that are not what the connection is about, hidden names, names in pieces: what decides is what the host would get.

use ana_tests::{
    Ground, Net,
    attempt::{assert_all, assert_none_granted},
    machine::{machine, path_str},
    net::{API, Host, INNOCENT, NAMELESS},
};

/// To the host's own address, which is known to be protected: it has to show a name of its own to be another host.
const AT_ITS_ADDRESS: [&str; 7] =
    ["innocent", "none", "encrypted", "garbage", "silent", "http-innocent", "literal"];

/// To an address of which nothing is known: there the name decides.
const BY_NAME: [&str; 9] =
    ["hello", "slow", "late", "split", "two", "case", "http-slow", "http-two", "http-absolute"];

/// Those of them that name two hosts, or none clearly: which one counts is the server's choice.
const AMBIGUOUS: [&str; 3] = ["two", "http-two", "http-absolute"];

/// All at once.
fn command() -> Vec<String> {
    let program = machine().program("attack-net-hello");
    let mut script = String::new();
    let ways = AT_ITS_ADDRESS.map(|way| (way, "192.0.2.10", "api.protected.test"));
    let by_name = BY_NAME.map(|way| (way, "192.0.2.40", "hidden.prod.example"));
    for (way, address, name) in ways.into_iter().chain(by_name) {
        let port = if way.starts_with("http") { 80 } else { 443 };
        script.push_str(&format!("{} {way} {address} {port} {name} &\n", path_str(&program)));
    }
    script.push_str("wait");
    ["bash", "-c", &script].map(str::to_owned).into()
}

fn policy(verdict: &str) -> String {
    format!(
        "[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\", \"*.prod.example\"]\nverdict = \"{verdict}\"\n"
    )
}

#[test]
fn names_without_ana() {
    let (ground, net) = (Ground::bare("hello-bare"), Net::new("hello-bare"));
    let told = net.run_without_ana(&ground, &command()).assert_code(0).stdout();
    assert_all(&told, &AT_ITS_ADDRESS, "ok");
    assert_all(&told, &BY_NAME, "ok");
    assert_eq!(net.arrivals_at(API).len(), AT_ITS_ADDRESS.len());
    assert_eq!(net.arrivals_at(NAMELESS).len(), BY_NAME.len());
}

#[test]
fn names() {
    let (ground, net) = (Ground::new("hello"), Net::new("hello"));
    ground.connecting(&policy("deny"));
    let told = net.start(&ground, &command()).finish().assert_code(0).stdout();
    assert_none_granted(&told, &AT_ITS_ADDRESS);
    assert_none_granted(&told, &BY_NAME);
    net.assert_untouched(API);
    assert!(net.arrivals_at(NAMELESS).is_empty(), "{:?}", net.arrivals_at(NAMELESS));
    ground.verify();
}

/// Allowed, every byte of them arrives, in the order in which it was sent.
#[test]
fn allowed_names_pass_unchanged() {
    let (ground, net) = (Ground::new("hello-allowed"), Net::new("hello-allowed"));
    ground.connecting(&policy("allow"));
    let told = net.start(&ground, &command()).finish().assert_code(0).stdout();
    assert_all(&told, &AT_ITS_ADDRESS, "ok");
    let clear: Vec<&str> = BY_NAME.into_iter().filter(|way| !AMBIGUOUS.contains(way)).collect();
    assert_all(&told, &clear, "ok");
    assert_none_granted(&told, &AMBIGUOUS);
    ground.verify();
}

fn through_a_proxy(net: &Net) -> Vec<String> {
    net.put(8080, Host::Proxy((API.0, 443).into()));
    let program = machine().program("attack-net-hello");
    [path_str(&program), "proxy", "192.0.2.20", "8080", "api.protected.test"].map(str::to_owned).into()
}

#[test]
fn a_proxy_without_ana() {
    let (ground, net) = (Ground::bare("tunnel-bare"), Net::new("tunnel-bare"));
    let told = net.run_without_ana(&ground, &through_a_proxy(&net)).assert_code(0).stdout();
    assert_all(&told, &["proxy"], "ok");
    assert_eq!((net.arrivals_at(INNOCENT).len(), net.arrivals_at(API).len()), (1, 1));
}

/// The proxy is not protected; what is asked of it is, before it has heard of it.
#[test]
fn a_proxy() {
    let (ground, net) = (Ground::new("tunnel"), Net::new("tunnel"));
    ground.connecting("[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\n");
    let command = through_a_proxy(&net);
    let mut session = net.start(&ground, &command);
    let question = ground.question_of(&mut session);
    assert_eq!(question.connect()["name_source"], "connect", "{question:#?}");
    assert!(question.connect()["through"].to_string().contains("192.0.2.20:8080"), "{question:#?}");
    net.assert_untouched(INNOCENT);
    ground.deny(&question.id, "not through a proxy");
    assert_none_granted(&session.finish().assert_code(0).stdout(), &["proxy"]);
    assert!(net.arrivals_at(API).is_empty() && net.arrivals_at(INNOCENT).is_empty());
    let mut session = net.start(&ground, &command);
    let question = ground.question_of(&mut session);
    ground.approve(&question.id);
    // The TLS inside may be asked about as well: it names the host again.
    let (finished, _) =
        ground.answered(session, ana_tests::answers::Answer::Approve, std::time::Duration::from_secs(30));
    assert_all(&finished.assert_code(0).stdout(), &["proxy"], "ok");
    assert_eq!(net.arrivals_at(API).len(), 1);
    ground.verify();
}
