//! When the supervisor dies at any moment, its sessions die with it, and nothing ran that was not decided.

use std::time::{Duration, Instant};

use ana_tests::{Ground, answers::Answer, ground::cgroups_of, processes, wait};

/// How often the supervisor is killed.
fn rounds() -> u32 {
    std::env::var("ANA_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Works as an agent does: starts things, forks, runs protected programs that are asked, allowed or denied.
fn workload(ground: &Ground, round: u32) -> String {
    format!(
        "i=0; while :; do i=$((i+1)); {0} ask {round}-$i & {0} ok {round}-$i; {0} bad {round}-$i; true | cat; \
         sleep 100 & kill $!; [ $((i % 8)) = 0 ] && wait; done",
        ground.deploy().display()
    )
}

/// Numbers that look random and can be had again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn nothing_survives_and_nothing_slips_through() {
    let ground = Ground::new("sigkill");
    let rule = "allow = [[\"ok\", \"*\"]]\ndeny = [[\"bad\", \"*\"]]\notherwise = \"approve\"";
    ground.policy(&(ground.head() + &ground.rule(rule)));
    let seed = std::env::var("ANA_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed_2026);
    println!("ANA_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut slowest = Duration::ZERO;
    for round in 0..rounds() {
        slowest = slowest.max(kill_once(&ground, round, Duration::from_millis(dice.below(1200))));
    }
    println!("{} runs, slowest death {slowest:?}", ground.markers().len());
    account_for_it(&ground);
    assert!(!ground.markers().is_empty(), "no protected program ever ran: the test proves nothing");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// One life of a session; how long its tree took to die.
fn kill_once(ground: &Ground, round: u32, after: Duration) -> Duration {
    let session = ground.start(&["sh", "-c", &workload(ground, round)]);
    let supervisor = session.supervisor();
    let id = wait::until("the session is in the evidence", || {
        let starts = ground.records_of("session-start");
        (starts.len() == round as usize + 1).then(|| starts[round as usize].payload["session"].clone())
    });
    let id = id.as_str().expect("an id").to_owned();
    let tree = cgroups_of(&id);
    assert!(!tree.is_empty(), "the session has no cgroup");
    std::thread::scope(|scope| {
        let answering = ground.answer_all(scope, Answer::Approve);
        // Not synchronisation: the moment of the kill is what this test draws at random.
        std::thread::sleep(after);
        let inside = processes::all().into_iter().filter(|&pid| in_session(pid, &id)).collect::<Vec<_>>();
        let begin = Instant::now();
        processes::end(supervisor);
        let left = || -> Vec<i32> {
            let alive = |pid: &i32| processes::alive(*pid) && in_session(*pid, &id);
            processes::all().into_iter().filter(alive).collect()
        };
        wait::poll(Duration::from_secs(1), || left().is_empty().then_some(()));
        let (took, left) = (begin.elapsed(), left());
        let tell = |pid: &i32| format!("{pid} {:?} {:?}", processes::name(*pid), processes::cgroup(*pid));
        assert!(left.is_empty(), "alive after {took:?}: {:?}", left.iter().map(tell).collect::<Vec<_>>());
        assert!(!inside.is_empty() || after < Duration::from_millis(200), "the session had no process");
        drop(answering);
        let finished = session.finish_within(Duration::from_secs(10));
        assert_ne!(finished.code(), 0, "ana-run tells that its supervisor died");
        wait::until("the cgroups are gone", || cgroups_of(&id).is_empty().then_some(()));
        took
    })
}

/// The next start finds what was killed and says so in the log, which then is whole again.
fn account_for_it(ground: &Ground) {
    ground.run(&["true"]).assert_code(0);
    let (starts, ends) = (ground.records_of("session-start").len(), ground.records_of("session-end").len());
    assert_eq!(starts, ends, "every session has an end");
}

fn in_session(pid: i32, id: &str) -> bool {
    processes::cgroup(pid).is_some_and(|path| path.contains(id))
}

/// Killed while a program is held: it never runs, not even a moment later.
#[test]
fn a_held_program_dies_unrun() {
    let ground = Ground::new("killed-held");
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    processes::end(session.supervisor());
    wait::until_within(Duration::from_secs(1), "the held process is dead", || {
        (!processes::alive(question.pid())).then_some(())
    });
    assert_ne!(session.finish().code(), 0);
    account_for_it(&ground);
    ground.assert_never_ran();
    ground.verify();
}
