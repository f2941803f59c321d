//! Operations that are alike are one question; whoever keeps asking is asked about less and less often.

use std::time::Duration;

use ana_tests::{Ground, terminal::Terminal, wait};

/// Three alike: one question with a count. A signature frees one of them, a denial is for all that are left.
#[test]
fn alike_they_are_one_question() {
    let ground = Ground::new("alike");
    let script = format!("for i in 1 2 3; do {} now & done; wait", ground.deploy().display());
    let session = ground.start(&["sh", "-c", &script]);
    let first = ground.question_for(3);
    let shown = ground.ana(&["pending"]).output().expect("ana").stdout;
    let shown = String::from_utf8(shown).expect("text");
    assert!(shown.contains("COUNT") && shown.contains("  3  "), "{shown}");
    ground.approve(&first.id);
    let second = ground.question_for(2);
    assert_ne!(second.id, first.id);
    wait::until("one runs", || (ground.markers().len() == 1).then_some(()));
    ground.deny(&second.id, "one was enough");
    let finished = session.finish().assert_code(0);
    assert_eq!(
        finished.stderr().matches("refused by root: one was enough").count(),
        2,
        "{}",
        finished.stderr()
    );
    assert_eq!(ground.markers().len(), 1, "one signature frees one operation");
    let decisions = ground.decisions();
    assert_eq!(decisions.len(), 3);
    assert_eq!(decisions.iter().filter(|decision| decision.denies()).count(), 2);
    assert!(decisions.iter().all(|decision| decision.decided_by() == "person"));
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// What differs in anything but the process and the time is another question.
#[test]
fn a_difference_is_another_question() {
    let ground = Ground::new("unlike");
    let deploy = ground.deploy();
    let deploy = deploy.display();
    let script = format!(
        "{deploy} now & A=1 {deploy} now & A=2 {deploy} now & (cd /; exec {deploy} now) & {deploy} now '' & wait"
    );
    let session = ground.start(&["sh", "-c", &script]);
    let all = wait::until("five questions", || Some(ground.pending(1)).filter(|all| all.len() == 5));
    assert!(all.iter().all(|question| question.count == 1), "{all:#?}");
    ground.deny(&all[0].id, "only this one");
    assert_eq!(ground.pending(0).len(), 4, "a denial is for what is alike, and for nothing else");
    for question in &all[1..] {
        ground.approve(&question.id);
    }
    session.finish().assert_code(0);
    assert_eq!(ground.markers().len(), 4);
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn at_the_terminal_they_are_one_question() {
    let ground = Ground::new("alike-tty");
    let terminal = Terminal::of_root(&ground);
    let script = format!("sh -c 'for i in 1 2 3; do {} now & done; wait'", ground.deploy().display());
    terminal.line(&terminal.ana_run(&ground, &script));
    terminal.until_question();
    terminal.until_shows("(2 more like this one wait, d denies all)");
    terminal.answer_no();
    let screen = terminal.until_prompt();
    assert!(screen.contains("(and 2 more like it)"), "{screen}");
    assert_eq!(screen.matches("rule         deploy").count(), 1, "it was asked once:\n{screen}");
    assert_eq!(ground.decisions().iter().filter(|decision| decision.denies()).count(), 3);
    ground.assert_never_ran();
    ground.verify();
}

/// After the second denial in a row nothing is asked for a while, and the agent is told; an approval ends it.
#[test]
fn whoever_is_denied_twice_waits() {
    let ground = Ground::new("back-off");
    let script = format!("while read word; do {} $word; done", ground.deploy().display());
    let mut session = ground.launch(&["sh", "-c", &script]).start_listening();
    for word in ["one", "two"] {
        session.say(word);
        let question = ground.question_of(&mut session);
        assert_eq!(question.args(), [word]);
        ground.deny(&question.id, "no");
        session.until_stderr(&format!("operation {}", question.id));
    }
    session.say("three");
    let said = session.until_stderr("a person denied the last 2; asking again is possible in ");
    let left = said.rsplit_once("possible in ").and_then(|(_, rest)| rest.split(' ').next());
    let left: u64 = left.and_then(|left| left.parse().ok()).expect("seconds");
    assert!((1..=10).contains(&left), "{said}");
    ground.assert_nothing_pending();
    let refused = ground.decisions().pop().expect("a decision");
    assert!(
        refused.denies() && refused.decided_by() == "system" && refused.args() == ["three"],
        "{refused:#?}"
    );
    // It is asked again once the time is over. Each word is answered before the next: two would be two questions.
    let question = wait::until_within(Duration::from_secs(60), "it is asked again", || {
        let refused = ground.decisions().len();
        session.say("four");
        wait::until("it is asked or refused", || match ground.pending(1).pop() {
            None if ground.decisions().len() == refused => None,
            asked => Some(asked),
        })
    });
    ground.approve(&question.id);
    wait::until("it runs", || (!ground.markers().is_empty()).then_some(()));
    for word in ["five", "six"] {
        session.say(word);
        let question = wait::until("the next is asked at once", || {
            ground.pending(1).into_iter().find(|question| question.args() == [word])
        });
        ground.deny(&question.id, "no");
        if word == "five" {
            session.until_stderr(&format!("operation {}", question.id));
        }
    }
    session.hush();
    session.finish();
    assert_eq!(ground.markers().len(), 1);
    ground.assert_every_run_was_decided();
    ground.verify();
}
