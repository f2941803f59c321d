//! Requests to an HTTP proxy: each is looked at, whatever was allowed before it.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    super::{Events, Worker},
    HELLO, LONG, connection, done, exactly, held, nothing, rest, shown,
};
use crate::gate::connect::peek::{Protocol, tests::captured};

const EVIL: &[u8] = b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n";
const GOOD: &[u8] = b"CONNECT good.test:443 HTTP/1.1\r\nHost: good.test:443\r\n\r\n";
const PLAIN: &[u8] = b"GET http://good.test/ HTTP/1.1\r\nHost: good.test\r\n\r\n";

/// A client that has said `bytes`, joined with a proxy.
async fn to_proxy(bytes: &[u8]) -> (Worker, Events, TcpStream, TcpStream) {
    let (worker, events, client, _) = held(bytes).await;
    let (proxy, upstream) = connection();
    worker.join(1, upstream, true).await.unwrap();
    (worker, events, client, proxy)
}

async fn protocol(events: &mut Events) -> (Protocol, Option<String>) {
    let (_, shown) = shown(events).await;
    (shown.protocol, shown.name.map(String::from))
}

fn of(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[tokio::test]
async fn a_request_behind_an_absolute_one_is_looked_at() {
    let other = b"GET http://other.test/ HTTP/1.1\r\n\r\n";
    // At once, and later.
    for at_once in [true, false] {
        let first = if at_once { [PLAIN, other, EVIL].concat() } else { PLAIN.to_vec() };
        let (worker, mut events, mut client, mut proxy) = to_proxy(&first).await;
        assert_eq!(exactly(&mut proxy, PLAIN.len()).await, PLAIN);
        if !at_once {
            proxy.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            exactly(&mut client, 40).await;
            client.write_all(&[other, EVIL].concat()).await.unwrap();
        }
        assert_eq!(protocol(&mut events).await, (Protocol::Http, of("other.test")));
        nothing(&worker, &mut events, &proxy).await;
        worker.go_on(1).await.unwrap();
        assert_eq!(exactly(&mut proxy, other.len()).await, other);
        assert_eq!(protocol(&mut events).await, (Protocol::Connect, of("evil.test")));
        nothing(&worker, &mut events, &proxy).await;
        worker.forget(1).await.unwrap();
        done(&mut events).await;
    }
}

#[tokio::test]
async fn a_body_passes_with_its_request_and_no_more() {
    let head = |length: usize| format!("POST http://good.test/ HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    for length in [0, 5, 3_000_000] {
        let whole = [head(length).into_bytes(), vec![b'x'; length]].concat();
        let (worker, mut events) = Worker::in_thread().unwrap();
        let (client, near) = connection();
        worker.peek(1, near, LONG).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let said = [whole.clone(), EVIL.to_vec()].concat();
        let saying = tokio::spawn(async move {
            to_client.write_all(&said).await.unwrap();
            to_client
        });
        shown(&mut events).await;
        let (mut proxy, upstream) = connection();
        worker.join(1, upstream, true).await.unwrap();
        assert!(exactly(&mut proxy, whole.len()).await == whole, "{length}");
        assert_eq!(protocol(&mut events).await, (Protocol::Connect, of("evil.test")), "{length}");
        nothing(&worker, &mut events, &proxy).await;
        worker.forget(1).await.unwrap();
        assert_eq!(done(&mut events).await.1, whole.len() as u64);
        drop(saying.await);
        rest(&mut from_client).await;
    }
}

#[tokio::test]
async fn what_is_no_request_or_has_no_end_is_garbage_to_a_proxy() {
    let chunked = b"POST /x HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let hidden = [b"GET / HTTP/1.1\r\nContent-Length: 60\r\n\r\n", EVIL].concat();
    for next in [HELLO, chunked, &hidden, b"\x81\x05hello", b"HELO x\r\n"] {
        let (worker, mut events, mut client, mut proxy) = to_proxy(PLAIN).await;
        exactly(&mut proxy, PLAIN.len()).await;
        client.write_all(next).await.unwrap();
        assert_eq!(protocol(&mut events).await, (Protocol::Garbage, None), "{}", next.escape_ascii());
        nothing(&worker, &mut events, &proxy).await;
    }
    // Of the right form, it is one more request, and the same holds behind it.
    let (worker, mut events, mut client, mut proxy) = to_proxy(PLAIN).await;
    exactly(&mut proxy, PLAIN.len()).await;
    let origin = captured!("curl-get");
    client.write_all(&[origin, EVIL].concat()).await.unwrap();
    assert_eq!(protocol(&mut events).await.0, Protocol::Http);
    worker.go_on(1).await.unwrap();
    assert_eq!(exactly(&mut proxy, origin.len()).await, origin);
    assert_eq!(protocol(&mut events).await, (Protocol::Connect, of("evil.test")));
    nothing(&worker, &mut events, &proxy).await;
}

#[tokio::test]
async fn a_connect_that_was_not_answered_with_2xx_is_no_tunnel() {
    for answer in [
        "HTTP/1.1 407 Who?\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.0 502 \r\n\r\n",
        "220 ready\r\n",
    ] {
        for (next, expected) in [
            (EVIL, (Protocol::Connect, of("evil.test"))),
            (PLAIN, (Protocol::Http, of("good.test"))),
            (HELLO, (Protocol::Garbage, None)),
            (b"SSH-2.0-x\r\n", (Protocol::Garbage, None)),
        ] {
            let (worker, mut events, mut client, mut proxy) = to_proxy(&[GOOD, next].concat()).await;
            assert_eq!(exactly(&mut proxy, GOOD.len()).await, GOOD);
            nothing(&worker, &mut events, &proxy).await;
            proxy.write_all(answer.as_bytes()).await.unwrap();
            assert_eq!(protocol(&mut events).await, expected, "{answer} {}", next.escape_ascii());
            assert_eq!(exactly(&mut client, answer.len()).await, answer.as_bytes());
            nothing(&worker, &mut events, &proxy).await;
        }
    }
    // A plain request behind it is followed by another look.
    let (worker, mut events, _client, mut proxy) =
        to_proxy(&[GOOD, captured!("curl-get"), EVIL].concat()).await;
    exactly(&mut proxy, GOOD.len()).await;
    proxy.write_all(b"HTTP/1.1 403 No\r\n\r\n").await.unwrap();
    assert_eq!(protocol(&mut events).await.0, Protocol::Http);
    worker.go_on(1).await.unwrap();
    exactly(&mut proxy, captured!("curl-get").len()).await;
    assert_eq!(protocol(&mut events).await, (Protocol::Connect, of("evil.test")));
    nothing(&worker, &mut events, &proxy).await;
}

#[tokio::test]
async fn a_tunnel_is_looked_into_once_if_no_proxy_is_behind_it() {
    let chunked = b"POST / HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for inner in [HELLO, captured!("curl-get"), chunked, b"SSH-2.0-x\r\n"] {
        let (worker, mut events, mut client, mut proxy) = to_proxy(GOOD).await;
        exactly(&mut proxy, GOOD.len()).await;
        proxy.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        exactly(&mut client, 19).await;
        client.write_all(&[inner, EVIL].concat()).await.unwrap();
        assert_ne!(shown(&mut events).await.1.protocol, Protocol::Garbage);
        worker.go_on(1).await.unwrap();
        assert_eq!(exactly(&mut proxy, inner.len() + EVIL.len()).await, [inner, EVIL].concat());
    }
    // Another proxy: its requests are requests to a proxy.
    let (worker, mut events, mut client, mut proxy) = to_proxy(GOOD).await;
    exactly(&mut proxy, GOOD.len()).await;
    proxy.write_all(b"HTTP/1.0 299 OK\r\n\r\n").await.unwrap();
    exactly(&mut client, 19).await;
    client.write_all(&[PLAIN, EVIL].concat()).await.unwrap();
    assert_eq!(protocol(&mut events).await, (Protocol::Http, of("good.test")));
    worker.go_on(1).await.unwrap();
    exactly(&mut proxy, PLAIN.len()).await;
    assert_eq!(protocol(&mut events).await, (Protocol::Connect, of("evil.test")));
    nothing(&worker, &mut events, &proxy).await;
}

#[tokio::test]
async fn a_connect_behind_a_request_is_never_known_to_be_a_tunnel() {
    // The server of the first request chooses what the answer to it looks like.
    for (next, expected) in [
        (HELLO, Protocol::Tls),
        (EVIL, Protocol::Connect),
        (captured!("curl-get"), Protocol::Http),
        (b"SSH-2.0-x\r\n", Protocol::Garbage),
    ] {
        let (worker, mut events, _client, mut proxy) = to_proxy(&[PLAIN, GOOD, next, EVIL].concat()).await;
        exactly(&mut proxy, PLAIN.len()).await;
        proxy.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert_eq!(protocol(&mut events).await, (Protocol::Connect, of("good.test")));
        worker.go_on(1).await.unwrap();
        exactly(&mut proxy, GOOD.len()).await;
        assert_eq!(protocol(&mut events).await.0, expected);
        nothing(&worker, &mut events, &proxy).await;
        if expected == Protocol::Http {
            worker.go_on(1).await.unwrap();
            exactly(&mut proxy, next.len()).await;
            assert_eq!(protocol(&mut events).await, (Protocol::Connect, of("evil.test")));
        }
    }
}

#[tokio::test]
async fn a_client_that_ends_before_the_answer_is_heard_to_end() {
    let (_worker, mut events, mut client, mut proxy) = to_proxy(GOOD).await;
    exactly(&mut proxy, GOOD.len()).await;
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut proxy).await, (Vec::new(), None));
    proxy.write_all(b"HTTP/1.1 400 Bad\r\n\r\n").await.unwrap();
    drop(proxy);
    assert_eq!(rest(&mut client).await.0.len(), 20);
    assert_eq!(done(&mut events).await, (1, GOOD.len() as u64, 20));
}

#[tokio::test]
async fn who_was_silent_is_looked_at_when_he_speaks() {
    let (worker, mut events) = Worker::in_thread().unwrap();
    let (mut client, near) = connection();
    worker.peek(1, near, std::time::Duration::from_millis(1)).await.unwrap();
    shown(&mut events).await;
    let (mut proxy, upstream) = connection();
    worker.join(1, upstream, true).await.unwrap();
    client.write_all(&[PLAIN, EVIL].concat()).await.unwrap();
    assert_eq!(protocol(&mut events).await, (Protocol::Http, of("good.test")));
    nothing(&worker, &mut events, &proxy).await;
    worker.go_on(1).await.unwrap();
    exactly(&mut proxy, PLAIN.len()).await;
    assert_eq!(protocol(&mut events).await, (Protocol::Connect, of("evil.test")));
    nothing(&worker, &mut events, &proxy).await;
}
