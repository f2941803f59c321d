//! The guided demo: an agent works, tries to publish, a person answers, the evidence is verified.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    commands::{output, run as run_shown, shown_as_root},
    run::Ready,
    state::State,
    steps::{note, step, terminal},
};

const SCRIPT: &str = include_str!("demo.sh");

/// What the demo wants to know of `ana audit export`.
#[derive(Deserialize)]
struct Record {
    event: String,
    session: Option<String>,
    verdict: Option<String>,
    operation: Option<Operation>,
    detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    decided_by: Option<String>,
}

/// What the demo wants to know of an operation.
#[derive(Deserialize)]
struct Operation {
    id: String,
    exec: Option<Exec>,
}

#[derive(Deserialize)]
struct Exec {
    cwd: Bytes,
}

#[derive(Deserialize)]
struct Bytes {
    text: String,
}

impl Operation {
    fn is_below(&self, folder: &Path) -> bool {
        self.exec.as_ref().is_some_and(|exec| Path::new(&exec.cwd.text).starts_with(folder))
    }
}

/// One row of `ana pending --json`.
#[derive(Deserialize)]
struct Waiting {
    id: String,
    summary: String,
    operation: Operation,
}

pub(crate) fn run(ready: &Ready) -> Result<ExitCode> {
    let folder = ready.agent.temporary_folder()?;
    let result = demonstrate(ready, &folder);
    // Made by the agent's user, removed by it.
    let removed =
        ready.agent.command(Path::new("rm")).args(["-rf", "--"]).arg(&folder).current_dir("/").status();
    if !removed.is_ok_and(|status| status.success()) {
        note("demo", &format!("{} could not be removed", folder.display()));
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn demonstrate(ready: &Ready, folder: &Path) -> Result<()> {
    step(
        "demo",
        &format!("a shell script as the agent, in {}; it commits, then it tries to push", folder.display()),
    );
    let mut agent = ready.ana_run();
    agent.args(["sh", "-c", SCRIPT]).current_dir(folder);
    if terminal() {
        step("demo", "when the question comes, type a to approve or d to deny, then Enter");
        watch_it(&mut agent)?;
    } else {
        step("demo", "there is no terminal here: a second process will answer with `ana approve`");
        answer_beside(&ready.state, folder, || watch_it(&mut agent))?;
    }
    step("demo", "the agent has ended; this is what the evidence says");
    let (id, approved) = prove(&ready.state, folder)?;
    ensure!(
        fs::exists(folder.join("published.git/refs/heads/main"))? == approved,
        "the decision was {}, but the push did otherwise",
        if approved { "to allow" } else { "to deny" }
    );
    let did = if approved { "approved and went through" } else { "denied and did not happen" };
    step(
        "demo",
        &format!("passed: a commit never asked, the push asked once, was {did}, and the evidence holds"),
    );
    let ana = shown_as_root(&ready.state.shown());
    step("next", "your own agent: cargo xtask run -- claude (or any command)");
    step("next", &format!("answer from a second terminal: {ana} pending, then approve ID or deny ID"));
    step("next", &format!("look back: {ana} audit show {id}"));
    step("next", &format!("protect more: {}/policy.toml", ready.state.folder.display()));
    Ok(())
}

fn watch_it(agent: &mut Command) -> Result<()> {
    let status = agent.status().context("cannot start ana-run")?;
    if status.success() { Ok(()) } else { bail!("the demo's agent ended with {status}") }
}

/// Runs `agent`; meanwhile everything that it asks for is approved.
fn answer_beside(state: &State, folder: &Path, agent: impl FnOnce() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                answer(state, folder)?;
            }
            Ok(())
        });
        let ended = agent();
        over.store(true, Ordering::Release);
        let answered = answering.join().unwrap_or_else(|_| bail!("the answering thread has panicked"));
        // An answer that failed is why the agent did.
        answered.and(ended)
    })
}

/// Waits up to a second for operations, and approves those of the demo.
fn answer(state: &State, folder: &Path) -> Result<()> {
    let text = output(state.ana().args(["pending", "--json", "--wait", "1"]))?;
    let waiting: Vec<Waiting> = serde_json::from_str(&text).context("ana pending --json")?;
    for waiting in waiting.iter().filter(|waiting| waiting.operation.is_below(folder)) {
        step("answer", &format!("waiting: {}: ana approve {}", waiting.summary, waiting.id));
        let approved = output(
            state.ana().args(["approve", &waiting.id, "--software"]).arg(&state.key).stderr(Stdio::inherit()),
        )?;
        step("answer", &approved);
    }
    Ok(())
}

/// Shows and verifies the evidence; the operation that was asked, and whether it was approved.
fn prove(state: &State, folder: &Path) -> Result<(String, bool)> {
    let export = output(state.ana().args(["audit", "export"]))?;
    let lines = export.lines().map(serde_json::from_str);
    let records: Vec<Record> = lines.collect::<Result<_, _>>().context("ana audit export")?;
    let ours = records.iter().filter_map(|record| Some((record, record.operation.as_ref()?)));
    let ours: Vec<_> = ours.filter(|(_, operation)| operation.is_below(folder)).collect();
    let (first, _) = ours.first().context("the evidence knows nothing of the demo")?;
    let session = first.session.as_deref().context("a decision without a session")?;
    let asked: Vec<_> = ours
        .iter()
        .filter(|(record, _)| record.event == "decision")
        .filter(|(record, _)| {
            let by = record.detail.as_ref().and_then(|detail| detail.decided_by.as_deref());
            by != Some("rule")
        })
        .collect();
    let [(decision, operation)] = asked.as_slice() else {
        run_shown(state.ana().args(["audit", "list", "--session", session]))?;
        bail!("the push should have asked exactly once; {} operations asked", asked.len())
    };
    let verdict = decision.verdict.as_deref().context("a decision without a verdict")?;
    run_shown(state.ana().args(["audit", "list", "--session", session, "--verdict", verdict]))?;
    run_shown(state.ana().args(["audit", "show", &operation.id]))?;
    run_shown(state.ana().args(["audit", "verify"]))?;
    Ok((operation.id.clone(), verdict == "allow"))
}
