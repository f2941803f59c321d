//! Writes ana's man pages into a folder: ana(1) and a page for each of its commands, ana-run(1), ana-supervisor(8).
//! `cargo xtask man [DIR]` runs it.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::CommandFactory;
use clap_mangen::Man;

#[path = "../src/bin/ana.rs"]
#[allow(dead_code, reason = "only its arguments are of use")]
mod ana;
#[path = "../src/bin/ana-supervisor.rs"]
#[allow(dead_code, reason = "only its arguments are of use")]
mod supervisor;

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/man"), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    write_pages(&folder)?;
    println!("{}", folder.display());
    Ok(())
}

fn write_pages(folder: &Path) -> io::Result<()> {
    pages(ana::Args::command(), "1", folder)?;
    pages(ana_supervisor::cli::run::Args::command().name("ana-run"), "1", folder)?;
    pages(supervisor::Args::command(), "8", folder)
}

/// The command's page and those of its commands, named by the whole path: ana-audit-list(1).
fn pages(command: clap::Command, section: &str, folder: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, section, folder)
}

fn page(command: &clap::Command, section: &str, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        page(below, section, folder)?;
    }
    // What is typed: `ana audit list`. The page's own name has hyphens.
    let typed = command.get_bin_name().unwrap_or(&name).to_owned();
    // clap wants a name that lives as long as the program, which ends here.
    let described = command.clone().name(&*name.clone().leak()).bin_name(typed);
    let mut text = Vec::new();
    Man::new(described).title(name.to_uppercase()).section(section).render(&mut text)?;
    std::fs::write(folder.join(format!("{name}.{section}")), text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic names what is missing")]

    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn every_page_is_there_and_renders_without_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        write_pages(folder.path()).unwrap();
        let names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for page in [
            "ana.1",
            "ana-run.1",
            "ana-supervisor.8",
            "ana-supervisor-start.8",
            "ana-approve.1",
            "ana-audit.1",
            "ana-audit-list.1",
            "ana-policy-init.1",
            "ana-passkey-enroll.1",
            "ana-doctor.1",
        ] {
            assert!(names.iter().any(|name| name == page), "{page}: {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("warden")), "hidden: {names:?}");
        let man = Command::new("man").arg("--version").output().is_ok();
        for name in names {
            let path = folder.path().join(&name);
            let text = fs::read_to_string(&path).unwrap();
            for part in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION"] {
                assert!(text.contains(part), "{name}: no {part}\n{text}");
            }
            if man {
                let rendered = Command::new("man")
                    .args(["--warnings", "-E", "UTF-8", "-l", "-P", "cat"])
                    .arg(&path)
                    .env("MANWIDTH", "120")
                    .output()
                    .unwrap();
                let complaints = String::from_utf8_lossy(&rendered.stderr).into_owned();
                assert!(rendered.status.success() && complaints.is_empty(), "{name}: {complaints}");
                assert!(rendered.stdout.len() > 200, "{name} is empty");
            }
        }
    }
}
