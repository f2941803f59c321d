//! Connections that wait for a person: what was asked, and that nothing was sent meanwhile.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Net, servers};
use crate::{Ground, Session, answers::Question, records::Record, wait};

impl Question {
    /// The connection that is asked about, of a grant as well.
    pub fn connect(&self) -> &Value {
        connect_of(&self.operation)
    }
}

/// The connection in an operation.
fn connect_of(operation: &Value) -> &Value {
    match operation["kind"].as_str() {
        Some("connect") => &operation["connect"],
        Some("connect-grant") => &operation["connect_grant"]["connect"],
        _ => &Value::Null,
    }
}

impl Record {
    /// The connection of its operation.
    pub fn connect(&self) -> &Value {
        connect_of(&self.payload["operation"])
    }
}

impl Ground {
    /// A policy of these `[network]` and `[[connect]]` lines.
    pub fn connecting(&self, lines: &str) {
        self.policy(&format!("{}{lines}", self.head()));
    }

    /// The usual rule: `api.protected.test` asks, on every port.
    pub fn protecting_api(&self) {
        self.connecting("[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\n");
    }

    /// One of the programs of this package that are scripts, where the session's user can read it.
    pub fn script(&self, name: &str) -> String {
        let text = std::fs::read_to_string(Path::new(servers::PROGRAMS).join(name)).expect("a file of ours");
        self.write_home(name, 0o644, &text).display().to_string()
    }

    /// The decisions about connections.
    pub fn connections(&self) -> Vec<Record> {
        self.decisions().into_iter().filter(|record| !record.connect().is_null()).collect()
    }
}

impl Net {
    /// Waits until so many questions are pending; nothing whatsoever has been sent to the host then.
    #[track_caller]
    pub fn held(
        &self,
        ground: &Ground,
        session: &mut Session,
        many: usize,
        host: (Ipv4Addr, Ipv6Addr),
    ) -> Vec<Question> {
        let deadline = Instant::now() + wait::LIMIT;
        loop {
            let all = ground.pending(1);
            if all.len() >= many {
                assert_eq!(all.len(), many, "{all:#?}");
                self.assert_untouched(host);
                return all;
            }
            let ended = session.ended();
            assert!(
                !ended && Instant::now() < deadline,
                "{} of {many} questions (ended: {ended}); stdout:\n{}\nstderr:\n{}\n{all:#?}",
                all.len(),
                session.stdout(),
                session.stderr()
            );
        }
    }

    /// Nothing is sent to the host for so long.
    #[track_caller]
    pub fn assert_untouched_for(&self, span: Duration, host: (Ipv4Addr, Ipv6Addr)) {
        wait::never_during(span, "nothing reaches the host", || {
            let arrivals = self.arrivals_at(host);
            (!arrivals.is_empty()).then(|| format!("{arrivals:?}"))
        });
        self.assert_untouched(host);
    }
}
