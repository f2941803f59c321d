//! The test programs, and how a guest runs them.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    built::Built,
    commands::{quietly, root, target_dir},
    steps::step,
    test::as_test,
};

/// A test program, where cargo runs it, and with what.
pub(super) struct Program {
    file: PathBuf,
    folder: PathBuf,
    arguments: Vec<OsString>,
}

/// The supervisor's unit tests, the promises, and the virtual key over hidraw: what `filters` name, or by default the unit
/// tests of the kernel's part, and all of the others.
pub(super) fn programs(built: &Built, filters: &[OsString]) -> Result<Vec<Program>> {
    let of = |package: &str, target: &str, default: &[&str]| -> Result<Program> {
        let (file, folder) = (built.program(package, target)?, root()?.join(package));
        let arguments = match filters {
            [] => default.iter().map(OsString::from).collect(),
            filters => filters.to_vec(),
        };
        Ok(Program { file, folder, arguments })
    };
    Ok(vec![
        of("ana-supervisor", "ana_supervisor", &["kernel::"])?,
        of("tests", "promises", &[])?,
        of("tests/virtual-key", "over_hidraw", &[])?,
    ])
}

/// Some tests install what they need once, and a guest has no network: they run here first.
pub(super) fn install(built: &Built) -> Result<()> {
    let target = target_dir()?;
    for (installed, name) in [
        (target.join("agents"), "agents_work::claude_without_ana"),
        (target.join("venv/ready"), "evidence_holds::another_library_verifies_the_approval"),
        ("/var/lib/ana-tests/installed/pytest/ready".into(), "ordinary_work_goes_on::pytest_runs"),
    ] {
        if !installed.exists() {
            step("install", &format!("what the guests need of the network: {name}"));
            let mut test = as_test(&built.program("tests", "promises")?, "tests")?;
            quietly(test.args(["--exact", name]))?;
        }
    }
    Ok(())
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
