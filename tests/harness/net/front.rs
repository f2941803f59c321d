//! The doors of the hosts: every connection is written down with its first bytes before anybody answers it.

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// One connection, or one datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub peer: SocketAddr,
    pub to: SocketAddr,
    /// What it said first; empty until it has said something.
    pub first: Vec<u8>,
    pub udp: bool,
}

/// What has arrived, in order.
#[derive(Clone, Default)]
pub struct Arrivals(Arc<Mutex<Vec<Arrival>>>);

impl Arrivals {
    pub fn all(&self) -> Vec<Arrival> {
        self.0.lock().expect("nobody panics with it").clone()
    }

    fn note(&self, arrival: Arrival) -> usize {
        let mut all = self.0.lock().expect("nobody panics with it");
        all.push(arrival);
        all.len() - 1
    }

    fn said(&self, index: usize, bytes: &[u8]) {
        self.0.lock().expect("nobody panics with it")[index].first = bytes.trim_ascii_end().to_vec();
    }
}

/// What stands behind a door.
#[derive(Clone)]
pub enum Host {
    /// HTTP/1 is answered with what was asked, or with a gibibyte for `/bulk`; anything else comes back as it was sent.
    Greeter,
    /// A server at this address inside of the namespace.
    Server(SocketAddr),
    /// An HTTP proxy that knows CONNECT, and connects to this host whatever is named.
    Proxy(SocketAddr),
    /// Says this first, then sends back what it gets.
    First(&'static [u8]),
}

/// The listening sockets of a test. Closed when dropped.
#[derive(Default)]
pub struct Doors {
    listeners: Vec<Arc<TcpListener>>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Doors {
    /// Listens on `port` of every address of the hosts, both families. Call it inside of the namespace.
    pub fn open(&mut self, port: u16, host: Arc<Mutex<Host>>, arrivals: &Arrivals) {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("the port is free");
        let listener = Arc::new(listener);
        let (door, arrivals) = (Arc::clone(&listener), arrivals.clone());
        self.listeners.push(listener);
        self.threads.push(std::thread::spawn(move || {
            while let Ok((stream, peer)) = door.accept() {
                let Ok(to) = stream.local_addr() else { continue };
                let arrival = Arrival { peer: plain(peer), to: plain(to), first: Vec::new(), udp: false };
                let index = arrivals.note(arrival);
                let (arrivals, host) = (arrivals.clone(), host.lock().expect("no panic").clone());
                // It ends with its connection, whose client ends with the test.
                std::thread::spawn(move || drop(serve(stream, &host, |said| arrivals.said(index, said))));
            }
        }));
    }

    /// Writes down the datagrams that come to `at`, and sends them back. Call it inside of the namespace.
    pub fn open_udp(&mut self, at: SocketAddr, arrivals: &Arrivals) {
        let socket = UdpSocket::bind(at).expect("the port is free");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let (arrivals, stop) = (arrivals.clone(), Arc::clone(&self.stop));
        self.threads.push(std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, peer)) = socket.recv_from(&mut bytes) else { continue };
                arrivals.note(Arrival { peer, to: at, first: bytes[..length].to_vec(), udp: true });
                drop(socket.send_to(&bytes[..length], peer));
            }
        }));
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // Wakes accept(2), which fails from now on.
            nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).ok();
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// IPv4 as IPv4, whatever family the listener has.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn serve(mut stream: TcpStream, host: &Host, said: impl FnOnce(&[u8])) -> std::io::Result<()> {
    if let Host::First(greeting) = host {
        stream.write_all(greeting)?;
    }
    let server = match host {
        Host::Server(address) => Some(TcpStream::connect(address)?),
        Host::Greeter | Host::Proxy(_) | Host::First(_) => None,
    };
    if let Some(server) = server {
        // It may speak first.
        let (back, to) = (server.try_clone()?, stream.try_clone()?);
        let answers = std::thread::spawn(move || copy(&back, &to));
        let told = told(&mut stream, said)?;
        if !told.is_empty() {
            (&server).write_all(&told)?;
            copy(&stream, &server);
        } else {
            drop(server.shutdown(Shutdown::Write));
        }
        drop(answers.join());
        return Ok(());
    }
    let first = told(&mut stream, said)?;
    match host {
        Host::Proxy(address) if first.starts_with(b"CONNECT ") => {
            let server = TcpStream::connect(address)?;
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
            both(&stream, &server)
        }
        Host::Greeter if is_request(&first) => {
            let request = head(&mut stream, first)?;
            answer(&mut stream, &request)?;
            // A socket that is closed over unread bytes is reset, and its answer may be lost.
            stream.shutdown(Shutdown::Write)?;
            std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
        }
        Host::Greeter | Host::Proxy(_) | Host::First(_) | Host::Server(_) => {
            stream.write_all(&first)?;
            let mut bytes = [0; 4096];
            loop {
                match stream.read(&mut bytes)? {
                    0 => return Ok(()),
                    length => stream.write_all(&bytes[..length])?,
                }
            }
        }
    }
}

/// The first bytes that come, written down.
fn told(stream: &mut TcpStream, said: impl FnOnce(&[u8])) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let length = stream.read(&mut bytes)?;
    bytes.truncate(length);
    said(&bytes);
    Ok(bytes)
}

/// Whether it is, or may become, a request of HTTP/1.
fn is_request(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && ["GET ", "POST "].iter().any(|method| {
            let both = method.len().min(bytes.len());
            bytes[..both] == method.as_bytes()[..both]
        })
}

/// A request with all of its head, in however many pieces it comes.
fn head(stream: &mut TcpStream, mut request: Vec<u8>) -> std::io::Result<Vec<u8>> {
    const LONGEST: usize = 1 << 16;
    let mut bytes = [0; 4096];
    while request.len() < LONGEST && !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => break,
            length => request.extend(&bytes[..length]),
        }
    }
    Ok(request)
}

fn both(a: &TcpStream, b: &TcpStream) -> std::io::Result<()> {
    let (from, to) = (b.try_clone()?, a.try_clone()?);
    let back = std::thread::spawn(move || copy(&from, &to));
    copy(a, b);
    drop(back.join());
    Ok(())
}

/// Copies to the end, and passes the end on.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    drop(std::io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}

fn answer(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<()> {
    let request = String::from_utf8_lossy(request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    if path == "/bulk" {
        return bulk(stream);
    }
    let host = request.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default();
    let body = format!("1.1 {host} {path}\n");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// Bytes of `/bulk`.
pub const BULK: u64 = 1 << 30;

/// Every 4 KiB begin with their number, so that nothing may be missing, doubled or moved.
fn bulk(stream: &mut TcpStream) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BULK}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut block: Vec<u8> = (0..1_u32 << 18).map(|i| i.to_le_bytes()[usize::from(i % 3 == 0)]).collect();
    for number in 0..BULK / (1 << 18) {
        for (page, place) in (0_u64..).zip(block.chunks_mut(4096)) {
            place[..8].copy_from_slice(&(number * 64 + page).to_le_bytes());
        }
        stream.write_all(&block)?;
    }
    Ok(())
}
