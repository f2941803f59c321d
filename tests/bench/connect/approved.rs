//! From an approval to the first byte that the server gets.

use ana_supervisor::api::{
    client::Client,
    wire::{Reply, Request},
};
use ana_tests::bench::{self, now};

use crate::world::{PROTECTED, World};

const ROUNDS: usize = 100;

/// Microseconds.
#[derive(Default)]
pub(crate) struct Approved {
    pub(crate) visible: Vec<f64>,
    pub(crate) from_sent: Vec<f64>,
    /// Since the supervisor's answer; what was at the server before that took no time.
    pub(crate) from_accepted: Vec<f64>,
}

pub(crate) fn measure(world: &World) -> Approved {
    let mut worker = world.session();
    worker.numbers(&format!("request 1 {} www.innocent.test", crate::INSPECTED));
    let mut client = Client::connect(&bench::socket(&world.ground)).expect("the supervisor listens");
    assert!(matches!(client.ask(&Request::Watch), Ok(Reply::Done)));
    let mut key = bench::key(&world.ground.key());
    let mut found = Approved::default();
    for _ in 0..ROUNDS {
        let attempted: f64 =
            worker.ask(&format!("attempt {PROTECTED} api.protected.test")).parse().expect("a time");
        let id = bench::pending(&mut client);
        found.visible.push((now() - attempted) / 1e3);
        let sent = bench::sign(&mut client, &mut key, &id);
        while !matches!(client.receive().expect("a reply"), Reply::Done) {}
        let accepted = now();
        let arrived = world.told.next();
        assert_eq!(worker.hear(), "answered");
        found.from_sent.push((arrived - sent) / 1e3);
        found.from_accepted.push(((arrived - accepted) / 1e3).max(0.0));
    }
    worker.end();
    found
}
