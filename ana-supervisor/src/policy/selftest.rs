//! The policy's own tests, `[exec.test]`, run at every load.

use std::path::Path;

use super::{
    Policy,
    error::Problem,
    rule::{ExecRule, Test},
};

impl Policy {
    /// Runs every test line; gives what failed.
    pub(super) fn self_test(&self) -> Vec<Problem> {
        self.exec
            .iter()
            .flat_map(|rule| rule.tests.iter().filter_map(|test| self.fails(rule, test)))
            .collect()
    }

    /// A line stands for the execution of each file of its rule that its first word names: the very path, or the
    /// name of some; or, when it names none of them, every file of the rule run under that foreign name.
    fn fails(&self, rule: &ExecRule, test: &Test) -> Option<Problem> {
        let first = test.argv.first().map_or(b"".as_slice(), Vec::as_slice);
        let files: Vec<&Path> = rule.files().collect();
        let exact = |file: &&Path| file.as_os_str().as_encoded_bytes() == first;
        let named = |file: &&Path| file.file_name().is_some_and(|name| name.as_encoded_bytes() == first);
        let mut meant: Vec<&Path> = files.iter().copied().filter(exact).collect();
        if meant.is_empty() {
            meant = files.iter().copied().filter(named).collect();
        }
        if meant.is_empty() {
            meant = files;
        }
        meant.into_iter().find_map(|file| {
            let verdict = self.judge_exec(&[file], &test.argv);
            if verdict.action == test.wanted {
                return None;
            }
            let message = format!(
                "self-test failed: the verdict on `{}` is {}, not {}",
                test.line,
                verdict.action.word(),
                test.wanted.word()
            );
            let help = format!("rule \"{}\" decided, {}", verdict.rule, verdict.because);
            Some(Problem::new(test.place.clone(), message).help(help))
        })
    }
}
