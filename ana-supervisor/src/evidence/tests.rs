//! Tests of the room as a whole, and what they share.

mod append;
mod head;
mod notes;
mod open;
mod person;
mod record;
mod replaced;
mod tamper;
mod writer;

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use super::{Entry, Event, Payload, RecordedVerdict, Report, Store, Trust, VerifyError};
use crate::operation::{Bytes, Environment, Exec, File, Ids, Kind, Operation, Requester, Verify};
use crate::state::State;

/// A state in a folder of its own, which lasts as long as this value.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) state: State,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::at(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn at(folder: TempDir) -> Self {
        let state = State::open(Some(folder.path())).expect("the state opens");
        Self { folder, state }
    }

    pub(crate) fn store(&self) -> Store {
        let mut store = Store::open(&self.state).expect("the store opens");
        // The machine's journal has nothing to do with a test.
        store.journal = self.folder.path().join("journal");
        store
    }

    pub(crate) fn evidence(&self) -> PathBuf {
        self.folder.path().join("evidence")
    }

    pub(crate) fn segment_path(&self, number: u32) -> PathBuf {
        self.folder.path().join(format!("evidence/{number:06}.jsonl"))
    }

    pub(crate) fn segment(&self, number: u32) -> Vec<u8> {
        std::fs::read(self.segment_path(number)).expect("the segment")
    }

    pub(crate) fn trust(&self) -> Trust {
        let passkeys = Some((self.state.base_dir(), "passkeys.json"));
        Trust::load(Some(self.state.keys_dir()), passkeys, None).expect("the keys")
    }

    pub(crate) fn verify_with(&self, live: &dyn Fn(&str) -> bool) -> Result<Report, VerifyError> {
        super::verify(self.state.evidence_dir(), &self.trust(), live)
    }

    /// With no session running.
    pub(crate) fn verify(&self) -> Result<Report, VerifyError> {
        self.verify_with(&|_| false)
    }

    pub(crate) fn payloads(&self) -> Vec<Payload> {
        let mut payloads = Vec::new();
        let each = |payload| {
            payloads.push(payload);
            ControlFlow::Continue(())
        };
        super::read::payloads(self.state.evidence_dir(), each).expect("readable");
        payloads
    }
}

/// Whether we are root; says that the test is skipped when not.
pub(crate) fn needs_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

pub(crate) fn operation(id: u32, session: &str) -> Operation {
    Operation {
        v: 1,
        id: format!("01J{id:023}"),
        nonce: "AAAAAAAAAAAAAAAAAAAAAA".into(),
        host: "host".into(),
        boot_id: "b".into(),
        session: session.into(),
        uid: 1000,
        rule: "git".into(),
        policy_sha256: "p".into(),
        issued_at: "2026-11-21T12:00:00.000Z".into(),
        expires_at: "2026-11-21T12:02:00.000Z".into(),
        verify: Verify::Presence,
        requester: Requester { pid: 7, start_time: "1".into(), ancestry: vec![] },
        kind: Kind::Exec(Box::new(Exec {
            program: File {
                path: "/usr/bin/git".into(),
                dev: "8:1".into(),
                inode: "9007199254740993".into(),
                sha256: "s".into(),
                not_fixed: false,
            },
            script: None,
            argv: vec!["git".into(), Bytes(vec![0xff, b'\n', 0x1b])],
            cwd: "/".into(),
            environment: Environment { sha256: "e".into(), changed: vec![] },
            ids: Ids { uid: 1000, euid: 1000, gid: 1000, egid: 1000, capabilities: None },
            foreign_namespaces: vec![],
            argument_files: Vec::new(),
            exclusive: false,
        })),
    }
}

pub(crate) fn started(session: &str) -> Entry {
    Entry::new(Event::SessionStart).session(session).policy("p").detail(json!({"seal": "landlock"}))
}

pub(crate) fn ended(session: &str) -> Entry {
    Entry::new(Event::SessionEnd).session(session)
}

pub(crate) fn allowed_by_rule(id: u32, session: &str) -> Entry {
    Entry {
        operation: Some(operation(id, session)),
        verdict: Some(RecordedVerdict::Allow),
        rule: Some("git".into()),
        ..Entry::new(Event::Decision).session(session).policy("p").detail(json!({"decided_by": "rule"}))
    }
}
