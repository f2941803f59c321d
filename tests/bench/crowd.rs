//! Many holds at once: what is not protected goes on, and each is answered by itself.

use std::{collections::HashMap, path::Path};

use ana_supervisor::{
    api::{
        client::Client,
        wire::{Reply, Request},
    },
    operation::Operation,
};
use ana_tests::{
    Ground,
    bench::{self, Compared, Worker, now},
};

use crate::ROUNDS;

/// So many wait at once.
pub(crate) const MANY: usize = 500;
const SPAWNS: usize = 6;

pub(crate) struct Crowd {
    pub(crate) spawn: Compared,
    /// One number: from the first attempt until all of them wait.
    pub(crate) pending: Vec<f64>,
    pub(crate) released: Vec<f64>,
}

pub(crate) fn measure(ground: &Ground, probe: &Path, held: &Path) -> Crowd {
    let command = [probe.to_str().expect("text"), "probe", "serve"];
    // One that starts the crowd and hears of it, one that is measured meanwhile.
    let script = format!("{0} probe serve <&3 & exec {0} probe serve", command[0]);
    let fifo = ground.home().join("crowd");
    let made = ground.without_ana(&["mkfifo", fifo.to_str().expect("text")]).status().expect("mkfifo runs");
    assert!(made.success());
    let script = format!("exec 3<>{}; {script}", fifo.display());
    let mut session = Worker::in_session(ground, &["sh", "-c", &script]);
    let mut bare = Worker::bare(ground, &command);
    session.numbers("open 1");
    let begin = now();
    std::fs::write(&fifo, format!("crowd {MANY} {}\n", held.display())).expect("it listens");
    assert_eq!(session.hear(), "started");
    let mut client = Client::connect(&bench::socket(ground)).expect("the supervisor listens");
    assert!(matches!(client.ask(&Request::Watch), Ok(Reply::Done)));
    let mut ids = all(&mut client);
    let pending = vec![(now() - begin) / 1e3];

    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.extend(bare.numbers(&format!("spawn {SPAWNS} {}", probe.display())));
        with.extend(session.numbers(&format!("spawn {SPAWNS} {}", probe.display())));
    }
    bare.end();

    let mut key = bench::key(&ground.key());
    let (mut released, mut sent) = (Vec::new(), HashMap::new());
    shuffle(&mut ids);
    for (id, number) in ids {
        sent.insert(number, bench::sign(&mut client, &mut key, &id));
        let mut reply = client.receive().expect("a reply");
        while matches!(reply, Reply::Changed) {
            reply = client.receive().expect("a reply");
        }
        assert!(matches!(reply, Reply::Done), "not taken");
        let heard = session.hear();
        let (number, ran) = heard.split_once(' ').expect("a number and a time");
        let signed = sent[&number.parse::<usize>().expect("a number")];
        released.push((ran.parse::<f64>().expect("a time") - signed) / 1e3);
    }
    session.end();
    Crowd { spawn: (without, with), pending, released }
}

/// Waits until all of them wait; each with the number in its arguments.
fn all(client: &mut Client) -> Vec<(String, usize)> {
    let numbered = |operation: Operation| {
        let exec = operation.kind.exec().expect("an exec");
        let number = String::from_utf8_lossy(&exec.argv[3].0).parse().expect("a number");
        (operation.id, number)
    };
    bench::pending_all(client, MANY).into_iter().map(numbered).collect()
}

/// Any order will do, the same in every run (Marsaglia's xorshift64).
fn shuffle(ids: &mut [(String, usize)]) {
    let mut state = 88_172_645_463_325_252_u64;
    for last in (1..ids.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ids.swap(last, usize::try_from(state % (last as u64 + 1)).expect("an index"));
    }
}
