//! Mutation testing of the rooms that decide and prove: does a test notice when the code is wrong?

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::{
    commands::{cargo, output, target_dir},
    steps::{note, step},
};

/// Change the code of policy, approval and evidence in every small way, and see which changes no test notices
///
/// Not part of CI: each of some 1300 changes is a build and a run of its room's tests, a minute on two cores, most of a day
/// in all. tests/mutants.md explains those that survive, and says how all were built at once.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these rooms: policy, approval, evidence
    #[arg(value_name = "ROOM")]
    rooms: Vec<String>,
    /// Only files that match, such as '**/judge.rs'
    #[arg(long, value_name = "GLOB")]
    file: Option<String>,
    /// Only say what would be changed
    #[arg(long)]
    list: bool,
}

const ROOMS: [&str; 3] = ["policy", "approval", "evidence"];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(unknown) = args.rooms.iter().find(|room| !ROOMS.contains(&room.as_str())) {
        bail!("there is no room {unknown:?}; there are {}", ROOMS.join(", "));
    }
    output(Command::new("cargo").args(["mutants", "--version"]))
        .context("no cargo-mutants; cargo install cargo-mutants --locked")?;
    let mut survived = false;
    for room in ROOMS {
        if !args.rooms.is_empty() && !args.rooms.iter().any(|wanted| wanted == room) {
            continue;
        }
        step("mutants", room);
        let mut mutants = cargo()?;
        mutants.args(["mutants", "--package", "ana-supervisor", "--no-shuffle", "--timeout", "300"]);
        // Nobody debugs a mutant, and most of a build is its debug information.
        mutants.env("CARGO_PROFILE_DEV_DEBUG", "0");
        // The fuzzer's own helpers are tests.
        mutants.args(["--exclude", "**/fuzz.rs"]);
        // What a person reads in a log or a message is not what is decided.
        mutants.args(["--exclude-re", "::fmt", "--exclude-re", "impl .*(Debug|Display)"]);
        let files = format!("ana-supervisor/src/{room}/{}", args.file.as_deref().unwrap_or("**/*.rs"));
        mutants.args(["--file", &files]);
        if args.list {
            mutants.arg("--list");
        } else {
            mutants.arg("--output").arg(target_dir()?.join("mutants").join(room));
        }
        // A change is noticed by the tests of its own room, or it is not noticed where it should be.
        mutants.args(["--", "--lib", &format!("{room}::")]);
        let status = mutants.status().context("cannot run cargo mutants")?;
        match status.code() {
            Some(0) => {}
            // 2: some survived; 3: some ran into the time limit (cargo-mutants, "Exit codes").
            Some(2 | 3) => survived = true,
            _ => bail!("cargo mutants failed ({status})"),
        }
    }
    if survived {
        note("mutants", "some changes survived: kill them with a test, or explain them in tests/mutants.md");
    }
    Ok(if survived { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
