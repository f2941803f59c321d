//! What it costs at least to let an exec through: its two events, and the look at the caller and at its memory by a thread
//! that may stall there. Nothing is decided, guarded or written down.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use ana_supervisor::{
    gate::{exec::look::Lookers, process},
    sys::fanotify::{Answer, Buffer, Group},
};
use ana_tests::{
    Ground,
    bench::{Compared, Worker},
};
use nix::unistd::Pid;

use crate::by_turns;

/// The same program, bare; and marked by a group that lets everything through.
pub(crate) fn measure(ground: &Ground, probe: &Path) -> Compared {
    let marked = ground.install("bench-exec", "marked");
    let group = Group::new().expect("root may");
    group.protect(File::open(&marked).expect("it is there").as_fd()).expect("marked");
    std::thread::spawn(move || answer(&group));
    let mut worker = Worker::bare(ground, &[probe.to_str().expect("text"), "probe", "serve"]);
    let times = by_turns(&mut worker, probe, &marked);
    worker.end();
    times
}

/// For as long as this process lives.
fn answer(group: &Group) {
    ana_supervisor::sys::process::prefer_this_thread();
    let mut lookers: Lookers<OwnedFd> = Lookers::start().expect("threads");
    let (mut buffer, mut events) = (Buffer::default(), Vec::new());
    loop {
        let (some, rung) = group.wait(lookers.bell(), Duration::from_secs(1)).expect("it waits");
        for (file, call) in if rung { lookers.told() } else { Vec::new() } {
            assert!(call.is_ok_and(|call| call.is_some()), "the call can be read");
            group.answer(file.as_fd(), Answer::Allow).expect("somebody waits");
        }
        if some {
            // Who waited may have been killed.
            group.read(&mut buffer, &mut events).ok();
        }
        for event in events.drain(..) {
            if !event.is_exec() {
                group.answer(event.file.as_fd(), Answer::Allow).expect("somebody waits");
                continue;
            }
            let pid = Pid::from_raw(event.pid);
            let place = lookers.ask(pid).expect("one at a time");
            assert!(process::threads(pid).is_ok_and(|threads| threads.count == 1));
            *place = Some(event.file);
        }
    }
}
