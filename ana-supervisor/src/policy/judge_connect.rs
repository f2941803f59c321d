//! The verdict on one connection.
//!
//! A name is only what a client says: it may show any name to any address. So a shown name can always make a
//! connection stricter, and makes it more lenient only where the supervisor itself knows that the name has that
//! address. The same goes for the names of an address: what the session's resolver said can protect it, never allow
//! it.

use std::net::IpAddr;

use super::{
    Action, Cidr, Policy, Verdict,
    connect::{
        By, ConnectRule, ConnectVerdict, DNS_PORT, DOT_PORT, Destination, ENCRYPTED_DNS_RULE, GRACE,
        LOCAL_RULE, Loopback, NETWORK_RULE, Network, Scope, Showing, Target,
    },
    host::host_name,
    resolvers::{resolver_of_address, resolver_of_name},
};

/// A destination, its name in its one spelling; the address is missing where people ask about a name alone.
struct Asked<'a> {
    address: Option<IpAddr>,
    shown: Option<String>,
    on: Destination<'a>,
}

/// What a rule has to do with a connection.
enum Fit {
    Not,
    /// It would allow it, if this were not so.
    Doubt(&'static str),
    Decides(Match),
}

struct Match {
    by: By,
    name: Option<String>,
    /// The supervisor itself knows that the name has the address, and no other can be hidden; or it is no name.
    sure: bool,
    because: String,
}

const UNCONFIRMED: &str = "the address is not known to be that of the name shown";
const ENCRYPTED: &str = "another name may be hidden behind the one shown";
const NAMELESS: &str = "it shows no name";

impl Policy {
    /// Judges a connection. The rules are asked in order, and the first that matches decides:
    ///
    /// 1. `port` and `exe` restrict a rule: for another port, or a requester whose judged image is none of its listed
    ///    files, it is skipped. Of `host` and `cidr` one has to match.
    /// 2. `cidr` matches by the address, whatever is shown.
    /// 3. `host` matches if the shown name does. What is no name (an address, an empty text) counts as none shown. If
    ///    none is shown, or another may be hidden behind it (`encrypted`), or it was not confirmed that the shown name
    ///    has this address, then it also matches if one of the names known for the address does. With `address = true`
    ///    those count whatever is shown.
    /// 4. A rule that *allows* is held to more, whatever the default is: it matches by the shown name only if that is
    ///    confirmed to be the address's own and nothing is hidden behind it, and by the address's names only with
    ///    `address = true` and a name that the supervisor itself has looked up. Otherwise any connection could pass by
    ///    showing an allowed name to any address. Where the proof is missing the rule is skipped (the reason is in
    ///    `because`), so that a stricter rule behind it, or the default, decides.
    ///
    /// While the default is not `allow`, an approval by a name that is not known to be the address's own holds once,
    /// whatever `for` says: a grant for the name would let the next connection that shows it pass to any address.
    ///
    /// If no rule matches: servers of encrypted DNS (port 853, a listed name, a listed address but for port 53) are
    /// denied under `builtin:encrypted-dns`, unless `encrypted_dns = "allow"`; a listener of this host outside of the
    /// session is decided by `loopback` under `builtin:local-services` (never by the default: it is nowhere else); and
    /// the rest by `default` under `builtin:network`.
    ///
    /// Without a gate ([`Policy::network`]) everything is allowed.
    pub fn judge_connect(&self, asked: &Destination<'_>) -> ConnectVerdict {
        let shown = asked.shown.and_then(host_name);
        self.judge_asked(&Asked { address: Some(asked.address.to_canonical()), shown, on: *asked })
    }

    /// Judges what people ask about: for a name, rules with `cidr` match only if they name every address. A loopback address stands for a listener outside of the session. `exe` is as in [`Destination`].
    pub fn judge_target(
        &self,
        target: &Target,
        showing: Showing,
        exe: &[&std::path::Path],
    ) -> ConnectVerdict {
        let on = |address: IpAddr, port| Destination {
            address,
            port,
            shown: None,
            encrypted: false,
            names: &[],
            resolved: &[],
            shown_is_its_own: false,
            local: false,
            exe,
        };
        match target {
            Target::Address(address, port) => {
                let address = address.to_canonical();
                let on = Destination { local: address.is_loopback(), ..on(address, *port) };
                self.judge_asked(&Asked { address: Some(address), shown: None, on })
            }
            Target::Name(name, port) => {
                let names = std::slice::from_ref(name);
                let on = on(std::net::Ipv4Addr::UNSPECIFIED.into(), *port);
                let (shown, on) = match showing {
                    Showing::Own => (Some(name.clone()), Destination { shown_is_its_own: true, ..on }),
                    Showing::Unconfirmed => (Some(name.clone()), on),
                    Showing::Nothing => (None, Destination { names, resolved: names, ..on }),
                };
                self.judge_asked(&Asked { address: None, shown, on })
            }
        }
    }

    fn judge_asked(&self, asked: &Asked<'_>) -> ConnectVerdict {
        let mut doubt = None;
        for rule in &self.connect {
            match rule.fit(asked) {
                Fit::Not => {}
                Fit::Doubt(why) => doubt = doubt.or(Some((rule, why))),
                Fit::Decides(found) => {
                    let strict =
                        self.network.as_ref().is_some_and(|network| network.default != Action::Allow);
                    return with_doubt(rule.connect_verdict(found, strict), doubt);
                }
            }
        }
        let allowed = Network::default();
        let network = self.network.as_ref().unwrap_or(&allowed);
        let gate = self.network.is_some();
        let refused = (gate && !network.encrypted_dns).then(|| encrypted_dns(asked)).flatten();
        let decided = match refused {
            Some((by, name, why)) => {
                let because = format!("[network] encrypted_dns = \"refuse\": {why}");
                self.built_in(ENCRYPTED_DNS_RULE, Action::Deny, because, (by, name))
            }
            None if gate && asked.on.local => self.local(network.loopback),
            None => {
                let because = match gate {
                    true => format!("no rule decides: [network] default = \"{}\"", network.default.word()),
                    false => "the policy has neither [network] nor [[connect]]".to_owned(),
                };
                self.built_in(NETWORK_RULE, network.default, because, (By::Default, None))
            }
        };
        with_doubt(decided, doubt)
    }

    fn local(&self, loopback: Loopback) -> ConnectVerdict {
        let action = match loopback {
            Loopback::Approve => Action::Approve,
            Loopback::Any => Action::Allow,
            Loopback::Deny => Action::Deny,
        };
        let because = format!(
            "a program of this host outside of the session: [network] loopback = \"{}\"",
            loopback.word()
        );
        let verdict = self.built_in(LOCAL_RULE, action, because, (By::Local, None));
        ConnectVerdict { scope: Scope::Session, ..verdict }
    }

    fn built_in(
        &self,
        rule: &str,
        action: Action,
        because: String,
        (by, name): (By, Option<String>),
    ) -> ConnectVerdict {
        let Self { defaults, .. } = self;
        let verdict = Verdict {
            action,
            rule: rule.to_owned(),
            because,
            timeout: defaults.timeout,
            verify: defaults.verify,
            needs_argv: false,
            exclusive: false,
        };
        ConnectVerdict { verdict, scope: Scope::Once, grace: GRACE, name, by, confirmed: false }
    }
}

/// A connection that is not allowed says which rule would have allowed it, and what it lacked.
fn with_doubt(mut decided: ConnectVerdict, doubt: Option<(&ConnectRule, &'static str)>) -> ConnectVerdict {
    if let Some((rule, why)) = doubt.filter(|_| decided.verdict.action != Action::Allow) {
        let more = format!("; rule \"{}\" does not allow it: {why}", rule.name);
        decided.verdict.because.push_str(&more);
    }
    decided
}

/// Whether the connection is one to a server of encrypted DNS, by what, and why.
fn encrypted_dns(asked: &Asked<'_>) -> Option<(By, Option<String>, String)> {
    let by_name = |by: By, name: &String| {
        let listed = resolver_of_name(name)?;
        Some((by, Some(name.clone()), format!("{listed} is a public resolver")))
    };
    let shown = asked.shown.as_ref().and_then(|shown| by_name(By::Shown, shown));
    let known =
        || asked.on.names.iter().filter(|_| asked.hides()).find_map(|name| by_name(By::Address, name));
    let address = || {
        let range = asked.address.filter(|_| asked.on.port != DNS_PORT).and_then(resolver_of_address)?;
        Some((By::Cidr, None, format!("{range} is a public resolver")))
    };
    let tls = || {
        let why = format!("port {DOT_PORT} is DNS over TLS");
        (asked.on.port == DOT_PORT).then_some((By::Default, None, why))
    };
    shown.or_else(known).or_else(address).or_else(tls)
}

impl Asked<'_> {
    /// Whether the name that is shown may not be what the connection is about.
    fn hides(&self) -> bool {
        self.shown.is_none() || self.on.encrypted || !self.on.shown_is_its_own
    }
}

impl ConnectRule {
    fn fit(&self, asked: &Asked<'_>) -> Fit {
        let port = self.ports.is_empty() || self.ports.contains(&asked.on.port);
        let exe = self.exe.is_empty() || self.exe().any(|file| asked.on.exe.contains(&file));
        if !port || !exe {
            return Fit::Not;
        }
        let by_name = self.by_name(asked);
        let by_address = || {
            let range = match asked.address {
                Some(address) => self.cidrs.iter().find(|range| range.value.contains(address))?,
                // Whatever the address is.
                None => {
                    let whole = || self.cidrs.iter().find(|range| range.value.prefix() == 0);
                    Cidr::everywhere(self.cidrs()).then(whole).flatten()?
                }
            };
            let because = format!("{}: {} cidr \"{}\"", range.at, self.action.word(), range.value);
            Some(Fit::Decides(Match { by: By::Cidr, name: None, sure: true, because }))
        };
        match by_name {
            Fit::Decides(_) => by_name,
            Fit::Not | Fit::Doubt(_) => by_address().unwrap_or(by_name),
        }
    }

    fn by_name(&self, asked: &Asked<'_>) -> Fit {
        let matching = |name: &str| self.hosts.iter().find(|host| host.value.matches_normal(name));
        let decides = |by: By, name: &str, how: &str| {
            let host = matching(name)?;
            let because =
                format!("{}: {} host \"{}\", {how}: {name}", host.at, self.action.word(), host.value.text());
            let sure = match by {
                By::Shown => asked.on.shown_is_its_own && !asked.on.encrypted,
                By::Address => asked.on.resolved.iter().any(|own| host_name(own).as_deref() == Some(name)),
                By::Cidr | By::Local | By::Default => false,
            };
            Some(Fit::Decides(Match { by, name: Some(name.to_owned()), sure, because }))
        };
        let shown = || asked.shown.as_deref().and_then(|name| decides(By::Shown, name, "shown"));
        let known = |names: &[String]| {
            names.iter().find_map(|name| decides(By::Address, &host_name(name)?, "a name of the address"))
        };
        if self.action != Action::Allow {
            let known = || known(asked.on.names).filter(|_| self.address || asked.hides());
            return shown().or_else(known).unwrap_or(Fit::Not);
        }
        let by_address = || known(asked.on.resolved).filter(|_| self.address);
        let lacking = match &asked.shown {
            None => known(asked.on.names).map(|_| NAMELESS),
            Some(_) if asked.on.encrypted => shown().map(|_| ENCRYPTED),
            Some(_) if !asked.on.shown_is_its_own => shown().map(|_| UNCONFIRMED),
            Some(_) => return shown().or_else(by_address).unwrap_or(Fit::Not),
        };
        by_address().or(lacking.map(Fit::Doubt)).unwrap_or(Fit::Not)
    }

    /// `strict`: what no rule names is not allowed.
    fn connect_verdict(&self, found: Match, strict: bool) -> ConnectVerdict {
        let Match { by, name, sure, because } = found;
        let verdict = Verdict {
            action: self.action,
            rule: self.name.clone(),
            because,
            timeout: self.timeout,
            verify: self.verify,
            needs_argv: false,
            exclusive: false,
        };
        let scope = if sure || !strict { self.scope } else { Scope::Once };
        ConnectVerdict { verdict, scope, grace: self.grace, confirmed: sure && name.is_some(), name, by }
    }
}
