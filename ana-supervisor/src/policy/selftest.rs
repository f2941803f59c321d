//! The policy's own tests, `[exec.test]` and `[connect.test]`, run at every load.

use std::path::Path;

use super::{
    Action, ConnectRule, Policy, Showing, Verdict,
    connect::ConnectTest,
    error::{Place, Problem},
    rule::{ExecRule, Test},
};

impl Policy {
    /// Runs every test line; gives what failed.
    pub(super) fn self_test(&self) -> Vec<Problem> {
        let exec =
            self.exec.iter().flat_map(|rule| rule.tests.iter().filter_map(|test| self.fails(rule, test)));
        let connect = self
            .connect
            .iter()
            .flat_map(|rule| rule.tests.iter().filter_map(|test| self.connect_fails(rule, test)));
        exec.chain(connect).collect()
    }

    /// A line stands for a connection of each program of its rule's `exe`, or else of one that no rule lists; with a
    /// name, for one that shows it to an address that is known to be the name's own.
    fn connect_fails(&self, rule: &ConnectRule, test: &ConnectTest) -> Option<Problem> {
        let mut programs: Vec<Vec<&Path>> = rule.exe().map(|file| vec![file]).collect();
        if programs.is_empty() {
            programs.push(Vec::new());
        }
        programs.into_iter().find_map(|exe| {
            let verdict = self.judge_target(&test.target, Showing::Own, &exe).verdict;
            (verdict.action != test.wanted).then(|| failed(&test.line, &verdict, test.wanted, &test.place))
        })
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
            Some(failed(&test.line, &verdict, test.wanted, &test.place))
        })
    }
}

fn failed(line: &str, verdict: &Verdict, wanted: Action, place: &Place) -> Problem {
    let message = format!(
        "self-test failed: the verdict on `{line}` is {}, not {}",
        verdict.action.word(),
        wanted.word()
    );
    let help = format!("rule \"{}\" decided, {}", verdict.rule, verdict.because);
    Problem::new(place.clone(), message).help(help)
}
