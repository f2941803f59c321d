//! Throughput, and which process is what limits it.

use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use ana_tests::bench::{self, Worker};

use crate::{
    keepers::Keepers,
    world::{INSPECTED_BULK, LOCAL_BULK, MAPPED_BULK, MAPPED_LOCAL_BULK, World},
};

const BYTES: usize = 1 << 30;
const ROUNDS: usize = 8;
const NAME: &str = "www.innocent.test";
/// A server that has sent nothing more for so long cannot.
const STILL: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
pub(crate) enum Place {
    Loopback,
    Veth,
}

impl Place {
    /// The server, and who joins a connection to it by a sockmap.
    fn addresses(self) -> [SocketAddr; 2] {
        match self {
            Self::Loopback => [LOCAL_BULK, MAPPED_LOCAL_BULK],
            Self::Veth => [INSPECTED_BULK, MAPPED_BULK],
        }
    }

    fn sent(self, world: &World) -> &AtomicU64 {
        match self {
            Self::Loopback => &world.sent_locally,
            Self::Veth => &world.sent,
        }
    }
}

/// In MiB/s.
pub(crate) struct Bulk {
    pub(crate) direct: Vec<f64>,
    /// Through ana's proxy.
    pub(crate) spliced: Vec<f64>,
    /// Through a sockmap in its place.
    pub(crate) mapped: Vec<f64>,
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
    let [to, mapped] = place.addresses();
    let [mut bare, mut session] = [world.bare(), world.session()];
    session.numbers(&format!("bulk 4096 {to} {NAME}"));
    let keepers = Keepers::of(world);
    let mut all = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        for (way, into) in all.iter_mut().enumerate() {
            let (worker, to) = match way {
                0 => (&mut bare, to),
                1 => (&mut session, to),
                _ => (&mut bare, mapped),
            };
            let times = one(worker, &keepers, &format!("bulk {BYTES} {to} {NAME}"));
            if round > 0 {
                into.push(times);
            }
        }
    }
    bare.end();
    session.end();
    let [direct, spliced, mapped] = all;
    let limit = format!("{}; direct: {}; by a sockmap: {}", limit(&spliced), limit(&direct), limit(&mapped));
    let speed = |all: Vec<Times>| all.iter().map(|t| (BYTES >> 20) as f64 / t.whole).collect();
    Bulk { direct: speed(direct), spliced: speed(spliced), mapped: speed(mapped), limit }
}

/// How much a server can send to a client that does not read: all of it lies in somebody's memory.
pub(crate) fn unread(world: &World, place: Place) -> String {
    let [to, mapped] = place.addresses();
    let sent = place.sent(world);
    let lies = |mut worker: Worker, to: SocketAddr| {
        worker.ask(&format!("unread {BYTES} {to} {NAME}"));
        let mut last = (sent.load(Ordering::Relaxed), Instant::now());
        while last.1.elapsed() < STILL {
            std::thread::sleep(STILL / 50);
            let now = sent.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        worker.end();
        last.0 >> 20
    };
    let [direct, spliced, mapped] =
        [lies(world.bare(), to), lies(world.session(), to), lies(world.bare(), mapped)];
    format!(
        "{direct} MiB are sent directly, {spliced} MiB through ana, {mapped} MiB by a sockmap (of {})",
        BYTES >> 20
    )
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
