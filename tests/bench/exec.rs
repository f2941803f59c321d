//! What the exec gate costs: each figure beside the bare command's, in one run, in turns.
//!
//! `bench-exec` prints a table (`--markdown` for the README; `--only allowed` for one part of it). Its word `probe` is for
//! the processes that it measures.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a measurement that cannot be made must be loud"
)]

mod allowed;
mod builds;
mod crowd;
mod floor;
mod probe;

use std::{fs, path::Path};

use ana_supervisor::api::{
    client::Client,
    wire::{Reply, Request},
};
use ana_tests::{
    Ground,
    bench::{self, Compared, Row, Worker, now},
};

/// Rounds in turns: bare, in a session, bare, … Short ones: this machine is now faster, now slower.
const ROUNDS: usize = 80;
const SPAWNS: usize = 25;
const OPENS: usize = 20;
const HOLDS: usize = 100;
const LAUNCHES: usize = 25;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["probe", ..] => probe::run(&words[1..]),
        [] => measure(false, None),
        ["--markdown"] => measure(true, None),
        ["--only", part] => measure(false, Some(part)),
        other => panic!("bench-exec [--markdown | --only PART], not {other:?}"),
    }
}

fn measure(markdown: bool, only: Option<&str>) {
    let ground = Ground::new("bench-exec");
    let probe = ground.install("bench-exec", "probe");
    // Protected, and asked about; and one whose arguments are allowed.
    let held = ground.install("bench-exec", "held");
    let allowed = ground.install("bench-exec", "allowed");
    ground.policy(&format!(
        "{}[session]\nmax_holds = {}\n[defaults]\ntimeout = \"1h\"\n\
         [[exec]]\nname = \"held\"\nfile = {held:?}\n\
         [[exec]]\nname = \"allowed\"\nfile = {allowed:?}\nallow = [[\"probe\", \"nothing\"]]\n\
         [[exec]]\nname = \"git\"\nfile = {:?}\nallow = [[\"status\", \"**\"]]\n",
        ground.head(),
        crowd::MANY,
        allowed::git(&ground, allowed::PROTECTED)
    ));
    let parts = ["work", "allowed", "floor", "outside", "holds", "crowd", "builds", "launches"];
    let mut rows = Vec::new();
    for part in parts.into_iter().filter(|part| only.is_none_or(|only| only == *part)) {
        eprintln!("{part} …");
        match part {
            "work" => work_rows(&mut rows, &work(&ground, &probe)),
            "allowed" => allowed_rows(&mut rows, &allowed::measure(&ground, &probe, &allowed)),
            "floor" => rows.push(Row::compared(
                "the same, only asked and looked at",
                &floor::measure(&ground, &probe),
                "–",
                |_| true,
            )),
            "outside" => rows.push(Row::added(
                "exec of a protected program outside",
                &outside(&ground, &probe, &held),
                "≤ 45 µs over bare at p50",
                45.0,
            )),
            "holds" => hold_rows(&mut rows, &holds(&ground, &probe, &held)),
            "crowd" => crowd_rows(&mut rows, &crowd::measure(&ground, &probe, &held)),
            "builds" => rows.extend(
                builds::measure(&ground, &probe)
                    .into_iter()
                    .map(|(what, times)| Row::compared(what, &times, "≤ 1.02 p50", |r| r.0 <= 1.02)),
            ),
            _ => rows.push(Row::added(
                "ana-run -- true, warm",
                &launches(&ground),
                "≤ 60 ms over bare at p50",
                60e3,
            )),
        }
    }
    assert!(!rows.is_empty(), "the parts: {parts:?}");
    bench::print(&rows, markdown);
}

fn work_rows(rows: &mut Vec<Row>, (spawn, open): &(Compared, Compared)) {
    rows.push(Row::compared("spawn+wait /bin/true in a session", spawn, "≤ 1.02 p50, ≤ 1.10 p99", |r| {
        r.0 <= 1.02 && r.1 <= 1.10
    }));
    rows.push(Row::compared("100 × open+close in a sealed session", open, "≤ 1.12 p50", |r| r.0 <= 1.12));
}

fn allowed_rows(rows: &mut Vec<Row>, (program, status): &(Compared, Compared)) {
    rows.push(Row::added(
        "protected program, allowed arguments",
        program,
        "≤ 100 µs over bare at p50",
        100.0,
    ));
    rows.push(Row::compared("git status, allowed", status, "≤ 1.05 p50", |r| r.0 <= 1.05));
}

fn hold_rows(rows: &mut Vec<Row>, holds: &Holds) {
    rows.push(Row::alone("exec attempted → pending", &holds.visible, "≤ 40 ms p99", 40e3));
    rows.push(Row::alone("assertion sent → first instruction", &holds.released, "≤ 20 ms p99", 20e3));
    let rss = holds.rss_kib as f64 / 1024.0;
    eprintln!(
        "supervisor RSS after {HOLDS} holds: {rss:.1} MiB (target ≤ 32 MiB{})",
        if rss <= 32.0 { "" } else { ", MISSED" }
    );
}

fn crowd_rows(rows: &mut Vec<Row>, crowd: &crowd::Crowd) {
    rows.push(Row::compared("spawn+wait while 500 are held", &crowd.spawn, "≤ 1.15 p50", |r| r.0 <= 1.15));
    rows.push(Row::alone("500 attempted → all pending", &crowd.pending, "–", f64::INFINITY));
    rows.push(Row::alone("one of 500: signed → first instruction", &crowd.released, "–", f64::INFINITY));
}

/// The same work bare and in a session, in turns, so that a slow minute of the machine hits both.
fn work(ground: &Ground, probe: &Path) -> (Compared, Compared) {
    let command = [probe.to_str().expect("text"), "probe", "serve"];
    let mut workers = [Worker::bare(ground, &command), Worker::in_session(ground, &command)];
    let mut results = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for round in 0..=ROUNDS {
        for (worker, (spawn, open)) in workers.iter_mut().zip(&mut results) {
            let (spawned, opened) = (
                worker.numbers(&format!("spawn {SPAWNS} /bin/true")),
                worker.numbers(&format!("open {OPENS}")),
            );
            // The first round warms up.
            if round > 0 {
                spawn.extend(spawned);
                open.extend(opened);
            }
        }
    }
    workers.into_iter().for_each(Worker::end);
    let [(bare_spawn, bare_open), (spawn, open)] = results;
    ((bare_spawn, spawn), (bare_open, open))
}

/// A process outside executes a file that a running session protects, and a copy that it does not.
fn outside(ground: &Ground, probe: &Path, held: &Path) -> Compared {
    let session = Worker::in_session(ground, &[probe.to_str().expect("text"), "probe", "serve"]);
    let mut session = session;
    session.numbers("open 1");
    let mut worker = Worker::bare(ground, &[probe.to_str().expect("text"), "probe", "serve"]);
    let times = by_turns(&mut worker, probe, held);
    worker.end();
    session.end();
    times
}

/// One worker spawns the one program and the other.
fn by_turns(worker: &mut Worker, one: &Path, other: &Path) -> Compared {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for (path, into) in [(one, &mut first), (other, &mut second)] {
            let times = worker.numbers(&format!("spawn {SPAWNS} {}", path.display()));
            if round > 0 {
                into.extend(times);
            }
        }
    }
    (first, second)
}

struct Holds {
    visible: Vec<f64>,
    released: Vec<f64>,
    rss_kib: u64,
}

fn holds(ground: &Ground, probe: &Path, held: &Path) -> Holds {
    let mut worker = Worker::in_session(ground, &[probe.to_str().expect("text"), "probe", "serve"]);
    worker.numbers("open 1");
    let socket = bench::socket(ground);
    let mut client = Client::connect(&socket).expect("the supervisor listens");
    assert!(matches!(client.ask(&Request::Watch), Ok(Reply::Done)));
    let mut key = bench::key(&ground.key());
    let mut result = Holds { visible: Vec::new(), released: Vec::new(), rss_kib: 0 };
    for _ in 0..HOLDS {
        let attempted: f64 = worker.ask(&format!("attempt {}", held.display())).parse().expect("a time");
        let id = bench::pending(&mut client);
        let seen = now();
        let sent = bench::sign(&mut client, &mut key, &id);
        let ran: f64 = worker.hear().parse().expect("a time");
        result.visible.push((seen - attempted) / 1e3);
        result.released.push((ran - sent) / 1e3);
        while !matches!(client.receive().expect("a reply"), Reply::Done) {}
    }
    result.rss_kib = rss_of_supervisor(&client);
    worker.end();
    result
}

fn rss_of_supervisor(client: &Client) -> u64 {
    let pid = bench::supervisor(client);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the supervisor runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().expect("a number").parse().expect("a number")
}

fn launches(ground: &Ground) -> Compared {
    let (mut bare, mut ana) = (Vec::new(), Vec::new());
    for round in 0..=LAUNCHES {
        let start = now();
        assert!(ground.without_ana(&["true"]).status().expect("true runs").success());
        let middle = now();
        let mut launch = ground.launch(&["true"]);
        assert!(launch.command().status().expect("ana-run runs").success());
        let end = now();
        if round > 0 {
            bare.push((middle - start) / 1e3);
            ana.push((end - middle) / 1e3);
        }
    }
    (bare, ana)
}
