//! What is not HTTP is held by its address alone: ssh, PostgreSQL, whatever speaks first; and a gibibyte comes through as
//! it was sent.

use std::time::Duration;

use ana_tests::{
    Ground, Net,
    answers::Answer,
    machine::{has, path_str},
    net::{API, Host, NAMELESS, servers::authority},
    skip::skipped,
};

/// SHA-256 of what `/bulk` is.
const BULK: &str = "f1e231cb2959fef0f1769c88494aaf8626eb2669c301def4ae6dd804f33f8e7b";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn ssh(net: &Net, ground: &Ground, test: &str) -> Option<Vec<String>> {
    let Some(mut command) = net.ssh(ground) else {
        skipped(test, "no OpenSSH server");
        return None;
    };
    command.extend(words(&["192.0.2.40", "echo", "over-ssh"]));
    Some(command)
}

#[test]
fn ssh_without_ana() {
    let (ground, net) = (Ground::bare("ssh-bare"), Net::new("ssh-bare"));
    let Some(command) = ssh(&net, &ground, "ssh_without_ana") else { return };
    net.run_without_ana(&ground, &command).assert_code(0).assert_stdout("over-ssh");
    assert_eq!(net.arrivals_at(NAMELESS).len(), 1);
}

/// An address without a name, whose server speaks first.
#[test]
fn ssh_is_held_by_its_address() {
    let (ground, net) = (Ground::new("ssh"), Net::new("ssh"));
    let Some(command) = ssh(&net, &ground, "ssh_is_held_by_its_address") else { return };
    ground.connecting("[[connect]]\nname = \"machine\"\ncidr = [\"192.0.2.40\"]\nport = [22]\n");
    let mut session = net.start(&ground, &command);
    let question = net.held(&ground, &mut session, 1, NAMELESS).remove(0);
    assert_eq!(
        (&question.connect()["address"], &question.connect()["port"]),
        (&"192.0.2.40".into(), &22.into())
    );
    assert!(question.connect()["name"].is_null(), "{}", question.connect());
    ground.approve(&question.id);
    session.finish().assert_code(0).assert_stdout("over-ssh");
    assert_eq!(net.arrivals_at(NAMELESS).len(), 1);
    ground.verify();
}

fn psql(net: &Net, test: &str) -> Option<Vec<String>> {
    if !has("psql") || !net.postgres() {
        skipped(test, "no PostgreSQL");
        return None;
    }
    Some(words(&[
        "psql",
        "-X",
        "-At",
        "-h",
        "192.0.2.40",
        "-U",
        "postgres",
        "-c",
        "select 6 * 7",
        "postgres",
    ]))
}

#[test]
fn psql_without_ana() {
    let (ground, net) = (Ground::bare("psql-bare"), Net::new("psql-bare"));
    let Some(command) = psql(&net, "psql_without_ana") else { return };
    net.run_without_ana(&ground, &command).assert_code(0).assert_stdout("42");
}

#[test]
fn psql_is_held_by_its_address() {
    let (ground, net) = (Ground::new("psql"), Net::new("psql"));
    let Some(command) = psql(&net, "psql_is_held_by_its_address") else { return };
    ground.connecting("[[connect]]\nname = \"database\"\ncidr = [\"192.0.2.40/31\"]\n");
    let mut session = net.start(&ground, &command);
    let question = net.held(&ground, &mut session, 1, NAMELESS).remove(0);
    assert_eq!(question.rule, "database");
    ground.approve(&question.id);
    session.finish().assert_code(0).assert_stdout("42");
    ground.verify();
}

/// The same with TLS, which PostgreSQL's client asks for in words of its own; the server's certificate is its own.
fn psql_tls(net: &Net, test: &str) -> Option<Vec<String>> {
    let mut command = psql(net, test)?;
    let query = "select 6 * 7, ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let place = command.iter().position(|word| word.starts_with("select"))?;
    command[place] = query.to_owned();
    let authority = authority().join("ca.pem");
    let trusting = format!("dbname=postgres sslmode=verify-full sslrootcert={}", path_str(&authority));
    *command.last_mut()? = trusting;
    Some(command)
}

/// SSLRequest, as PostgreSQL's documentation has it (55.7): a length and a number.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[test]
fn psql_with_tls_without_ana() {
    let (ground, net) = (Ground::bare("psql-tls-bare"), Net::new("psql-tls-bare"));
    let Some(command) = psql_tls(&net, "psql_with_tls_without_ana") else { return };
    net.run_without_ana(&ground, &command).assert_code(0).assert_stdout("42|t");
    let plain: Vec<String> = command.iter().map(|word| word.replace("verify-full", "disable")).collect();
    net.run_without_ana(&ground, &plain).assert_code(0).assert_stdout("42|f");
}

#[test]
fn psql_with_tls() {
    let (ground, net) = (Ground::new("psql-tls"), Net::new("psql-tls"));
    let Some(command) = psql_tls(&net, "psql_with_tls") else { return };
    ground.connecting("[[connect]]\nname = \"database\"\ncidr = [\"192.0.2.40\"]\nport = [5432]\n");
    let mut session = net.start(&ground, &command);
    let question = net.held(&ground, &mut session, 1, NAMELESS).remove(0);
    assert_eq!(question.rule, "database");
    ground.deny(&question.id, "not this table");
    let finished = session.finish();
    // 2: there was no connection.
    assert_eq!((finished.code(), finished.stdout().as_str()), (2, ""), "{}", finished.stderr());
    net.assert_untouched(NAMELESS);
    let mut session = net.start(&ground, &command);
    let question = net.held(&ground, &mut session, 1, NAMELESS).remove(0);
    ground.approve(&question.id);
    session.finish().assert_code(0).assert_stdout("42|t");
    let arrivals = net.arrivals_at(NAMELESS);
    assert!(arrivals.len() == 1 && arrivals[0].first == SSL_REQUEST, "{arrivals:?}");
    ground.verify();
}

/// The server's greeting comes without a byte from the client, over IPv6.
#[test]
fn a_server_that_speaks_first() {
    let (ground, net) = (Ground::new("first"), Net::new("first"));
    net.put(7777, Host::First(b"welcome\n"));
    ground.connecting("[[connect]]\nname = \"six\"\ncidr = [\"2001:db8::40/124\"]\n");
    let script = "exec 3<>/dev/tcp/2001:db8::40/7777; read line <&3; echo \"said $line\"; echo back >&3; read line <&3; \
         echo \"said $line\"";
    let mut session = net.start(&ground, &["bash", "-c", script]);
    let question = net.held(&ground, &mut session, 1, NAMELESS).remove(0);
    assert_eq!(question.connect()["address"], "2001:db8::40");
    ground.approve(&question.id);
    let told = session.finish().assert_code(0).stdout();
    assert_eq!(told, "said welcome\nsaid back\n");
    ground.verify();
}

/// It ends by itself; emulated processors take long.
const BULK_LIMIT: Duration = Duration::from_secs(600);

fn bulk() -> [&'static str; 3] {
    ["bash", "-c", "curl -sS http://api.protected.test:8080/bulk | sha256sum"]
}

#[test]
fn a_gibibyte_without_ana() {
    let (ground, net) = (Ground::bare("bulk-bare"), Net::new("bulk-bare"));
    let session =
        ana_tests::Session::of(net.without_ana(&ground, &bulk()).stdin(std::process::Stdio::null()));
    session.finish_within(BULK_LIMIT).assert_code(0).assert_stdout(BULK);
}

#[test]
fn a_gibibyte_comes_through() {
    let (ground, net) = (Ground::new("bulk"), Net::new("bulk"));
    ground.protecting_api();
    let mut session = net.start(&ground, &bulk());
    net.held(&ground, &mut session, 1, API);
    let (finished, asked) = ground.answered(session, Answer::Approve, BULK_LIMIT);
    finished.assert_code(0).assert_stdout(BULK);
    assert_eq!(asked.len(), 1);
    ground.verify();
}
