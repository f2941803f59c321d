//! What is asked for, put together for the policy and for the person: the address, the name that the connection shows, and
//! what is known of both.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use ana_common::network::{ORIGIN_LOCAL, canonical};

use super::{
    ConnectGate, Held, Listener, listener,
    names::Called,
    peek::{self, Name, Protocol, Shown},
};
use crate::{
    operation::{self, NameSource, Transport},
    policy::{Action, Destination},
};

/// Where a connection goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// For what is asked of an HTTP proxy by name: unspecified.
    pub address: SocketAddr,
    /// The HTTP proxy that the connection is to.
    pub through: Option<SocketAddr>,
}

/// One question to the policy.
#[derive(Clone, Debug)]
pub struct Asked {
    pub target: Target,
    pub shown: Shown,
    /// The protected names that the address is known by.
    pub called: Called,
    /// What else it was called, for people.
    pub other_name: Option<String>,
    pub shown_is_its_own: bool,
    /// Outside of the session, on this host.
    pub local: bool,
    pub listener: Option<Listener>,
    /// The listed files that the requester's judged image is.
    pub exe: Vec<PathBuf>,
}

impl Asked {
    /// Of a destination that shows nothing.
    pub fn bare(address: SocketAddr, called: Called) -> Self {
        Self {
            target: Target { address, through: None },
            shown: Shown::only(Protocol::Silent),
            called,
            other_name: None,
            shown_is_its_own: false,
            local: false,
            listener: None,
            exe: Vec::new(),
        }
    }

    /// The form that the policy judges.
    pub fn judge(&self, policy: &crate::policy::Policy) -> crate::policy::ConnectVerdict {
        let exe: Vec<&std::path::Path> = self.exe.iter().map(PathBuf::as_path).collect();
        policy.judge_connect(&Destination {
            address: self.target.address.ip(),
            port: self.target.address.port(),
            shown: self.shown.name.as_deref(),
            encrypted: self.shown.encrypted,
            names: &self.called.names,
            resolved: &self.called.resolved,
            shown_is_its_own: self.shown_is_its_own,
            local: self.local,
            exe: &exe,
        })
    }

    /// The operation's form, without who asks.
    pub fn connect(&self, by_name: Option<&str>, confirmed: bool) -> operation::Connect {
        let source = self.shown.source.map(|source| match source {
            peek::NameSource::Sni => NameSource::Sni,
            peek::NameSource::Host => NameSource::Host,
            peek::NameSource::Connect => NameSource::Connect,
        });
        let (name, name_source) = match (&self.shown.name, by_name.or(self.other_name.as_deref())) {
            (Some(shown), _) => (Some(shown.as_str().to_owned()), source),
            (None, Some(known)) => (Some(known.to_owned()), Some(NameSource::Dns)),
            (None, None) => (None, None),
        };
        operation::Connect {
            address: self.target.address.ip().to_string(),
            port: self.target.address.port(),
            transport: Transport::Tcp,
            name,
            name_source,
            confirmed,
            names: self.called.names.clone(),
            tls: self.shown.tls,
            alpn: self.shown.alpn.clone(),
            encrypted_hello: self.shown.encrypted,
            listener: self.listener.as_ref().map(|listener| operation::Listener {
                program: listener
                    .owner
                    .as_ref()
                    .map_or_else(|| operation::Bytes(Vec::new()), |owner| owner.exe.clone()),
                pid: listener.owner.as_ref().map_or(0, |owner| owner.pid),
                uid: listener.uid,
                address: listener.at.to_string(),
            }),
            through: self.target.through.map(|proxy| proxy.to_string()),
            program: None,
            argv: Vec::new(),
            cwd: None,
        }
    }

    /// What a standing grant for it is for. `None`: nobody can tell which listener it would reach, and so another time it may
    /// be another one. A name that is not known to be the address's own stands for nothing: the next connection that shows it
    /// may go anywhere.
    pub fn granted_target(&self, by_name: Option<&str>, confirmed: bool) -> Option<super::grants::Target> {
        let address = self.target.address;
        let target = match (&self.listener, by_name.filter(|_| confirmed)) {
            (Some(listener), _) => super::grants::Target::Listener(listener.at, listener.socket),
            (None, _) if self.local => return None,
            (None, Some(name)) => super::grants::Target::Name(name.to_owned(), address.port()),
            (None, None) => super::grants::Target::Address(address),
        };
        Some(target)
    }
}

impl ConnectGate {
    /// What the policy has to be asked about a held connection: the address that it goes to, and, if that is an HTTP proxy,
    /// the host that it asks of the proxy. All of it must be allowed.
    pub async fn asked(&self, held: &Held) -> Vec<Asked> {
        let shown = held.shown();
        // What it stands for is judged; what was asked for is dialled.
        let direct = SocketAddr::new(canonical(held.destination().ip()), held.destination().port());
        let local = held.origin().flags & ORIGIN_LOCAL != 0;
        let listener = match local {
            // It reads proc, which takes its time.
            true => {
                let socket = held.origin().listener;
                self.limits.in_tables(move || listener::find(direct.port(), socket)).await.ok()
            }
            false => None,
        };
        let to_proxy = shown.absolute || shown.protocol == Protocol::Connect;
        let exe = self.common.judged.listed(held.origin());
        let called = self.protected_names(direct.ip());
        let mut first = Asked { local, listener: listener.flatten(), exe, ..Asked::bare(direct, called) };
        first.other_name = self.known().names.other_name(direct.ip()).map(str::to_owned);
        if !to_proxy && !held.is_inner() {
            first.shown_is_its_own = match &shown.name {
                Some(name) => self.shows_its_own(name, &first).await,
                None => false,
            };
            first.shown = shown.clone();
            return vec![first];
        }
        let behind = self.behind(held, &first);
        match held.is_inner() {
            // The way to the proxy, and what was asked of it, are decided.
            true => vec![behind],
            false => vec![first, behind],
        }
    }

    /// The host that an HTTP proxy is asked for. Whoever is asked for a name looks it up itself.
    fn behind(&self, held: &Held, first: &Asked) -> Asked {
        let shown = held.shown();
        let port = shown.target_port.unwrap_or(if shown.absolute { 80 } else { held.tunnel_port() });
        let host = shown.address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let names = match shown.address {
            Some(address) => self.protected_names(address),
            None => Called::default(),
        };
        let target =
            Target { address: SocketAddr::new(canonical(host), port), through: Some(held.destination()) };
        let mut behind = Asked { exe: first.exe.clone(), ..Asked::bare(target.address, names) };
        (behind.target, behind.shown, behind.shown_is_its_own) = (target, shown.clone(), true);
        if behind.shown.name.is_none() {
            // What is inside of a tunnel and shows no name goes where the tunnel goes.
            behind.shown.name = held.tunnel_name().cloned();
        }
        behind
    }

    /// Whether the name that is shown is one of the address. Where neither a verdict nor what a person is told could depend
    /// on it, nobody is asked, and it counts as not known to be.
    async fn shows_its_own(&self, name: &Name, asked: &Asked) -> bool {
        let address: IpAddr = asked.target.address.ip();
        let default = self.policy.network().map_or(Action::Allow, |network| network.default);
        let listed = self.policy.connect_rules().iter().any(|rule| rule.cidrs().any(|c| c.contains(address)));
        let plain = default == Action::Allow && asked.called.names.is_empty() && !listed;
        if plain && self.protected(name).is_none() {
            return false;
        }
        self.is_its_own(name, address).await
    }
}
