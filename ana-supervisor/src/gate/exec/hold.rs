//! From a blocked exec to a frozen image, and back.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use ana_common::Armed;
use nix::{sys::signal::Signal, unistd::Pid};

use super::{
    ARRIVAL_LIMIT, Arrival, ExecGate, GateError, Held, IN_FLIGHT_MAX, Stop, Subject, admitted,
    answerer::{Blocked, Unblocked},
    program_of,
    protected::{self, Protected, Stat},
};
use crate::{
    gate::{files, process},
    launch::cgroup::Hold,
    operation, sys,
};

impl ExecGate {
    /// Handles an exec's first event.
    ///
    /// # Errors
    /// The exec has been denied, or the process killed.
    pub async fn hold(self: &Arc<Self>, blocked: Blocked) -> Result<Arrival, GateError> {
        let Some((stat, object)) = self.protected.find(&blocked.file) else {
            return Ok(Arrival::Refused(blocked, GateError::UnknownFile));
        };
        let pid = blocked.pid;
        match self.join(pid, stat, &object) {
            Ok(false) => {}
            Ok(true) => {
                // The interpreter of a script that is on its way already: one exec, two protected files.
                self.admitted.owe(pid, stat);
                blocked.allow()?;
                return Ok(Arrival::Passed);
            }
            Err(error) => return Ok(Arrival::Refused(blocked, error)),
        }
        let gate = Arc::clone(self);
        let task = Arc::clone(&object);
        let armed = self.blocking(move |_| gate.arm(blocked, stat, &task)).await;
        let (unblocked, hold) = match armed {
            Ok(armed) => armed,
            Err(error) => {
                self.forget(pid);
                return Err(error);
            }
        };
        match self.arrive(&unblocked, &hold).await {
            Ok(true) => {}
            Ok(false) => {
                // The exec failed (a missing interpreter, a bad format): the old image goes on.
                self.release(pid, hold).await?;
                return Ok(Arrival::Passed);
            }
            Err(error) => {
                self.kill(pid, &unblocked.process, hold).await;
                return Err(error);
            }
        }
        let process = Arc::clone(&unblocked.process);
        match self.read(unblocked, stat).await {
            Ok(read) => Ok(Arrival::Held(Box::new(self.held(read, hold, process)))),
            Err(error) => {
                self.kill(pid, &process, hold).await;
                Err(error)
            }
        }
    }

    /// What is known of a blocked exec before it happens: the file, and the caller. Its arguments are not.
    ///
    /// # Errors
    /// The caller or the file cannot be read.
    pub async fn describe(self: &Arc<Self>, blocked: &Blocked) -> Result<Subject, GateError> {
        let baseline = self.baseline().await?;
        let (file, pid) = (blocked.file.try_clone()?, blocked.pid);
        self.blocking(move |gate| {
            let key = gate.protected.find(&file).ok_or(GateError::UnknownFile)?.1.key;
            let program = files::describe(&file, key, gate.hashes.of(&file)?, &gate.user)?;
            let caller = process::read(pid, &baseline)?;
            let image = process::Image { argv: Vec::new(), ..caller };
            Ok(Subject { image, program, script: None })
        })
        .await
    }

    /// Notes that this process's exec is on its way. True: one was already, and this file belongs to it.
    fn join(&self, pid: Pid, stat: Stat, object: &Arc<Protected>) -> Result<bool, GateError> {
        let mut in_flight = self.in_flight();
        let many = in_flight.len() >= IN_FLIGHT_MAX;
        match in_flight.get_mut(&pid) {
            // With one thread, the second file can only be the interpreter of the first.
            Some(files) if admitted::threads(pid) == Some(1) => {
                files.push((stat, Arc::clone(object)));
                Ok(true)
            }
            Some(_) => Err(GateError::Concurrent),
            None if many => Err(GateError::TooMany),
            None => {
                in_flight.insert(pid, vec![(stat, Arc::clone(object))]);
                Ok(false)
            }
        }
    }

    fn forget(&self, pid: Pid) {
        self.admitted.settle(pid);
        self.in_flight().remove(&pid);
    }

    /// Moves the blocked process into a frozen cgroup of its own, arms the guard for this file, and lets the exec go on.
    /// Dropping `blocked` on the way denies the exec.
    fn arm(&self, blocked: Blocked, stat: Stat, object: &Protected) -> Result<(Unblocked, Hold), GateError> {
        let hold = self.cgroup.hold(&ulid::Ulid::generate().to_string())?;
        let armed = self.arm_in(&hold, &blocked, object).and_then(|()| {
            self.admitted.owe(blocked.pid, stat);
            Ok(blocked.allow()?)
        });
        match armed {
            Ok(unblocked) => Ok((unblocked, hold)),
            Err(error) => {
                // Nothing has run. Let what is in there (the caller, with its exec denied) go back to where it was.
                self.maps.disarm(hold.id())?;
                hold.thaw()?;
                self.cgroup.empty(&hold)?;
                Err(error)
            }
        }
    }

    fn arm_in(&self, hold: &Hold, blocked: &Blocked, object: &Protected) -> Result<(), GateError> {
        let armed = match protected::is_executable_image(&blocked.file) {
            true => Armed::executable(object.key),
            false => Armed::script(object.key),
        };
        self.maps.arm(hold.id(), armed)?;
        if sys::process::ended(blocked.process.as_fd())? {
            return Err(GateError::Ended);
        }
        self.cgroup.move_into(hold, blocked.pid)?;
        // The number was the process's when it was moved if the process lives now.
        if sys::process::ended(blocked.process.as_fd())? {
            return Err(GateError::Ended);
        }
        Ok(())
    }

    /// Waits until the process has stopped. True: it is at the first instruction of the new image. False: the exec failed.
    async fn arrive(&self, unblocked: &Unblocked, hold: &Hold) -> Result<bool, GateError> {
        tokio::time::timeout(ARRIVAL_LIMIT, hold.frozen()).await.map_err(|_elapsed| GateError::Stalled)??;
        // The exec's report is written before its process can stop: once the ring is drained, none means no exec.
        let report = self.router.exec_in(hold.id()).await;
        if sys::process::ended(unblocked.process.as_fd())? {
            return Err(GateError::Ended);
        }
        Ok(report.is_some())
    }

    /// Reads the frozen image.
    async fn read(self: &Arc<Self>, unblocked: Unblocked, stat: Stat) -> Result<Read, GateError> {
        let baseline = self.baseline().await?;
        self.blocking(move |gate| {
            let Unblocked { file, pid, .. } = unblocked;
            let image = process::read(pid, &baseline)?;
            let hash = gate.hashes.of(&file)?;
            let files = gate.in_flight().get(&pid).cloned().unwrap_or_default();
            let object = files.iter().find(|(s, _)| *s == stat).ok_or(GateError::UnknownFile)?;
            let judged = files::describe(&file, object.1.key, hash, &gate.user)?;
            let (program, script, script_arguments) = match protected::is_executable_image(&file) {
                true => (judged, None, None),
                false => {
                    let arguments = script_arguments(&file, &image.argv);
                    (program_of(gate, pid)?, Some(operation::Script { file: judged, opened: false }), arguments)
                }
            };
            let protected = files.into_iter().map(|(_, object)| object).collect();
            let subject = Subject { image, program, script };
            Ok(Read { pid, subject, script_arguments, protected, file, stat, hash })
        })
        .await
    }

    fn held(self: &Arc<Self>, read: Read, hold: Hold, process: Arc<OwnedFd>) -> Held {
        Held {
            gate: Arc::clone(self),
            pid: read.pid,
            process,
            protected: read.protected,
            subject: read.subject,
            script_arguments: read.script_arguments,
            file: read.file,
            stat: read.stat,
            hash: read.hash,
            stop: Stop::Frozen(hold),
        }
    }

    /// Lets a frozen process run on: disarm, then thaw (a thawed process must not find its hold armed), then move back.
    pub(super) async fn release(self: &Arc<Self>, pid: Pid, hold: Hold) -> Result<(), GateError> {
        self.forget(pid);
        self.maps.disarm(hold.id())?;
        hold.thaw()?;
        let gate = Arc::clone(self);
        // Not waited for: the process runs already, and moving it may take a grace period.
        tokio::task::spawn_blocking(move || {
            if let Err(error) = gate.cgroup.empty(&hold) {
                tracing::error!(?error, "a hold could not be emptied");
            }
        });
        Ok(())
    }

    /// Kills a frozen process and removes its hold.
    pub(super) async fn kill(self: &Arc<Self>, pid: Pid, process: &OwnedFd, hold: Hold) {
        // The whole hold: a caller with several threads is in it with all of them, and nothing else is.
        if let Err(error) = hold.kill() {
            tracing::error!(?error, "a hold could not be killed");
        }
        drop(sys::process::signal(process.as_fd(), Some(Signal::SIGKILL)));
        self.forget(pid);
        let gate = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = gate.maps.disarm(hold.id()) {
                tracing::error!(?error, "a hold could not be disarmed");
            }
            if let Err(error) = gate.cgroup.empty(&hold) {
                tracing::error!(?error, "a hold could not be removed");
            }
        });
    }
}

/// What is read of a frozen image.
struct Read {
    pid: Pid,
    subject: Subject,
    script_arguments: Option<Vec<Vec<u8>>>,
    protected: Vec<Arc<Protected>>,
    file: File,
    stat: Stat,
    hash: [u8; 32],
}

/// The kernel has put `interpreter [argument] script` into the place of argv[0] (execve(2)). `None` when the file has no
/// `#!` line (binfmt_misc): then nothing is known about which argument is which.
fn script_arguments(file: &File, argv: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    let line = protected::shebang(file)?;
    let script = if line.argument { 2 } else { 1 };
    argv.get(script + 1..).map(<[Vec<u8>]>::to_vec)
}
