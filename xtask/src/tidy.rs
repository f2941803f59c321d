//! The house rules that no compiler knows: sizes, names, where `unsafe` may be, and who may use whom.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::code;

const LINES_MAX: usize = 500;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "helper", "helpers", "misc", "common"];

/// The only places of unsafe code.
const UNSAFE: [&str; 4] = ["ana-supervisor/src/sys/", "ana-common/src/pod.rs", "ana-ebpf/src/", "tests/"];

/// The rooms of the library: each may use those before it.
const ROOMS: [&str; 13] = [
    "sys",
    "operation",
    "policy",
    "state",
    "kernel",
    "approval",
    "evidence",
    "launch",
    "gate",
    "pipeline",
    "api",
    "supervisor",
    "cli",
];

/// Arrows that point backwards, each with its reason.
const BACKWARD: [(&str, &str); 1] = [
    // Session leader and warden talk to the supervisor in the socket's frames.
    ("launch", "api"),
];

/// Every breach of a rule below `root`.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut found = Vec::new();
    for file in sources(root)? {
        let text = fs::read_to_string(root.join(&file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        found.extend(breaches(&file, &text));
    }
    for breach in &found {
        println!("{breach}");
    }
    if found.is_empty() { Ok(()) } else { bail!("{} against the house rules", found.len()) }
}

/// The Rust files of the packages.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders =
        ["ana-common", "ana-ebpf", "ana-supervisor", "tests", "xtask"].map(PathBuf::from).to_vec();
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(root.join(&folder)).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What is wrong with one file.
fn breaches(file: &Path, text: &str) -> Vec<String> {
    let shown = file.display();
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{shown}: {lines} lines; more than {LINES_MAX} are several files"));
    }
    let names = file.iter().skip(1).filter_map(|part| part.to_str()).map(|part| part.trim_end_matches(".rs"));
    for name in names.filter(|name| EMPTY_NAMES.contains(name)) {
        found.push(format!("{shown}: `{name}` does not say what is inside"));
    }
    let code = code::without_text(text);
    if !UNSAFE.iter().any(|place| file.starts_with(place)) {
        for (number, line) in code.lines().enumerate() {
            if words(line).any(|word| word == "unsafe") {
                found.push(format!("{shown}:{}: unsafe code outside of sys", number + 1));
            }
        }
    }
    found.extend(arrows(file, &code));
    found
}

/// Uses of a later room.
fn arrows(file: &Path, code: &str) -> Vec<String> {
    let Some(ours) = room(file) else { return Vec::new() };
    let place = |name: &str| ROOMS.iter().position(|room| *room == name);
    let later = |name: &&str| place(name) > place(ours) && !BACKWARD.contains(&(ours, name));
    let used = code::uses_of_crate(code);
    used.iter()
        .map(String::as_str)
        .filter(later)
        .map(|name| format!("{}: {ours} uses {name}, which comes after it", file.display()))
        .collect()
}

/// The room of the library that a file belongs to. Tests may look at everything.
fn room(file: &Path) -> Option<&'static str> {
    let inside = file.strip_prefix("ana-supervisor/src").ok()?;
    let test = |part: &str| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs");
    if inside.iter().filter_map(|part| part.to_str()).any(test) {
        return None;
    }
    let first = inside.iter().next()?.to_str()?;
    ROOMS.into_iter().find(|room| *room == first.trim_end_matches(".rs"))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str, text: &str) -> Vec<String> {
        breaches(Path::new(file), text)
    }

    #[test]
    fn long_files_and_empty_names_are_found() {
        assert_eq!(of("xtask/src/run.rs", &"\n".repeat(500)), Vec::<String>::new());
        assert_eq!(of("xtask/src/run.rs", &"\n".repeat(501)).len(), 1);
        assert_eq!(of("xtask/src/utils.rs", "").len(), 1);
        assert_eq!(of("xtask/src/helpers/mod.rs", "").len(), 1);
        assert_eq!(of("tests/harness/terminal.rs", "").len(), 0);
    }

    #[test]
    fn unsafe_code_is_found_and_the_word_is_not() {
        let unsafe_block = "fn f() { unsafe { g() } }";
        assert_eq!(of("ana-supervisor/src/gate/mod.rs", unsafe_block).len(), 1);
        assert_eq!(of("ana-supervisor/src/sys/mod.rs", unsafe_block).len(), 0);
        assert_eq!(
            of("ana-supervisor/src/gate/mod.rs", "// unsafe\nlet s = \"unsafe\"; #![deny(unsafe_code)]")
                .len(),
            0
        );
    }

    #[test]
    fn a_later_room_is_found() {
        assert_eq!(
            of("ana-supervisor/src/policy/mod.rs", "use crate::{operation::Bytes, gate::{a, b}};").len(),
            1
        );
        assert_eq!(of("ana-supervisor/src/policy/mod.rs", "fn f() { crate::gate::hold() }").len(), 1);
        assert_eq!(of("ana-supervisor/src/gate/mod.rs", "use crate::policy::{Policy};").len(), 0);
        assert_eq!(of("ana-supervisor/src/policy/tests.rs", "use crate::gate;").len(), 0);
        assert_eq!(of("ana-supervisor/src/launch/leader.rs", "use crate::api::frame;").len(), 0);
    }
}
