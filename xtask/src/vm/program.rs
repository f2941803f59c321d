//! The test programs, and how a guest runs them.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::commands::{cargo, output, root, target_dir};

/// A test program, where cargo runs it, and with what.
pub(super) struct Program {
    file: PathBuf,
    folder: PathBuf,
    arguments: Vec<OsString>,
}

/// The supervisor's unit tests, the promises, and the virtual key over hidraw: what `filters` name, or by default what
/// concerns the kernel, and security keys, which only a guest has.
pub(super) fn build(filters: &[OsString]) -> Result<Vec<Program>> {
    let of = |package: &str, target: &[&str], default: &[&str]| -> Result<Program> {
        let file = executable(package, target)?;
        let arguments = match filters {
            [] => default.iter().map(OsString::from).collect(),
            filters => filters.to_vec(),
        };
        Ok(Program { file, folder: root()?.join(package), arguments })
    };
    Ok(vec![
        of("ana-supervisor", &["--lib"], &["kernel::"])?,
        of("tests", &["--test", "promises"], &["security_key_"])?,
        of("tests/virtual-key", &["--test", "over_hidraw"], &[])?,
    ])
}

/// Builds one test program; where it is.
fn executable(folder: &str, target: &[&str]) -> Result<PathBuf> {
    let manifest = root()?.join(folder).join("Cargo.toml");
    let mut command = cargo()?;
    command.args(["test", "--release", "--locked", "--no-run", "--message-format=json", "--manifest-path"]);
    let messages = output(command.arg(manifest).args(target))?;
    let parsed = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let tests = parsed.filter(|message| message["profile"]["test"] == true);
    let mut found = tests.filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    found.next_back().with_context(|| format!("cargo built no test program of {folder}"))
}

/// What the guest's shell does, with the files where they are here.
pub(super) fn task(programs: &[Program]) -> Result<String> {
    let target = target_dir()?;
    let skipped = quoted(&target.join("ana-tests/skipped"))?;
    let release = target.join("release");
    let mut lines = format!("export ANA_BIN_DIR={}\nrm -f {skipped}\n", quoted(&release)?);
    // What this kernel can do, as people see it; its exit code is about this machine's installation as well.
    lines.push_str(&format!("NO_COLOR=1 {} doctor\n", quoted(&release.join("ana"))?));
    for program in programs {
        let arguments: Result<Vec<String>> = program.arguments.iter().map(|a| quoted(Path::new(a))).collect();
        lines.push_str(&format!(
            "cd {} && {} --color never --test-threads 2 {}\necho \"ana-vm: ended with $?\"\n",
            quoted(&program.folder)?,
            quoted(&program.file)?,
            arguments?.join(" ")
        ));
    }
    lines.push_str(&format!("[ ! -e {skipped} ] || cat {skipped}\n"));
    Ok(lines)
}

/// One word of a shell's (POSIX, "Single-Quotes").
fn quoted(path: &Path) -> Result<String> {
    let text = std::str::from_utf8(path.as_os_str().as_bytes()).context("a path that is no text")?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one() {
        assert_eq!(quoted(Path::new("it's $HOME")).unwrap(), "'it'\\''s $HOME'");
    }
}
