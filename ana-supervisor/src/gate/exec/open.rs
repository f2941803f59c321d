//! Opens of protected files that are no execs: an interpreter that reads a script is held, everything else is denied.

use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

use super::{
    Arrival, ExecGate, GateError, Held, Stop, Subject, admitted, answerer::Blocked, program_of, protected,
};
use crate::{
    gate::{files, process},
    operation,
};

impl ExecGate {
    /// Handles an open.
    ///
    /// # Errors
    /// The open has been denied (EPERM).
    pub async fn open(self: &Arc<Self>, blocked: Blocked) -> Result<Arrival, GateError> {
        let Some((stat, object)) = self.protected.find(&blocked.file) else {
            return Ok(Arrival::Refused(blocked, GateError::UnknownFile));
        };
        if object.listed.is_empty() {
            // Protected only for what an exec of it gains: a copy gains nothing.
            blocked.allow()?;
            return Ok(Arrival::Passed);
        }
        let pid = blocked.pid;
        let image = protected::is_executable_image(&blocked.file);
        // Whatever was approved was to read it, by something that runs scripts.
        let reads = !image && self.opened_by_interpreter(&blocked) && !admitted::opens_for_writing(pid)?;
        if let Some(admission) = self.admitted.admission(pid, stat).filter(|_| reads) {
            let file = blocked.file.try_clone()?;
            let now = self.blocking(move |gate| Ok(gate.hashes.of(&file)?)).await?;
            if now != admission.hash {
                return Ok(Arrival::Refused(blocked, GateError::Changed));
            }
            blocked.allow()?;
            return Ok(Arrival::Passed);
        }
        if !reads {
            return Ok(Arrival::Refused(blocked, GateError::NotAnInterpreter));
        }
        let baseline = self.baseline().await?;
        let (file, judged) = (blocked.file.try_clone()?, Arc::clone(&object));
        let (image, hash, program, script) = self
            .blocking(move |gate| {
                let hash = gate.hashes.of(&file)?;
                let script = files::describe(&file, judged.key, hash, &gate.user)?;
                let script = operation::Script { file: script, opened: true };
                Ok((process::read(pid, &baseline)?, hash, program_of(gate, pid)?, script))
            })
            .await?;
        Ok(Arrival::Held(Box::new(Held {
            gate: Arc::clone(self),
            pid,
            process: Arc::clone(&blocked.process),
            protected: vec![object],
            subject: Subject { image, program, script: Some(script), argument_files: Vec::new() },
            gain: None,
            script_arguments: None,
            file: blocked.file.try_clone()?,
            stat,
            hash,
            stop: Stop::Blocked(blocked),
        })))
    }

    /// One of the policy's interpreters, or the script's own. The process is blocked in open(2); it cannot exec.
    fn opened_by_interpreter(&self, blocked: &Blocked) -> bool {
        let Ok(program) = fs::metadata(format!("/proc/{}/exe", blocked.pid)) else { return false };
        let program = (program.dev(), program.ino());
        let own = protected::shebang(&blocked.file)
            .and_then(|line| fs::metadata(line.interpreter).ok())
            .map(|meta| (meta.dev(), meta.ino()));
        self.protected.is_interpreter(program) || own == Some(program)
    }
}
