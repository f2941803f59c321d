//! What is not asked about, while many others wait.

use ana_supervisor::api::{
    client::Client,
    wire::{Reply, Request},
};
use ana_tests::bench::{self, Compared, in_turns};

use crate::{
    CONNECTS, REQUESTS, ROUNDS, unzipped,
    world::{HELD, INSPECTED, PROTECTED, UNLISTED, World},
};

/// In a session in which nothing waits, and in one in which many connections do.
pub(crate) struct Crowd {
    pub(crate) connects: Compared,
    pub(crate) requests: Compared,
}

pub(crate) fn measure(world: &World) -> Crowd {
    let [mut idle, mut busy] = [world.idle_session(), world.session()];
    assert_eq!(busy.ask(&format!("hold {HELD} {PROTECTED} protected.test")), "held");
    let mut client = Client::connect(&bench::socket(&world.ground)).expect("the supervisor listens");
    assert!(matches!(client.ask(&Request::Watch), Ok(Reply::Done)));
    bench::pending_all(&mut client, HELD);
    // Nobody reads what else it has to tell.
    drop(client);
    let close = format!("close {CONNECTS} {UNLISTED}");
    let connects = in_turns(ROUNDS, [(&mut idle, &close), (&mut busy, &close)]);
    let request = format!("request {REQUESTS} {INSPECTED} www.innocent.test");
    let requests = in_turns(ROUNDS, [(&mut idle, &request), (&mut busy, &request)]);
    idle.end();
    busy.end();
    Crowd { connects: connects.into(), requests: requests.map(|times| unzipped(&times).1).into() }
}
