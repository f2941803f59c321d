//! The real Claude Code, offline, before a scripted model: what its Bash tool runs is held, and its model is told.

use std::time::Duration;

use ana_tests::{Ground, Session, claude, machine::which, model::Model, skip::skipped};

/// How long the agent may take to start, on two cores that do other things as well.
const LIMIT: Duration = Duration::from_secs(120);

fn npm(test: &str) -> bool {
    let there = which("npm").is_some();
    if !there {
        skipped(test, "no npm to install Claude Code with");
    }
    there
}

/// The model server and the agent work together: what the other tests show is ana's doing.
#[test]
fn claude_without_ana() {
    if !npm("claude_without_ana") {
        return;
    }
    let ground = Ground::bare("claude-bare");
    let model = Model::start(&format!("{} by-claude", ground.deploy().display()));
    let mut command = ground.without_ana(&claude::command(&ground, &model.url()));
    let session = Session::of(command.stdin(std::process::Stdio::null()));
    let finished = session.finish_within(LIMIT).assert_code(0).assert_stdout("the model is done");
    assert!(model.tool_result().contains("marker: ran by-claude"), "{} {finished:?}", model.tool_result());
    assert_eq!(ground.markers().len(), 1);
}

#[test]
fn claude_is_held_and_approved() {
    if !npm("claude_is_held_and_approved") {
        return;
    }
    let ground = Ground::new("claude-yes");
    let model = Model::start(&format!("{} by-claude", ground.deploy().display()));
    let mut session = ground.start(&claude::command(&ground, &model.url()));
    let question = ground.question_of_within(&mut session, LIMIT);
    assert_eq!(question.args(), ["by-claude"]);
    let ancestry = question.operation["requester"]["ancestry"].to_string();
    assert!(ancestry.contains("claude"), "the prompt shows who asks: {ancestry}");
    ground.assert_never_ran();
    ground.approve(&question.id);
    session.finish_within(LIMIT).assert_code(0).assert_stdout("the model is done");
    assert!(model.tool_result().contains("marker: ran by-claude"), "{}", model.tool_result());
    ground.assert_every_run_was_decided();
    assert_eq!(ground.decisions().len(), 1, "nothing else was asked: {:#?}", ground.decisions());
    ground.verify();
}

#[test]
fn claude_is_told_why_it_was_denied() {
    if !npm("claude_is_told_why_it_was_denied") {
        return;
    }
    let ground = Ground::new("claude-no");
    let model = Model::start(&format!("{} by-claude", ground.deploy().display()));
    let mut session = ground.start(&claude::command(&ground, &model.url()));
    let question = ground.question_of_within(&mut session, LIMIT);
    ground.deny(&question.id, "not today");
    session.finish_within(LIMIT).assert_code(0).assert_stdout("the model is done");
    let result = model.tool_result();
    assert!(result.contains("ana: denied: ") && result.contains("by-claude"), "{result}");
    assert!(result.contains(&question.id) && result.contains("not today"), "{result}");
    ground.assert_never_ran();
    ground.verify();
}
