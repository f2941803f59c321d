//! The evidence, read by code of the tests' own: lines of compact JWS, their payloads, and `ana audit verify`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::{
    ground::{Ground, Marker},
    wait,
};

/// One line of the evidence.
#[derive(Clone, Debug)]
pub struct Record {
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// The line itself.
    pub jws: String,
    pub payload: Value,
}

impl Record {
    pub fn event(&self) -> &str {
        self.payload["event"].as_str().expect("every record has an event")
    }

    /// Whether this is a decision that lets the operation go on.
    pub fn approves(&self) -> bool {
        self.event() == "decision" && self.payload["verdict"] == "allow"
    }

    /// Whether this is a decision that refuses the operation.
    pub fn denies(&self) -> bool {
        self.event() == "decision" && self.payload["verdict"] == "deny"
    }

    /// The arguments of the operation, argv\[0\] first.
    pub fn argv(&self) -> Vec<Vec<u8>> {
        crate::answers::argv_of(&self.payload["operation"])
    }

    /// The arguments after argv\[0\], as text.
    pub fn args(&self) -> Vec<String> {
        self.argv().iter().skip(1).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    /// Who or what decided: `rule`, `person`, `timeout`, `system`.
    pub fn decided_by(&self) -> &str {
        self.payload["detail"]["decided_by"].as_str().unwrap_or_default()
    }

    /// The operation's id.
    pub fn id(&self) -> &str {
        self.payload["operation"]["id"].as_str().unwrap_or_default()
    }
}

/// Bytes as an operation carries them: `{"b64": …, "text": …}`.
pub fn bytes_of(value: &Value) -> Vec<u8> {
    let text = value["b64"].as_str().unwrap_or_else(|| panic!("not bytes: {value}"));
    BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

/// The evidence files of a state folder in their order.
pub fn segments(state: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(state.join("evidence"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    files.sort();
    files
}

/// Every whole record of a state folder.
pub fn records(state: &Path) -> Vec<Record> {
    let mut all = Vec::new();
    for file in segments(state) {
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        // A line without its newline is still being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for (index, line) in whole.lines().enumerate() {
            let record = || -> Option<Value> {
                let payload = BASE64_URL_SAFE_NO_PAD.decode(line.split('.').nth(1)?).ok()?;
                serde_json::from_slice(&payload).ok()
            };
            let payload =
                record().unwrap_or_else(|| panic!("{}:{}: no JWS: {line}", file.display(), index + 1));
            all.push(Record { file: file.clone(), line: index + 1, jws: line.to_owned(), payload });
        }
    }
    all
}

/// The sessions that are mentioned anywhere in the evidence. Lenient: it is used to clean up.
pub fn session_ids(state: &Path) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for file in segments(state) {
        for line in fs::read_to_string(file).unwrap_or_default().lines() {
            let id = line
                .split('.')
                .nth(1)
                .and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok())
                .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
                .and_then(|value| value["session"].as_str().map(str::to_owned));
            if let Some(id) = id
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
    }
    ids
}

impl Ground {
    pub fn records(&self) -> Vec<Record> {
        records(&self.state())
    }

    pub fn decisions(&self) -> Vec<Record> {
        self.records().into_iter().filter(|record| record.event() == "decision").collect()
    }

    pub fn records_of(&self, event: &str) -> Vec<Record> {
        self.records().into_iter().filter(|record| record.event() == event).collect()
    }

    /// Whether the kernel could seal the session that has begun (README, "sealed").
    pub fn sealed(&self) -> bool {
        self.records_of("session-start").iter().all(|start| start.payload["detail"]["seal"]["scoped"] == true)
    }

    /// The same once the only session has ended: until then it writes records of its own.
    #[track_caller]
    pub fn verify_at_end(&self) -> Value {
        wait::until("the session ends", || (!self.records_of("session-end").is_empty()).then_some(()));
        self.verify()
    }

    /// `ana audit verify --json` accepts the evidence, and counts as many records as there are lines.
    #[track_caller]
    pub fn verify(&self) -> Value {
        let output = self.ana(&["audit", "verify", "--json"]).output().expect("ana can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "ana audit verify: {}\n{said}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        assert_eq!(report["records"].as_u64(), Some(self.records().len() as u64), "{report}");
        report
    }

    /// Every run of the protected program has an approving decision of its own with exactly these arguments.
    #[track_caller]
    pub fn assert_every_run_was_decided(&self) {
        let unaccounted = self.unaccounted();
        assert!(unaccounted.is_empty(), "ran without a decision: {unaccounted:#?}");
    }

    /// What a killed supervisor had let through and not written down: the arguments.
    pub fn noted(&self) -> Vec<Vec<Vec<u8>>> {
        let noted = |record: &Record| -> Vec<Vec<Vec<u8>>> {
            let list = record.payload["detail"]["let_through"].as_array().cloned().unwrap_or_default();
            list.iter().map(crate::answers::words).collect()
        };
        self.records_of("loss").iter().flat_map(noted).collect()
    }

    /// The runs of `deploy` that neither an approving decision nor the note of one accounts for.
    pub fn unaccounted(&self) -> Vec<Marker> {
        let decisions = self.decisions();
        let approved = decisions.iter().filter(|record| record.approves()).map(Record::argv);
        let mut approved: Vec<Vec<Vec<u8>>> = approved.chain(self.noted()).collect();
        let mut left = Vec::new();
        for marker in self.markers() {
            match approved.iter().position(|argv| *argv == marker.argv) {
                Some(index) => drop(approved.swap_remove(index)),
                None => left.push(marker),
            }
        }
        left
    }

    /// Nothing protected ran.
    #[track_caller]
    pub fn assert_never_ran(&self) {
        let markers = self.markers();
        assert!(markers.is_empty(), "a protected program ran: {markers:#?}");
    }
}
