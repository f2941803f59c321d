//! What a session's supervisor and its proxy work: a number that a busy machine does not change much.

use std::fs;

use ana_supervisor::api::client::Client;
use ana_tests::bench;

use crate::world::World;

pub(crate) struct Keepers {
    supervisor: u32,
    proxy: u32,
}

/// Since the process began.
#[derive(Clone, Copy, Default)]
pub(crate) struct Worked {
    /// On a processor.
    pub(crate) seconds: f64,
    /// How often it has slept.
    pub(crate) sleeps: f64,
}

impl Worked {
    pub(crate) fn until(self, later: &Self) -> Self {
        Self { seconds: later.seconds - self.seconds, sleeps: later.sleeps - self.sleeps }
    }
}

impl Keepers {
    /// Of the one session that runs.
    pub(crate) fn of(world: &World) -> Self {
        let client = Client::connect(&bench::socket(&world.ground)).expect("the supervisor listens");
        let supervisor = bench::supervisor(&client).as_raw().unsigned_abs();
        let processes = fs::read_dir("/proc").expect("proc").flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let proxy = pids.find(|&pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
            stat.contains("(ana-proxy)") && parent == Some(supervisor)
        });
        Self { supervisor, proxy: proxy.expect("a session has a proxy") }
    }

    pub(crate) fn supervisor(&self) -> Worked {
        worked(self.supervisor)
    }

    pub(crate) fn proxy(&self) -> Worked {
        worked(self.proxy)
    }
}

/// All threads of a process (proc_pid_schedstat, proc_pid_status(5)).
fn worked(pid: u32) -> Worked {
    let mut all = Worked::default();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten() {
        // It may have ended just now.
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let number = |text: Option<&str>| text.and_then(|n| n.trim().parse::<f64>().ok()).unwrap_or(0.0);
        all.seconds += number(read("schedstat").split(' ').next()) / 1e9;
        let status = read("status");
        all.sleeps += number(status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")));
    }
    all
}
