//! The evidence of what was let through without a hold. It is written behind the operation, not before it: a rule has
//! decided, and no person; what a supervisor that is killed had not written yet, some milliseconds' worth, is lost.

use super::{Pipeline, chain, unwritten};
use crate::{
    approval::Decided,
    gate::{
        exec::quick::{Ledger, Line, Passed},
        files, process,
    },
    operation,
};

impl Pipeline {
    /// Writes down what was let through, in its order, for ever.
    pub fn keep(&self, ledger: &Ledger) -> ! {
        loop {
            ledger.take().into_iter().for_each(|line| match line {
                Line::Passed(passed) => {
                    self.write_down(*passed);
                    ledger.written(self.store.room().is_err());
                }
                Line::Flush(done) => {
                    if let Err(error) = self.writer.flush() {
                        self.fail(&unwritten(&error));
                    }
                    // Whoever waits for it may have given up.
                    done.send(()).ok();
                }
            });
        }
    }

    fn write_down(&self, passed: Passed) {
        let Some(baseline) = self.gate.common.baseline.borrow().clone() else { return };
        let Passed { pid, call, verdict, object, file, hash, cwd, parent, started, at } = passed;
        let Ok(program) = files::describe(&file, object.key, hash, &self.gate.common.user) else {
            return self.fail("a program that was let through cannot be described");
        };
        let user = &self.gate.common.user;
        let requester = process::requester(pid, started, parent, baseline.agent);
        let exec = |nonce: &str| operation::Exec {
            program: program.clone(),
            script: None,
            argv: call.argv.iter().cloned().map(operation::Bytes).collect(),
            cwd: cwd.clone(),
            environment: process::environment(&call.environment, nonce, &baseline),
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
        match decided.map(|decided| self.writer.later(decided)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(&unwritten(&error)),
            // Only what a rule allows is let through.
            Err(judged) => self.fail(&format!("{} was let through unasked", judged.operation.summary())),
        }
    }
}
