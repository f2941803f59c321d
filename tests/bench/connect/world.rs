//! Where it is measured: a session's network namespace and the hosts', two grounds, and servers that answer at once.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::AtomicU64},
};

use ana_tests::{
    Ground, Net,
    bench::Worker,
    net::{API, INNOCENT, NAMELESS, both},
};

use crate::{
    servers::{Servers, Told},
    sockmap,
};

/// Nothing inspects this one.
pub(crate) const UNLISTED: SocketAddr = at(NAMELESS.0, 7000);
/// Every name on port 443 is looked at; this one's is nobody's business.
pub(crate) const INSPECTED: SocketAddr = at(INNOCENT.0, 443);
/// The same, for what leaves thousands of closed connections behind: they must not stand in each other's way.
pub(crate) const INSPECTED_OFTEN: [SocketAddr; 2] = [at(INNOCENT.0, 8443), at(INNOCENT.0, 8080)];
/// The same, whose servers send as much as they are asked for.
pub(crate) const INSPECTED_BULK: SocketAddr = at(NAMELESS.0, 443);
/// Outside of the session, on its own loopback device.
pub(crate) const LOCAL_BULK: SocketAddr = at(Ipv4Addr::new(127, 0, 0, 9), 9000);
/// Join whoever comes with the two above by a sockmap.
pub(crate) const MAPPED_BULK: SocketAddr = at(Ipv4Addr::new(127, 0, 0, 9), 9001);
pub(crate) const MAPPED_LOCAL_BULK: SocketAddr = at(Ipv4Addr::new(127, 0, 0, 9), 9002);
/// Is asked about.
pub(crate) const PROTECTED: SocketAddr = at(API.0, 443);
/// So many connections wait at once.
pub(crate) const HELD: usize = 200;

const fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(address, port))
}

pub(crate) struct World {
    pub(crate) ground: Ground,
    /// For a second session.
    idle: Ground,
    net: Net,
    probe: String,
    pub(crate) told: Told,
    /// How much each of the two servers that send as much as they are asked for has sent on its last connection.
    pub(crate) sent: Arc<AtomicU64>,
    pub(crate) sent_locally: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn new() -> Self {
        let ground = Ground::new("bench-connect");
        let idle = Ground::new("bench-connect-idle");
        let net = Net::closed("bench-connect");
        net.dns.put("*.protected.test", &both(API));
        for ground in [&ground, &idle] {
            ground.connecting(&format!(
                "[session]\nmax_holds = {}\n[defaults]\ntimeout = \"1h\"\n\
                 [[connect]]\nname = \"bulk\"\ncidr = [\"{}\"]\nport = [{}]\nverdict = \"allow\"\n\
                 [[connect]]\nname = \"api\"\nhost = [\"*.protected.test\"]\n",
                HELD + 1,
                LOCAL_BULK.ip(),
                LOCAL_BULK.port(),
            ));
        }
        let probe = ground.install("bench-connect", "probe");
        let (told, sent) = net.at_hosts(|| {
            Servers::closing(UNLISTED);
            Servers::answering(INSPECTED);
            INSPECTED_OFTEN.into_iter().for_each(Servers::answering);
            (Servers::telling(PROTECTED), Servers::bulk(INSPECTED_BULK))
        });
        let sent_locally = net.at_client(|| {
            // Of a smaller range ten thousand closed connections use most, and to look for a free port takes milliseconds.
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")
                .expect("of this namespace only");
            sockmap::relay(&[(MAPPED_BULK, INSPECTED_BULK), (MAPPED_LOCAL_BULK, LOCAL_BULK)]);
            Servers::bulk(LOCAL_BULK)
        });
        let probe = probe.to_str().expect("text").to_owned();
        Self { ground, idle, net, probe, told, sent, sent_locally }
    }

    fn command(&self) -> [&str; 2] {
        [&self.probe, "probe"]
    }

    pub(crate) fn bare(&self) -> Worker {
        Worker::bare_in(&self.net, &self.ground, &self.command())
    }

    pub(crate) fn session(&self) -> Worker {
        Worker::in_session_in(&self.net, &self.ground, &self.command())
    }

    pub(crate) fn idle_session(&self) -> Worker {
        Worker::in_session_in(&self.net, &self.idle, &self.command())
    }
}
