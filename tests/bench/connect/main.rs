//! What the connect gate costs: each figure beside the bare command's, in one run, in turns.
//!
//! `bench-connect` prints a table (`--markdown` for the README; `--only requests` for one part of it). Its word `probe` is
//! for the processes that it measures. All hosts are in network namespaces of its own, or on their loopback devices.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a measurement that cannot be made must be loud"
)]

mod approved;
mod bulk;
mod client;
mod crowd;
mod keepers;
mod rate;
mod record;
mod servers;
mod sockmap;
mod world;

use ana_tests::bench::{Compared, Row, in_turns, print, time};

use keepers::Keepers;
use world::{HELD, INSPECTED, UNLISTED, World};

/// Rounds in turns: bare, in a session, bare, … Short ones: a machine is now faster, now slower.
const ROUNDS: usize = 80;
const CONNECTS: usize = 25;
const REQUESTS: usize = 10;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["probe"] => client::serve(),
        [] => measure(false, None),
        ["--markdown"] => measure(true, None),
        ["--only", part] => measure(false, Some(part)),
        other => panic!("bench-connect [--markdown | --only PART], not {other:?}"),
    }
}

fn measure(markdown: bool, only: Option<&str>) {
    let world = World::new();
    let parts = ["connects", "requests", "bulk", "rate", "approved", "crowd"];
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    for part in parts.into_iter().filter(|part| only.is_none_or(|only| only == *part)) {
        eprintln!("{part} …");
        match part {
            "connects" => rows.push(Row::compared(
                "connect+close, unlisted server",
                &connects(&world),
                "≤ 1.05 p50",
                |ratio| ratio.0 <= 1.05,
            )),
            "requests" => request_rows(&mut rows, &mut notes, &world),
            "bulk" => bulk_rows(&mut rows, &mut notes, &world),
            "rate" => rate_rows(&mut rows, &mut notes, &world),
            "approved" => approved_rows(&mut rows, &approved::measure(&world)),
            _ => crowd_rows(&mut rows, &crowd::measure(&world)),
        }
    }
    assert!(!rows.is_empty(), "the parts: {parts:?}");
    print(&rows, markdown);
    notes.iter().for_each(|note| println!("{note}"));
}

/// To a port on which no names are inspected, at an address that nobody protects.
fn connects(world: &World) -> Compared {
    let line = format!("close {CONNECTS} {UNLISTED}");
    let [mut bare, mut session] = [world.bare(), world.session()];
    let [without, with] = in_turns(ROUNDS, [(&mut bare, &line), (&mut session, &line)]);
    bare.end();
    session.end();
    (without, with)
}

/// Every other value, from the first, and from the second.
fn unzipped(values: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let every_other = |from: usize| values.iter().skip(from).step_by(2).copied().collect();
    (every_other(0), every_other(1))
}

fn request_rows(rows: &mut Vec<Row>, notes: &mut Vec<String>, world: &World) {
    let line = format!("request {REQUESTS} {INSPECTED} www.innocent.test");
    let [mut bare, mut session] = [world.bare(), world.session()];
    session.numbers(&line);
    let keepers = Keepers::of(world);
    let before = (keepers.supervisor(), keepers.proxy());
    let [without, with] = in_turns(ROUNDS, [(&mut bare, &line), (&mut session, &line)]);
    let worked = [before.0.until(&keepers.supervisor()), before.1.until(&keepers.proxy())];
    bare.end();
    session.end();
    let ((bare_first, bare_whole), (first, whole)) = (unzipped(&without), unzipped(&with));
    let median = |values: &[f64]| ana_tests::bench::quantiles(values).0;
    notes.push(format!(
        "inspected, p50: {} over direct to the first byte, {} for the whole request",
        time(median(&first) - median(&bare_first)),
        time(median(&whole) - median(&bare_whole)),
    ));
    let requests = ((ROUNDS + 1) * REQUESTS) as f64;
    let each = worked.map(|worked| {
        format!("{}, sleeps {:.1}", time(worked.seconds * 1e6 / requests), worked.sleeps / requests)
    });
    notes.push(format!("each costs on a processor: supervisor {}; proxy {}", each[0], each[1]));
    // No cryptography: it would be the same on both sides.
    rows.push(Row::added(
        "TLS-shaped request, inspected name",
        &(bare_whole, whole),
        "≤ 200 µs over bare at p50",
        200.0,
    ));
    rows.push(Row::compared("its connect → first byte of the answer", &(bare_first, first), "–", |_| {
        true
    }));
}

fn bulk_rows(rows: &mut Vec<Row>, notes: &mut Vec<String>, world: &World) {
    for (place, [spliced, mapped]) in [
        (bulk::Place::Loopback, ["1 GiB, server on the loopback device", "… by a sockmap, without ana"]),
        (bulk::Place::Veth, ["1 GiB, server behind a veth", "… by a sockmap, without ana (veth)"]),
    ] {
        let found = bulk::measure(world, place);
        rows.push(Row::throughput(spliced, &(found.direct.clone(), found.spliced), "≥ 0.80", 0.80));
        rows.push(Row::throughput(mapped, &(found.direct, found.mapped), "–", 0.0));
        notes.push(format!("{spliced}: {}", found.limit));
        notes.push(format!("{spliced}, the client not reading: {}", bulk::unread(world, place)));
    }
}

fn rate_rows(rows: &mut Vec<Row>, notes: &mut Vec<String>, world: &World) {
    let found = rate::measure(world);
    let row = Row::compared("one of 1,000 requests/s for 10 s", &found.times, "1,000/s, no error", |_| true);
    rows.push(row.only_if(found.sustained()));
    notes.push(found.to_string());
}

fn approved_rows(rows: &mut Vec<Row>, found: &approved::Approved) {
    let target = "≤ 25 ms p99";
    rows.push(Row::alone("attempted → pending", &found.visible, "–", f64::INFINITY));
    rows.push(Row::alone("assertion sent → server's first byte", &found.from_sent, target, 25e3));
    rows.push(Row::alone("approval accepted → server's first byte", &found.from_accepted, target, 25e3));
}

fn crowd_rows(rows: &mut Vec<Row>, found: &crowd::Crowd) {
    assert_eq!(HELD, 200, "the rows' names");
    rows.push(Row::compared("connect+close, 200 held / idle session", &found.connects, "–", |_| true));
    rows.push(Row::compared("TLS-shaped request, 200 held / idle", &found.requests, "–", |_| true));
}
