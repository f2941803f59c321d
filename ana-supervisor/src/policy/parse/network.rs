//! `[network]`.

use crate::policy::{
    Action, ConnectRule, Loopback, Network,
    connect::DNS_PORT,
    error::Problem,
    keys::{Keys, Value},
};

use super::{ACTIONS, Reader};

const KEYS: [&str; 5] = ["default", "loopback", "encrypted_dns", "quic", "inspect"];
const LOOPBACK: [(&str, Loopback); 3] =
    [("approve", Loopback::Approve), ("any", Loopback::Any), ("deny", Loopback::Deny)];
const ALLOWED: [(&str, bool); 2] = [("refuse", false), ("allow", true)];
/// Where names are looked at for a rule that leaves the port open: where clients speak HTTP and TLS.
const USUAL: [u16; 4] = [80, 443, 8080, 8443];

/// `[network]` as far as it could be read.
#[derive(Default)]
pub(super) struct Draft {
    network: Network,
    inspect: Option<Vec<u16>>,
}

impl Reader<'_> {
    pub(super) fn network(&mut self, keys: &mut Keys<'_>, value: &Value<'_>) {
        let Some(table) = keys.table(value, "network") else { return };
        self.draft.network.get_or_insert_default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if !KEYS.contains(&name) {
                keys.unknown(key, "[network]", &KEYS);
                continue;
            }
            if !self.once(keys, key.span(), &format!("network.{name}")) {
                continue;
            }
            let draft = self.draft.network.get_or_insert_default();
            let network = &mut draft.network;
            match name {
                "default" => {
                    network.default = keys.word(value, "default", &ACTIONS).unwrap_or(Action::Deny);
                }
                "loopback" => {
                    network.loopback = keys.word(value, "loopback", &LOOPBACK).unwrap_or(Loopback::Deny);
                }
                "encrypted_dns" => {
                    network.encrypted_dns = keys.word(value, "encrypted_dns", &ALLOWED).unwrap_or_default();
                }
                "quic" => network.quic = keys.word(value, "quic", &ALLOWED).unwrap_or_default(),
                _ => draft.inspect = Some(ports(keys, value, "inspect")),
            }
        }
    }
}

impl Draft {
    /// The settings, with the ports that the rules need unless they are given.
    pub(super) fn finish(self, rules: &[ConnectRule]) -> Network {
        let named = || rules.iter().filter(|rule| rule.hosts().next().is_some());
        let needed = || {
            let usual = USUAL.into_iter().filter(|_| named().any(|rule| rule.ports().is_empty()));
            named().flat_map(|rule| rule.ports().iter().copied()).chain(usual).collect()
        };
        let mut inspect: Vec<u16> = self.inspect.unwrap_or_else(needed);
        inspect.sort_unstable();
        inspect.dedup();
        Network { inspect, ..self.network }
    }
}

/// One port or a list of them, sorted.
pub(super) fn ports(keys: &mut Keys<'_>, value: &Value<'_>, key: &str) -> Vec<u16> {
    let single = value.get_ref().is_integer();
    let values =
        if single { std::slice::from_ref(value) } else { keys.array(value, key).unwrap_or_default() };
    let mut ports = Vec::new();
    for value in values {
        let port = keys.integer(value, key, 1, i64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok());
        let Some(port) = port else { continue };
        let place = keys.place(value.span());
        if port == DNS_PORT {
            let problem = Problem::new(place, format!("`{key}`: nothing can connect to port {port}"));
            keys.complain(problem.help("it is DNS, which ana answers in place of every server"));
        } else if ports.contains(&port) {
            keys.complain(Problem::new(place, format!("`{key}`: {port} is listed twice")));
        } else {
            ports.push(port);
        }
    }
    ports.sort_unstable();
    ports
}
