//! One rule of the policy.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Action, error::Place, pattern::Pattern};
use crate::operation::Verify;

/// `[[exec]]`: what happens when one of its files is executed.
#[derive(Clone, Debug)]
pub struct ExecRule {
    pub(super) name: String,
    pub(super) files: Vec<PathBuf>,
    pub(super) argv0: Vec<String>,
    pub(super) deny: Vec<Placed>,
    pub(super) allow: Vec<Placed>,
    pub(super) otherwise: Action,
    /// "policy.toml:9:1"; of the rule itself when it leaves `otherwise` to the default.
    pub(super) otherwise_at: String,
    pub(super) timeout: Duration,
    pub(super) verify: Verify,
    /// Nothing else of the session runs while the program does.
    pub(super) exclusive: bool,
    pub(super) tests: Vec<Test>,
}

/// A pattern and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) pattern: Pattern,
    /// "policy.toml:12:9".
    pub(super) at: String,
}

/// One line of `[exec.test]`.
#[derive(Clone, Debug)]
pub(super) struct Test {
    pub(super) wanted: Action,
    pub(super) line: String,
    /// The line's words; never empty.
    pub(super) argv: Vec<Vec<u8>>,
    pub(super) place: Place,
}

impl ExecRule {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files it lists, `~` expanded, as written otherwise. They need not exist.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// What happens to arguments that no pattern names.
    pub fn otherwise(&self) -> Action {
        self.otherwise
    }

    pub(super) fn lists_any(&self, listed: &[&Path]) -> bool {
        self.own(listed).next().is_some()
    }

    /// Whether a program that is all of `listed` goes by its own name when argv\[0\] is this one.
    pub(super) fn goes_by(&self, listed: &[&Path], argv0: &[u8]) -> bool {
        let name = argv0.rsplit(|&byte| byte == b'/').next().unwrap_or(argv0);
        let own = |file: &Path| file.file_name().is_some_and(|own| own.as_encoded_bytes() == name);
        self.own(listed).any(own) || self.argv0.iter().any(|other| other.as_bytes() == name)
    }

    fn own<'a>(&'a self, listed: &'a [&Path]) -> impl Iterator<Item = &'a Path> {
        self.files().filter(|file| listed.contains(file))
    }
}
