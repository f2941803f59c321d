//! What has to be on the machine: Debian's packages, installed when their program is missing.

use anyhow::{Context, Result, bail};

use crate::{
    commands::{as_root, quietly, shown_as_root, which},
    steps::step,
};

/// A program or file that is needed, and the package that brings it.
pub(crate) struct Need {
    /// A program's name, or an absolute path.
    pub(crate) file: &'static str,
    pub(crate) package: &'static str,
}

pub(crate) const fn need(file: &'static str, package: &'static str) -> Need {
    Need { file, package }
}

/// Installs the packages of what is missing, and says so in one line.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let mut packages: Vec<&str> =
        needs.iter().filter(|need| !is_there(need)).map(|need| need.package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if which("apt-get").is_none() {
        bail!("missing: {list} (names of Debian's packages), and there is no apt-get: install them first");
    }
    let apt = || {
        let mut apt = as_root("env");
        apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]);
        apt
    };
    step("apt", &format!("installing {list} ({})", shown_as_root("apt-get")));
    let install = || quietly(apt().args(["install", "--yes", "--no-install-recommends"]).args(&packages));
    // The lists of a fresh machine are empty, those of an old one name packages that are gone.
    if install().is_err() {
        quietly(apt().arg("update"))?;
        install().with_context(|| format!("cannot install {list}"))?;
    }
    Ok(())
}

fn is_there(need: &Need) -> bool {
    if need.file.starts_with('/') {
        std::path::Path::new(need.file).exists()
    } else {
        which(need.file).is_some()
    }
}
