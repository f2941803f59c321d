//! The verdict on one execution.
//!
//! Patterns speak of the arguments after argv\[0\], and a program may read the same arguments differently under
//! another name (`git-push status` pushes). So a rule's patterns count only for a program that goes by its own
//! name. Under any other name nothing is allowed, and a rule that denies anything denies everything: which of its
//! patterns the foreign name would have evaded cannot be known. What remains is asked.

use std::path::Path;

use super::{Action, PRIVILEGE_RULE, Policy, Verdict, rule::ExecRule};

/// Why the arguments of a script that is opened say nothing.
const OPENED: &str = "an interpreter opened the script; run it by its own path";

impl Policy {
    /// Judges the execution of a program. `listed` are the paths of [`Policy::exec_files`] that lead to the inode
    /// that was executed, `argv` all its arguments with argv\[0\] first.
    ///
    /// The first rule that lists the program under the name in argv\[0\] decides: deny, then allow, then
    /// `otherwise`. If none goes by that name, the strictest of the rules that list it decides. A program that no
    /// rule lists is denied: only listed ones are marked, so that it should not have come here.
    pub fn judge_exec(&self, listed: &[&Path], argv: &[Vec<u8>]) -> Verdict {
        let rules = self.listing(listed);
        let argv0 = argv.first().map_or(b"".as_slice(), Vec::as_slice);
        let mut verdict = match rules.iter().find(|rule| rule.goes_by(listed, argv0)) {
            Some(rule) => rule.decide(argv.get(1..).unwrap_or_default()),
            None => strictest(&rules, &format!("argv[0] {} is not its own name", quoted(argv0))),
        };
        verdict.needs_argv = !fixed(&rules);
        verdict.exclusive = rules.iter().any(|rule| rule.exclusive);
        verdict
    }

    /// Judges a listed script that was executed through its `#!` line, by the arguments after the script's own
    /// path; or, with `None`, one that an interpreter opened (`sh script`): what it will do with it cannot be read
    /// from its arguments, so that nothing is allowed, and a rule that denies anything (or is exclusive) denies.
    pub fn judge_script(&self, listed: &[&Path], arguments: Option<&[Vec<u8>]>) -> Verdict {
        let rules = self.listing(listed);
        let mut verdict = match (arguments, rules.first()) {
            (Some(arguments), Some(rule)) => rule.decide(arguments),
            _ => strictest(&rules, OPENED),
        };
        verdict.needs_argv = !fixed(&rules);
        verdict.exclusive = rules.iter().any(|rule| rule.exclusive);
        if verdict.exclusive && arguments.is_none() {
            // Whatever else the interpreter's process is (the agent itself, say), it would run alone until it ends.
            verdict.action = Action::Deny;
            verdict.because = format!("exclusive = true: {OPENED}");
        }
        verdict
    }

    /// Whether some arguments would be allowed without asking. If not, they need not be looked at before the exec.
    pub fn may_allow(&self, listed: &[&Path]) -> bool {
        self.listing(listed).iter().any(|rule| rule.otherwise == Action::Allow || !rule.allow.is_empty())
    }

    /// The verdict on a program that is denied whatever its arguments are, if it is: the kernel may be told at once.
    pub fn denies_always(&self, listed: &[&Path]) -> Option<Verdict> {
        let rules = self.listing(listed);
        if !always_denied(&rules) {
            return None;
        }
        let mut verdict = strictest(&rules, "whatever the arguments are");
        if let Some(rule) = rules.first() {
            verdict = rule.verdict(Action::Deny, rule.otherwise_because());
        }
        verdict.needs_argv = false;
        Some(verdict)
    }

    /// The verdict on an exec that gains privilege, of a program that no rule lists.
    pub fn judge_privilege(&self) -> Verdict {
        let defaults = &self.defaults;
        Verdict {
            action: defaults.privilege,
            rule: PRIVILEGE_RULE.to_owned(),
            because: format!(
                "it gains privilege and no rule lists it: [defaults] privilege = \"{}\"",
                defaults.privilege.word()
            ),
            timeout: defaults.timeout,
            verify: defaults.verify,
            exclusive: false,
            needs_argv: false,
        }
    }

    fn listing(&self, listed: &[&Path]) -> Vec<&ExecRule> {
        self.exec.iter().filter(|rule| rule.lists_any(listed)).collect()
    }
}

impl ExecRule {
    /// Deny, then allow, then otherwise, for a program that goes by its own name.
    fn decide(&self, arguments: &[Vec<u8>]) -> Verdict {
        let lists = [(Action::Deny, &self.deny), (Action::Allow, &self.allow)];
        for (action, patterns) in lists {
            if let Some(first) = patterns.iter().find(|placed| placed.pattern.matches(arguments)) {
                let because = format!("{}: {} {}", first.at, action.word(), first.pattern.text());
                return self.verdict(action, because);
            }
        }
        self.verdict(self.otherwise, self.otherwise_because())
    }

    /// The verdict when the arguments cannot be relied on, and why they cannot.
    fn decide_blindly(&self, reason: &str) -> Verdict {
        if self.otherwise == Action::Deny {
            return self.verdict(Action::Deny, self.otherwise_because());
        }
        match self.deny.first() {
            Some(first) => {
                let because = format!("{}: deny {}: {reason}", first.at, first.pattern.text());
                self.verdict(Action::Deny, because)
            }
            None => self.verdict(Action::Approve, format!("{}: {reason}", self.otherwise_at)),
        }
    }

    fn otherwise_because(&self) -> String {
        format!("{}: otherwise = \"{}\"", self.otherwise_at, self.otherwise.word())
    }

    fn verdict(&self, action: Action, because: String) -> Verdict {
        Verdict {
            action,
            rule: self.name.clone(),
            because,
            timeout: self.timeout,
            verify: self.verify,
            needs_argv: true,
            exclusive: self.exclusive,
        }
    }
}

/// The first denial, or else the first question.
fn strictest(rules: &[&ExecRule], reason: &str) -> Verdict {
    let mut verdicts = rules.iter().map(|rule| rule.decide_blindly(reason));
    let first = verdicts.next();
    match first {
        Some(first) if first.action == Action::Deny => first,
        Some(first) => verdicts.find(|other| other.action == Action::Deny).unwrap_or(first),
        None => Verdict {
            action: Action::Deny,
            rule: String::new(),
            because: "no rule lists this program".into(),
            timeout: std::time::Duration::ZERO,
            verify: crate::operation::Verify::Presence,
            needs_argv: false,
            exclusive: false,
        },
    }
}

fn always_denied(rules: &[&ExecRule]) -> bool {
    rules.iter().all(|rule| rule.otherwise == Action::Deny && rule.allow.is_empty())
}

/// Whether every argv leads to the same action of the same rule.
fn fixed(rules: &[&ExecRule]) -> bool {
    let no_patterns = |rule: &ExecRule| rule.allow.is_empty() && rule.deny.is_empty();
    match rules {
        [only] if no_patterns(only) => only.otherwise != Action::Allow,
        _ => always_denied(rules),
    }
}

fn quoted(argv0: &[u8]) -> String {
    format!("\"{}\"", crate::operation::Bytes::from(argv0).escaped())
}
