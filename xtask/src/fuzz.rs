//! Coverage-guided fuzzing of the parsers that face an agent, a client or a file (tests/fuzz).

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Output},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    commands::{output, root, target_dir},
    steps::{note, step},
};

/// Fuzz the parsers, each for a while; needs cargo-fuzz and the nightly toolchain, and says so where they are missing
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u32,
    /// Only these targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

const TARGETS: [&str; 7] = ["policy", "frames", "evidence", "fanotify", "proc", "peek", "dns"];
const FOLDER: &str = "tests/fuzz";

/// The nightly that every target was last built and run with. Where rustup does not have it, its `nightly` does, and it
/// is said which that is.
const PINNED: &str = "nightly-2026-10-30";

/// The first build takes minutes: the sanitizer goes through every dependency.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if let Some(unknown) = args.targets.iter().find(|target| !TARGETS.contains(&target.as_str())) {
        bail!("there is no target {unknown:?}; there are {}", TARGETS.join(", "));
    }
    let wanted = |target: &&str| args.targets.is_empty() || args.targets.iter().any(|name| name == target);
    let targets: Vec<&str> = TARGETS.into_iter().filter(wanted).collect();
    let nightly = match tools() {
        Ok(nightly) => nightly,
        Err(error) => {
            println!("SKIPPED: fuzz: {error:#}");
            println!("fuzz: 0 run, 0 crashed, {} skipped", targets.len());
            return Ok(ExitCode::SUCCESS);
        }
    };
    step("build", &format!("cargo +{nightly} fuzz build"));
    let built = fuzz(nightly, "build").status().context("cannot run cargo fuzz")?;
    if !built.success() {
        bail!("cargo fuzz build failed ({built})");
    }
    let mut crashed = 0;
    for target in &targets {
        let crash = one(nightly, target, args.seconds)?;
        crashed += usize::from(crash);
    }
    println!("fuzz: {} run, {crashed} crashed, 0 skipped", targets.len());
    Ok(if crashed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The toolchain to take; or what is missing, and the way to it.
fn tools() -> Result<&'static str> {
    output(Command::new("cargo").args(["fuzz", "--version"]))
        .context("no cargo-fuzz; cargo install cargo-fuzz --locked")?;
    let version = |name| output(Command::new("rustup").args(["run", name, "rustc", "--version"]));
    if version(PINNED).is_ok() {
        return Ok(PINNED);
    }
    let found = version("nightly").with_context(|| {
        format!("no nightly toolchain; rustup toolchain install {PINNED} --profile minimal")
    })?;
    note("fuzz", &format!("{PINNED} is not installed; this is {found}"));
    Ok("nightly")
}

fn fuzz(nightly: &str, what: &str) -> Command {
    // Of its own accord `cargo +nightly` is rustup's; the cargo that runs us is another.
    let mut command = Command::new("rustup");
    command.args(["run", nightly, "cargo", "fuzz", what, "--fuzz-dir", FOLDER]);
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC");
    if let Ok(root) = root() {
        command.current_dir(root);
    }
    command
}

/// Whether it crashed. What the fuzzer finds on its way is kept below target/, beside the committed seeds.
fn one(nightly: &str, target: &str, seconds: u32) -> Result<bool> {
    let found = target_dir()?.join("fuzz-corpus").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let mut run = fuzz(nightly, "run");
    run.arg(target).arg(&found).arg(Path::new(FOLDER).join("corpus").join(target));
    run.args(["--", "-print_final_stats=1", "-timeout=10", &format!("-max_total_time={seconds}")]);
    let began = Instant::now();
    let ended = run.output().context("cannot run cargo fuzz")?;
    let took = began.elapsed().as_secs();
    let said = String::from_utf8_lossy(&ended.stderr);
    let shown = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
    let (runs, edges) = (shown(runs(&said)), shown(edges(&said)));
    let crash = !ended.status.success();
    println!("{target:>10} {runs:>10} runs {edges:>6} edges {took:>4} s {:>2} crashes", u8::from(crash));
    if crash {
        println!("{}", tail(&ended, 40));
    }
    Ok(crash)
}

/// libFuzzer stops at the first crash; the number is in its last words.
fn runs(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok())
}

/// How much of the code was reached: the last `cov:`, which counts edges of the control flow.
fn edges(said: &str) -> Option<u64> {
    let after = |line: &str| line.split_once(" cov: ")?.1.split_whitespace().next()?.parse().ok();
    said.lines().rev().find_map(after)
}

fn tail(ended: &Output, lines: usize) -> String {
    let said = String::from_utf8_lossy(&ended.stderr);
    let all: Vec<&str> = said.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_runs_is_read() {
        let said = "INFO: seed\n#2048 DONE\nstat::number_of_executed_units: 2048\nstat::new_units_added: 1\n";
        assert_eq!(runs(said), Some(2048));
        assert_eq!(runs("nothing"), None);
    }

    #[test]
    fn the_last_coverage_is_read() {
        let said =
            "#2\tINITED cov: 7 ft: 8 corp: 1/1b\n#9\tDONE   cov: 31 ft: 40 corp: 3/9b\nstat::new_units: 1\n";
        assert_eq!(edges(said), Some(31));
        assert_eq!(edges("nothing"), None);
    }

    /// A target that is not in the list would never run.
    #[test]
    fn every_target_is_known() {
        let root = root().expect("the workspace");
        let mut files: Vec<String> = fs::read_dir(root.join(FOLDER).join("targets"))
            .expect("the targets")
            .map(|entry| entry.expect("a file").path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        files.sort();
        let mut known = TARGETS;
        known.sort_unstable();
        assert_eq!(files, known);
    }
}
