//! Reading the log back: every change, gap, repetition and exchange is found, and the first one is named.
//!
//! What a valid log proves: these records were made by the holder of the record keys, in this order, and none in
//! between is gone. That a person approved is proven only where the passkey is known from elsewhere
//! ([`Report::human_proven`]). A tail that was cut off shows as a session without an end, or by a head
//! that was told elsewhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::chain::{self, Line};
use super::error::EvidenceError;
use super::head::Told;
use super::human::{self, HumanProof, WebAuthn};
use super::read::{self, Lines, Next};
use super::record::{DecidedBy, Event, Payload, RecordedVerdict};
use super::sign;
use super::trust::Trust;
use super::{LINE_BYTES_MAX, VERSION};
use crate::operation::{Kind, Operation};
use crate::state::Folder;

/// What a valid log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Report {
    pub records: u64,
    pub segments: u64,
    /// Sessions that were started.
    pub sessions: u64,
    /// Those of them that are still running.
    pub live_sessions: u64,
    pub decisions: u64,
    pub allowed: u64,
    pub denied: u64,
    /// Operations that the policy allowed too fast to be recorded one by one; other records stand for them.
    pub folded: u64,
    /// Allowed by a person; each carries a valid assertion for exactly its operation.
    pub approved: u64,
    /// Those of them whose passkey is pinned with `--trust` or enrolled.
    pub human_proven: u64,
    /// Approvals that a software passkey made: whoever read its file.
    pub software_approved: u64,
    /// Records of a loss.
    pub losses: u64,
    /// Records of tampering.
    pub tampers: u64,
    /// Records made in a state that someone other than root could change.
    pub development: u64,
    /// The record keys that were used (RFC 7638 thumbprints).
    pub keys: BTreeSet<String>,
    /// Heads of this log that were found elsewhere; each names the line that is there.
    pub heads: u64,
    /// Heads of other logs that this state has had: it was moved away, or removed.
    pub other_heads: u64,
    /// SHA-256 of the last line, base64url: keep it elsewhere, and a cut log shows.
    pub head: Option<String>,
}

/// The first record that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, schemars::JsonSchema)]
#[error("{file}:{line}: {reason}")]
pub struct BadRecord {
    /// The segment's name.
    pub file: String,
    /// From 1; 0 when it is the file itself.
    pub line: u64,
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Bad(#[from] BadRecord),
    #[error("the evidence cannot be read")]
    Unreadable(#[from] EvidenceError),
}

/// Verifies the log in `evidence`. `live` tells whether a session is running: one without an end that is not running
/// is an error.
///
/// # Errors
/// The first bad record, or the log cannot be read.
pub fn verify(evidence: &Folder, trust: &Trust, live: &dyn Fn(&str) -> bool) -> Result<Report, VerifyError> {
    Verification { trust, proof: &WebAuthn, live, heads: &[], progress: &|_, _| {} }.folder(evidence)
}

/// A verification with everything that can be chosen.
pub struct Verification<'a> {
    pub trust: &'a Trust,
    pub proof: &'a dyn HumanProof,
    /// Whether a session is running; asked after everything was read.
    pub live: &'a dyn Fn(&str) -> bool,
    /// What was told elsewhere about this log; to be gathered before, or a session that ends meanwhile looks cut off.
    pub heads: &'a [Told],
    /// Called now and then with the bytes done and the bytes in all.
    pub progress: &'a dyn Fn(u64, u64),
}

impl Verification<'_> {
    /// Verifies the log in `evidence`.
    ///
    /// # Errors
    /// The first bad record, or the log cannot be read.
    pub fn folder(&self, evidence: &Folder) -> Result<Report, VerifyError> {
        let segments = read::segments(evidence)?
            .map_err(|name| bad(&name, 0, "this file does not belong to the evidence"))?;
        let total = segments.iter().map(|segment| segment.bytes).sum();
        let mut run = Run::new(self);
        let (mut done, count) = (0, segments.len());
        for (index, segment) in segments.into_iter().enumerate() {
            let expected = chain::segment_name(u32::try_from(index + 1).unwrap_or(u32::MAX));
            if segment.name != expected {
                Err(bad(&expected, 0, "this segment is missing"))?;
            }
            // A writer that is stopped right after it made a segment leaves an empty one, at the end only.
            if segment.bytes == 0 && index + 1 < count {
                Err(bad(&segment.name, 0, "this segment is empty"))?;
            }
            let (name, bytes) = (segment.name.clone(), segment.bytes);
            debug_assert_eq!(chain::segment_number(&name), Some(segment.number), "names and numbers agree");
            let read = run.segment(&name, segment.lines(), &|line| (self.progress)(done + line, total));
            read.map_err(|failure| failure.at(evidence, &name))?;
            done += bytes;
        }
        Ok(run.finish()?)
    }
}

#[cfg(any(test, fuzzing))]
impl Verification<'_> {
    /// Verifies one segment that lies in memory.
    pub(super) fn bytes(&self, segment: &[u8]) -> Result<Report, BadRecord> {
        let mut run = Run::new(self);
        match run.segment("000001.jsonl", Lines::new(segment), &|_| {}) {
            Ok(()) => run.finish(),
            Err(Failure::Bad(bad)) => Err(bad),
            Err(Failure::Io(error)) => Err(bad("000001.jsonl", 0, error.to_string())),
        }
    }
}

/// Why a segment did not pass.
enum Failure {
    Bad(BadRecord),
    Io(std::io::Error),
}

impl Failure {
    fn at(self, evidence: &Folder, name: &str) -> VerifyError {
        match self {
            Self::Bad(bad) => bad.into(),
            Self::Io(source) => EvidenceError::Read { path: evidence.path().join(name), source }.into(),
        }
    }
}

fn bad(file: &str, line: u64, reason: impl Into<String>) -> BadRecord {
    BadRecord { file: file.into(), line, reason: reason.into() }
}

/// The state between two lines.
struct Run<'a> {
    with: &'a Verification<'a>,
    report: Report,
    prev: String,
    /// The heads of this very log, and where it ends so far.
    heads: Vec<&'a Told>,
    last: (String, u64),
    open: HashMap<String, Session>,
    ended: HashSet<String>,
}

/// A session that has no end yet.
struct Session {
    /// Where it starts.
    file: String,
    line: u64,
    /// The operations that were decided: none twice.
    decided: HashSet<String>,
    /// Connections that a person has approved: later ones may go on with the same signature.
    signed: HashMap<String, Signed>,
}

impl Session {
    /// What goes on with an earlier signature has to be covered by it.
    fn check_grant(&mut self, payload: &Payload) -> Result<(), String> {
        let Some(operation) = &payload.operation else { return Ok(()) };
        if payload.decided_by() == Some(DecidedBy::Grant) {
            let by = payload.granted_by().unwrap_or_default();
            let covered = self.signed.get_mut(by).is_some_and(|signed| signed.covers(operation));
            return match covered {
                true => Ok(()),
                false => {
                    Err(format!("operation {} is not covered by what was signed with {by}", operation.id))
                }
            };
        }
        if payload.assertion.is_some() && operation.kind.connect().is_some() {
            let signed = Signed { operation: operation.clone(), used: false };
            self.signed.insert(operation.id.clone(), signed);
        }
        Ok(())
    }
}

/// A connection, or a grant for some, that a person has approved.
struct Signed {
    operation: Operation,
    /// An approval of one connection, whose client had gone, serves one more.
    used: bool,
}

impl Signed {
    /// Whether the signature covers this operation as well.
    fn covers(&mut self, operation: &Operation) -> bool {
        if self.operation.rule != operation.rule {
            return false;
        }
        match (&self.operation.kind, operation.kind.connect()) {
            (Kind::ConnectGrant(grant), Some(connect)) => grant.covers(connect, &operation.issued_at),
            (Kind::Connect(signed), Some(connect)) => {
                !std::mem::replace(&mut self.used, true) && **signed == *connect
            }
            (Kind::Exec(_), _) | (_, None) => false,
        }
    }
}

impl<'a> Run<'a> {
    fn new(with: &'a Verification<'a>) -> Self {
        let prev = chain::link(b"");
        let report = Report { other_heads: with.heads.len() as u64, ..Report::default() };
        let (heads, last) = (Vec::new(), (chain::segment_name(1), 0));
        Self { with, report, prev, heads, last, open: HashMap::new(), ended: HashSet::new() }
    }

    fn segment<R: Read>(
        &mut self,
        name: &str,
        mut lines: Lines<R>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Failure> {
        self.report.segments += 1;
        let mut bytes = 0;
        for number in 1.. {
            let reason = match lines.next().map_err(Failure::Io)? {
                Next::End => break,
                Next::Torn => "the line is incomplete: it does not end with a newline".to_owned(),
                Next::TooLong => format!("the line is longer than {LINE_BYTES_MAX} bytes"),
                Next::Line([]) => "the line is empty".to_owned(),
                Next::Line([.., b'\r']) => "the line ends with a carriage return".to_owned(),
                Next::Line(line) => match self.line(name, number, line) {
                    Ok(()) => {
                        bytes += line.len() as u64 + 1;
                        progress(bytes);
                        continue;
                    }
                    Err(reason) => reason,
                },
            };
            return Err(Failure::Bad(bad(name, number, reason)));
        }
        Ok(())
    }

    fn line(&mut self, file: &str, number: u64, bytes: &[u8]) -> Result<(), String> {
        let line = Line::parse(bytes)?;
        let kid = self.check_signature(&line)?;
        let payload: Payload = serde_json::from_slice(&line.payload)
            .map_err(|error| format!("the payload is not a record: {error}"))?;
        if payload.v != VERSION {
            return Err(format!("the record has version {}, known is {VERSION}", payload.v));
        }
        let expected = self.report.records + 1;
        if payload.seq != expected {
            return Err(format!("the record has number {}, expected is {expected}", payload.seq));
        }
        if payload.prev != self.prev {
            return Err("the record does not follow the one before it: prev is another line's hash".into());
        }
        payload.check()?;
        if let Some(operation) = &payload.operation {
            let hash = human::operation_hash(operation).map_err(|error| error.to_string())?;
            if payload.operation_hash.as_ref() != Some(&hash) {
                return Err("the operation's hash is not that of the operation".into());
            }
        }
        self.check_session(file, number, &payload)?;
        self.check_person(&payload)?;
        self.count(&payload);
        if !self.report.keys.contains(&kid) {
            self.report.keys.insert(kid);
        }
        self.prev = chain::link(bytes);
        self.last = (file.to_owned(), number);
        self.check_heads(payload.seq)
    }

    /// Whether what was told of the log at this length was told of this line.
    fn check_heads(&mut self, seq: u64) -> Result<(), String> {
        if seq == 1 {
            self.heads = self.with.heads.iter().filter(|told| told.head.log == self.prev).collect();
            self.report.other_heads -= self.heads.len() as u64;
        }
        let other = self.heads.iter().find(|told| told.head.seq == seq && told.head.hash != self.prev);
        match other {
            Some(told) => Err(format!(
                "it is not the line that {} names as number {seq}: the log was cut before it and went on",
                told.by
            )),
            None => {
                self.report.heads += self.heads.iter().filter(|told| told.head.seq == seq).count() as u64;
                Ok(())
            }
        }
    }

    fn check_signature(&self, line: &Line<'_>) -> Result<String, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Header {
            typ: String,
            alg: String,
            kid: String,
        }
        let header: Header = serde_json::from_slice(&line.header)
            .map_err(|error| format!("the header is not a record's: {error}"))?;
        if header.typ != sign::TYPE {
            return Err(format!("the header's typ is not {}", sign::TYPE));
        }
        let key = self.with.trust.key(&header.kid);
        let key = key.ok_or_else(|| format!("there is no trusted key with kid {:?}", header.kid))?;
        if header.alg != key.algorithm() {
            return Err(format!("the header's alg is not the key's, {}", key.algorithm()));
        }
        if line.header != sign::header(sign::TYPE, key.algorithm(), key.kid()).as_bytes() {
            return Err("the header is not spelled as ana spells it".into());
        }
        if !key.verifies(line.signed, &line.signature) {
            return Err("the signature does not verify".into());
        }
        Ok(header.kid)
    }

    fn check_session(&mut self, file: &str, line: u64, payload: &Payload) -> Result<(), String> {
        let Some(session) = &payload.session else {
            return Ok(());
        };
        match payload.event {
            Event::SessionStart => {
                let (decided, signed) = (HashSet::new(), HashMap::new());
                let started = Session { file: file.into(), line, decided, signed };
                if self.ended.contains(session) || self.open.insert(session.clone(), started).is_some() {
                    return Err(format!("session {session} starts twice"));
                }
            }
            Event::Decision => {
                let Some(open) = self.open.get_mut(session) else {
                    return Err(format!("a decision outside its session {session}"));
                };
                let id = payload.operation_id().unwrap_or_default();
                if !open.decided.insert(id.to_owned()) {
                    return Err(format!("operation {id} is decided twice"));
                }
                open.check_grant(payload)?;
            }
            Event::Outcome => {
                let id = payload.operation_id().unwrap_or_default();
                // What was decided in a session that is over is not remembered.
                let decided = match self.open.get(session) {
                    Some(open) => open.decided.contains(id),
                    None => self.ended.contains(session),
                };
                if !decided {
                    return Err(format!("an outcome of operation {id}, which was not decided"));
                }
            }
            Event::SessionEnd => {
                if self.open.remove(session).is_some() {
                    self.ended.insert(session.clone());
                } else if !self.ended.contains(session) {
                    return Err(format!("session {session} ends without a start"));
                }
            }
            Event::Enrolment | Event::PolicyLoad | Event::RootReached | Event::Tamper | Event::Loss => {}
        }
        Ok(())
    }

    fn check_person(&mut self, payload: &Payload) -> Result<(), String> {
        let (Some(assertion), Some(operation)) = (&payload.assertion, &payload.operation) else {
            return Ok(());
        };
        self.with
            .proof
            .check(operation, assertion)
            .map_err(|error| format!("the person's approval does not verify: {error}"))?;
        self.report.approved += 1;
        let kind = payload.detail.as_ref().and_then(|detail| detail.get("passkey_kind")?.as_str());
        self.report.software_approved += u64::from(kind == Some("software"));
        if self.with.trust.is_enrolled(assertion, human::rp_id(assertion).as_deref()) {
            self.report.human_proven += 1;
        }
        Ok(())
    }

    fn count(&mut self, payload: &Payload) {
        let report = &mut self.report;
        report.records += 1;
        report.development += u64::from(payload.development);
        match payload.event {
            Event::SessionStart => report.sessions += 1,
            Event::Decision => report.decisions += 1,
            Event::Loss => report.losses += 1,
            Event::Tamper => report.tampers += 1,
            Event::Enrolment
            | Event::Outcome
            | Event::SessionEnd
            | Event::PolicyLoad
            | Event::RootReached => {}
        }
        report.folded += payload.folded().unwrap_or(1) - 1;
        match payload.verdict {
            Some(RecordedVerdict::Allow) => report.allowed += 1,
            Some(RecordedVerdict::Deny) => report.denied += 1,
            None => {}
        }
        debug_assert!(
            payload.assertion.is_none() || payload.decided_by() == Some(DecidedBy::Person),
            "only a person signs"
        );
    }

    fn finish(mut self) -> Result<Report, BadRecord> {
        if let Some(Told { head, by }) = self.heads.iter().max_by_key(|told| told.head.seq)
            && head.seq > self.report.records
        {
            let missing = head.seq - self.report.records;
            let at = jiff::Timestamp::from_second(head.iat).unwrap_or_default();
            let reason = format!(
                "{missing} record{} missing after this line: there were {} at {at}, says {by}",
                if missing == 1 { " is" } else { "s are" },
                head.seq
            );
            return Err(bad(&self.last.0, self.last.1, reason));
        }
        let mut missing: Vec<_> =
            self.open.iter().filter(|(session, _)| !(self.with.live)(session)).collect();
        missing.sort_unstable_by_key(|(_, start)| (&start.file, start.line));
        if let Some((session, start)) = missing.first() {
            let reason = format!(
                "missing session-end: session {session} starts here, is not running and has no end; records at the \
                 end of the log may be gone"
            );
            return Err(bad(&start.file, start.line, reason));
        }
        self.report.live_sessions = self.open.len() as u64;
        self.report.head = (self.report.records > 0).then_some(self.prev);
        Ok(self.report)
    }
}
