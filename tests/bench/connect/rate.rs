//! A thousand requests a second, for ten seconds.

use std::{fmt, net::SocketAddr};

use ana_tests::bench::{Compared, Worker};

use crate::world::{INSPECTED_OFTEN, World};

const RATE: usize = 1000;
const SECONDS: usize = 10;

pub(crate) struct Rate {
    pub(crate) times: Compared,
    bare: Achieved,
    ana: Achieved,
}

#[derive(Clone, Copy)]
struct Achieved {
    errors: usize,
    /// Requests a second.
    rate: f64,
}

impl Rate {
    /// Without an error, and no later than one in fifty.
    pub(crate) fn sustained(&self) -> bool {
        self.ana.errors == 0 && self.ana.rate >= RATE as f64 * 0.98
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bare, ana, times: _ } = self;
        write!(
            f,
            "{RATE} requests/s for {SECONDS} s, inspected: {:.0}/s and {} errors (bare: {:.0}/s and {})",
            ana.rate, ana.errors, bare.rate, bare.errors
        )
    }
}

pub(crate) fn measure(world: &World) -> Rate {
    let (bare_times, bare) = one(world.bare(), INSPECTED_OFTEN[0]);
    let (times, ana) = one(world.session(), INSPECTED_OFTEN[1]);
    Rate { times: (bare_times, times), bare, ana }
}

fn one(mut worker: Worker, to: SocketAddr) -> (Vec<f64>, Achieved) {
    worker.numbers(&format!("request 20 {to} www.innocent.test"));
    let answer = worker.ask(&format!("rate {RATE} {SECONDS} {to} www.innocent.test"));
    worker.end();
    let mut numbers = answer.split(' ').map(|number| number.parse::<f64>().expect("a number"));
    let mut next = || numbers.next().expect("a number");
    let (errors, took) = (next() as usize, next());
    let times: Vec<f64> = numbers.map(|time| time / 1e3).collect();
    let rate = times.len() as f64 / (took / 1e9);
    (times, Achieved { errors, rate })
}
