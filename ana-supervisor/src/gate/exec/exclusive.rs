//! Programs that run alone: from the judgement to the program's exit, nothing else of the session moves, so that nothing of
//! it can change what the program reads.
//!
//! One at a time: another program of such a rule waits for its judgement until the first has ended. What the program itself
//! starts goes on with it, protected programs included; one of those whose rule is exclusive, too, keeps the session still
//! until it has ended as well.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use nix::unistd::Pid;
use tokio::{sync::OwnedMutexGuard, time::Instant};

use super::{ExecGate, GateError, Held, Stop, admitted, armed::ArmedHold};
use crate::{
    launch::cgroup::{Hold, SessionCgroup},
    sys,
};

/// How long the rest of the session may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Exclusive {
    turn: Arc<tokio::sync::Mutex<()>>,
    current: Mutex<Weak<Standstill>>,
}

/// The session stands still as long as this lives.
#[derive(Debug)]
pub(super) struct Standstill {
    cgroup: Arc<SessionCgroup>,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Standstill {
    fn drop(&mut self) {
        if let Err(error) = self.cgroup.go_on() {
            // It can be ended; a session that is frozen for good runs nothing.
            tracing::error!(error = &error as &dyn std::error::Error, "the session could not be thawed");
        }
    }
}

impl Held {
    /// Has everything of the session but this program stand still, until it has ended; waits for its turn.
    ///
    /// # Errors
    /// The process has ended meanwhile, or the rest of the session could not be stopped.
    pub async fn stand_alone(&mut self) -> Result<(), GateError> {
        if let Stop::Frozen(hold) = &self.stop {
            self.standstill = Some(self.gate.stand_still(hold.hold()?, &self.process).await?);
            self.subject.exclusive = true;
        }
        Ok(())
    }
}

impl ExecGate {
    async fn stand_still(&self, hold: &Hold, process: &OwnedFd) -> Result<Arc<Standstill>, GateError> {
        if let Some(current) = self.exclusive.current().upgrade().filter(|_| self.cgroup.is_family(hold)) {
            return Ok(current);
        }
        let turn = self.exclusive.turn(process).await?;
        let standstill = Arc::new(Standstill { cgroup: Arc::clone(&self.cgroup), _turn: turn });
        self.cgroup.stand_still(hold)?;
        self.wait_until_still().await?;
        *self.exclusive.current() = Arc::downgrade(&standstill);
        Ok(standstill)
    }

    /// There is no event to wait for: the kernel does not count what waits inside it as frozen, and some of that waits for
    /// us.
    async fn wait_until_still(&self) -> Result<(), GateError> {
        let end = Instant::now() + STOP_LIMIT;
        while let Some(pid) = self.cgroup.restless()?.into_iter().find(|&pid| !rests(pid).unwrap_or(false)) {
            if Instant::now() >= end {
                return Err(GateError::Restless(pid));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

impl Exclusive {
    /// Waits until no program runs alone.
    ///
    /// # Errors
    /// The process for which it is waited has ended.
    pub(super) async fn turn(&self, process: &OwnedFd) -> Result<OwnedMutexGuard<()>, GateError> {
        tokio::select! {
            turn = Arc::clone(&self.turn).lock_owned() => Ok(turn),
            ended = sys::readiness::ended(process.try_clone()?) => {
                ended?;
                Err(GateError::Ended)
            }
        }
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Weak<Standstill>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether no thread of the process can come back to its program: stopped, waiting for our answer, or for a child that
/// is stopped (vfork(2)). One that has ended is no process any more.
fn rests(pid: Pid) -> io::Result<bool> {
    let tasks = match fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) if sys::process::is_gone(&error) => return Ok(true),
        other => other?,
    };
    for task in tasks {
        let task = task?.path();
        let place = fs::read_to_string(task.join("wchan")).unwrap_or_default();
        let waits = admitted::is_stopped(&place)
            || place.starts_with("fanotify_")
            || ["kernel_clone", "wait_for_vfork_done"].contains(&place.as_str());
        if !waits && !has_ended(&task)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a thread (its folder in /proc) has ended, or has gone. The state is field 3 of its `stat`.
fn has_ended(task: &Path) -> io::Result<bool> {
    let stat = match sys::process::small_text(task.join("stat")) {
        Err(error) if sys::process::is_gone(&error) => return Ok(true),
        other => other?,
    };
    let fields = sys::process::stat_fields(&stat).ok_or_else(|| io::Error::other("malformed stat"))?;
    Ok(matches!(fields.first(), Some(&("Z" | "X"))))
}

/// Lets the program run in its own cgroup; once it has ended, the session goes on, and what the program has left behind
/// belongs to the session.
pub(super) fn release(
    hold: ArmedHold,
    process: OwnedFd,
    standstill: Arc<Standstill>,
) -> Result<(), GateError> {
    let ended = sys::readiness::ended(process);
    let (gate, hold) = hold.release_in_place()?;
    tokio::spawn(async move {
        if let Err(error) = ended.await {
            tracing::error!(
                ?error,
                "the end of a program that runs alone cannot be waited for: it is killed"
            );
            hold.kill().ok();
        }
        gate.cgroup.leave(&hold);
        drop(standstill);
        tokio::task::spawn_blocking(move || super::armed::empty(&gate, &hold)).await.ok();
    });
    Ok(())
}
