//! The policy to start with: the shipped example for git with the files of this machine.

use std::path::{Path, PathBuf};

/// The example, commented, with Debian's paths.
pub const GIT_EXAMPLE: &str = include_str!("../../policies/git.toml");

/// The names of the files that a starter policy can list. The caller looks for each of them in every folder of the
/// agent's PATH and in what `git --exec-path` prints for every git found there (git's own copy of itself may be
/// another inode than the one in PATH), and gives [`starter`] what exists, links unresolved: the name counts.
pub const STARTER_NAMES: [&str; 14] = [
    "git",
    "git-receive-pack",
    "git-upload-pack",
    "git-remote-http",
    "git-remote-https",
    "git-remote-ftp",
    "git-remote-ftps",
    "git-http-push",
    "git-imap-send",
    "git-daemon",
    "git-send-email",
    "git-svn",
    "git-p4",
    "git-cvsexportcommit",
];

/// The text of a policy that asks before git publishes anything, listing these absolute paths (see
/// [`STARTER_NAMES`]; others, and paths that are not UTF-8, are left out). A rule for which there is no file is left
/// out; without any git the policy protects nothing, which the caller should say.
pub fn starter(files: &[PathBuf], allow_software_passkey: bool) -> String {
    let mut sections = GIT_EXAMPLE.split("\n# ---- ");
    let head = sections.next().unwrap_or_default();
    let mut text = head.to_owned();
    if allow_software_passkey {
        text = text.replace("allow_software_passkey = false", "allow_software_passkey = true");
    }
    text = text.replace(
        "# This is the example with Debian's paths. `cargo xtask run` writes the same policy with the paths of the machine:\n",
        "# The paths are those that were found on this machine when this file was written:\n",
    );
    for section in sections {
        let rule = section.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        let listed: Vec<&str> = files.iter().filter_map(|file| of_rule(file, rule?)).collect();
        if rule.is_some() && listed.is_empty() {
            continue;
        }
        text.push_str("\n# ---- ");
        text.push_str(&with_files(section, &listed));
    }
    text
}

/// The path as text, if the rule of the example lists files of this name.
fn of_rule<'a>(file: &'a Path, rule: &str) -> Option<&'a str> {
    let name = file.file_name()?.to_str()?;
    let of = match name {
        "git" => "git",
        "git-receive-pack" | "git-upload-pack" => "git-serve",
        other if STARTER_NAMES.contains(&other) => "git-network",
        _ => return None,
    };
    file.to_str().filter(|path| of == rule && path.starts_with('/'))
}

/// The section with another list of files.
pub(super) fn with_files(section: &str, files: &[&str]) -> String {
    let mut text = String::new();
    let mut inside = false;
    for line in section.lines() {
        inside |= line == "file = [";
        if !inside {
            text.push_str(line);
            text.push('\n');
        } else if line == "]" {
            inside = false;
            text.push_str("file = [\n");
            for (at, file) in files.iter().enumerate() {
                if !files[..at].contains(file) {
                    text.push_str(&format!("  {},\n", toml::Value::from(*file)));
                }
            }
            text.push_str("]\n");
        }
    }
    text
}
