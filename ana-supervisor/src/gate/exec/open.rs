//! Opens of protected files that are no execs: an interpreter that reads a script is held, everything else is denied.

use std::{fs, sync::Arc};

use super::{
    Arrival, ExecGate, GateError, Held, Stop, Subject, admitted, answerer::Blocked, program_of,
    protected::stat_in, script,
};
use crate::{
    gate::{files, image::Memory, process},
    operation,
};

impl ExecGate {
    /// Handles an open.
    ///
    /// # Errors
    /// The open has been denied (EPERM).
    pub async fn open(self: &Arc<Self>, blocked: Blocked) -> Result<Arrival, GateError> {
        let Some((stat, object)) = self.common.protected.find(&blocked.file) else {
            return Ok(Arrival::Refused(blocked, GateError::UnknownFile));
        };
        if object.listed.is_empty() {
            // Protected only for what an exec of it gains: a copy gains nothing.
            blocked.allow()?;
            return Ok(Arrival::Passed);
        }
        let pid = blocked.pid;
        let image = files::is_executable_image(&blocked.file);
        // Whatever was approved was to read it, by something that runs scripts.
        let reads = !image && !admitted::opens_for_writing(pid)?;
        self.common.admitted.settled(pid).await;
        if let Some(admission) = self.common.admitted.admission(pid, stat).filter(|_| reads) {
            let file = Arc::clone(&blocked.file);
            let now = self.hashing(move |gate| Ok(gate.common.hashes.of(&file)?)).await?;
            if now != admission.hash {
                return Ok(Arrival::Refused(blocked, GateError::Changed));
            }
            blocked.allow()?;
            return Ok(Arrival::Passed);
        }
        if !reads || !self.opened_by_interpreter(&blocked) {
            return Ok(Arrival::Refused(blocked, GateError::NotAnInterpreter));
        }
        if self.common.protected.is_compiled(stat) {
            // Nothing to be told or written down: Python reads the source then, and that open is held.
            drop(blocked);
            return Ok(Arrival::Passed);
        }
        let baseline = self.baseline().await?;
        let (file, judged) = (Arc::clone(&blocked.file), Arc::clone(&object));
        let look = move |_: &Self| Ok((Memory::of(pid)?, process::read(pid, &baseline)?));
        let (memory, image) = self.blocking(look).await?;
        let (hash, program, script, memory) = self
            .hashing(move |gate| {
                let hash = gate.common.hashes.of(&file)?;
                let script = files::describe(&file, judged.key, hash, &gate.common.user)?;
                let script = operation::Script { file: script, opened: true };
                let program = program_of(gate, pid)?;
                // Another thread may have executed something meanwhile: all of it is of one image, or nothing.
                if memory.lives() { Ok((hash, program, script, memory)) } else { Err(GateError::Ended) }
            })
            .await?;
        Ok(Arrival::Held(Box::new(Held {
            gate: Arc::clone(self),
            pid,
            process: Arc::clone(&blocked.process),
            protected: vec![object],
            subject: Subject {
                image,
                program,
                script: Some(script),
                argument_files: Vec::new(),
                exclusive: false,
            },
            gain: None,
            script_arguments: None,
            memory,
            passage: None,
            file: Arc::clone(&blocked.file),
            stat,
            hash,
            stop: Stop::Blocked(blocked),
            standstill: None,
        })))
    }

    /// One of the policy's interpreters, or the script's own. The process is blocked in open(2); it cannot exec.
    fn opened_by_interpreter(&self, blocked: &Blocked) -> bool {
        let Ok(program) = fs::metadata(format!("/proc/{}/exe", blocked.pid)) else { return false };
        let program = stat_in(&program);
        let (own, sought) = script::interpreters(&blocked.file);
        let own = own.and_then(|path| fs::metadata(path).ok()).map(|meta| stat_in(&meta));
        self.common.protected.is_interpreter(program)
            || own == Some(program)
            || sought.is_some_and(|name| self.common.protected.is_found_as(program, &name))
    }
}
