use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{
    super::{FromWorker, Worker},
    HELLO, LONG, connection, event, held, nothing, shown,
};
use crate::{
    gate::connect::peek::{LOOK_MAX, Protocol, tests::captured},
    sys::socket::end_by_reset,
};

#[tokio::test]
async fn a_hello_in_one_byte_segments_is_shown_once_it_is_whole() {
    let (worker, mut events) = Worker::in_thread().unwrap();
    let (mut client, near) = connection();
    worker.peek(1, near, LONG).await.unwrap();
    let (last, most) = HELLO.split_last().unwrap();
    for byte in most {
        client.write_all(&[*byte]).await.unwrap();
    }
    nothing(&worker, &mut events, &client).await;
    client.write_all(&[*last]).await.unwrap();
    let (_, shown) = shown(&mut events).await;
    assert_eq!(shown.name.as_deref(), Some("api.stripe.com"));
}

#[tokio::test]
async fn a_large_head_in_any_pieces_is_shown_and_a_larger_one_is_garbage() {
    let head = |length: usize| {
        let mut head = b"GET / HTTP/1.1\r\nHost: a.example\r\nX: ".to_vec();
        head.resize(length - 4, b'x');
        [head, b"\r\n\r\n".to_vec()].concat()
    };
    for (length, expected) in
        [(40_000, Protocol::Http), (LOOK_MAX - 1, Protocol::Http), (70_000, Protocol::Garbage)]
    {
        let (worker, mut events) = Worker::in_thread().unwrap();
        let (mut client, near) = connection();
        worker.peek(1, near, LONG).await.unwrap();
        let sending = tokio::spawn(async move {
            for part in head(length).chunks(1000) {
                client.write_all(part).await.unwrap();
            }
            client
        });
        assert_eq!(shown(&mut events).await.1.protocol, expected, "{length} bytes");
        drop(sending.await);
    }
}

#[tokio::test]
async fn sixty_four_kilobytes_of_garbage_before_tls_are_no_tls() {
    let garbage = [vec![0xff; 64 << 10], HELLO.to_vec()].concat();
    let (_worker, _events, _client, shown) = held(&garbage).await;
    assert_eq!((shown.protocol, shown.name), (Protocol::Other, None));
}

#[tokio::test]
async fn who_says_nothing_is_silent_after_the_grace() {
    let (worker, mut events) = Worker::in_thread().unwrap();
    let (_client, near) = connection();
    let began = std::time::Instant::now();
    worker.peek(1, near, Duration::from_millis(80)).await.unwrap();
    let (_, shown) = shown(&mut events).await;
    assert_eq!(shown.protocol, Protocol::Silent);
    let took = began.elapsed();
    assert!((Duration::from_millis(80)..Duration::from_millis(1000)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn who_stops_in_the_middle_is_garbage_after_three_seconds() {
    let (worker, mut events) = Worker::in_thread().unwrap();
    let (mut one, near_one) = connection();
    let (mut other, near_other) = connection();
    one.write_all(b"attack").await.unwrap();
    other.write_all(&HELLO[..HELLO.len() / 2]).await.unwrap();
    let began = std::time::Instant::now();
    worker.peek(1, near_one, LONG).await.unwrap();
    worker.peek(2, near_other, LONG).await.unwrap();
    for _ in 0..2 {
        assert_eq!(shown(&mut events).await.1.protocol, Protocol::Garbage);
    }
    let took = began.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(6)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_half_closed_client_is_said_to_be_one_again() {
    // Before the join and after it.
    for joined in [false, true] {
        let bytes = [&captured!("curl-proxy")[..], captured!("curl-get")].concat();
        let (worker, mut events, mut client, _) = held(&bytes).await;
        let (_server, upstream) = connection();
        if joined {
            worker.join(1, upstream, true).await.unwrap();
            shown(&mut events).await;
        }
        client.shutdown().await.unwrap();
        let began = std::time::Instant::now();
        for _ in 0..3 {
            assert_eq!(event(&mut events).await, FromWorker::HalfClosed { id: 1 });
        }
        assert!(began.elapsed() >= Duration::from_millis(750), "{:?}", began.elapsed());
    }
}

#[tokio::test]
#[ignore = "takes as long as the kernel keeps the socket: a minute"]
async fn a_half_closed_client_that_closes_is_gone_in_the_end() {
    let (_worker, mut events, mut client, _) = held(captured!("curl-get")).await;
    client.shutdown().await.unwrap();
    drop(client);
    let gone = async { while events.next().await.unwrap() != (FromWorker::Gone { id: 1 }) {} };
    tokio::time::timeout(Duration::from_secs(100), gone).await.expect("it is noticed");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_looked_at_or_held_is_gone() {
    // Before a word, in the middle of one, and while it is held; with FIN and with RST.
    for bytes in [&b""[..], &HELLO[..100], HELLO] {
        for reset in [false, true] {
            let (worker, mut events) = Worker::in_thread().unwrap();
            let (mut client, near) = connection();
            client.write_all(bytes).await.unwrap();
            worker.peek(1, near, LONG).await.unwrap();
            if bytes == HELLO {
                shown(&mut events).await;
            } else {
                nothing(&worker, &mut events, &client).await;
            }
            if reset {
                end_by_reset(&client).unwrap();
            }
            drop(client);
            if bytes.len() == 100 && !reset {
                assert_eq!(shown(&mut events).await.1.protocol, Protocol::Garbage);
                assert_eq!(event(&mut events).await, FromWorker::HalfClosed { id: 1 });
            } else {
                assert_eq!(event(&mut events).await, FromWorker::Gone { id: 1 }, "{} {reset}", bytes.len());
            }
        }
    }
}

#[tokio::test]
async fn a_plain_client_that_sends_no_more_is_half_closed_and_then_gone() {
    let (_worker, mut events, mut client, shown) = held(captured!("curl-get")).await;
    assert_eq!(shown.name.as_deref(), Some("plain.example"));
    client.shutdown().await.unwrap();
    assert_eq!(event(&mut events).await, FromWorker::HalfClosed { id: 1 });
    end_by_reset(&client).unwrap();
    drop(client);
    assert_eq!(event(&mut events).await, FromWorker::Gone { id: 1 });
}

#[tokio::test]
async fn a_number_cannot_be_used_twice_at_once() {
    let (worker, mut events, _client, _) = held(HELLO).await;
    let (_other, near) = connection();
    worker.peek(1, near, LONG).await.unwrap();
    assert_eq!(event(&mut events).await, FromWorker::Gone { id: 1 });
}

#[tokio::test]
async fn the_end_of_the_worker_is_said_once() {
    let (worker, mut events) = Worker::in_thread().unwrap();
    // What no worker understands.
    let packet = super::super::wire::Packet::new(&"nonsense", &[]).unwrap();
    packet.send(std::os::fd::AsFd::as_fd(worker.socket()), &[]).unwrap();
    assert!(events.next().await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(20), events.next()).await.is_err(), "said twice");
    let (_client, near) = connection();
    assert!(worker.peek(1, near, LONG).await.is_err());
}
