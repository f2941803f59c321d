//! `ana audit verify`.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::output::{self, Out};
use crate::evidence::human::WebAuthn;
use crate::evidence::verify::Verification;
use crate::evidence::{BadRecord, Report, Trust, VerifyError};
use crate::state::State;

/// A log of fewer bytes is verified before anybody wonders.
pub(super) const PROGRESS_BYTES_MIN: u64 = 8 << 20;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Believe the keys in this file (a JWK or JWKS of record keys, or a pinned list of passkeys like passkeys.json)
    /// instead of those in the state folder.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// A head that was kept elsewhere, or a file of heads, besides those in the state folder and the journal.
    #[arg(long, value_name = "FILE|HEAD")]
    head: Vec<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::cli) enum Said {
    Valid {
        ok: bool,
        #[serde(flatten)]
        report: Report,
    },
    Bad {
        ok: bool,
        #[serde(flatten)]
        bad: BadRecord,
    },
}

impl Verify {
    pub(super) fn run(&self, state: Option<&Path>, out: &mut Out) -> anyhow::Result<ExitCode> {
        match self.verify(state) {
            Ok(report) if self.json => out.json(&Said::Valid { ok: true, report })?,
            Ok(report) => self.tell(&report, out)?,
            Err(Problem::Bad(bad)) => {
                if self.json {
                    out.json(&Said::Bad { ok: false, bad })?;
                    out.flush()?;
                } else {
                    output::complain(&bad.to_string());
                }
                return Ok(ExitCode::FAILURE);
            }
            Err(Problem::Other(error)) => return Err(error),
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    fn verify(&self, state: Option<&Path>) -> Result<Report, Problem> {
        let paths = State::paths(state);
        let evidence = super::evidence(state)?;
        let (keys, _) = super::open(&paths.keys).map_err(anyhow::Error::from)?;
        let base = paths.passkeys.parent().unwrap_or(Path::new("/"));
        let (base, _) = super::open(base).map_err(anyhow::Error::from)?;
        let passkeys = base.as_ref().map(|base| (base, "passkeys.json"));
        let trust =
            Trust::load(keys.as_ref(), passkeys, self.trust.as_deref()).map_err(anyhow::Error::from)?;
        // Before the log is looked at: a session that ends meanwhile is not cut off.
        let heads = super::heads::gather(base.as_ref(), &trust, &self.head)?;
        let meter = Meter::on_stderr();
        let verification = Verification {
            trust: &trust,
            proof: &WebAuthn,
            live: &|session| super::is_live(&paths.run, session),
            heads: &heads,
            progress: &|done, total| meter.show(done, total),
        };
        let report = verification.folder(&evidence);
        meter.clear();
        report.map_err(|error| match error {
            VerifyError::Bad(bad) => Problem::Bad(bad),
            VerifyError::Unreadable(error) => Problem::Other(error.into()),
        })
    }

    fn tell(&self, report: &Report, out: &mut Out) -> anyhow::Result<()> {
        let many = |count: u64, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        out.line(&format!(
            "valid: {} in {}",
            many(report.records, "record"),
            many(report.segments, "segment")
        ))?;
        out.line(&format!(
            "{} ({} running), {}: {} allowed, {} denied",
            many(report.sessions, "session"),
            report.live_sessions,
            many(report.decisions, "decision"),
            report.allowed,
            report.denied
        ))?;
        let source = if self.trust.is_some() { "--trust" } else { "passkeys.json" };
        out.line(&format!(
            "{} by a person, {} of them human-proven (by {source}), {} with a software passkey",
            many(report.approved, "approval"),
            report.human_proven,
            report.software_approved
        ))?;
        for (count, what) in [
            (report.folded, "more allowed by rule, only counted: too many in a minute"),
            (report.losses, "of a loss: see `ana audit list`"),
            (report.tampers, "of tampering: see `ana audit list`"),
            (report.development, "made in development (the state was not root's alone)"),
        ] {
            if count > 0 {
                out.line(&format!("{} {what}", many(count, "record")))?;
            }
        }
        if report.heads > 0 {
            out.line(&format!("{} told at the ends of sessions, all in place", many(report.heads, "head")))?;
        }
        if report.other_heads > 0 {
            let what = many(report.other_heads, "head");
            out.line(&format!("{what} of another log: unless you moved that away, it was removed"))?;
        }
        match &report.head {
            Some(head) => out.line(&format!("last line: {head}")),
            None => Ok(()),
        }
    }
}

enum Problem {
    Bad(BadRecord),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// The progress on standard error, if someone looks at it and the log is long.
pub(super) struct Meter {
    /// `None`: nobody looks.
    screen: Option<RefCell<Box<dyn Write>>>,
    percent: Cell<u64>,
}

impl Meter {
    fn on_stderr() -> Self {
        let stderr = io::stderr();
        Self::new(stderr.is_terminal().then(|| Box::new(stderr) as Box<dyn Write>))
    }

    pub(super) fn new(screen: Option<Box<dyn Write>>) -> Self {
        Self { screen: screen.map(RefCell::new), percent: Cell::new(u64::MAX) }
    }

    /// Bytes of the log: those that are verified, and all.
    pub(super) fn show(&self, done: u64, total: u64) {
        let Some(screen) = self.screen.as_ref().filter(|_| total >= PROGRESS_BYTES_MIN) else { return };
        let percent = done.saturating_mul(100) / total;
        if self.percent.replace(percent) != percent {
            write!(screen.borrow_mut(), "\rverifying: {percent} %").ok();
        }
    }

    pub(super) fn clear(&self) {
        if let Some(screen) = self.screen.as_ref().filter(|_| self.percent.get() != u64::MAX) {
            write!(screen.borrow_mut(), "\r\x1b[K").ok();
        }
    }
}
