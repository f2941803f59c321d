//! `ana audit show`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::list::time;
use super::output::{Out, printable};
use crate::evidence::{Event, Payload};

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The operation's id (its first characters are enough).
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Everything that is recorded about one operation.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::cli) struct Story {
    /// The operation's id.
    id: String,
    decision: Option<Payload>,
    /// What became of it, and whatever else names it, in order.
    others: Vec<Payload>,
}

impl Show {
    pub(super) fn run(&self, state: Option<&Path>, out: &mut Out) -> anyhow::Result<ExitCode> {
        let story = self.find(state)?;
        if self.json {
            out.json(&story)?;
        } else {
            story.print(out)?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    fn find(&self, state: Option<&Path>) -> anyhow::Result<Story> {
        let mut found = Vec::new();
        let wanted =
            |id: &str| id.get(..self.id.len()).is_some_and(|start| start.eq_ignore_ascii_case(&self.id));
        super::each(state, |payload| {
            if payload.operation_id().is_some_and(wanted) {
                found.push(payload);
            }
            ControlFlow::Continue(())
        })?;
        let ids: BTreeSet<_> =
            found.iter().filter_map(|payload| payload.operation_id().map(str::to_owned)).collect();
        if ids.len() > 1 {
            let some: Vec<_> = ids.iter().take(5).map(String::as_str).collect();
            bail!(
                "{} operations begin with {:?}: {}…; give more of the id",
                ids.len(),
                self.id,
                some.join(", ")
            );
        }
        let id = ids.into_iter().next();
        let id = id.with_context(|| {
            format!("no record of an operation {:?}; `ana audit list` shows their ids", self.id)
        })?;
        let (decisions, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|payload| payload.event == Event::Decision);
        Ok(Story { id, decision: decisions.into_iter().next(), others })
    }
}

impl Story {
    fn print(&self, out: &mut Out) -> anyhow::Result<()> {
        out.line(&format!("operation {}", printable(&self.id)))?;
        if let Some(decision) = &self.decision {
            if let Some(operation) = &decision.operation {
                let prompt = operation.prompt(width(), out.colour());
                out.line(prompt.trim_end())?;
            }
            out.line("")?;
            record(decision, out)?;
        }
        self.others.iter().try_for_each(|payload| record(payload, out))
    }
}

/// One record: what, when, where in the log, and its details.
fn record(payload: &Payload, out: &mut Out) -> anyhow::Result<()> {
    let what = match (payload.verdict, payload.decided_by()) {
        (Some(verdict), Some(by)) => format!("{}: {} by {}", payload.event.name(), verdict.name(), by.name()),
        _ => payload.event.name().to_owned(),
    };
    let development = if payload.development { " (development)" } else { "" };
    out.line(&format!("{what}, record {} of {}{development}", payload.seq, time(payload)))?;
    if let Some(hash) = &payload.operation_hash {
        out.line(&format!("  operation_hash: {}", printable(hash)))?;
    }
    if let Some(assertion) = &payload.assertion {
        out.line(&format!("  approver: {}", printable(&assertion.approver)))?;
        out.line(&format!("  credential_id: {}", printable(&assertion.credential_id)))?;
    }
    for (name, value) in payload.detail.iter().filter_map(serde_json::Value::as_object).flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        out.line(&format!("  {}: {}", printable(name), printable(&value)))?;
    }
    Ok(())
}

fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    columns.filter(|columns| (20..=1000).contains(columns)).unwrap_or(100)
}
