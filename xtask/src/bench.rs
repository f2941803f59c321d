//! Measurements, with the optimised build.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;

use crate::commands::{as_root, cargo, run as run_shown, target_dir};

/// Measure what ana costs (as root, on a machine that does nothing else)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure
    what: What,
    /// For the measuring program, such as --markdown
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// The exec gate: spawns, opens, holds and releases, and the start of a session
    Exec,
    /// The connect gate: connections that pass, that are looked at, that are held, and bytes through the proxy
    Connect,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let program = match args.what {
        What::Exec => "bench-exec",
        What::Connect => "bench-connect",
    };
    let packages = ["--package", "ana-supervisor", "--package", "ana-tests"];
    run_shown(cargo()?.args(["build", "--release", "--locked", "--bins"]).args(packages))?;
    let release = target_dir()?.join("release");
    let mut folder = OsString::from("ANA_BIN_DIR=");
    folder.push(&release);
    let mut bench = as_root("env");
    run_shown(bench.arg(folder).arg(release.join(program)).args(&args.arguments))?;
    Ok(ExitCode::SUCCESS)
}
