//! The built programs, at a place that no agent can change.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::unistd::Group;

use crate::{
    commands::{as_root, cargo, quietly, run, target_dir},
    packages,
    steps::step,
};

const FOLDER: &str = "/opt/ana-dev/bin";

/// Programs that run with the person's uid are setgid to this group: the kernel then keeps every other process of that
/// uid out of their memory from the first instruction on (as ssh-agent has it). Nothing else belongs to the group.
const GROUP: &str = "ana";

/// Root's, setgid `ana` or not.
const PROGRAMS: [(&str, bool); 4] =
    [("ana", true), ("ana-run", true), ("ana-key", true), ("ana-supervisor", false)];

/// Where the programs are.
pub(crate) struct Installed {
    folder: PathBuf,
}

impl Installed {
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// `cargo build --release` of the product; cargo shows its progress.
pub(crate) fn build() -> Result<PathBuf> {
    packages::to_build()?;
    step("build", "cargo build --release (the first time takes a few minutes)");
    run(cargo()?.args(["build", "--release", "--locked", "--package", "ana-supervisor", "--bins"]))?;
    Ok(target_dir()?.join("release"))
}

/// Copies what has changed.
pub(crate) fn install(from: &Path) -> Result<Installed> {
    let folder = PathBuf::from(FOLDER);
    let changed: Vec<(&str, bool)> = PROGRAMS
        .into_iter()
        .filter(|(name, setgid)| {
            !is_installed(&from.join(name), &folder.join(name), *setgid).unwrap_or(false)
        })
        .collect();
    if changed.is_empty() {
        step("installed", &format!("{FOLDER} is up to date"));
        return Ok(Installed { folder });
    }
    if Group::from_name(GROUP)?.is_none() {
        quietly(as_root("groupadd").args(["--system", GROUP]))?;
    }
    quietly(
        as_root("install").args(["--directory", "--owner=root", "--group=root", "--mode=0755"]).arg(&folder),
    )?;
    for (name, setgid) in changed {
        let (group, mode) = if setgid { (GROUP, "2755") } else { ("root", "0755") };
        // install(1) makes a new file, so a running program keeps its own.
        quietly(
            as_root("install")
                .args(["--owner=root", &format!("--group={group}"), &format!("--mode={mode}")])
                .arg(from.join(name))
                .arg(folder.join(name)),
        )?;
    }
    step("installed", &format!("ana's programs in {FOLDER}: root's, no agent can change them"));
    Ok(Installed { folder })
}

fn is_installed(built: &Path, installed: &Path, setgid: bool) -> Result<bool> {
    let metadata = fs::symlink_metadata(installed)?;
    let group = match setgid {
        true => Group::from_name(GROUP)?.context("no such group")?.gid.as_raw(),
        false => 0,
    };
    let mode = if setgid { 0o102_755 } else { 0o100_755 };
    Ok(metadata.uid() == 0
        && metadata.gid() == group
        && metadata.permissions().mode() == mode
        && fs::read(built)? == fs::read(installed)?)
}
