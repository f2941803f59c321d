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

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use ana_supervisor::{
    api::{
        client::{self, Client},
        wire::{Reply, Request},
    },
    approval::{authenticator::Authenticator, software::SoftwarePasskey},
};
use ana_tests::Ground;

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

/// One line of the table; all times in microseconds.
struct Row {
    what: &'static str,
    bare: Option<(f64, f64)>,
    ana: (f64, f64),
    target: &'static str,
    met: bool,
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
    print(&rows, markdown);
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
    eprintln!("supervisor RSS after {HOLDS} holds: {rss:.1} MiB (target ≤ 32 MiB{})", verdict(rss <= 32.0));
}

fn crowd_rows(rows: &mut Vec<Row>, crowd: &crowd::Crowd) {
    rows.push(Row::compared("spawn+wait while 500 are held", &crowd.spawn, "≤ 1.15 p50", |r| r.0 <= 1.15));
    rows.push(Row::alone("500 attempted → all pending", &crowd.pending, "–", f64::INFINITY));
    rows.push(Row::alone("one of 500: signed → first instruction", &crowd.released, "–", f64::INFINITY));
}

fn verdict(met: bool) -> &'static str {
    if met { "" } else { ", MISSED" }
}

impl Row {
    fn compared(
        what: &'static str,
        (bare, ana): &(Vec<f64>, Vec<f64>),
        target: &'static str,
        met: impl Fn((f64, f64)) -> bool,
    ) -> Self {
        let (bare, ana) = (quantiles(bare), quantiles(ana));
        Self { what, bare: Some(bare), ana, target, met: met((ana.0 / bare.0, ana.1 / bare.1)) }
    }

    /// Its target is what is added to the bare time, in microseconds.
    fn added(what: &'static str, times: &Compared, target: &'static str, most: f64) -> Self {
        let row = Self::compared(what, times, target, |_| true);
        let over = row.ana.0 - row.bare.map_or(0.0, |bare| bare.0);
        Self { met: over <= most, ..row }
    }

    fn alone(what: &'static str, values: &[f64], target: &'static str, p99_max: f64) -> Self {
        let ana = quantiles(values);
        Self { what, bare: None, ana, target, met: ana.1 <= p99_max }
    }
}

/// p50 and p99.
fn quantiles(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |q: f64| sorted[((sorted.len() - 1) as f64 * q).round() as usize];
    (at(0.50), at(0.99))
}

fn print(rows: &[Row], markdown: bool) {
    let (bar, edge) = if markdown { (" | ", "| ") } else { ("  ", "") };
    let line = |cells: [String; 8]| println!("{edge}{}{}", cells.join(bar), if markdown { " |" } else { "" });
    let head = ["what", "bare p50", "bare p99", "ana p50", "ana p99", "p50 ×", "p99 ×", "target"];
    let widths = [38, 10, 10, 10, 10, 6, 6, 26];
    let pad = |text: &str, width: usize| format!("{text:<width$}");
    line(std::array::from_fn(|i| pad(head[i], widths[i])));
    if markdown {
        line(std::array::from_fn(|i| "-".repeat(widths[i])));
    }
    for row in rows {
        let ratio = |pick: fn(&(f64, f64)) -> f64| match &row.bare {
            Some(bare) => format!("{:.3}", pick(&row.ana) / pick(bare)),
            None => "–".to_owned(),
        };
        let bare =
            |pick: fn(&(f64, f64)) -> f64| row.bare.as_ref().map_or("–".to_owned(), |b| time(pick(b)));
        let cells = [
            row.what.to_owned(),
            bare(|b| b.0),
            bare(|b| b.1),
            time(row.ana.0),
            time(row.ana.1),
            ratio(|v| v.0),
            ratio(|v| v.1),
            format!("{}{}", row.target, verdict(row.met)),
        ];
        line(std::array::from_fn(|i| pad(&cells[i], widths[i])));
    }
}

fn time(microseconds: f64) -> String {
    match microseconds {
        t if t >= 1e4 => format!("{:.1} ms", t / 1e3),
        t if t >= 10.0 => format!("{t:.0} µs"),
        t => format!("{t:.2} µs"),
    }
}

/// A process that does one unit of work for each line it is told.
struct Worker {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Worker {
    fn start(mut command: Command) -> Self {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a worker starts");
        let to = process.stdin.take().expect("piped");
        let from = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, to, from }
    }

    /// Without ana, in the environment that a session has: a longer one costs each exec, a language costs git its texts.
    fn bare(ground: &Ground, command: &[&str]) -> Self {
        let mut bare = ground.without_ana(command);
        bare.envs(std::env::vars_os()).envs(ground.environment());
        Self::start(bare)
    }

    fn in_session(ground: &Ground, command: &[&str]) -> Self {
        let mut launch = ground.launch(command);
        let mut plain = Command::new(launch.command().get_program());
        plain.args(launch.command().get_args());
        for (name, value) in launch.command().get_envs() {
            match value {
                Some(value) => plain.env(name, value),
                None => plain.env_remove(name),
            };
        }
        plain.current_dir(ground.home()).stderr(Stdio::null());
        Self::start(plain)
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.to, "{line}").expect("the worker listens");
        self.hear()
    }

    fn hear(&mut self) -> String {
        let mut answer = String::new();
        self.from.read_line(&mut answer).expect("the worker answers");
        assert!(!answer.is_empty(), "the worker ended");
        answer.trim().to_owned()
    }

    fn numbers(&mut self, line: &str) -> Vec<f64> {
        self.ask(line).split(' ').map(|n| n.parse::<f64>().expect("a number") / 1e3).collect()
    }

    fn end(mut self) {
        drop(self.to);
        self.process.wait().expect("the worker ends");
    }
}

type Compared = (Vec<f64>, Vec<f64>);

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
    let socket = socket(ground);
    let mut client = Client::connect(&socket).expect("the supervisor listens");
    assert!(matches!(client.ask(&Request::Watch), Ok(Reply::Done)));
    let ask = || Box::new(|| Err(std::io::Error::other("no passphrase is asked for")));
    let mut key = SoftwarePasskey::open(&ground.key(), ask()).expect("the key file");
    let mut result = Holds { visible: Vec::new(), released: Vec::new(), rss_kib: 0 };
    for _ in 0..HOLDS {
        let attempted: f64 = worker.ask(&format!("attempt {}", held.display())).parse().expect("a time");
        let id = pending(&mut client);
        let seen = probe::now();
        let Ok(Reply::Question { options, .. }) = ask_for(&mut client, &Request::Show { id: id.clone() })
        else {
            panic!("no question");
        };
        client.connection.take_fds();
        let assertion = key.assert(&options).expect("it signs");
        let sent = probe::now();
        client.send(&Request::Sign { id, assertion }).expect("sent");
        let ran: f64 = worker.hear().parse().expect("a time");
        result.visible.push((seen - attempted) / 1e3);
        result.released.push((ran - sent) / 1e3);
        while !matches!(client.receive().expect("a reply"), Reply::Done) {}
    }
    result.rss_kib = rss_of_supervisor(&client);
    worker.end();
    result
}

fn socket(ground: &Ground) -> PathBuf {
    let sockets = client::sockets(&ground.state().join("run"));
    sockets.into_iter().next().expect("a session runs").1
}

/// A reply that is not the news that something has changed.
fn ask_for(client: &mut Client, request: &Request) -> Result<Reply, client::ClientError> {
    client.send(request)?;
    loop {
        let reply = client.receive()?;
        if !matches!(reply, Reply::Changed) {
            return Ok(reply);
        }
    }
}

fn pending(client: &mut Client) -> String {
    loop {
        let mut found = None;
        client.send(&Request::Pending).expect("sent");
        loop {
            let reply = client.receive().expect("a reply");
            if let Reply::Pending { operation, .. } = reply {
                found = Some(operation.id);
            } else if let Reply::End = reply {
                break;
            }
        }
        if let Some(id) = found {
            return id;
        }
        // Sleeps until the supervisor says that something has changed.
        while !matches!(client.receive().expect("a reply"), Reply::Changed) {}
    }
}

fn rss_of_supervisor(client: &Client) -> u64 {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    let pid = getsockopt(&client.connection.as_fd(), PeerCredentials).expect("a peer").pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the supervisor runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().expect("a number").parse().expect("a number")
}

fn launches(ground: &Ground) -> Compared {
    let (mut bare, mut ana) = (Vec::new(), Vec::new());
    for round in 0..=LAUNCHES {
        let start = probe::now();
        assert!(ground.without_ana(&["true"]).status().expect("true runs").success());
        let middle = probe::now();
        let mut launch = ground.launch(&["true"]);
        assert!(launch.command().status().expect("ana-run runs").success());
        let end = probe::now();
        if round > 0 {
            bare.push((middle - start) / 1e3);
            ana.push((end - middle) / 1e3);
        }
    }
    (bare, ana)
}
