//! The session's DNS: every question goes to the server that the agent asked, and every answer is read before it comes back,
//! so that it is known which names lead where. The bytes are handed on as they are, but for the keys of encrypted
//! ClientHellos, which would hide names.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
};

use super::{ConnectGate, dial, peek::Answer};

/// Questions that are under way at a time; further ones are dropped, as by any busy server.
const AT_A_TIME: usize = 512;
/// How long a server may take. Programs ask again after five seconds.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may be silent.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// The largest message (RFC 1035 §4.2.2).
const MESSAGE_MAX: usize = 64 << 10;
/// An answer with so many names for each of so many addresses (the product) is taken in at once; a larger one elsewhere.
const SMALL: usize = 64;
/// Two bytes of flags follow the id: QR, then TC as the second lowest bit of the first.
const TRUNCATED: u8 = 0x02;

/// Whether the answer says that there is more of it over TCP.
pub fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Serves the session's UDP questions for ever.
///
/// # Errors
/// The socket fails.
pub async fn serve(gate: Arc<ConnectGate>, stub: UdpSocket) -> io::Result<()> {
    let (stub, permits) = (Arc::new(stub), Arc::new(Semaphore::new(AT_A_TIME)));
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let (length, client) = match stub.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An answer could not be delivered (ICMP): not this question's affair.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let Some(server) = gate.dns_server(client) else { continue };
        let (gate, stub) = (Arc::clone(&gate), Arc::clone(&stub));
        let question = buffer.get(..length).unwrap_or_default().to_vec();
        tokio::spawn(async move {
            if let Ok(Ok(answer)) = tokio::time::timeout(LIMIT, forward(&gate, server, &question)).await {
                // The client may be gone.
                stub.send_to(&answer, client).await.ok();
            }
            drop(permit);
        });
    }
}

async fn forward(gate: &Arc<ConnectGate>, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = dial::udp(server, gate.uid()).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let message = buffer.get(..length).unwrap_or_default();
        if message.get(..2) == question.get(..2) {
            return gate.handed_on(message).await;
        }
    }
}

/// One question over TCP.
///
/// # Errors
/// The server cannot be reached, or says nothing that is an answer.
pub async fn ask_tcp(server: SocketAddr, uid: u32, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::from_std(dial::tcp(server, uid).await?)?;
    write(&mut stream, question).await?;
    read(&mut stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Serves one TCP connection to a server: whole messages in both directions, and nothing else passes.
///
/// # Errors
/// Either side fails.
pub async fn relay(
    gate: Arc<ConnectGate>,
    client: std::net::TcpStream,
    server: SocketAddr,
) -> io::Result<()> {
    let client = TcpStream::from_std(client)?;
    let upstream = TcpStream::from_std(dial::tcp(server, gate.uid()).await?)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    let questions = async {
        loop {
            match read(&mut from_client).await {
                Ok(Some(question)) => write(&mut to_server, &question).await?,
                Ok(None) => return to_server.shutdown().await,
                // It may still listen to a long answer.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    let answers = async {
        while let Some(answer) = read(&mut from_server).await? {
            write(&mut to_client, &gate.handed_on(&answer).await?).await?;
        }
        to_client.shutdown().await
    };
    // Who is gone is gone for the other side as well.
    tokio::try_join!(questions, answers).map(drop)
}

/// The next message behind its length (RFC 1035 §4.2.2); `None` at the end.
async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let reading = async {
        let length = match stream.read_u16().await {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await?;
        Ok(Some(message))
    };
    tokio::time::timeout(IDLE_LIMIT, reading).await?
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

impl ConnectGate {
    /// What the agent may see of an answer, once what it says is known to everybody who decides.
    ///
    /// # Errors
    /// It is no DNS answer, or says more about protected names than can be known: then nothing of it is handed on.
    async fn handed_on(self: &Arc<Self>, message: &[u8]) -> io::Result<Vec<u8>> {
        let answer = self.reader().read(message).await;
        let answer: Answer = answer.ok_or_else(|| io::Error::other("not a DNS answer"))?;
        let names = answer.names.len() + answer.targets.len();
        let addresses = answer.addresses.len() + answer.hinted.len();
        if names.max(1) * addresses.max(1) <= SMALL {
            self.learn(&answer).map_err(io::Error::other)?;
            return Ok(answer.message);
        }
        let permit = self.limits.large_answer().await?;
        let gate = Arc::clone(self);
        let learning = tokio::task::spawn_blocking(move || gate.learn(&answer).map(|()| answer.message));
        let message = learning.await?.map_err(io::Error::other);
        drop(permit);
        message
    }
}
