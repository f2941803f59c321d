//! The real Claude Code, whose own API host is protected: its request waits before the host has heard of it, and is answered.

use std::{net::Ipv6Addr, net::TcpListener, time::Duration};

use ana_tests::{
    Ground, Net, Session, answers::Answer, claude, machine::which, model::Model, net::API, skip::skipped,
};

/// How long the agent may take to start, on two cores that do other things as well.
const LIMIT: Duration = Duration::from_secs(120);

const PORT: u16 = 7780;

fn world(name: &str, test: &str) -> Option<(Net, Model)> {
    if which("npm").is_none() {
        skipped(test, "no npm to install Claude Code with");
        return None;
    }
    let net = Net::new(name);
    let listener = net.at_hosts(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))).expect("a free port");
    let model = Model::start_on(listener, "echo by-claude");
    Some((net, model))
}

fn command(ground: &Ground) -> Vec<std::ffi::OsString> {
    claude::command(ground, &format!("http://api.protected.test:{PORT}"))
}

#[test]
fn it_reaches_its_host_without_ana() {
    let Some((net, model)) = world("claude-net-bare", "it_reaches_its_host_without_ana") else { return };
    let ground = Ground::bare("claude-net-bare");
    let session = Session::of(net.without_ana(&ground, &command(&ground)).stdin(std::process::Stdio::null()));
    session.finish_within(LIMIT).assert_code(0).assert_stdout("the model is done");
    assert!(model.tool_result().contains("by-claude"), "{}", model.tool_result());
    assert!(!net.packets_to(API).is_empty());
}

#[test]
fn it_waits_for_its_own_host() {
    let Some((net, model)) = world("claude-net", "it_waits_for_its_own_host") else { return };
    let ground = Ground::new("claude-net");
    ground.connecting(&format!(
        "[[connect]]\nname = \"model\"\nhost = [\"api.protected.test\"]\nport = [{PORT}]\nfor = \"session\"\n"
    ));
    let mut session = net.start(&ground, &command(&ground));
    let question = ground.question_of_within(&mut session, LIMIT);
    assert_eq!(question.connect()["name"], "api.protected.test", "{question:#?}");
    assert_eq!(question.connect()["port"], PORT);
    let program = question.connect()["program"]["path"].to_string();
    assert!(program.contains("claude"), "the prompt shows who asks: {program}");
    net.assert_untouched(API);
    assert!(model.requests().is_empty());
    let (finished, _) = ground.answered(session, Answer::Approve, LIMIT);
    finished.assert_code(0).assert_stdout("the model is done");
    assert!(model.tool_result().contains("by-claude"), "{}", model.tool_result());
    ground.verify();
}
