//! `[network]` and `[[connect]]`: the settings and rules for connections, and what is asked about one.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Action, Verdict, cidr::Cidr, error::Place, host::HostPattern};
use crate::operation::Verify;

/// The name of the built-in rule for listeners of this host outside of the session.
pub const LOCAL_RULE: &str = "builtin:local-services";
/// The name of the built-in rule for servers of DNS over TLS and HTTPS.
pub const ENCRYPTED_DNS_RULE: &str = "builtin:encrypted-dns";
/// The name of the built-in rule for QUIC, which shows no name that could be inspected.
pub const QUIC_RULE: &str = "builtin:quic";
/// The name of the rule for what no other names: `[network] default`.
pub const NETWORK_RULE: &str = "builtin:network";
/// DNS (RFC 1035): the session's is answered by the supervisor, whatever server it goes to.
pub(super) const DNS_PORT: u16 = 53;
/// DNS over TLS (RFC 7858).
pub(super) const DOT_PORT: u16 = 853;
/// What a decision under way is kept for, unless the rule says otherwise.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// `[network]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// What happens to a connection that no rule names.
    pub default: Action,
    pub loopback: Loopback,
    /// Whether DNS over TLS or HTTPS may be used: names that it looks up are not seen.
    pub encrypted_dns: bool,
    /// Whether QUIC may be spoken to a port on which names are inspected.
    pub quic: bool,
    /// The ports on which the names of connections are looked at, sorted: as `inspect` says, or else those that the
    /// rules with names need.
    pub inspect: Vec<u16>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            default: Action::Allow,
            loopback: Loopback::Approve,
            encrypted_dns: false,
            quic: false,
            inspect: Vec::new(),
        }
    }
}

/// What happens to a connection to a listener of this host outside of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loopback {
    /// Asked once per listener and session.
    Approve,
    Any,
    Deny,
}

impl Loopback {
    /// The word of the policy file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Any => "any",
            Self::Deny => "deny",
        }
    }
}

/// How far one approval reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This connection.
    Once,
    /// Every connection to the same name (or address) and port, for this long.
    For(Duration),
    /// The same, as long as the session lives.
    Session,
}

/// `[[connect]]`: what happens to connections to its destinations.
#[derive(Clone, Debug)]
pub struct ConnectRule {
    pub(super) name: String,
    pub(super) hosts: Vec<Sited<HostPattern>>,
    pub(super) cidrs: Vec<Sited<Cidr>>,
    /// Sorted; empty: every port.
    pub(super) ports: Vec<u16>,
    /// Empty: every program.
    pub(super) exe: Vec<PathBuf>,
    pub(super) address: bool,
    pub(super) action: Action,
    pub(super) scope: Scope,
    pub(super) grace: Duration,
    pub(super) timeout: Duration,
    pub(super) verify: Verify,
    pub(super) tests: Vec<ConnectTest>,
}

/// A value and where it stands: "policy.toml:12:9".
#[derive(Clone, Debug)]
pub(super) struct Sited<T> {
    pub(super) value: T,
    pub(super) at: String,
}

/// One line of `[connect.test]`.
#[derive(Clone, Debug)]
pub(super) struct ConnectTest {
    pub(super) wanted: Action,
    pub(super) line: String,
    pub(super) target: Target,
    pub(super) place: Place,
}

/// Where people say that a connection goes: "api.stripe.com:443", "192.0.2.7:22", "\[2001:db8::1\]:443".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Lower case, without a trailing dot.
    Name(String, u16),
    Address(IpAddr, u16),
}

/// What a connection to a name that people ask about shows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Showing {
    /// The name, to an address that the supervisor knows to be the name's.
    Own,
    /// The name, to some address.
    Unconfirmed,
    /// No name, to an address that the supervisor knows to be the name's.
    Nothing,
}

/// Why a text is no [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("a port is missing: write it as api.example.com:443, 192.0.2.7:22 or [2001:db8::1]:443")]
    Port,
    #[error("neither a name that DNS could hold nor an address stands before the port")]
    Host,
}

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = text.rsplit_once(':').ok_or(TargetError::Port)?;
        // Digits only: `parse` would take a sign.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or(TargetError::Port)?;
        if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: std::net::Ipv6Addr = address.parse().map_err(|_none| TargetError::Host)?;
            return Ok(Self::Address(address.to_canonical(), port));
        }
        if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
            return Ok(Self::Address(address.into(), port));
        }
        super::host::host_name(host).map(|name| Self::Name(name, port)).ok_or(TargetError::Host)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Address(address, port) => write!(f, "{}", std::net::SocketAddr::new(*address, *port)),
        }
    }
}

impl ConnectRule {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names that it is about.
    pub fn hosts(&self) -> impl Iterator<Item = &HostPattern> {
        self.hosts.iter().map(|host| &host.value)
    }

    /// The names among them without stars, each of which can be looked up.
    pub fn exact_hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts().filter_map(HostPattern::exact)
    }

    pub fn cidrs(&self) -> impl Iterator<Item = Cidr> {
        self.cidrs.iter().map(|cidr| cidr.value)
    }

    /// The ports that it is about, sorted; none: every port.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The listed programs that it is about; none: every program.
    pub fn exe(&self) -> impl Iterator<Item = &Path> {
        self.exe.iter().map(PathBuf::as_path)
    }

    /// Whether a connection to an address of one of its names counts, whatever name it shows.
    pub fn address(&self) -> bool {
        self.address
    }

    pub fn action(&self) -> Action {
        self.action
    }

    pub fn scope(&self) -> Scope {
        self.scope
    }
}

/// A connection that is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// As the kernel saw it; an IPv4-mapped one counts as IPv4.
    pub address: IpAddr,
    pub port: u16,
    /// The name that it shows (SNI, Host, CONNECT), whatever that is.
    pub shown: Option<&'a str>,
    /// Another name may be hidden behind the shown one (ECH).
    pub encrypted: bool,
    /// Every protected name that is known to have the address, whoever said so.
    pub names: &'a [String],
    /// Those of `names` that the supervisor's own look-up gave. What the session's resolver says can protect an
    /// address, and never allow it.
    pub resolved: &'a [String],
    /// The supervisor's own look-up says that the shown name has this address.
    pub shown_is_its_own: bool,
    /// A listener of this host outside of the session.
    pub local: bool,
    /// The listed files that the requester's judged image is; none when no rule lists it.
    pub exe: &'a [&'a Path],
}

/// What the policy says about one connection.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectVerdict {
    pub verdict: Verdict,
    pub scope: Scope,
    /// What a decision under way is kept for when the client hangs up.
    pub grace: Duration,
    /// The name that the rule matched by, if it did by a name.
    pub name: Option<String>,
    pub by: By,
    /// The supervisor itself knows that `name` has the address, and no other name can be hidden behind it.
    pub confirmed: bool,
}

/// What decided about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The name that it shows.
    Shown,
    /// A name that its address is known by.
    Address,
    /// The address itself.
    Cidr,
    /// The listener is one of this host outside of the session.
    Local,
    /// No rule names it.
    Default,
}
