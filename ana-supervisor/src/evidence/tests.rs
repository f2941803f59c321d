//! Tests of the room as a whole; [`bench`](self) helpers stand first.

mod append;

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use super::{Entry, Event, RecordedVerdict, Store};
use crate::operation::{Bytes, Environment, Exec, File, Ids, Kind, Operation, Requester, Verify};
use crate::state::State;

/// A state in a folder of its own, which lasts as long as this value.
pub(super) struct Bench {
    pub(super) folder: TempDir,
    pub(super) state: State,
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::open(Some(folder.path())).expect("the state opens");
        Self { folder, state }
    }

    pub(super) fn store(&self) -> Store {
        Store::open(&self.state).expect("the store opens")
    }

    pub(super) fn segment(&self, number: u32) -> Vec<u8> {
        std::fs::read(self.folder.path().join(format!("evidence/{number:06}.jsonl"))).expect("the segment")
    }
}

pub(super) fn operation(id: u32, session: &str) -> Operation {
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
            ids: Ids { uid: 1000, euid: 1000, gid: 1000, egid: 1000 },
            foreign_namespaces: vec![],
        })),
    }
}

pub(super) fn started(session: &str) -> Entry {
    Entry::new(Event::SessionStart).session(session).policy("p").detail(json!({"seal": "landlock"}))
}

pub(super) fn ended(session: &str) -> Entry {
    Entry::new(Event::SessionEnd).session(session)
}

pub(super) fn allowed_by_rule(id: u32, session: &str) -> Entry {
    Entry {
        operation: Some(operation(id, session)),
        verdict: Some(RecordedVerdict::Allow),
        rule: Some("git".into()),
        ..Entry::new(Event::Decision).session(session).policy("p").detail(json!({"decided_by": "rule"}))
    }
}

pub(super) fn shared(store: Store) -> Arc<Store> {
    Arc::new(store)
}
