use std::collections::BTreeMap;

use tokio::io::AsyncWriteExt;

use super::{super::Worker, HELLO, LONG, connection, done, exactly, shown};
use crate::gate::connect::peek::tests::captured;

const CONNECTIONS: u64 = 2000;

#[tokio::test]
async fn two_thousand_connections_at_once() {
    let (limit, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    assert!(limit > CONNECTIONS * 4 + 200, "this test needs more descriptors than {limit}");
    let (worker, mut events) = Worker::in_thread().unwrap();
    let mut clients = BTreeMap::new();
    for id in 0..CONNECTIONS {
        let (mut client, near) = connection();
        client.write_all(HELLO).await.unwrap();
        worker.peek(id, near, LONG).await.unwrap();
        clients.insert(id, client);
    }
    for _ in 0..CONNECTIONS {
        shown(&mut events).await;
    }
    // While all of them are held, another one is served.
    let (mut client, near) = connection();
    client.write_all(captured!("curl-get")).await.unwrap();
    worker.peek(CONNECTIONS, near, LONG).await.unwrap();
    assert_eq!(shown(&mut events).await.0, CONNECTIONS);
    let mut servers = BTreeMap::new();
    for id in (0..CONNECTIONS).rev() {
        let (server, upstream) = connection();
        worker.join(id, upstream, false).await.unwrap();
        servers.insert(id, server);
    }
    for (id, server) in &mut servers {
        assert_eq!(exactly(server, HELLO.len()).await, HELLO);
        server.write_all(&id.to_be_bytes()).await.unwrap();
        assert_eq!(exactly(clients.get_mut(id).unwrap(), 8).await, id.to_be_bytes());
    }
    drop((clients, servers));
    for _ in 0..CONNECTIONS {
        let (_, sent, received) = done(&mut events).await;
        assert_eq!((sent, received), (HELLO.len() as u64, 8));
    }
}
