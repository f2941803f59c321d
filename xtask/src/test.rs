//! All tests: the units, and the promises on the real binaries and the running kernel.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::{
    built::{Built, NO_RUN},
    commands::{as_root, cargo, quietly, root, run as run_shown, shown_lines, target_dir},
    packages::{self, need, need_that},
    steps::{note, step},
};

/// Set up this machine for the tests, and run all of them (as root: they load eBPF and start supervisors)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Set up and build, and run nothing
    #[arg(long)]
    no_run: bool,
    /// For the test programs: a part of a test's name, --nocapture, …
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

/// The folders of the packages, the cheap ones first. The last one needs the release build of the product.
const PACKAGES: [&str; 5] = ["ana-common", "xtask", "tests/virtual-key", "ana-supervisor", "tests"];

/// A test program that takes longer hangs.
const LIMIT_SECS: u32 = 900;

/// What the test programs said of themselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    ignored: u64,
    skipped: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    set_up()?;
    let built = build()?;
    let built_in = start.elapsed().as_secs();
    if args.no_run {
        return Ok(ExitCode::SUCCESS);
    }

    let list = target_dir()?.join("ana-tests/skipped");
    quietly(as_root("rm").arg("-f").arg(&list))?;
    let mut tally = Tally::default();
    for folder in PACKAGES {
        for (target, program) in built.of(folder)? {
            step("test", &format!("{folder}: {target}"));
            suite(as_test(&program, folder)?.args(&args.arguments), &mut tally)?;
        }
    }
    if args.arguments.is_empty() {
        step("test", "what the documentation shows");
        suite(cargo()?.args(["test", "--release", "--locked", "--workspace", "--doc"]), &mut tally)?;
    }
    tally.take_skipped(&list)?;
    for line in &tally.skipped {
        println!("{line}");
    }
    let run_in = start.elapsed().as_secs() - built_in;
    println!("{} ({built_in} s to build, {run_in} s to run)", tally.summary());
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Installs what the tests need.
pub(crate) fn set_up() -> Result<()> {
    packages::to_build()?;
    if !geteuid().is_root() {
        note("sudo", "the test programs run as root");
    }
    packages::install(&[
        need("sudo", "sudo"),
        need("git", "git"),
        need("tmux", "tmux"),
        // The agents whose screens a question comes over.
        need("vim", "vim"),
        need("htop", "htop"),
        need("less", "less"),
        need("cc", "gcc"),
        need("gcc", "gcc"),
        need("make", "make"),
        need("strace", "strace"),
        need("ps", "procps"),
        need("setpriv", "util-linux"),
        need("script", "bsdutils"),
        need("mkfs.ext4", "e2fsprogs"),
        need("useradd", "passwd"),
        // What the policy for coding agents is tried on; the larger ones (docker, terraform, …) where they are there.
        need("gh", "gh"),
        need("kubectl", "kubernetes-client"),
        need("ssh", "openssh-client"),
        need("/usr/bin/python3", "python3"),
        need_that(&["/usr/bin/python3", "-c", "import venv, ensurepip"], "python3-venv"),
        // The hosts of the connect gate's tests, and the programs that call them.
        need("ip", "iproute2"),
        need("nsenter", "util-linux"),
        need("openssl", "openssl"),
        need("curl", "curl"),
        need("node", "nodejs"),
        need("go", "golang-go"),
        need("psql", "postgresql-client"),
        need_that(&["/usr/bin/python3", "-c", "import aiohttp"], "python3-aiohttp"),
        need_that(&["/usr/bin/python3", "-c", "import requests"], "python3-requests"),
    ])?;
    packages::unpack("sshd", "usr/sbin/sshd", &["openssh-server", "libwrap0"])?;
    packages::unpack("postgresql", "usr/lib/postgresql", &["postgresql-15"])
}

/// Builds the programs, and the tests.
pub(crate) fn build() -> Result<Built> {
    step("build", "cargo build --release, for the tests of the real programs");
    run_shown(cargo()?.args(["build", "--release", "--locked", "--package", "ana-supervisor", "--bins"]))?;
    step("build", "cargo test --release --no-run");
    run_shown(cargo()?.args(NO_RUN))?;
    Built::list()
}

/// Runs one test program; its failures are counted, not returned.
fn suite(program: &mut Command, tally: &mut Tally) -> Result<()> {
    let (lines, success) = echoed(program)?;
    let before = tally.failed;
    lines.iter().for_each(|line| tally.count(line));
    if !success && tally.failed == before {
        // A program that crashed or hung has no result line; a build error has none either.
        note("failed", "a test program did not come to its end");
        tally.failed += 1;
    }
    Ok(())
}

/// A test program in its package's folder, as cargo runs it: limited, as root, and as if no one had called sudo.
pub(crate) fn as_test(program: &Path, folder: &str) -> Result<Command> {
    let mut command = match geteuid().is_root() {
        true => Command::new("env"),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--preserve-env", "--set-home", "--", "env"]);
            sudo
        }
    };
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"] {
        command.args(["-u", name]);
    }
    // sudo has its own PATH.
    command.arg(format!("PATH={}", std::env::var("PATH").context("PATH")?));
    command.arg(format!("ANA_BIN_DIR={}", target_dir()?.join("release").display()));
    command.args(["timeout", "--foreground", "--kill-after=10", &LIMIT_SECS.to_string()]);
    command.arg(program).current_dir(root()?.join(folder));
    Ok(command)
}

/// Runs it, shows what it prints and returns it; and whether it succeeded.
fn echoed(command: &mut Command) -> Result<(Vec<String>, bool)> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo has no stdout")?;
    let receiver = shown_lines("", stdout);
    let status = child.wait().context("cannot wait for cargo")?;
    // The end of file would not come as long as something that a test left behind holds the pipe.
    let mut lines = Vec::new();
    while let Ok(line) = receiver.recv_timeout(Duration::from_secs(2)) {
        lines.push(line);
    }
    Ok((lines, status.success()))
}

impl Tally {
    /// Takes in a line such as `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; …`.
    pub(crate) fn count(&mut self, line: &str) {
        // Said when it happens, and in the list.
        if line.starts_with("SKIPPED: ") && !self.skipped.iter().any(|known| known == line) {
            self.skipped.push(line.to_owned());
        }
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let Some(Ok(number)) = words.next().map(str::parse::<u64>) else { continue };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }

    /// One thing that was not tried, and why.
    pub(crate) fn of_skipped(why: String) -> Self {
        // It counts as libtest counts: a skipped test has passed, until it is subtracted.
        Self { passed: 1, skipped: vec![why], ..Self::default() }
    }

    /// Adds what others have counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.skipped.extend(other.skipped);
    }

    /// Adds the list that the tests have written; libtest knows no skipping, and counts them as passed.
    fn take_skipped(&mut self, list: &Path) -> Result<()> {
        match fs::read_to_string(list) {
            Ok(text) => self.skipped.extend(text.lines().map(str::to_owned)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", list.display())),
        }
        self.skipped.sort();
        self.skipped.dedup();
        Ok(())
    }

    pub(crate) fn summary(&self) -> String {
        let skipped = self.skipped.len();
        let passed = self.passed.saturating_sub(u64::try_from(skipped).unwrap_or(u64::MAX));
        let ignored = match self.ignored {
            0 => String::new(),
            n => format!(", {n} only on request"),
        };
        format!("tests: {passed} passed, {} failed, {skipped} skipped{ignored}", self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_and_skipped_tests_have_not_passed() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.02s",
            "SKIPPED: npm_install: no npm",
            "SKIPPED: npm_install: no npm",
            "test a_name ... ok",
        ] {
            tally.count(line);
        }
        assert_eq!(tally.summary(), "tests: 13 passed, 3 failed, 1 skipped, 1 only on request");
    }
}
