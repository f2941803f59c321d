//! What has to be on the machine: Debian's packages, installed when their program is missing.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    commands::{as_root, output, quietly, shown_as_root, target_dir, which},
    steps::{note, step},
};

/// Something that is needed, and the package that brings it.
pub(crate) struct Need {
    wanted: Wanted,
    package: &'static str,
}

enum Wanted {
    /// A program's name, or an absolute path.
    File(&'static str),
    /// A command that succeeds.
    Success(&'static [&'static str]),
}

/// A program or an absolute path.
pub(crate) const fn need(file: &'static str, package: &'static str) -> Need {
    Need { wanted: Wanted::File(file), package }
}

/// A command that has to succeed.
pub(crate) const fn need_that(command: &'static [&'static str], package: &'static str) -> Need {
    Need { wanted: Wanted::Success(command), package }
}

/// Installs the packages of what is missing, and says so in one line.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let mut packages: Vec<&str> =
        needs.iter().filter(|need| !is_there(need)).map(|need| need.package).collect();
    packages.dedup();
    if packages.is_empty() { Ok(()) } else { install_with(&[], &packages) }
}

/// Installs packages from Debian's backports for the release that this is. They stay unknown to apt otherwise: nothing is
/// upgraded to them later.
pub(crate) fn install_backports(packages: &[&str]) -> Result<()> {
    let about = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let release = about.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let release = match release {
        Some(release) if about.lines().any(|line| line == "ID=debian") => release,
        _ => bail!("this is not Debian: install {} yourself", packages.join(" ")),
    };
    let suite = format!("{release}-backports");
    let list = target_dir()?.join("backports.list");
    let mut sources = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    sources.push_str(&format!("\ndeb http://deb.debian.org/debian {suite} main\n"));
    fs::write(&list, sources).with_context(|| list.display().to_string())?;
    let list = format!("Dir::Etc::SourceList={}", list.display());
    install_with(&["-o", &list, "--target-release", &suite], packages)
}

fn install_with(options: &[&str], packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if which("apt-get").is_none() {
        bail!("missing: {list} (names of Debian's packages), and there is no apt-get: install them first");
    }
    let apt = || {
        let mut apt = as_root("env");
        apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]).args(options);
        apt
    };
    step("apt", &format!("installing {list} ({})", shown_as_root("apt-get")));
    let install = || quietly(apt().args(["install", "--yes", "--no-install-recommends"]).args(packages));
    // The lists of a fresh machine are empty, those of an old one name packages that are gone.
    if install().is_err() {
        quietly(apt().arg("update"))?;
        install().with_context(|| format!("cannot install {list}"))?;
    }
    Ok(())
}

/// Puts the files of packages into `target/tools/NAME`, unless the system has `file`, which is what they are for. A server
/// that is installed is started, at the next boot as well; one that lies in a folder is nobody's but the tests'.
pub(crate) fn unpack(name: &str, file: &str, packages: &[&str]) -> Result<()> {
    let folder = target_dir()?.join("tools").join(name);
    if Path::new("/").join(file).exists() || folder.join("ready").exists() {
        return Ok(());
    }
    step("apt", &format!("unpacking {} for the tests", packages.join(" ")));
    let script = "mkdir -p \"$0\" && cd \"$0\" && apt-get -qq download \"$@\" && for package in *.deb; do dpkg -x \"$package\" .; \
        done && rm -- *.deb && touch ready";
    let mut shell = Command::new("sh");
    if let Err(error) = quietly(shell.args(["-ec", script]).arg(&folder).args(packages)) {
        // What needs it is skipped, and counted.
        note("missing", &format!("{name}: {error:#}"));
    }
    Ok(())
}

/// What `ana-key` is linked with, and how that is found.
pub(crate) fn to_build() -> Result<()> {
    install(&[need("pkg-config", "pkg-config"), need("/usr/include/libudev.h", "libudev-dev")])
}

fn is_there(need: &Need) -> bool {
    match need.wanted {
        Wanted::File(path) if path.starts_with('/') => Path::new(path).exists(),
        Wanted::File(program) => which(program).is_some(),
        Wanted::Success(command) => {
            let [program, arguments @ ..] = command else { return true };
            output(Command::new(program).args(arguments)).is_ok()
        }
    }
}
