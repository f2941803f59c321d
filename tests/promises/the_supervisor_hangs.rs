//! A supervisor that hangs would block everybody on the host who executes a protected program. Its session dies instead,
//! then the supervisor, and the host goes on.

use std::time::{Duration, Instant};

use ana_tests::{Ground, Session, processes, wait};
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// From the first silence to the death of the whole tree.
const LIMIT: Duration = wait::SOON;

/// A session with a program that is held, and its id.
fn held(ground: &Ground) -> (Session, String) {
    let mut session =
        ground.start(&["sh", "-c", &format!("{} held & sleep 1000", ground.deploy().display())]);
    let question = ground.question_of(&mut session);
    (session, question.session)
}

fn in_session(id: &str) -> Vec<i32> {
    let inside = |pid: &i32| processes::cgroup(*pid).is_some_and(|path| path.contains(id));
    processes::all().into_iter().filter(|pid| inside(pid) && processes::alive(*pid)).collect()
}

/// The tree dies in time, the host goes on, and the evidence says why.
#[track_caller]
fn ends_in_time(ground: &Ground, session: Session, id: &str, begin: Instant) {
    // Somebody outside runs into the hanging gate: the exec waits, and goes on in the end.
    let outside = Session::of(
        ground
            .without_ana(&[ground.deploy().into_os_string(), "outside".into()])
            .stdin(std::process::Stdio::null()),
    );
    wait::until_within(LIMIT.saturating_sub(begin.elapsed()), "the tree is dead", || {
        in_session(id).is_empty().then_some(())
    });
    println!("the tree was dead after {:?}", begin.elapsed());
    outside.finish_within(wait::SOON).assert_code(0).assert_stdout("marker: ran outside");
    assert_ne!(session.finish_within(wait::LIMIT).code(), 0);
    let end = wait::until("the end is recorded", || ground.records_of("session-end").pop());
    let cause = end.payload["detail"]["cause"].as_str().expect("a cause").to_owned();
    assert!(cause.contains("hung"), "{cause}");
    let ran: Vec<_> = ground.markers().iter().map(ana_tests::Marker::args).collect();
    assert_eq!(ran, [["outside"]], "nothing of the session ran");
    ground.verify();
}

#[test]
fn a_stopped_supervisor_takes_its_session_along() {
    let ground = Ground::new("stopped");
    let (session, id) = held(&ground);
    let supervisor = session.supervisor();
    let begin = Instant::now();
    kill(Pid::from_raw(supervisor), Signal::SIGSTOP).expect("root may");
    ends_in_time(&ground, session, &id, begin);
    assert!(!processes::alive(supervisor));
}

/// Only the thread that answers the kernel stands still, stopped as a debugger stops one; everything else of the supervisor
/// goes on, its socket answers.
#[test]
fn a_hanging_answering_thread_is_noticed() {
    let ground = Ground::new("hanging");
    let (session, id) = held(&ground);
    let supervisor = session.supervisor();
    // One of them leads, the others follow: any of them could answer.
    let threads = threads_named(supervisor, "ana-answerer");
    for &thread in &threads {
        ptrace::seize(thread, ptrace::Options::empty()).expect("root may");
        ptrace::interrupt(thread).expect("root may");
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL)).expect("a tracee");
        assert!(matches!(stopped, WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)), "{stopped:?}");
    }
    let begin = Instant::now();
    assert_eq!(ground.pending(0).len(), 1, "the rest of the supervisor lives");
    ends_in_time(&ground, session, &id, begin);
    // Their end is the tracer's to take.
    for thread in threads {
        wait::until("the thread has ended", || {
            matches!(
                waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)),
                Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..)) | Err(Errno::ECHILD)
            )
            .then_some(())
        });
    }
    wait::until("the supervisor has ended", || (!processes::alive(supervisor)).then_some(()));
}

fn threads_named(pid: i32, wanted: &str) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives").flatten();
    let ids = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    let named = |id: &i32| processes::name(*id).as_deref() == Some(wanted);
    let found: Vec<Pid> = ids.filter(named).map(Pid::from_raw).collect();
    assert!(!found.is_empty(), "no thread {wanted}");
    found
}

/// A hundred busy processes on two cores, for far longer than a silence may last: nobody is killed.
#[test]
fn a_machine_full_of_work_is_no_hang() {
    let ground = Ground::new("busy");
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"**\"]]")));
    let script = format!(
        "for i in $(seq 100); do timeout 8 sh -c 'while :; do :; done' & done; \
         for i in 1 2 3 4; do {0} $i; done; wait; {0} after",
        ground.deploy().display()
    );
    let begin = Instant::now();
    ground.start(&["sh", "-c", &script]).finish_within(Duration::from_secs(120)).assert_code(0);
    assert!(begin.elapsed() > Duration::from_secs(8), "it was not busy");
    assert_eq!(ground.markers().len(), 5);
    ground.assert_every_run_was_decided();
    ground.verify();
}
