//! Opens a connection to a host and shows a name that is not what it is about, or none, or in an odd way. Arguments: the
//! way, the address, the port, the protected name. The host echoes what it gets.
//!
//! `innocent`: TLS that shows another host's name; `none`: TLS without a name; `encrypted`: with an encrypted name and an
//! innocent outer one; `slow`: the right name, a byte a segment; `late`: the right name behind more than 16 KiB;
//! `garbage`: 64 KiB of nothing before TLS; `split`: two TLS records with half of the name in each; `two`: two names;
//! `case`: the right name in capitals with a dot at its end; `http-innocent`, `http-slow`, `http-two`, `http-absolute`: the
//! same without TLS; `proxy`: CONNECT to the protected host through a proxy at the address; `silent`: says nothing for some
//! time, then speaks.
#![allow(clippy::expect_used, reason = "test code: a panic names what the attack was not given")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use ana_tests::attempt::{argument, tell_io};

const INNOCENT: &str = "www.innocent.test";

fn main() {
    let text = |index| argument(index).to_string_lossy().into_owned();
    let (way, address, port) = (text(1), text(2), text(3));
    let address: IpAddr = address.parse().expect("an address");
    let to = SocketAddr::new(address, port.parse().expect("a port"));
    tell_io(&way, attack(&way, to, &text(4)));
}

fn attack(way: &str, to: SocketAddr, protected: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let record = |hello: &[u8]| record(22, hello);
    let bytes = match way {
        "innocent" => record(&hello(&[name(&[INNOCENT])])),
        "none" => record(&hello(&[])),
        "encrypted" => record(&hello(&[name(&[INNOCENT]), encrypted()])),
        "late" => {
            // RFC 7685: padding; the hello goes on in a second record.
            let hello = hello(&[extension(21, &vec![0; 17_000]), name(&[protected])]);
            hello.chunks(16_000).flat_map(record).collect()
        }
        "garbage" => [vec![b'g'; 65_536], record(&hello(&[name(&[protected])]))].concat(),
        "split" => {
            let hello = hello(&[name(&[protected])]);
            let (a, b) = hello.split_at(hello.len() - 8);
            [record(a), record(b)].concat()
        }
        "two" => record(&hello(&[name(&[INNOCENT, protected])])),
        "case" => record(&hello(&[name(&[&format!("{}.", protected.to_uppercase())])])),
        "http-innocent" => request(&format!("Host: {INNOCENT}"), "/"),
        "http-slow" => request(&format!("Host: {protected}"), "/"),
        "http-two" => request(&format!("Host: {INNOCENT}\r\nHost: {protected}"), "/"),
        "http-absolute" => request(&format!("Host: {INNOCENT}"), &format!("http://{protected}/")),
        "proxy" => return through_proxy(&mut stream, protected, &record(&hello(&[name(&[protected])]))),
        "silent" => {
            // Not synchronisation: longer than the gate waits for a client that may never speak.
            std::thread::sleep(Duration::from_secs(1));
            record(&hello(&[name(&[protected])]))
        }
        _ => record(&hello(&[name(&[protected])])),
    };
    if way.ends_with("slow") {
        for byte in &bytes {
            stream.write_all(&[*byte])?;
            // The kernel would put them together again.
            std::thread::yield_now();
        }
    } else {
        stream.write_all(&bytes)?;
    }
    echoed(&mut stream, &bytes)
}

/// Whether the host sent back how it began (a greeter answers HTTP with a page).
fn echoed(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut begin = [0; 13];
    stream.read_exact(&mut begin[..1])?;
    let rest = stream.read(&mut begin[1..])?;
    let answer = &begin[..=rest];
    if bytes.starts_with(answer) || answer.starts_with(b"HTTP/1.1 200") {
        return Ok(());
    }
    Err(std::io::Error::from_raw_os_error(nix::errno::Errno::EBADMSG as i32))
}

/// CONNECT, then TLS inside.
fn through_proxy(stream: &mut TcpStream, protected: &str, bytes: &[u8]) -> std::io::Result<()> {
    stream
        .write_all(format!("CONNECT {protected}:443 HTTP/1.1\r\nHost: {protected}:443\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(std::io::Error::from_raw_os_error(nix::errno::Errno::EACCES as i32));
    }
    stream.write_all(bytes)?;
    echoed(stream, bytes)
}

fn request(fields: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n").into_bytes()
}

/// A length in so many bytes, then the bytes.
fn counted(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
    [&length[4 - width..], bytes].concat()
}

fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1], counted(2, bytes).as_slice()].concat()
}

fn extension(kind: u16, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), counted(2, bytes).as_slice()].concat()
}

/// `server_name` with these names.
fn name(names: &[&str]) -> Vec<u8> {
    let list: Vec<u8> =
        names.iter().flat_map(|name| [&[0], counted(2, name.as_bytes()).as_slice()].concat()).collect();
    extension(0, &counted(2, &list))
}

/// `encrypted_client_hello` of the outer type, with a suite, a key and some bytes (RFC 9849).
fn encrypted() -> Vec<u8> {
    let payload = [vec![0, 0, 1, 0, 1, 42], counted(2, &[7; 32]), counted(2, &[9; 144])].concat();
    extension(0xfe0d, &payload)
}

/// A ClientHello of TLS 1.2 and 1.3.
fn hello(more: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([5; 32]);
    body.extend(counted(1, &[6; 32]));
    // GREASE, then two suites.
    body.extend(counted(2, &[0x1a, 0x1a, 0x13, 0x01, 0xc0, 0x2f]));
    body.extend([1, 0]);
    let mut extensions = extension(0x2a2a, &[]);
    more.iter().for_each(|bytes| extensions.extend(bytes));
    extensions.extend(extension(43, &counted(1, &[3, 4, 3, 3])));
    extensions.extend(extension(10, &counted(2, &[0, 29])));
    body.extend(counted(2, &extensions));
    [&[1], counted(3, &body).as_slice()].concat()
}
