//! What the worker costs. Run it with `--release -- --ignored --nocapture`.

use std::{
    io::{Read, Write},
    net::TcpStream as StdStream,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use tokio::io::AsyncWriteExt;

use super::{HELLO, LONG, confined, connection, done, exactly, shown};

fn percentile(times: &mut [Duration], part: usize) -> Duration {
    times.sort();
    times[times.len() * part / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn round_trips() {
    const TIMES: usize = 2000;
    let (worker, mut events) = confined::process().await;
    let (mut peek, mut join, mut reply, mut direct, mut threads) = (vec![], vec![], vec![], vec![], vec![]);
    for id in 0..TIMES as u64 {
        let (mut client, near) = connection();
        client.write_all(HELLO).await.unwrap();
        let began = Instant::now();
        worker.peek(id, near, LONG).await.unwrap();
        shown(&mut events).await;
        peek.push(began.elapsed());
        let (mut server, upstream) = connection();
        let began = Instant::now();
        worker.join(id, upstream, false).await.unwrap();
        exactly(&mut server, HELLO.len()).await;
        join.push(began.elapsed());
        let began = Instant::now();
        server.write_all(&[1; 1000]).await.unwrap();
        exactly(&mut client, 1000).await;
        reply.push(began.elapsed());
        drop((client, server));
        done(&mut events).await;
    }
    for _ in 0..TIMES {
        let (mut client, near) = connection();
        let near = std::net::TcpStream::from(near);
        near.set_nonblocking(true).unwrap();
        let mut server = tokio::net::TcpStream::from_std(near).unwrap();
        let began = Instant::now();
        client.write_all(&[1; 1000]).await.unwrap();
        exactly(&mut server, 1000).await;
        direct.push(began.elapsed());
        let (tell, told) = tokio::sync::oneshot::channel();
        let began = Instant::now();
        tokio::spawn(async move { tell.send(()).unwrap() });
        told.await.unwrap();
        threads.push(began.elapsed());
    }
    for (what, times) in [
        ("peek: fd sent -> Peeked", &mut peek),
        ("join: fd sent -> hello at the server", &mut join),
        ("1000 bytes server -> worker -> client", &mut reply),
        ("1000 bytes directly", &mut direct),
        ("one tokio task to another", &mut threads),
    ] {
        println!("{what}: p50 {:?} p99 {:?}", percentile(times, 50), percentile(times, 99));
    }
}

const GIBIBYTE: usize = 1 << 30;
const PART: usize = 256 << 10;

/// Moves a gibibyte from one blocking socket to another, both of this process; the time.
fn gibibyte(from: StdStream, to: StdStream) -> Duration {
    from.set_nonblocking(false).unwrap();
    to.set_nonblocking(false).unwrap();
    let (mut from, mut to) = (from, to);
    let began = Instant::now();
    let sender = std::thread::spawn(move || {
        let part = vec![7; PART];
        (0..GIBIBYTE / PART).for_each(|_| from.write_all(&part).unwrap());
    });
    let (mut part, mut got) = (vec![0; PART], 0);
    while got < GIBIBYTE {
        got += to.read(&mut part).unwrap();
    }
    let took = began.elapsed();
    sender.join().unwrap();
    took
}

#[tokio::test]
#[ignore = "a measurement"]
async fn bulk() {
    let (worker, mut events) = confined::process().await;
    let (mut direct, mut up, mut down) = (vec![], vec![], vec![]);
    for id in 0..7 {
        let (far, near) = connection();
        direct.push(gibibyte(far.into_std().unwrap(), near.into()));
        for (id, uploads) in [(id * 2, true), (id * 2 + 1, false)] {
            let (mut client, near) = connection();
            client.write_all(HELLO).await.unwrap();
            worker.peek(id, near, LONG).await.unwrap();
            shown(&mut events).await;
            let (mut server, upstream): (_, OwnedFd) = connection();
            worker.join(id, upstream, false).await.unwrap();
            exactly(&mut server, HELLO.len()).await;
            let (client, server) = (client.into_std().unwrap(), server.into_std().unwrap());
            let times = if uploads { &mut up } else { &mut down };
            times.push(if uploads { gibibyte(client, server) } else { gibibyte(server, client) });
            done(&mut events).await;
        }
    }
    let rate = |times: &mut Vec<Duration>| GIBIBYTE as f64 / percentile(times, 50).as_secs_f64() / 1e9;
    let (direct, up, down) = (rate(&mut direct), rate(&mut up), rate(&mut down));
    println!(
        "direct {direct:.2} GB/s, client to server {up:.2} ({:.2}), back {down:.2} ({:.2})",
        up / direct,
        down / direct
    );
}
