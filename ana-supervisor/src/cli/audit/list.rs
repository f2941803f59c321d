//! `ana audit list`.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Color, ContentArrangement, Table};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::Serialize;

use super::moment::Moment;
use super::output::{Out, printable};
use crate::evidence::{Event, Payload, RecordedVerdict};

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only this session (the first characters of its id are enough).
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only this kind of record: session-start, enrolment, decision, outcome, session-end, policy-load, root-reached,
    /// tamper, loss.
    #[arg(long, value_name = "EVENT", value_parser = event)]
    event: Option<Event>,
    /// Only decisions with this verdict.
    #[arg(long)]
    verdict: Option<Verdict>,
    /// Only what this person approved or denied.
    #[arg(long, value_name = "NAME")]
    approver: Option<String>,
    /// Only what this policy rule asked or decided.
    #[arg(long, value_name = "NAME")]
    rule: Option<String>,
    /// Not before this moment: 2026-11-21T12:00:00Z, 2026-11-21, or 2h (ago).
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Not after this moment.
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// Only the newest of them.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

/// An event by its name in JSON.
fn event(name: &str) -> Result<Event, String> {
    let parsed = serde_json::from_value(serde_json::Value::from(name));
    parsed.map_err(|_unknown| "no such event; `ana audit list --help` names them".to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verdict {
    Allow,
    Deny,
}

impl From<Verdict> for RecordedVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Allow,
            Verdict::Deny => Self::Deny,
        }
    }
}

/// One record as it is listed.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cli) struct Row {
    seq: u64,
    /// RFC 3339, UTC.
    time: String,
    host: String,
    session: Option<String>,
    event: Event,
    verdict: Option<RecordedVerdict>,
    decided_by: Option<&'static str>,
    /// The person, of a person's decision.
    approver: Option<String>,
    rule: Option<String>,
    /// The operation's id.
    operation: Option<String>,
    summary: Option<String>,
    because: Option<String>,
    development: bool,
}

impl From<&Payload> for Row {
    fn from(payload: &Payload) -> Self {
        let detail = |name| Some(payload.detail.as_ref()?.get(name)?.as_str()?.to_owned());
        Self {
            seq: payload.seq,
            time: time(payload),
            host: payload.host.clone(),
            session: payload.session.clone(),
            event: payload.event,
            verdict: payload.verdict,
            decided_by: payload.decided_by().map(|by| by.name()),
            approver: approver(payload).map(str::to_owned),
            rule: payload.rule.clone(),
            operation: payload.operation_id().map(str::to_owned),
            summary: payload.operation.as_ref().map(crate::operation::Operation::summary),
            because: detail("because").or_else(|| detail("reason")),
            development: payload.development,
        }
    }
}

/// Who approved: the passkey's owner. Who denied: whoever the client's user is.
fn approver(payload: &Payload) -> Option<&str> {
    match &payload.assertion {
        Some(assertion) => Some(&assertion.approver),
        None => {
            payload.decided_by().filter(|by| by.name() == "person")?;
            payload.detail.as_ref()?.get("by")?.as_str()
        }
    }
}

/// When it was recorded: RFC 3339, UTC.
pub(super) fn time(payload: &Payload) -> String {
    Timestamp::from_second(payload.iat).map_or_else(|_| payload.iat.to_string(), |time| time.to_string())
}

impl List {
    pub(super) fn run(&self, state: Option<&Path>, out: &mut Out) -> anyhow::Result<ExitCode> {
        let mut rows = std::collections::VecDeque::new();
        super::each(state, |payload| {
            if self.wants(&payload) {
                rows.push_back(Row::from(&payload));
                if self.limit.is_some_and(|limit| rows.len() > limit) {
                    rows.pop_front();
                }
            }
            ControlFlow::Continue(())
        })?;
        let rows = Vec::from(rows);
        if self.json {
            out.json(&rows)?;
        } else if rows.is_empty() {
            out.line("no record matches")?;
        } else {
            out.line(&table(&rows, out))?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, payload: &Payload) -> bool {
        let in_session = |prefix: &String| {
            payload.session.as_ref().is_some_and(|session| {
                session.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            })
        };
        self.session.as_ref().is_none_or(in_session)
            && self.event.is_none_or(|event| payload.event == event)
            && self.approver.as_ref().is_none_or(|name| approver(payload) == Some(name))
            && self.verdict.is_none_or(|verdict| payload.verdict == Some(verdict.into()))
            && self.rule.as_ref().is_none_or(|rule| payload.rule.as_ref() == Some(rule))
            // Records have whole seconds: a record of the second that `since` lies in is not before it.
            && self.since.is_none_or(|since| payload.iat >= since.0.as_second())
            && self.until.is_none_or(|until| payload.iat <= until.0.as_second())
    }
}

fn table(rows: &[Row], out: &Out) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let arrangement =
        if out.is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    if !out.is_terminal() {
        table.force_no_tty();
    }
    table.set_header(["TIME", "SESSION", "EVENT", "VERDICT", "RULE", "OPERATION", "WHAT"]);
    let zone = TimeZone::system();
    for row in rows {
        let local = row
            .time
            .parse::<Timestamp>()
            .map(|time| time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string());
        let what = match (&row.summary, &row.because) {
            (Some(summary), Some(because)) if row.verdict == Some(RecordedVerdict::Deny) => {
                format!("{summary} ({because})")
            }
            (Some(text), _) | (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        };
        let optional = |text: &Option<String>| printable(text.as_deref().unwrap_or_default());
        table.add_row([
            Cell::new(local.unwrap_or_else(|_| row.time.clone())),
            Cell::new(optional(&row.session)),
            Cell::new(row.event.name()),
            verdict(row, out.colour()),
            Cell::new(optional(&row.rule)),
            Cell::new(optional(&row.operation)),
            Cell::new(printable(&what)),
        ]);
    }
    table.trim_fmt()
}

fn verdict(row: &Row, colour: bool) -> Cell {
    let Some(verdict) = row.verdict else {
        return Cell::new("");
    };
    let text = match row.decided_by {
        Some(by) => format!("{} ({by})", verdict.name()),
        None => verdict.name().to_owned(),
    };
    match (colour, verdict) {
        (false, _) => Cell::new(text),
        (true, RecordedVerdict::Allow) => Cell::new(text).fg(Color::Green),
        (true, RecordedVerdict::Deny) => Cell::new(text).fg(Color::Red),
    }
}
