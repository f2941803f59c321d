//! The two compilers that can build for eBPF, and what they need.

use std::{
    fmt, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Loads the compiler's own libLLVM at run time, so it fits whichever compiler is used.
const BPF_LINKER: &str = "0.10.3";

/// Where a compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Debian's rustc-web, cargo-web and rust-web-src.
    Debian,
    /// rustup's nightly with rust-src.
    Nightly,
}

/// The versions that decide about the object's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Versions {
    pub(crate) kind: Kind,
    /// `rustc --version`
    pub(crate) rustc: String,
    pub(crate) llvm: String,
    /// `cargo --version`
    pub(crate) cargo: String,
    pub(crate) bpf_linker: String,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, rustc, llvm, cargo, bpf_linker } = self;
        write!(f, "{kind:?}: {rustc}, LLVM {llvm}, {cargo}, {bpf_linker}")
    }
}

/// A compiler that is there.
pub(crate) struct Toolchain {
    pub(crate) versions: Versions,
    rustc: PathBuf,
    cargo: PathBuf,
    /// Holds the libLLVM for bpf-linker: it takes the first one that it finds in LD_LIBRARY_PATH.
    llvm: PathBuf,
}

impl Toolchain {
    /// `links`: a directory for a link to libLLVM, where the compiler's own directory holds others as well.
    pub(crate) fn find(kind: Kind, links: &Path) -> Result<Self> {
        let (rustc, cargo) = match kind {
            Kind::Debian => (PathBuf::from("/usr/bin/rustc"), PathBuf::from("/usr/bin/cargo")),
            Kind::Nightly => {
                let which =
                    |tool| output(Command::new("rustup").args(["which", "--toolchain", "nightly", tool]));
                (which("rustc")?.into(), which("cargo")?.into())
            }
        };
        let sysroot = PathBuf::from(output(clean(&rustc).args(["--print", "sysroot"]))?);
        let core = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if !core.exists() {
            bail!("{} has no sources of core (Debian: rust-web-src; rustup: rust-src)", rustc.display());
        }
        let verbose = output(clean(&rustc).arg("-vV"))?;
        let line = |name| verbose.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let llvm_version = line("LLVM version:").context("rustc does not say its LLVM version")?.to_owned();
        let host = line("host:").context("rustc does not say its host")?;
        let llvm = match kind {
            Kind::Debian => debian_llvm(&llvm_version, host, links)?,
            Kind::Nightly => sysroot.join("lib"),
        };
        let versions = Versions {
            kind,
            rustc: output(clean(&rustc).arg("--version"))?,
            llvm: llvm_version,
            cargo: output(clean(&cargo).arg("--version"))?,
            bpf_linker: output(Command::new("bpf-linker").arg("--version").env("LD_LIBRARY_PATH", &llvm))?,
        };
        Ok(Self { versions, rustc, cargo, llvm })
    }

    /// `cargo build` of the programs in `source`. Nothing of the surrounding cargo run gets in.
    pub(crate) fn cargo(&self, source: &Path, target: &Path) -> Command {
        let mut command = clean(&self.cargo);
        command
            .args(["build", "--release", "--locked", "--target-dir"])
            .arg(target)
            .current_dir(source)
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all")
            .env("LD_LIBRARY_PATH", &self.llvm);
        command
    }

    /// What a person would type.
    pub(crate) fn command(&self) -> String {
        let prefix =
            "LD_LIBRARY_PATH=<directory of libLLVM> RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_TRIM_PATHS=all";
        match self.versions.kind {
            Kind::Debian => format!("{prefix} RUSTC=/usr/bin/rustc /usr/bin/cargo build --release --locked"),
            Kind::Nightly => format!("{prefix} cargo +nightly build --release --locked"),
        }
    }
}

/// Tries to get what is missing; what came is for [`Toolchain::find`] to see.
pub(crate) fn install(versions: &Versions) -> Result<()> {
    match versions.kind {
        Kind::Debian => {
            let packages = ["rust-web-src", "rustc-web", "cargo-web"];
            let mut apt = if output(Command::new("id").arg("-u"))? == "0" {
                Command::new("apt-get")
            } else {
                let mut sudo = Command::new("sudo");
                sudo.args(["--non-interactive", "apt-get"]);
                sudo
            };
            done(apt.args(["install", "--yes", "--no-upgrade", "--no-install-recommends"]).args(packages))?;
        }
        Kind::Nightly => {
            // A nightly that is there is never replaced by a newer one: others work with it. It only gets what it lacks.
            let mut rustup = Command::new("rustup");
            if output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"])).is_ok() {
                rustup.args(["component", "add", "--toolchain", "nightly", "rust-src"]);
            } else {
                rustup.args(["toolchain", "install", "nightly", "--component", "rust-src"]);
            }
            done(&mut rustup)?;
        }
    }
    if output(Command::new("bpf-linker").arg("--version")).is_ok_and(|version| version.ends_with(BPF_LINKER))
    {
        return Ok(());
    }
    done(Command::new("cargo").args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]))
}

fn debian_llvm(version: &str, host: &str, links: &Path) -> Result<PathBuf> {
    let short = version.rsplit_once('.').map_or(version, |(short, _patch)| short);
    let architecture = host.split('-').next().unwrap_or(host);
    let library = PathBuf::from(format!("/usr/lib/{architecture}-linux-gnu/libLLVM.so.{short}"));
    if !library.exists() {
        bail!("{} is not there", library.display());
    }
    fs::create_dir_all(links).with_context(|| format!("cannot make {}", links.display()))?;
    let link = links.join("libLLVM.so");
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", link.display()));
        }
        _ => symlink(&library, &link).with_context(|| format!("cannot make {}", link.display()))?,
    }
    Ok(links.to_owned())
}

/// A command that knows nothing of the cargo and rustup that run this.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["RUSTUP_HOME", "CARGO_HOME"].contains(&&*text);
        if !ours && ["RUST", "CARGO", "LD_LIBRARY_PATH"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn done(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if status.success() { Ok(()) } else { bail!("{shown} failed ({status})") }
}
