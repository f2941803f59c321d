use tokio::io::AsyncWriteExt;

use super::{super::FromWorker, HELLO, connection, done, event, exactly, held, nothing, rest, shown};
use crate::{
    gate::connect::peek::{Protocol, tests::captured},
    sys::socket::end_by_reset,
};

#[tokio::test]
async fn the_server_gets_what_was_looked_at_and_both_may_close_halves() {
    for client_first in [true, false] {
        let (worker, mut events, mut client, _) = held(HELLO).await;
        let (mut server, upstream) = connection();
        worker.join(1, upstream, false).await.unwrap();
        assert_eq!(exactly(&mut server, HELLO.len()).await, HELLO);
        let (first, second) =
            if client_first { (&mut client, &mut server) } else { (&mut server, &mut client) };
        first.write_all(b"the last of one side").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(rest(second).await, (b"the last of one side".to_vec(), None));
        second.write_all(b"and there is still an answer").await.unwrap();
        second.shutdown().await.unwrap();
        assert_eq!(rest(first).await, (b"and there is still an answer".to_vec(), None));
        let (client_said, server_said) = if client_first { (20, 28) } else { (28, 20) };
        assert_eq!(done(&mut events).await, (1, HELLO.len() as u64 + client_said, server_said));
    }
}

#[tokio::test]
async fn a_reset_of_one_side_is_one_of_the_other() {
    for client_resets in [true, false] {
        let (worker, mut events, mut client, _) = held(HELLO).await;
        let (mut server, upstream) = connection();
        worker.join(1, upstream, false).await.unwrap();
        exactly(&mut server, HELLO.len()).await;
        let (gone, left) = if client_resets { (client, &mut server) } else { (server, &mut client) };
        end_by_reset(&gone).unwrap();
        drop(gone);
        assert_eq!(rest(left).await.1, Some(std::io::ErrorKind::ConnectionReset));
        assert_eq!(done(&mut events).await.0, 1);
    }
}

#[tokio::test]
async fn one_that_reads_nothing_does_not_delay_another() {
    let (worker, mut events, mut stuck, _) = held(HELLO).await;
    let (_never_reads, upstream) = connection();
    worker.join(1, upstream, false).await.unwrap();
    // More than all buffers take.
    let filling = tokio::spawn(async move { stuck.write_all(&vec![1; 64 << 20]).await });
    let (mut client, near) = connection();
    client.write_all(HELLO).await.unwrap();
    worker.peek(2, near, super::LONG).await.unwrap();
    assert_eq!(shown(&mut events).await.0, 2);
    let (mut server, upstream) = connection();
    worker.join(2, upstream, false).await.unwrap();
    assert_eq!(exactly(&mut server, HELLO.len()).await, HELLO);
    worker.forget(1).await.unwrap();
    let (id, sent, received) = done(&mut events).await;
    assert!(id == 1 && sent > 0 && received == 0, "{id} {sent} {received}");
    assert!(filling.await.unwrap().is_err());
}

#[tokio::test]
async fn what_is_joined_without_being_held_is_let_go() {
    let (worker, mut events, client, _) = held(HELLO).await;
    drop(client);
    assert_eq!(event(&mut events).await, FromWorker::Gone { id: 1 });
    let (mut server, upstream) = connection();
    worker.join(1, upstream, false).await.unwrap();
    assert_eq!(rest(&mut server).await, (Vec::new(), None));
    nothing(&worker, &mut events, &super::connection().0).await;
}

#[tokio::test]
async fn a_tunnel_is_looked_into_before_anything_of_it_passes() {
    let connect = captured!("curl-connect");
    // The client may say everything at once.
    let (worker, mut events, mut client, first) = held(&[connect, HELLO].concat()).await;
    assert_eq!((first.protocol, first.head), (Protocol::Connect, connect.len()));
    let (mut proxy, upstream) = connection();
    worker.join(1, upstream, true).await.unwrap();
    assert_eq!(exactly(&mut proxy, connect.len()).await, connect);
    nothing(&worker, &mut events, &proxy).await;
    // The answer may come in pieces.
    for piece in [&b"HTTP/1."[..], b"1 200 OK\r\n\r\n"] {
        proxy.write_all(piece).await.unwrap();
    }
    let (_, inner) = shown(&mut events).await;
    assert_eq!(inner.name.as_deref(), Some("api.stripe.com"));
    assert_eq!(exactly(&mut client, 19).await, b"HTTP/1.1 200 OK\r\n\r\n");
    nothing(&worker, &mut events, &proxy).await;
    worker.go_on(1).await.unwrap();
    assert_eq!(exactly(&mut proxy, HELLO.len()).await, HELLO);
    client.write_all(b"and more").await.unwrap();
    drop(client);
    assert_eq!(rest(&mut proxy).await.0, b"and more");
    drop(proxy);
    assert_eq!(done(&mut events).await, (1, (connect.len() + HELLO.len() + 8) as u64, 19));
}

#[tokio::test]
async fn a_second_connect_in_a_tunnel_is_looked_into_as_well() {
    let connect = captured!("curl-connect");
    let (worker, mut events, mut client, _) = held(connect).await;
    let (mut proxy, upstream) = connection();
    worker.join(1, upstream, true).await.unwrap();
    exactly(&mut proxy, connect.len()).await;
    proxy.write_all(b"HTTP/1.1 407 Who are you?\r\n\r\n").await.unwrap();
    exactly(&mut client, 29).await;
    client.write_all(&[connect, HELLO].concat()).await.unwrap();
    assert_eq!(shown(&mut events).await.1.protocol, Protocol::Connect);
    nothing(&worker, &mut events, &proxy).await;
    worker.go_on(1).await.unwrap();
    assert_eq!(exactly(&mut proxy, connect.len()).await, connect);
    assert_eq!(shown(&mut events).await.1.protocol, Protocol::Tls);
    nothing(&worker, &mut events, &proxy).await;
    // A client that leaves now withdraws the question.
    drop(client);
    assert_eq!(event(&mut events).await, FromWorker::Gone { id: 1 });
    assert_eq!(done(&mut events).await.0, 1);
    assert_eq!(rest(&mut proxy).await, (Vec::new(), Some(std::io::ErrorKind::ConnectionReset)));
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let (worker, mut events, mut client, _) = {
        let (worker, mut events) = super::super::Worker::in_thread().unwrap();
        let (client, near) = connection();
        worker.peek(1, near, std::time::Duration::from_millis(1)).await.unwrap();
        let shown = shown(&mut events).await;
        (worker, events, client, shown)
    };
    let (mut server, upstream) = connection();
    server.write_all(b"220 hello\r\n").await.unwrap();
    worker.join(1, upstream, false).await.unwrap();
    assert_eq!(exactly(&mut client, 11).await, b"220 hello\r\n");
    client.write_all(b"QUIT\r\n").await.unwrap();
    assert_eq!(exactly(&mut server, 6).await, b"QUIT\r\n");
    drop((client, server));
    assert_eq!(done(&mut events).await, (1, 6, 11));
}
