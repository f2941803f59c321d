//! What the worker costs. Run it with `--release -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::{HELLO, LONG, confined, connection, exactly, shown};

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
