//! A process in a frozen cgroup of its own, with the guard armed for one exec. It goes on by [`ArmedHold::release`] only;
//! whatever else becomes of this value, a forgotten result of a worker included, kills the process.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use ana_common::Armed;
use nix::{sys::signal::Signal, unistd::Pid};

use super::{ExecGate, GateError};
use crate::{launch::cgroup::Hold, sys};

pub(super) struct ArmedHold {
    gate: Arc<ExecGate>,
    pid: Pid,
    process: Arc<OwnedFd>,
    /// `None` once it is over.
    hold: Option<Hold>,
    /// Something protected may have been executed: from here on only a decision lets the process live.
    committed: bool,
}

impl ArmedHold {
    /// Makes the cgroup and moves the process into it, still blocked in its exec.
    pub(super) fn capture(gate: &Arc<ExecGate>, pid: Pid, process: Arc<OwnedFd>) -> Result<Self, GateError> {
        let hold = gate.cgroup.hold(&ulid::Ulid::generate().to_string(), pid)?;
        let captured = Self { gate: Arc::clone(gate), pid, process, hold: Some(hold), committed: false };
        captured.alive()?;
        gate.cgroup.move_into(captured.hold()?, pid)?;
        // The number was the process's when it was moved if the process lives now.
        captured.alive()?;
        Ok(captured)
    }

    fn alive(&self) -> Result<(), GateError> {
        if sys::process::ended(self.process.as_fd())? { Err(GateError::Ended) } else { Ok(()) }
    }

    pub(super) fn hold(&self) -> Result<&Hold, GateError> {
        self.hold.as_ref().ok_or(GateError::Ended)
    }

    /// The kernel's id of the cgroup.
    pub(super) fn id(&self) -> Result<u64, GateError> {
        Ok(self.hold()?.id())
    }

    /// Permits the one exec.
    pub(super) fn arm(&mut self, armed: Armed) -> Result<(), GateError> {
        self.gate.common.maps.arm(self.id()?, armed)?;
        self.committed = true;
        Ok(())
    }

    /// Lets the process run on, but here, and permits it one more exec: that of `armed`.
    pub(super) fn pass(&mut self, armed: Armed) -> Result<(), GateError> {
        let id = self.id()?;
        self.gate.common.maps.disarm(id)?;
        self.gate.common.maps.arm(id, armed)?;
        Ok(self.hold()?.thaw()?)
    }

    /// Lets the process run on: disarm, then thaw (a thawed process must not find its hold armed), then move back.
    pub(super) fn release(self) -> Result<(), GateError> {
        let (gate, hold) = self.release_in_place()?;
        // Not waited for: the process runs already, and moving it may take a grace period.
        std::thread::spawn(move || empty(&gate, &hold));
        Ok(())
    }

    /// The same, but whoever asks for it moves it back.
    pub(super) fn release_in_place(mut self) -> Result<(Arc<ExecGate>, Hold), GateError> {
        self.gate.forget(self.pid);
        self.gate.common.maps.disarm(self.id()?)?;
        self.gate.cgroup.let_go(self.hold()?)?;
        let hold = self.hold.take().ok_or(GateError::Ended)?;
        Ok((Arc::clone(&self.gate), hold))
    }
}

impl Drop for ArmedHold {
    fn drop(&mut self) {
        let Some(hold) = self.hold.take() else { return };
        self.gate.forget(self.pid);
        if self.committed {
            // The whole hold: a caller with several threads is in it with all of them, and nothing else is.
            hold.kill().ok();
            sys::process::signal(self.process.as_fd(), Some(Signal::SIGKILL)).ok();
        }
        let (gate, committed) = (Arc::clone(&self.gate), self.committed);
        std::thread::spawn(move || {
            let id = hold.id();
            let disarmed = gate.common.maps.disarm(id);
            // Never armed: its exec was denied, and the caller goes on where it was.
            if !committed && disarmed.is_ok() {
                gate.cgroup.let_go(&hold).ok();
            }
            empty(&gate, &hold);
        });
    }
}

pub(super) fn empty(gate: &ExecGate, hold: &Hold) {
    if let Err(error) = gate.cgroup.empty(hold) {
        tracing::error!(error = &error as &dyn std::error::Error, "a hold could not be emptied");
    }
}
