//! Throughput, and which process is what limits it.

use std::fs;

use ana_tests::bench::{self, Compared, Worker};

use crate::{
    keepers::Keepers,
    world::{INSPECTED_BULK, LOCAL_BULK, World},
};

const BYTES: usize = 1 << 30;
const ROUNDS: usize = 8;

#[derive(Clone, Copy)]
pub(crate) enum Place {
    Loopback,
    Veth,
}

pub(crate) struct Bulk {
    /// MiB/s.
    pub(crate) speed: Compared,
    /// For people.
    pub(crate) limit: String,
}

/// Seconds of one transfer.
struct Times {
    whole: f64,
    client: f64,
    server: f64,
    proxy: f64,
    /// All processors of the machine, busy with whatever.
    machine: f64,
}

pub(crate) fn measure(world: &World, place: Place) -> Bulk {
    let to = match place {
        Place::Loopback => LOCAL_BULK,
        Place::Veth => INSPECTED_BULK,
    };
    let [mut bare, mut session] = [world.bare(), world.session()];
    session.numbers(&format!("bulk 4096 {to} www.innocent.test"));
    let keepers = Keepers::of(world);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for (worker, into) in [(&mut bare, &mut direct), (&mut session, &mut through)] {
            let times = one(worker, &keepers, &format!("bulk {BYTES} {to} www.innocent.test"));
            if round > 0 {
                into.push(times);
            }
        }
    }
    bare.end();
    session.end();
    let speed = |all: &[Times]| all.iter().map(|t| (BYTES >> 20) as f64 / t.whole).collect();
    let limit = format!("{}; direct: {}", limit(&through), limit(&direct));
    Bulk { speed: (speed(&direct), speed(&through)), limit }
}

fn one(worker: &mut Worker, keepers: &Keepers, line: &str) -> Times {
    let (proxy_before, machine_before) = (keepers.proxy(), machine());
    let times: Vec<f64> = worker.numbers(line).into_iter().map(|time| time / 1e6).collect();
    let [whole, client, server] = times[..] else { panic!("{times:?}") };
    Times {
        whole,
        client,
        server,
        proxy: proxy_before.until(&keepers.proxy()).seconds,
        machine: machine() - machine_before,
    }
}

/// The processor time of each, as a part of the time that it took; the medians.
fn limit(all: &[Times]) -> String {
    let part = |of: fn(&Times) -> f64| {
        let parts: Vec<f64> = all.iter().map(|times| of(times) / times.whole * 100.0).collect();
        bench::quantiles(&parts).0
    };
    let processes =
        [("client", part(|t| t.client)), ("proxy", part(|t| t.proxy)), ("server", part(|t| t.server))];
    let (first, most) = processes.iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("three");
    let (machine, processors) =
        (part(|t| t.machine), std::thread::available_parallelism().expect("known").get());
    let list = processes.map(|(name, part)| format!("{name} {part:.0} %")).join(", ");
    let limit = match (*most >= 90.0, machine >= 95.0 * processors as f64) {
        (true, _) => format!("limited by the {first}'s processor"),
        (false, true) => format!("limited by the machine's {processors} processors"),
        (false, false) => "limited by waking each other".to_owned(),
    };
    format!("{limit} ({list} of one; machine {machine:.0} %)")
}

/// What all processors together were busy, interrupts included, in seconds (proc_stat(5)).
fn machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("proc");
    let first = stat.lines().next().expect("a line");
    let ticks: Vec<f64> = first.split_whitespace().skip(1).map(|n| n.parse().expect("a number")).collect();
    // Not idle, waiting for a disk, nor what guests and the hypervisor had.
    let busy: f64 = [0, 1, 2, 5, 6].iter().map(|&at| ticks[at]).sum();
    busy / 100.0
}
