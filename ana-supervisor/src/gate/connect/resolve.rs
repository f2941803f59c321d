//! The supervisor's own look-ups: of protected names, so that their addresses are known before the agent asks, and of names
//! that a connection shows, to see whether they are the address's own. The servers are the host's, never the agent's.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{
    dial,
    peek::{Answer, Name, QueryKind, dns_query},
    reader::AnswerReader,
};
use crate::sys;

const PORT: u16 = 53;
/// How long one server may take.
const LIMIT: Duration = Duration::from_secs(2);
/// A name that could not be looked up is asked for again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// What is found counts for at least, and at most, this long.
const COUNTS_FOR: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(60 * 60)];
/// Names that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// The addresses of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub addresses: Vec<IpAddr>,
    /// When to ask again.
    pub until: Instant,
}

/// Asks the host's own servers.
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    hosts: HashMap<String, Vec<IpAddr>>,
    reader: AnswerReader,
    remembered: Mutex<HashMap<Name, Found>>,
}

impl Resolver {
    /// With the servers of /etc/resolv.conf and the names of /etc/hosts.
    pub(super) fn new(reader: AnswerReader) -> Self {
        let conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        Self { servers: servers(&conf), hosts: hosts_of(&hosts), reader, remembered: Mutex::default() }
    }

    /// The host's servers.
    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The addresses of a name. What cannot be looked up has none.
    pub(super) async fn addresses(&self, name: &Name) -> Found {
        let now = Instant::now();
        if let Some(found) = self.remembered.lock().await.get(name).filter(|found| found.until > now) {
            return found.clone();
        }
        let mut addresses = self.hosts.get(name.as_str()).cloned().unwrap_or_default();
        let (v4, v6) = tokio::join!(self.ask(name, QueryKind::A), self.ask(name, QueryKind::Aaaa));
        let mut lasts = None;
        for answer in [v4, v6].into_iter().flatten() {
            addresses.extend(&answer.addresses);
            let seconds = Duration::from_secs(answer.ttl.into());
            lasts = Some(lasts.map_or(seconds, |shortest: Duration| shortest.min(seconds)));
        }
        addresses.sort_unstable();
        addresses.dedup();
        let [least, most] = COUNTS_FOR;
        let found = Found { addresses, until: now + lasts.map_or(AGAIN, |lasts| lasts.clamp(least, most)) };
        let mut remembered = self.remembered.lock().await;
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(name.clone(), found.clone());
        found
    }

    /// The first server's answer that is one.
    async fn ask(&self, name: &Name, kind: QueryKind) -> Option<Answer> {
        for server in &self.servers {
            let asked = tokio::time::timeout(LIMIT, self.ask_one(*server, name, kind)).await;
            match asked {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, name = name.as_str(), "no answer"),
                Err(_elapsed) => tracing::debug!(%server, name = name.as_str(), "no answer in time"),
            }
        }
        None
    }

    async fn ask_one(&self, server: SocketAddr, name: &Name, kind: QueryKind) -> io::Result<Answer> {
        let mut id = [0; 2];
        sys::process::random(&mut id)?;
        let query = dns_query(u16::from_be_bytes(id), name, kind).map_err(io::Error::other)?;
        let socket = dial::udp(server, 0).await?;
        socket.send(&query).await?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let message = buffer.get(..length).unwrap_or_default();
            if !message.starts_with(&id) {
                // Somebody else's guess.
                continue;
            }
            let answer = match super::dns::is_truncated(message) {
                true => self.reader.read(&super::dns::ask_tcp(server, 0, &query).await?).await,
                false => self.reader.read(message).await,
            };
            let answer = answer.ok_or_else(|| io::Error::other("not a DNS answer"))?;
            return match answer.question.as_ref() == Some(name) {
                true => Ok(answer),
                false => Err(io::Error::other("the answer is to another question")),
            };
        }
    }
}

/// `nameserver ADDRESS` (resolv.conf(5)); without any, the host itself.
fn servers(conf: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        // A scope (%eth0) is of no use without its interface's number.
        (words.next()? == "nameserver").then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    let mut servers: Vec<SocketAddr> =
        conf.lines().filter_map(address).map(|address| SocketAddr::new(address, PORT)).collect();
    if servers.is_empty() {
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
    }
    servers
}

/// `ADDRESS NAME…` (hosts(5)).
fn hosts_of(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        for name in words {
            hosts.entry(name.trim_end_matches('.').to_ascii_lowercase()).or_default().push(address);
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_servers_are_those_of_resolv_conf() {
        let conf = "# x\nsearch a.test\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n nameserver ::1 x\n";
        assert_eq!(servers(conf), ["192.0.2.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(servers(""), ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn names_of_hosts_are_in_lower_case() {
        let hosts = hosts_of("127.0.0.1 localhost\n192.0.2.7 API.test. other # third\nx y\n");
        assert_eq!(hosts["api.test"], ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(hosts["other"], hosts["api.test"]);
        assert!(!hosts.contains_key("third") && !hosts.contains_key("y"));
    }
}
