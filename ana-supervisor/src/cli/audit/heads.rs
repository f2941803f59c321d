//! The heads that can be found: in the state's file, in the system's journal, and those that a person kept.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::output;
use crate::evidence::{Head, Told, Trust, head};
use crate::state::Folder;

/// journalctl(1), where systemd puts it: root runs nothing from a PATH.
const JOURNALCTL: &str = "/usr/bin/journalctl";

/// Everything that was told about the log of the state at `base`, and what `given` names.
pub(super) fn gather(base: Option<&Folder>, trust: &Trust, given: &[String]) -> anyhow::Result<Vec<Told>> {
    let mut heads = Vec::new();
    let kept = base.map(|base| base.path().join(head::FILE));
    if let Some(path) = kept.filter(|path| path.exists()) {
        heads.extend(read(&path, trust)?);
    }
    heads.extend(journal(trust));
    for text in given {
        let path = Path::new(text);
        if path.is_file() {
            heads.extend(read(path, trust)?);
        } else if let Some(head) = Head::parse(text, trust) {
            heads.push(Told { head, by: "--head".into() });
        } else {
            bail!("--head {text}: no such file, and not a head that a trusted key signed");
        }
    }
    Ok(heads)
}

fn read(path: &Path, trust: &Trust) -> anyhow::Result<Vec<Told>> {
    let (heads, strange) = head::read(path, trust).with_context(|| format!("read {}", path.display()))?;
    if strange > 0 {
        output::complain(&format!("{}: {strange} lines are no heads of a trusted key", path.display()));
    }
    Ok(heads)
}

/// The journal's. Other users' messages are left out; heads of other states have other keys.
fn journal(trust: &Trust) -> Vec<Told> {
    if !nix::unistd::geteuid().is_root() || !Path::new(JOURNALCTL).exists() {
        return Vec::new();
    }
    let fields = format!("--output-fields={}", head::JOURNAL_FIELD);
    let identifier = format!("SYSLOG_IDENTIFIER={}", head::JOURNAL_IDENTIFIER);
    let output = Command::new(JOURNALCTL)
        .args(["--output=json", "--quiet", "--no-pager", &fields, &identifier, "_UID=0"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    // A machine without a journal has none to ask.
    let Ok(output) = output else { return Vec::new() };
    output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter_map(|entry| {
            let head = Head::parse(entry.get(head::JOURNAL_FIELD)?.as_str()?, trust)?;
            Some(Told { head, by: "the system's journal".into() })
        })
        .collect()
}
