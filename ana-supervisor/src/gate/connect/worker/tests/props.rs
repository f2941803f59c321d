//! Nothing of a stream is changed, whatever its pieces are.

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::{HELLO, LONG, connection, rest, shown};
use crate::gate::connect::peek::tests::captured;

/// What a client says first, and how many bytes each of its segments has.
fn stream() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let first = prop_oneof![
        Just(HELLO.to_vec()),
        Just(captured!("curl-get").to_vec()),
        Just(captured!("curl-proxy").to_vec()),
        prop::collection::vec(any::<u8>(), 1..50),
    ];
    let more = prop::collection::vec(any::<u8>(), 0..120_000);
    let cuts = prop::collection::vec(prop_oneof![1..4usize, 1..2000usize, 1..50_000usize], 1..40);
    (first, more, cuts).prop_map(|(first, more, cuts)| ([first, more].concat(), cuts))
}

async fn say(stream: &mut tokio::net::tcp::OwnedWriteHalf, mut bytes: &[u8], cuts: &[usize]) {
    for cut in cuts.iter().cycle() {
        let (part, left) = bytes.split_at((*cut).min(bytes.len()));
        if stream.write_all(part).await.is_err() || left.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
        bytes = left;
    }
}

async fn both_ways(up: Vec<u8>, cuts: Vec<usize>, down: Vec<u8>) {
    let (worker, mut events) = super::super::Worker::in_thread().unwrap();
    let (client, near) = connection();
    worker.peek(1, near, LONG).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (said, pieces) = (up.clone(), cuts.clone());
    // A TLS client that ends before it is joined counts as gone.
    let (joined, is_joined) = tokio::sync::oneshot::channel();
    let client = tokio::spawn(async move {
        say(&mut to_client, &said, &pieces).await;
        is_joined.await.unwrap();
        to_client.shutdown().await.unwrap();
    });
    shown(&mut events).await;
    let (server, upstream) = connection();
    worker.join(1, upstream, false).await.unwrap();
    joined.send(()).unwrap();
    let (mut from_server, mut to_server) = server.into_split();
    let answer = down.clone();
    let server = tokio::spawn(async move {
        say(&mut to_server, &answer, &cuts).await;
        to_server.shutdown().await.unwrap();
    });
    let (heard, answered) = tokio::join!(rest(&mut from_server), rest(&mut from_client));
    assert!(heard == (up.clone(), None), "the server heard something else");
    assert!(answered == (down.clone(), None), "the client heard something else");
    client.await.unwrap();
    server.await.unwrap();
    let ended = loop {
        let event = super::event(&mut events).await;
        if let super::FromWorker::Done { sent, received, .. } = event {
            break (sent, received);
        }
        assert!(matches!(event, super::FromWorker::HalfClosed { .. }), "{event:?}");
    };
    assert_eq!(ended, (up.len() as u64, down.len() as u64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn peeking_changes_no_byte((up, cuts) in stream(), down in prop::collection::vec(any::<u8>(), 0..100_000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(both_ways(up, cuts, down));
    }
}
