use tokio::io::AsyncWriteExt;

use super::{
    super::{FromWorker, Refusal},
    HELLO, connection, done, exactly, held, nothing, rest, shown,
};
use crate::gate::connect::peek::tests::captured;

#[tokio::test]
async fn an_http_client_reads_why_even_if_it_still_sends() {
    let body = "ana: rule \"no-plain\" denies plain.example\n".to_owned();
    let upload = [captured!("curl-get"), &vec![b'x'; 300_000][..]].concat();
    for bytes in [&captured!("curl-get")[..], &upload] {
        let (worker, mut events, mut client) = {
            let (worker, mut events) = super::super::Worker::in_thread().unwrap();
            let (mut client, near) = connection();
            worker.peek(1, near, super::LONG).await.unwrap();
            client.write_all(captured!("curl-get")).await.unwrap();
            shown(&mut events).await;
            (worker, events, client)
        };
        let more = bytes[captured!("curl-get").len()..].to_vec();
        worker.refuse(1, Refusal::Http { body: body.clone() }).await.unwrap();
        client.write_all(&more).await.unwrap();
        let (answer, error) = rest(&mut client).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        assert!(answer.ends_with(&format!("Connection: close\r\n\r\n{body}")), "{answer}");
        assert_eq!(error, None);
        // The client closes, and that is the end of it.
        drop(client);
        nothing(&worker, &mut events, &connection().0).await;
    }
}

#[tokio::test]
async fn a_tls_client_gets_an_alert_and_a_reset_if_it_stays() {
    let (worker, _events, mut client, _) = held(HELLO).await;
    worker.refuse(1, Refusal::Tls).await.unwrap();
    assert_eq!(rest(&mut client).await, (vec![0x15, 3, 3, 0, 2, 2, 49], None));
    // It does not close: after a second it is reset.
    let reset = async {
        while client.write_all(b"more").await.is_ok() {
            client.writable().await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::LIMIT, reset).await.expect("a reset in time");
}

#[tokio::test]
async fn a_reset_is_nothing_but_a_reset() {
    let (worker, _events, mut client, _) = held(HELLO).await;
    worker.refuse(1, Refusal::Reset).await.unwrap();
    assert_eq!(rest(&mut client).await, (Vec::new(), Some(std::io::ErrorKind::ConnectionReset)));
    let (worker, _events, mut client, _) = held(HELLO).await;
    worker.forget(1).await.unwrap();
    assert_eq!(rest(&mut client).await, (Vec::new(), Some(std::io::ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn a_half_closed_client_hears_it_too() {
    let (worker, mut events, mut client, _) = held(captured!("curl-get")).await;
    client.shutdown().await.unwrap();
    assert_eq!(super::event(&mut events).await, FromWorker::HalfClosed { id: 1 });
    worker.refuse(1, Refusal::Http { body: "why".to_owned() }).await.unwrap();
    let (answer, error) = rest(&mut client).await;
    assert!(answer.ends_with(b"\r\n\r\nwhy") && error.is_none(), "{answer:?} {error:?}");
}

#[tokio::test]
async fn a_refused_tunnel_tells_the_client_and_resets_the_proxy() {
    let connect = captured!("curl-connect");
    let (worker, mut events, mut client, _) = held(connect).await;
    let (mut proxy, upstream) = connection();
    worker.join(1, upstream, true).await.unwrap();
    exactly(&mut proxy, connect.len()).await;
    proxy.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    exactly(&mut client, 19).await;
    client.write_all(HELLO).await.unwrap();
    shown(&mut events).await;
    worker.refuse(1, Refusal::Tls).await.unwrap();
    assert_eq!(done(&mut events).await, (1, connect.len() as u64, 19));
    assert_eq!(rest(&mut client).await.0, [0x15, 3, 3, 0, 2, 2, 49]);
    assert_eq!(rest(&mut proxy).await, (Vec::new(), Some(std::io::ErrorKind::ConnectionReset)));
}
