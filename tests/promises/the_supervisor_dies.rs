//! When supervisor, `ana-run` or warden die at any moment, alone or together, the session dies with them, and nothing ran
//! that was not decided.

use std::time::{Duration, Instant};

use ana_tests::{Ground, Session, answers::Answer, ground::cgroups_of, processes, wait};

/// How often each of them is killed.
fn rounds() -> u32 {
    std::env::var("ANA_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// Who is killed; several in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Supervisor,
    Run,
    SupervisorAndRun,
    /// The session leader is left, and the next start.
    SupervisorAndWarden,
}

impl Victims {
    fn of(self, session: &Session) -> Vec<i32> {
        match self {
            Self::Supervisor => vec![session.supervisor()],
            Self::Run => vec![session.pid()],
            Self::SupervisorAndRun => vec![session.supervisor(), session.pid()],
            Self::SupervisorAndWarden => {
                let mut all = session.wardens();
                all.push(session.supervisor());
                all
            }
        }
    }
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
fn nothing_survives_the_supervisor() {
    nothing_survives_and_nothing_slips_through(Victims::Supervisor);
}

#[test]
fn nothing_survives_ana_run() {
    nothing_survives_and_nothing_slips_through(Victims::Run);
}

#[test]
fn nothing_survives_supervisor_and_ana_run() {
    nothing_survives_and_nothing_slips_through(Victims::SupervisorAndRun);
}

#[test]
fn nothing_survives_supervisor_and_warden() {
    nothing_survives_and_nothing_slips_through(Victims::SupervisorAndWarden);
}

fn nothing_survives_and_nothing_slips_through(victims: Victims) {
    let ground = Ground::new("sigkill");
    let rule = "allow = [[\"ok\", \"*\"]]\ndeny = [[\"bad\", \"*\"]]\notherwise = \"approve\"";
    ground.policy(&(ground.head() + &ground.rule(rule)));
    let seed = std::env::var("ANA_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed_2026);
    println!("ANA_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut slowest = Duration::ZERO;
    for round in 0..rounds() {
        let after = Duration::from_millis(dice.below(1200));
        slowest = slowest.max(kill_once(&ground, round, after, victims));
    }
    println!("{victims:?}: {} kills, {} runs, slowest death {slowest:?}", rounds(), ground.markers().len());
    account_for_it(&ground);
    for session in ana_tests::records::session_ids(&ground.state()) {
        assert!(cgroups_of(&session).is_empty(), "the next start leaves nothing of {session}");
    }
    assert!(!ground.markers().is_empty(), "no protected program ever ran: the test proves nothing");
    println!("{} allowed runs were noted, and written down by whoever came after", ground.noted().len());
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// How long the kill of a session may take: milliseconds, on a machine that has nothing else to do.
const DEATH: Duration = wait::SOON;

/// One life of a session; how long its tree took to die.
fn kill_once(ground: &Ground, round: u32, after: Duration, victims: Victims) -> Duration {
    let session = ground.start(&["sh", "-c", &workload(ground, round)]);
    let doomed = victims.of(&session);
    let id = wait::until("the session is in the evidence", || {
        let starts = ground.records_of("session-start");
        (starts.len() == round as usize + 1).then(|| starts[round as usize].payload["session"].clone())
    });
    let id = id.as_str().expect("an id").to_owned();
    let tree = cgroups_of(&id);
    assert!(!tree.is_empty(), "the session has no cgroup");
    let inside = || processes::all().into_iter().filter(|&pid| in_session(pid, &id)).collect::<Vec<_>>();
    if round.is_multiple_of(2) {
        // Every other time the agent is at work already; else it may just be starting.
        wait::until("the agent runs", || (!inside().is_empty()).then_some(()));
    }
    std::thread::scope(|scope| {
        let answering = ground.answer_all(scope, Answer::Approve);
        // Not synchronisation: the moment of the kill is what this test draws at random.
        std::thread::sleep(after);
        assert!(round % 2 == 1 || !inside().is_empty(), "the agent ended by itself");
        let begin = Instant::now();
        doomed.iter().for_each(|&pid| processes::end(pid));
        let left = || -> Vec<i32> {
            let alive = |pid: &i32| processes::alive(*pid) && in_session(*pid, &id);
            processes::all().into_iter().filter(alive).collect()
        };
        wait::poll(DEATH, || left().is_empty().then_some(()));
        let (took, left) = (begin.elapsed(), left());
        let tell = |pid: &i32| format!("{pid} {:?} {:?}", processes::name(*pid), processes::cgroup(*pid));
        assert!(left.is_empty(), "alive after {took:?}: {:?}", left.iter().map(tell).collect::<Vec<_>>());
        drop(answering);
        let finished = session.finish_within(wait::LIMIT);
        assert_ne!(finished.code(), 0, "ana-run tells that its supervisor died");
        if victims != Victims::SupervisorAndWarden {
            wait::until("the cgroups are gone", || cgroups_of(&id).is_empty().then_some(()));
        }
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
    wait::until_within(DEATH, "the held process is dead", || {
        (!processes::alive(question.pid())).then_some(())
    });
    assert_ne!(session.finish().code(), 0);
    account_for_it(&ground);
    ground.assert_never_ran();
    ground.verify();
}
