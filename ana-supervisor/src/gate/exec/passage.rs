//! From `env` to the interpreter that it finds: one more exec of an approved process, which is let through without another
//! question, because it can only be that one.
//!
//! A script with the line `#!/usr/bin/env python3` is held at env's first instruction. What env will execute is looked up
//! as env does it; the hold is armed for exactly that file, and only then is env let go. The guard kills whatever else is
//! executed there (a program that was put into the PATH meanwhile), so that the image which opens the script next is the
//! one that env has started with the arguments that were judged.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use ana_common::{Armed, FileKey};
use nix::unistd::Pid;

use super::{
    ARRIVAL_LIMIT, ExecGate, GateError,
    armed::ArmedHold,
    exclusive::{self, Standstill},
    protected::{Stat, stat_in},
    script::ScriptError,
};
use crate::{gate::image::Memory, kernel::identity, operation::Bytes, sys};

/// The interpreter that env is going to execute.
#[derive(Debug)]
pub(super) struct Passage {
    key: FileKey,
    stat: Stat,
}

/// What was approved: it goes over to the interpreter.
pub(super) struct Approved {
    pub pid: Pid,
    pub process: Arc<OwnedFd>,
    pub script: Stat,
    pub hash: [u8; 32],
}

impl ExecGate {
    /// Finds the program as env will: in the PATH of the process, with the agent's rights.
    ///
    /// # Errors
    /// There is none, or it is no interpreter.
    pub(super) async fn find_passage(
        &self,
        pid: Pid,
        program: &[u8],
        environment: &[u8],
    ) -> Result<Passage, GateError> {
        let shown = || Bytes::from(program).escaped();
        let found = self.lookups.program(pid, program, path_variable(environment)).await?;
        let found = found.ok_or_else(|| ScriptError::NotFound(shown()))?;
        let meta = found.file.metadata()?;
        let stat = stat_in(&meta);
        // A script would be executed by another program than the one that the hold is armed for; a protected interpreter
        // has a question of its own.
        let another = !found.is_image || self.common.protected.find(&found.file).is_some();
        let runs =
            self.common.protected.is_interpreter(stat) || self.common.protected.is_found_as(stat, program);
        if another || !runs {
            let path = Bytes(found.path).escaped();
            return Err(ScriptError::NoInterpreter(path).into());
        }
        let key = identity::file_key_seen_by(found.file.as_fd(), pid.as_raw().unsigned_abs())?;
        Ok(Passage { key, stat })
    }

    /// Lets env go, and what was approved over to the interpreter. The process dies if anything else comes of it.
    pub(super) async fn pass(
        self: &Arc<Self>,
        mut hold: ArmedHold,
        passage: Passage,
        approved: Approved,
        standstill: Option<Arc<Standstill>>,
    ) -> Result<(), GateError> {
        // A session that stands still for another program would not let it run here.
        let turn = match standstill.is_some() || self.cgroup.is_family(hold.hold()?) {
            true => None,
            false => Some(self.exclusive.turn(&approved.process).await?),
        };
        let arrived = self.common.admitted.expect(approved.pid);
        hold.pass(Armed::executable(passage.key))?;
        let gate = Arc::clone(self);
        tokio::spawn(async move {
            let process = approved.process.try_clone();
            match gate.arrive_at(&passage, approved, &hold).await {
                Ok(()) => {
                    let released = match (standstill, process) {
                        (Some(still), Ok(process)) => exclusive::release(hold, process, still),
                        _ => hold.release(),
                    };
                    if let Err(error) = released {
                        tracing::error!(error = &error as &dyn std::error::Error, "a script could not go on");
                    }
                }
                // Dropping the hold kills what is in it.
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "env led nowhere"),
            }
            drop((arrived, turn));
        });
        Ok(())
    }

    /// Waits until env has executed the interpreter, and notes what that may read.
    async fn arrive_at(
        &self,
        passage: &Passage,
        approved: Approved,
        hold: &ArmedHold,
    ) -> Result<(), GateError> {
        let Approved { pid, process, script, hash } = approved;
        let reported = tokio::time::timeout(ARRIVAL_LIMIT, async {
            tokio::select! {
                report = self.router.wait_for_exec_in(hold.id()?) => Ok(report.is_some()),
                ended = sys::readiness::ended(process.try_clone()?) => ended.map(|()| false).map_err(GateError::Read),
            }
        });
        if !reported.await.map_err(|_elapsed| GateError::Stalled)?? {
            return Err(GateError::Ended);
        }
        // Until the hold is disarmed, nothing more can be executed in it: this is the interpreter's memory.
        let memory = Memory::of(pid)?;
        let program = fs::metadata(format!("/proc/{pid}/exe"))?;
        if stat_in(&program) != passage.stat {
            return Err(ScriptError::Another.into());
        }
        self.common.admitted.admit(pid, process, script, hash, memory);
        Ok(())
    }
}

/// The PATH that env sees: the first one of that name (getenv(3)), or the C library's own (_CS_PATH).
fn path_variable(environment: &[u8]) -> Vec<u8> {
    let value = environment.split(|&byte| byte == 0).find_map(|variable| variable.strip_prefix(b"PATH="));
    value.unwrap_or(b"/bin:/usr/bin").to_vec()
}
