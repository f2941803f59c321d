//! The hosts' own DNS server, UDP and TCP: a table of names, a list of what was asked, and lies when it is told to.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;

/// One question that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Lower case, no dot at its end.
    pub name: String,
    /// A is 1, AAAA 28, HTTPS 65.
    pub kind: u16,
    pub tcp: bool,
    pub peer: IpAddr,
}

/// What the server knows of a name.
#[derive(Clone, Debug, Default)]
pub struct Name {
    pub addresses: Vec<IpAddr>,
    pub cname: Option<String>,
    pub https: Option<Https>,
    /// Seconds.
    pub ttl: u32,
}

/// An HTTPS record.
#[derive(Clone, Debug, Default)]
pub struct Https {
    /// The host that serves the name; none: itself.
    pub target: Option<String>,
    /// Its `ech` parameter.
    pub ech: Vec<u8>,
    /// Addresses, its `ipv4hint` and `ipv6hint` parameters.
    pub hints: Vec<IpAddr>,
}

/// The server. Ends when dropped.
pub struct Dns {
    state: Arc<State>,
    listeners: Vec<Arc<TcpListener>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    names: Mutex<BTreeMap<String, Name>>,
    asked: Mutex<Vec<Asked>>,
    stop: AtomicBool,
}

impl Dns {
    /// Serves at these addresses. Call it inside of the namespace.
    pub fn start(at: &[SocketAddr]) -> Self {
        let mut dns = Self { state: Arc::default(), listeners: Vec::new(), threads: Vec::new() };
        for &address in at {
            let socket = UdpSocket::bind(address).expect("the port is free");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            let state = Arc::clone(&dns.state);
            dns.threads.push(std::thread::spawn(move || serve_udp(&socket, &state)));
            let listener = Arc::new(TcpListener::bind(address).expect("the port is free"));
            let (door, state) = (Arc::clone(&listener), Arc::clone(&dns.state));
            dns.listeners.push(listener);
            dns.threads.push(std::thread::spawn(move || {
                while let Ok((stream, peer)) = door.accept() {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || drop(serve_tcp(stream, peer.ip(), &state)));
                }
            }));
        }
        dns
    }

    /// Puts a name, or replaces it: a name that belongs to others is a lie.
    pub fn put(&self, name: &str, addresses: &[IpAddr]) {
        self.put_name(name, Name { addresses: addresses.to_vec(), ttl: 60, ..Name::default() });
    }

    /// Puts all of a name.
    pub fn put_name(&self, name: &str, what: Name) {
        self.state.names.lock().expect("nobody panics with it").insert(name.to_owned(), what);
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).ok();
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn serve_udp(socket: &UdpSocket, state: &State) {
    let mut query = [0; 1024];
    while !state.stop.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut query) else { continue };
        if let Some(answer) = state.answer(&query[..length], false, peer.ip()) {
            drop(socket.send_to(&answer, peer));
        }
    }
}

fn serve_tcp(mut stream: std::net::TcpStream, peer: IpAddr, state: &State) -> std::io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(answer) = state.answer(&query, true, peer) else { return Ok(()) };
        let length = u16::try_from(answer.len()).expect("answers are short").to_be_bytes();
        stream.write_all(&[&length, answer.as_slice()].concat())?;
    }
}

impl State {
    /// The answer to a query with one question.
    fn answer(&self, query: &[u8], tcp: bool, peer: IpAddr) -> Option<Vec<u8>> {
        let (name, end) = read_name(query)?;
        let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
        self.asked.lock().expect("nobody panics with it").push(Asked {
            name: name.clone(),
            kind,
            tcp,
            peer: peer.to_canonical(),
        });
        let records = self.records(&name, kind);
        let code = u8::from(records.is_none()) * 3;
        let records = records.unwrap_or_default();
        let count = u8::try_from(records.len()).expect("few records");
        let mut answer = query.get(..2)?.to_vec();
        answer.extend([0x85, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        answer.extend(query.get(12..end + 4)?);
        records.iter().for_each(|record| answer.extend(record));
        Some(answer)
    }

    /// The records for a question, the chain of names first; none for a name that does not exist.
    fn records(&self, name: &str, kind: u16) -> Option<Vec<Vec<u8>>> {
        let names = self.names.lock().expect("nobody panics with it");
        let mut records = Vec::new();
        let mut name = name.to_owned();
        loop {
            let known = names.get(&name).or_else(|| names.get(&format!("*.{}", name.split_once('.')?.1)))?;
            match &known.cname {
                Some(next) => {
                    records.push(record(&name, CNAME, known.ttl, &write_name(next)));
                    name.clone_from(next);
                }
                None => {
                    records.extend(own(&name, kind, known));
                    return Some(records);
                }
            }
        }
    }
}

/// The records of a name without a CNAME.
fn own(name: &str, kind: u16, known: &Name) -> Vec<Vec<u8>> {
    let bytes = |address: &IpAddr| match (address, kind) {
        (IpAddr::V4(four), A) => Some(four.octets().to_vec()),
        (IpAddr::V6(six), AAAA) => Some(six.octets().to_vec()),
        _ => None,
    };
    let all = known.addresses.iter().filter_map(bytes);
    let mut records: Vec<_> = all.map(|bytes| record(name, kind, known.ttl, &bytes)).collect();
    if let (HTTPS, Some(https)) = (kind, &known.https) {
        records.push(record(name, HTTPS, known.ttl, &service(https)));
    }
    records
}

/// RFC 9460: priority 1, the target, `alpn`, `ipv4hint`, `ech`, `ipv6hint`.
fn service(Https { target, ech, hints }: &Https) -> Vec<u8> {
    let mut data = vec![0, 1];
    data.extend(target.as_deref().map_or_else(|| vec![0], write_name));
    let mut put = |key: u16, value: &[u8]| {
        if value.is_empty() {
            return;
        }
        let length = u16::try_from(value.len()).expect("short");
        data.extend([key.to_be_bytes(), length.to_be_bytes()].concat());
        data.extend(value);
    };
    put(1, b"\x02h2");
    let four = hints.iter().filter_map(|hint| match hint {
        IpAddr::V4(four) => Some(four.octets()),
        IpAddr::V6(_) => None,
    });
    put(4, &four.collect::<Vec<_>>().concat());
    put(5, ech);
    let six = hints.iter().filter_map(|hint| match hint {
        IpAddr::V6(six) => Some(six.octets()),
        IpAddr::V4(_) => None,
    });
    put(6, &six.collect::<Vec<_>>().concat());
    data
}

fn record(name: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut all = write_name(name);
    all.extend(kind.to_be_bytes());
    all.extend([0, 1]);
    all.extend(ttl.to_be_bytes());
    all.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
    all.extend(data);
    all
}

fn write_name(name: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for label in name.split('.') {
        all.push(u8::try_from(label.len()).expect("a label is short"));
        all.extend(label.as_bytes());
    }
    all.push(0);
    all
}

/// The name of a query's question, and where its type begins.
fn read_name(query: &[u8]) -> Option<(String, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        if length == 0 {
            return Some((labels.join("."), at + 1));
        }
        let label = query.get(at + 1..at + 1 + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += 1 + length;
    }
}
