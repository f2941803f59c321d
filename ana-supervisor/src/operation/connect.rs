//! What a connection is to the person who is asked: the destination, what it shows of itself, and who opens it.
//!
//! Nothing in it belongs to one connection alone (no source port, no time): alike connections are one question.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Bytes, File};

/// One connection to a destination that a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// The address that the kernel saw, IPv4-mapped ones as IPv4: "192.0.2.10" or "2001:db8::1".
    pub address: String,
    pub port: u16,
    pub transport: Transport,
    /// The name that it goes by; for [`NameSource::Dns`] the only thing that says so is the address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// Where the name comes from; absent exactly when there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name_source: Option<NameSource>,
    /// The supervisor's own look-up says that the name has this address, and no other name can be hidden behind it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub confirmed: bool,
    /// The protected names that are known to have this address.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub names: Vec<String>,
    pub tls: bool,
    /// The protocols that the client offers (TLS ALPN), in its order.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub alpn: Vec<String>,
    /// The real name may be hidden: the ClientHello has an encrypted one in it (ECH, or what looks like it).
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub encrypted_hello: bool,
    /// Who listens there, when it is a program of this host outside of the session.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub listener: Option<Listener>,
    /// The HTTP proxy ("192.0.2.3:3128") that was asked to connect there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub through: Option<String>,
    /// The executable of the process that connects; absent when it could not be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub program: Option<File>,
    /// The arguments of that process as they are now, argv\[0\] first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub argv: Vec<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cwd: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

/// Where the name of a destination comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NameSource {
    /// The server name of a TLS ClientHello.
    Sni,
    /// The Host header, or the target, of an HTTP request.
    Host,
    /// The target of an HTTP CONNECT.
    Connect,
    /// A DNS answer with this address: the connection itself shows no name.
    Dns,
}

/// A program of this host outside of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// /proc/PID/exe as it reads: a hint for people, never an identity.
    pub program: Bytes,
    pub pid: i32,
    pub uid: u32,
    /// What the socket is bound to, with the port: "127.0.0.1:5432", "\[::\]:22".
    pub address: String,
}

/// Every connection of a scope until an end, by one approval: what a rule with `for` signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectGrant {
    /// The connection that asked for it.
    pub connect: Connect,
    pub scope: GrantScope,
    /// RFC 3339, UTC, milliseconds; or "session": as long as the session lives.
    pub until: String,
}

/// What a grant covers: connections that the rule would ask about, to this name (or, without one, address) and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantScope {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    pub port: u16,
    /// The policy rule's name.
    pub rule: String,
}

impl ConnectGrant {
    /// Whether a connection that was asked about at `issued_at` (RFC 3339) is one of those that were signed for.
    pub fn covers(&self, connect: &Connect, issued_at: &str) -> bool {
        let in_time = match self.until.as_str() {
            "session" => true,
            until => match (until.parse::<jiff::Timestamp>(), issued_at.parse::<jiff::Timestamp>()) {
                (Ok(until), Ok(issued)) => issued <= until,
                (Err(_), _) | (_, Err(_)) => false,
            },
        };
        let GrantScope { name, address, port, rule: _ } = &self.scope;
        let named = |name: &String| connect.name.as_ref() == Some(name) || connect.names.contains(name);
        let listener = |connect: &Connect| connect.listener.as_ref().map(|listener| listener.address.clone());
        let there = match (name, address) {
            (Some(name), _) => named(name),
            (None, Some(_)) if self.connect.listener.is_some() => {
                return in_time && listener(&self.connect) == listener(connect);
            }
            (None, Some(address)) => connect.address == *address,
            (None, None) => false,
        };
        in_time && there && connect.port == *port
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, example_grant};

    #[test]
    fn a_grant_covers_its_scope_and_no_more() {
        let Kind::ConnectGrant(grant) = example_grant().kind else { panic!("a grant") };
        let connect = grant.connect.clone();
        let mut grant = *grant;
        grant.until = "2026-03-01T12:10:00.000Z".to_owned();
        (grant.scope.name, grant.scope.address) = (Some("api.test".to_owned()), None);
        let mut named = connect.clone();
        named.name = Some("api.test".to_owned());
        assert!(grant.covers(&named, "2026-03-01T12:10:00.000Z"));
        assert!(!grant.covers(&named, "2026-03-01T12:10:00.001Z"), "too late");
        assert!(!grant.covers(&named, "soon"));
        let other_port = super::Connect { port: named.port ^ 1, ..named.clone() };
        assert!(!grant.covers(&other_port, "2026-03-01T12:00:00.000Z"));
        let other_name =
            super::Connect { name: Some("b.test".to_owned()), names: Vec::new(), ..named.clone() };
        assert!(!grant.covers(&other_name, "2026-03-01T12:00:00.000Z"));
        (grant.scope.name, grant.scope.address) = (None, Some(named.address.clone()));
        grant.until = "session".to_owned();
        grant.connect.listener = None;
        assert!(grant.covers(&other_name, "2036-03-01T12:00:00.000Z"));
        let elsewhere = super::Connect { address: "192.0.2.99".to_owned(), ..named };
        assert!(!grant.covers(&elsewhere, "2026-03-01T12:00:00.000Z"));
    }
}
