//! ana's man pages, from the definitions of its arguments.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::commands::{cargo, run as run_shown, target_dir};

/// Write the man pages into a folder
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder [default: target/man]
    folder: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = match &args.folder {
        Some(folder) => std::path::absolute(folder).with_context(|| folder.display().to_string())?,
        None => target_dir()?.join("man"),
    };
    let example = ["run", "--quiet", "--locked", "--package", "ana-supervisor", "--example", "man", "--"];
    run_shown(cargo()?.args(example).arg(folder))
}
