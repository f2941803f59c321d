//! The example for coding agents' other programs, with the files of a machine: what goes with the starter for git.

use std::{collections::BTreeSet, path::PathBuf};

use super::starter::with_files;

/// The example, commented, with the usual paths. It is a file for `policy.d`, beside [`super::GIT_EXAMPLE`].
pub const AGENTS_EXAMPLE: &str = include_str!("../../policies/agents.toml");

/// The names of the programs that the example has rules for.
pub fn agents_names() -> BTreeSet<&'static str> {
    sections().flat_map(names).collect()
}

/// The rules of the example for which there are files, listing these absolute paths (each by its name; those that
/// are not UTF-8 are left out). The text goes behind that of [`super::starter`]: it has no head of its own.
pub fn agents_starter(files: &[PathBuf]) -> String {
    let mut text = String::new();
    for section in sections() {
        let names = names(section);
        let listed: Vec<&str> = files
            .iter()
            .filter(|file| file.is_absolute())
            .filter(|file| {
                file.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(&name))
            })
            .filter_map(|file| file.to_str())
            .collect();
        if !listed.is_empty() {
            text.push_str("\n# ---- ");
            text.push_str(&with_files(section, &listed));
        }
    }
    text
}

fn sections() -> impl Iterator<Item = &'static str> {
    AGENTS_EXAMPLE.split("\n# ---- ").skip(1)
}

/// The last parts of the paths that a section lists.
fn names(section: &'static str) -> Vec<&'static str> {
    let list = section.lines().skip_while(|line| *line != "file = [").skip(1).take_while(|line| *line != "]");
    let mut names: Vec<&str> =
        list.filter_map(|line| line.trim().trim_matches(['"', ',']).rsplit('/').next()).collect();
    names.dedup();
    names
}
