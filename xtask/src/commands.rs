//! Running other programs.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

/// The workspace.
pub(crate) fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")
}

/// Where cargo builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => std::path::absolute(folder).context("CARGO_TARGET_DIR"),
        None => Ok(root()?.join("target")),
    }
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()?);
    // What it said of this program; some build scripts (ring's) look at it, and all would be built once more.
    let ours = std::env::vars_os().map(|(name, _)| name);
    let of_package = |name: &OsString| {
        name.to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    };
    for name in ours.filter(of_package) {
        command.env_remove(name);
    }
    Ok(command)
}

/// A program with root's rights: as it is for root, else through sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--").arg(program);
    sudo
}

/// What is typed in place of `as_root(program)`.
pub(crate) fn shown_as_root(program: &str) -> String {
    if geteuid().is_root() { program.to_owned() } else { format!("sudo {program}") }
}

/// Runs it to its end, its output where ours is.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if status.success() { Ok(()) } else { bail!("{shown} failed ({status})") }
}

/// Runs it to its end; what it said is in the error, or nowhere.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// What it prints, without the last newline.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    // sudo asks for the password on the terminal, not on stdin.
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let said = [output.stderr, output.stdout].concat();
        bail!("{shown} failed ({}): {}", output.status, String::from_utf8_lossy(&said).trim());
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("{shown} printed no text"))?;
    Ok(text.trim_end().to_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// What is said there, shown as it comes, line by line, each behind `mark`.
pub(crate) fn shown_lines(mark: &str, from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let mark = mark.to_owned();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            println!("{mark}{line}");
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The first file of this name in our PATH, or where the system's own programs are.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let folders = std::env::split_paths(&path).chain(system.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}
