//! The real loop with real sockets: in a thread where that is enough, in a process of its own where rights are in question.

mod confined;
mod joining;
mod latency;
mod many;
mod peeking;
mod props;
mod proxies;
mod refusing;

use std::{
    net::{TcpListener as StdListener, TcpStream as StdStream},
    os::fd::OwnedFd,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Events, FromWorker, Worker};
use crate::gate::connect::{
    dial,
    peek::{Shown, tests::captured},
};

/// Longer than any test: a client that has to speak.
const LONG: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(20);
const HELLO: &[u8] = captured!("curl");

/// A connection over loopback: the far end for the test, the near one for the worker.
fn connection() -> (TcpStream, OwnedFd) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    dial::fit(&listener).unwrap();
    let far = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    far.set_nodelay(true).unwrap();
    (TcpStream::from_std(far).unwrap(), near.into())
}

async fn event(events: &mut Events) -> FromWorker {
    tokio::time::timeout(LIMIT, events.next()).await.expect("an event in time").expect("the worker lives")
}

async fn shown(events: &mut Events) -> (u64, Shown) {
    let event = event(events).await;
    let FromWorker::Peeked { id, shown } = event else { panic!("{event:?} instead of what is shown") };
    (id, shown)
}

async fn done(events: &mut Events) -> (u64, u64, u64) {
    let event = event(events).await;
    let FromWorker::Done { id, sent, received, .. } = event else { panic!("{event:?} instead of the end") };
    (id, sent, received)
}

/// Reads until the end of the stream, or the reset.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> (Vec<u8>, Option<std::io::ErrorKind>) {
    let (mut bytes, mut part) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match tokio::time::timeout(LIMIT, stream.read(&mut part)).await.expect("an end in time") {
            Ok(0) => return (bytes, None),
            Ok(length) => bytes.extend_from_slice(&part[..length]),
            Err(error) => return (bytes, Some(error.kind())),
        }
    }
}

async fn exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut bytes)).await.expect("bytes in time").expect("bytes");
    bytes
}

/// Nothing has arrived, and the worker has had its turn: it has answered something else meanwhile.
async fn nothing(worker: &Worker, events: &mut Events, stream: &TcpStream) {
    worker.answer(u64::MAX, b"").await.unwrap();
    assert_eq!(event(events).await, FromWorker::Answered { id: u64::MAX, answer: None });
    let error = stream.try_read(&mut [0; 1]).expect_err("nothing to read");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

/// A client that has said `bytes`, looked at as number 1.
async fn held(bytes: &[u8]) -> (Worker, Events, TcpStream, Shown) {
    let (worker, mut events) = Worker::in_thread().unwrap();
    let (mut client, near) = connection();
    client.write_all(bytes).await.unwrap();
    worker.peek(1, near, LONG).await.unwrap();
    let (id, shown) = shown(&mut events).await;
    assert_eq!(id, 1);
    (worker, events, client, shown)
}
