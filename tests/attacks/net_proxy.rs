//! Looks for whatever listens on loopback in this network namespace, and talks to each as if it were a way to the host:
//! as a proxy, as the host itself. Argument: what counts as an answer.
#![allow(clippy::expect_used, reason = "test code: a panic names what the attack was not given")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use ana_tests::attempt::{argument, say};
use nix::errno::Errno;

/// TCP_LISTEN of <net/tcp_states.h>, as /proc shows it.
const LISTENING: &str = "0A";

fn main() {
    let wanted = argument(1).to_string_lossy().into_owned();
    let mut found = ports("/proc/net/tcp", Ipv4Addr::LOCALHOST.into());
    found.extend(ports("/proc/net/tcp6", Ipv6Addr::LOCALHOST.into()));
    say(&format!("listeners {}", found.len()));
    for (number, at) in found.into_iter().enumerate() {
        let word = match talk(at, &wanted) {
            Ok(true) => "ok".to_owned(),
            Ok(false) => "closed".to_owned(),
            Err(error) => error
                .raw_os_error()
                .map_or_else(|| error.to_string(), |n| format!("{:?}", Errno::from_raw(n))),
        };
        say(&format!("attempt listener-{number}: {word}"));
    }
}

fn ports(file: &str, host: std::net::IpAddr) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let port = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (state == LISTENING).then_some(SocketAddr::new(host, port))
    };
    text.lines().skip(1).filter_map(port).collect()
}

/// Whether what comes back has the wanted words in it.
fn talk(at: SocketAddr, wanted: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: api.protected.test\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).contains(wanted))
}
