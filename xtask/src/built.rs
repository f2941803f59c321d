//! The test programs that cargo has built.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::commands::{cargo, output, root};

/// What builds all of them. (Of some packages alone cargo chooses other features, and builds the rest once more.)
pub(crate) const NO_RUN: [&str; 5] = ["test", "--release", "--locked", "--workspace", "--no-run"];

/// What cargo says of what it has built (cargo-build(1), "--message-format").
pub(crate) struct Built(Vec<Value>);

impl Built {
    /// Builds what is missing.
    pub(crate) fn list() -> Result<Self> {
        let messages = output(cargo()?.args(NO_RUN).arg("--message-format=json"))?;
        let parsed = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(Self(parsed.filter(|message| message["profile"]["test"] == true).collect()))
    }

    /// The programs of the package in a folder of the workspace, by the names of their targets.
    pub(crate) fn of(&self, folder: &str) -> Result<Vec<(&str, PathBuf)>> {
        let manifest = root()?.join(folder).join("Cargo.toml");
        let its = |message: &&Value| message["manifest_path"].as_str().map(Path::new) == Some(&manifest);
        let program = |message: &Value| Some(message["executable"].as_str()?.into());
        let all = self.0.iter().filter(its);
        Ok(all.filter_map(|message| Some((message["target"]["name"].as_str()?, program(message)?))).collect())
    }

    /// One of them.
    pub(crate) fn program(&self, folder: &str, target: &str) -> Result<PathBuf> {
        let all = self.of(folder)?;
        let found = all.into_iter().find(|(name, _)| *name == target);
        found.map(|(_, program)| program).with_context(|| format!("cargo built no {target} of {folder}"))
    }
}
