//! What people see of a connection, and of a grant for many.

use super::{Page, ascii, shell_quoted};
use crate::operation::{Connect, ConnectGrant, NameSource, Transport};

impl Connect {
    /// `connect to api.stripe.com:443 (192.0.2.10)`, and what is not as it should be behind the address.
    pub(super) fn summary(&self) -> String {
        let mut more = Vec::new();
        let to = match &self.name {
            Some(name) => {
                more.push(ascii(&self.address));
                endpoint(name, self.port)
            }
            None => endpoint(&self.address, self.port),
        };
        if self.name.is_some() && !self.confirmed {
            more.push("NOT CONFIRMED".to_owned());
        }
        if self.transport == Transport::Udp {
            more.push("UDP".to_owned());
        }
        if let Some(listener) = &self.listener {
            more.push(format!("a program of this host: {}", shell_quoted(&listener.program.0)));
        }
        if let Some(through) = &self.through {
            more.push(format!("through {}", named(through)));
        }
        match more.is_empty() {
            true => format!("connect to {to}"),
            false => format!("connect to {to} ({})", more.join(", ")),
        }
    }
}

impl ConnectGrant {
    /// `EVERY connection to api.stripe.com:443 until …`.
    pub(super) fn summary(&self) -> String {
        format!("EVERY connection to {} until {}", self.covered(), self.end())
    }

    /// What it covers; without a name or an address that is whatever the rule asks about.
    fn covered(&self) -> String {
        let scope = &self.scope;
        match (&scope.name, &scope.address) {
            (Some(name), Some(address)) => format!("{} at {}", endpoint(name, scope.port), named(address)),
            (Some(one), None) | (None, Some(one)) => endpoint(one, scope.port),
            (None, None) => format!("ANY ADDRESS, port {}", scope.port),
        }
    }

    fn end(&self) -> String {
        match self.until.as_str() {
            "session" => "the session ends".to_owned(),
            time => ascii(time),
        }
    }
}

impl Page {
    /// Everything about the grant that is not about the connection that asked for it.
    pub(super) fn grant(&mut self, grant: &ConnectGrant) {
        self.warn("grants", &format!("EVERY connection to {}", grant.covered()));
        self.field("", &format!("that rule {} would ask about", shell_quoted(grant.scope.rule.as_bytes())));
        self.field("until", &grant.end());
        self.field("asked for", &grant.connect.summary());
    }

    /// One fact a line.
    pub(super) fn connect(&mut self, connect: &Connect) {
        let transport = match connect.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        };
        self.field("address", &format!("{} port {} {transport}", ascii(&connect.address), connect.port));
        self.names(connect);
        if let Some(through) = &connect.through {
            self.field("through", &format!("the HTTP proxy {}", named(through)));
        }
        let offers: Vec<String> = connect.alpn.iter().map(|name| shell_quoted(name.as_bytes())).collect();
        match (connect.tls, offers.is_empty()) {
            (false, true) => self.field("protocol", "no TLS"),
            (true, true) => self.field("protocol", "TLS"),
            (true, false) => self.field("protocol", &format!("TLS, offers {}", offers.join(" "))),
            (false, false) => self.field("protocol", &format!("no TLS, offers {}", offers.join(" "))),
        }
        if connect.encrypted_hello {
            self.warn("", "ENCRYPTED: another name may be hidden behind the one shown");
        }
        if let Some(listener) = &connect.listener {
            self.warn("listener", &listener.program.escaped());
            self.field("", &format!("process {} of uid {}, not of this session", listener.pid, listener.uid));
            self.field("", &format!("listens on {}", ascii(&listener.address)));
        }
        match &connect.program {
            Some(program) => self.file("program", program),
            None => self.warn("program", "could not be read"),
        }
        self.arguments(&connect.argv);
    }

    fn names(&mut self, connect: &Connect) {
        let from = |source: NameSource| match source {
            NameSource::Sni => "as the TLS server name (SNI) says",
            NameSource::Host => "as the HTTP request says",
            NameSource::Connect => "as the HTTP CONNECT says",
            NameSource::Dns => "as DNS says of the address; the connection shows no name",
        };
        match (&connect.name, connect.name_source) {
            (None, None) => self.field("name", "none is shown"),
            (None, Some(source)) => self.field("name", &format!("none, {}", from(source))),
            (Some(name), source) => {
                self.field("name", &named(name));
                self.field("", source.map_or("from nowhere", from));
                match connect.confirmed {
                    true => self.field("", "ana's own look-up gives this address for it"),
                    false => self.warn("", "NOT CONFIRMED: the address may be anybody's"),
                }
            }
        }
        let mut label = "known as";
        for name in &connect.names {
            self.field(label, &named(name));
            label = "";
        }
    }
}

/// "name:443", "192.0.2.1:22", "\[2001:db8::1\]:22".
fn endpoint(host: &str, port: u16) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{}:{port}", named(host)),
    }
}

/// A name, an address, or an address with its port as it is; anything else quoted, so that it cannot be taken for more
/// than one word.
fn named(text: &str) -> String {
    let address = || text.parse::<std::net::IpAddr>().is_ok() || text.parse::<std::net::SocketAddr>().is_ok();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if (!text.is_empty() && text.bytes().all(plain)) || address() {
        return text.to_owned();
    }
    match shell_quoted(text.as_bytes()) {
        quoted if quoted.starts_with(['\'', '$']) => quoted,
        bare => format!("'{bare}'"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::operation::{Kind, Operation, example_connect, example_grant};

    fn changed(change: impl FnOnce(&mut Connect)) -> Operation {
        let mut operation = example_connect();
        let Kind::Connect(connect) = &mut operation.kind else { panic!("a connection") };
        change(connect);
        operation
    }

    fn without_name(connect: &mut Connect) {
        (connect.name, connect.name_source, connect.confirmed) = (None, None, false);
        connect.names.clear();
    }

    #[test]
    fn summaries() {
        let summary = |change: fn(&mut Connect)| changed(change).summary();
        assert_eq!(summary(|_| ()), "connect to api.stripe.com:443 (192.0.2.10)");
        assert_eq!(summary(without_name), "connect to 192.0.2.10:443");
        assert_eq!(
            summary(|c| {
                without_name(c);
                c.address = "2001:db8::1".into();
                c.transport = Transport::Udp;
            }),
            "connect to [2001:db8::1]:443 (UDP)"
        );
        assert_eq!(
            summary(|c| (c.confirmed, c.through) = (false, Some("192.0.2.3:3128".into()))),
            "connect to api.stripe.com:443 (192.0.2.10, NOT CONFIRMED, through 192.0.2.3:3128)"
        );
        assert_eq!(
            summary(|c| c.name = Some("a.example:443 (192.0.2.1)\x1b".into())),
            r"connect to $'a.example:443 (192.0.2.1)\x1b':443 (192.0.2.10)"
        );
        assert_eq!(summary(|c| c.name = Some("a:1".into())), "connect to 'a:1':443 (192.0.2.10)");
        assert_eq!(example_grant().summary(), "EVERY connection to 127.0.0.1:5432 until the session ends");
    }

    #[test]
    fn the_prompt_in_full() {
        let operation = changed(|c| {
            c.names.push("b.example\n".into());
            c.confirmed = false;
            c.encrypted_hello = true;
            c.alpn.push("x\u{1b} y".into());
        });
        let expected = r"connect to api.stripe.com:443 (192.0.2.10, NOT CONFIRMED)

rule         payments
address      192.0.2.10 port 443 TCP
name         api.stripe.com
             as the TLS server name (SNI) says
             NOT CONFIRMED: the address may be anybody's
known as     api.stripe.com
             $'b.example\n'
protocol     TLS, offers h2 http/1.1 $'x\x1b y'
             ENCRYPTED: another name may be hidden behind the one shown
program      /usr/bin/curl
             dev 254:1 inode 131234
             sha256 n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg
  [0]  4 bytes  curl
  [1] 23 bytes  https://api.stripe.com/
asked by     process 4242 < /usr/bin/bash (4240) < /usr/bin/node (4200)
directory    /home/alice/project
user         uid 1000
session      01J8ZQ4T00000000000000000S
host         workstation
passkey      presence (a touch)
expires      2026-03-01T12:02:00.000Z: nobody answers, it is denied
operation    01J8ZQ4T6M9B2N3C4D5E6F7G8H
";
        assert_eq!(operation.prompt(80, false), expected);
        assert!(operation.prompt(80, true).starts_with("\x1b[1mconnect to api"));
        let confirmed = example_connect().prompt(80, false);
        assert!(
            confirmed.contains("             ana's own look-up gives this address for it\n"),
            "{confirmed}"
        );
    }

    #[test]
    fn the_prompt_of_a_grant_in_full() {
        let expected = r"EVERY connection to 127.0.0.1:5432 until the session ends

rule         builtin:local-services
grants       EVERY connection to 127.0.0.1:5432
             that rule builtin:local-services would ask about
until        the session ends
asked for    connect to 127.0.0.1:5432 (a program of this host: /usr/lib/postgre
             sql/17/bin/postgres)
address      127.0.0.1 port 5432 TCP
name         none is shown
protocol     no TLS
listener     /usr/lib/postgresql/17/bin/postgres
             process 812 of uid 113, not of this session
             listens on 127.0.0.1:5432
program      /usr/bin/curl
             dev 254:1 inode 131234
             sha256 n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg
  [0]  4 bytes  curl
  [1] 23 bytes  https://api.stripe.com/
asked by     process 4242 < /usr/bin/bash (4240) < /usr/bin/node (4200)
directory    /home/alice/project
user         uid 1000
session      01J8ZQ4T00000000000000000S
host         workstation
passkey      presence (a touch)
expires      2026-03-01T12:02:00.000Z: nobody answers, it is denied
operation    01J8ZQ4T6M9B2N3C4D5E6F7G8H
";
        assert_eq!(example_grant().prompt(80, false), expected);
    }

    #[test]
    fn a_grant_names_all_that_it_covers() {
        let mut operation = example_grant();
        let Kind::ConnectGrant(grant) = &mut operation.kind else { panic!("a grant") };
        grant.until = "2026-03-01T12:10:00.000Z".into();
        grant.scope.name = Some("api.stripe.com".into());
        let both = "EVERY connection to api.stripe.com:5432 at 127.0.0.1 until 2026-03-01T12:10:00.000Z";
        assert_eq!(grant.summary(), both);
        (grant.scope.name, grant.scope.address) = (None, None);
        assert!(grant.summary().starts_with("EVERY connection to ANY ADDRESS, port 5432 until "));
    }

    proptest! {
        #[test]
        fn nothing_but_printable_ascii_within_the_width_and_nothing_cut(
            texts in prop::collection::vec("\\PC{0,40}|[\u{0}-\u{1f}a' ]{0,9}", 9..10),
            argv in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4),
            flags in any::<[bool; 6]>(), width in 40usize..120,
        ) {
            let mut operation = if flags[0] { example_connect() } else { example_grant() };
            let (Kind::Connect(_) | Kind::ConnectGrant(_)) = &operation.kind else { panic!("a connection") };
            if let Kind::ConnectGrant(grant) = &mut operation.kind {
                grant.until = texts[6].clone();
                grant.scope.rule = texts[7].clone();
                grant.scope.name = flags[5].then(|| texts[8].clone());
            }
            let connect = match &mut operation.kind {
                Kind::Connect(connect) => connect,
                Kind::ConnectGrant(grant) => &mut grant.connect,
                Kind::Exec(_) => panic!("a connection"),
            };
            connect.address = texts[0].clone();
            connect.name = flags[1].then(|| texts[1].clone());
            connect.names = vec![texts[2].clone()];
            connect.alpn = vec![texts[3].clone()];
            connect.through = flags[2].then(|| texts[4].clone());
            (connect.tls, connect.encrypted_hello) = (flags[3], flags[4]);
            connect.argv = argv.iter().map(|argument| argument.as_slice().into()).collect();
            if let Some(listener) = &mut connect.listener {
                listener.address = texts[5].clone();
            }
            let prompt = operation.prompt(width, false);
            for line in prompt.lines() {
                prop_assert!(line.len() <= width, "{} columns: {line}", line.len());
                prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
            }
            let flat: String = prompt.lines().map(|line| line.strip_prefix("             ").unwrap_or(line)).collect();
            for word in argv.iter().map(|argument| shell_quoted(argument)).chain([named(&texts[2])]) {
                prop_assert!(flat.contains(&word), "{} is not whole in\n{}", word, prompt);
            }
            prop_assert!(operation.summary().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }

        #[test]
        fn names_are_quoted_injectively(a in "[a:' \\\\.]{0,4}|\\PC{0,3}", b in "[a:' \\\\.]{0,4}|\\PC{0,3}") {
            prop_assert_eq!(named(&a) == named(&b), a == b);
        }
    }
}
