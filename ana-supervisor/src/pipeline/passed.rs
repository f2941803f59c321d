//! The evidence of what was let through without a hold. It is written behind the operation, not before it: a rule has
//! decided, and no person; what a supervisor that is killed had not written yet, some milliseconds' worth, is noted.

use std::{
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{Pipeline, chain, unwritten};
use crate::{
    approval::Decided,
    gate::{
        exec::quick::{Known, Ledger, Line, Passed},
        files, process,
    },
    operation, sys,
};

impl Pipeline {
    /// Writes down what was let through, in its order, for ever. Blocks.
    pub fn keep(&self, ledger: &Ledger) {
        let Err(_panicked) = catch_unwind(AssertUnwindSafe(|| self.keep_on(ledger)));
        self.fail("what was let through is not written down any more");
    }

    fn keep_on(&self, ledger: &Ledger) -> ! {
        loop {
            let lines = ledger.take();
            lines.into_iter().for_each(|line| match line {
                Line::Passed(passed) => {
                    self.write_down(*passed);
                    ledger.written();
                }
                Line::Flush(done) => {
                    if let Err(error) = self.writer.flush() {
                        self.fail(&unwritten(&error));
                    }
                    // Whoever waits for it may have given up.
                    done.send(()).ok();
                }
            });
            ledger.full(self.store.room().is_err());
        }
    }

    fn write_down(&self, passed: Passed) {
        let Passed { pid, process, argv, environment, verdict, object, file, known, at, note } = passed;
        let Known { baseline, hash, cwd, parent, started } = known;
        let Ok(program) = files::describe(&file, object.key, hash, &self.gate.common.user) else {
            return self.fail("a program that was let through cannot be described");
        };
        if sys::process::ended(process.as_fd()).unwrap_or(true) {
            // It may have died while the guard was told of it: its number will be another's.
            let tgid = pid.as_raw().unsigned_abs();
            self.gate.common.maps.forget_expected(tgid, started).ok();
        }
        let user = &self.gate.common.user;
        let requester = process::requester(pid, started, parent, baseline.agent);
        let exec = |nonce: &str| operation::Exec {
            program: program.clone(),
            script: None,
            argv: argv.clone(),
            cwd: cwd.clone(),
            environment: process::environment(&environment, nonce, &baseline),
            ids: operation::Ids {
                uid: user.uid,
                euid: user.uid,
                gid: user.gid,
                egid: user.gid,
                capabilities: None,
            },
            foreign_namespaces: Vec::new(),
            argument_files: Vec::new(),
            exclusive: false,
        };
        let decided = match self.judged_at(at, verdict, requester, exec) {
            Ok(judged) => Decided::by_rule(judged),
            Err(error) => return self.fail(&format!("a program was let through: {}", chain(&error))),
        };
        match decided.map(|decided| self.writer.later(decided, Some(note))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(&unwritten(&error)),
            // Only what a rule allows is let through.
            Err(judged) => self.fail(&format!("{} was let through unasked", judged.operation.summary())),
        }
    }
}
