//! From a blocked exec to a frozen image, and back.

use std::{
    ffi::OsStr,
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use ana_common::Armed;
use nix::unistd::Pid;

use super::{
    ARRIVAL_LIMIT, Arrival, ExecGate, GateError, Held, IN_FLIGHT_MAX, OnItsWay, Stop, Subject, admitted,
    answerer::{Blocked, Unblocked},
    armed::ArmedHold,
    passage::Passage,
    privilege::{Credentials, Gain},
    program_of,
    protected::{Protected, Stat},
    script,
};
use crate::{
    gate::{files, image::Memory, process, tell::Refusal},
    operation::{self, Bytes},
    sys,
};

/// How long the other threads of a process may take to stop.
const ALONE_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before a process is looked at again: from the first time on, twice as long each time.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_micros(100), Duration::from_millis(10)];

impl ExecGate {
    /// Handles an exec's first event.
    ///
    /// # Errors
    /// The exec has been denied, or the process killed.
    pub async fn hold(self: &Arc<Self>, blocked: Blocked) -> Result<Arrival, GateError> {
        let Some((stat, object)) = self.common.protected.find(&blocked.file) else {
            return Ok(Arrival::Refused(blocked, GateError::UnknownFile));
        };
        let pid = blocked.pid;
        match self.join(pid, stat, &object) {
            Ok(false) => {}
            Ok(true) => {
                // The interpreter of a script that is on its way already: one exec, two protected files.
                self.common.admitted.owe(pid, &blocked.process, stat);
                blocked.allow()?;
                return Ok(Arrival::Passed);
            }
            Err(error) => return Ok(Arrival::Refused(blocked, error)),
        }
        let task = Arc::clone(&object);
        let gate = Arc::clone(self);
        let armed = self.blocking(move |_| gate.arm(blocked, stat, &task)).await;
        let (unblocked, hold, before) = armed.inspect_err(|_| self.forget(pid))?;
        if !self.arrive(&unblocked, &hold).await? {
            // The exec failed (a missing interpreter, a bad format): the old image goes on.
            hold.release()?;
            return Ok(Arrival::Passed);
        }
        let (process, path) = (Arc::clone(&unblocked.process), files::path_of(unblocked.file.as_fd())?);
        let read = match self.read(unblocked, stat, before).await {
            Ok(read) if read.gains_nothing() => {
                hold.release()?;
                return Ok(Arrival::Passed);
            }
            Ok(read) => self.passage(&read).await.map(|passage| (read, passage)),
            Err(error) => Err(error),
        };
        match read {
            Ok((read, passage)) => Ok(Arrival::Held(Box::new(self.held(read, passage, hold, process)))),
            Err(error) => {
                // It dies with the hold; it is told why first.
                let summary = format!("exec {}", Bytes::from(path.as_os_str().as_bytes()).escaped());
                self.teller.tell(process, Refusal::unjudged(summary, error.to_string())).await;
                Err(error)
            }
        }
    }

    async fn passage(&self, read: &Read) -> Result<Option<Passage>, GateError> {
        let Some(program) = read.run.as_ref().and_then(|run| run.env.as_ref()) else { return Ok(None) };
        Ok(Some(self.find_passage(read.pid, program, &read.subject.image.environment).await?))
    }

    /// What is known of a blocked exec before it happens: the file, and the caller. Its arguments are not.
    ///
    /// # Errors
    /// The caller or the file cannot be read.
    pub async fn describe(self: &Arc<Self>, blocked: &Blocked) -> Result<Subject, GateError> {
        let baseline = self.baseline().await?;
        let (file, pid) = (Arc::clone(&blocked.file), blocked.pid);
        let caller = self.blocking(move |_| Ok(process::read(pid, &baseline)?)).await?;
        let image = process::Image { argv: Vec::new(), ..caller };
        self.hashing(move |gate| {
            let key = gate.common.protected.find(&file).ok_or(GateError::UnknownFile)?.1.key;
            let program = files::describe(&file, key, gate.common.hashes.of(&file)?, &gate.common.user)?;
            Ok(Subject { image, program, script: None, argument_files: Vec::new(), exclusive: false })
        })
        .await
    }

    /// Notes that this process's exec is on its way. True: one was already, and this file belongs to it.
    fn join(&self, pid: Pid, stat: Stat, object: &Arc<Protected>) -> Result<bool, GateError> {
        let mut in_flight = self.common.on_their_way.lock();
        let many = in_flight.len() >= IN_FLIGHT_MAX;
        match in_flight.get_mut(&pid) {
            // Nothing else in the process moves, and the first file has been opened for good: the second one can only be
            // its interpreter.
            Some(exec) if exec.alone && !self.common.admitted.owes(pid) => {
                exec.files.push((stat, Arc::clone(object)));
                Ok(true)
            }
            Some(_) => Err(GateError::Concurrent),
            None if many => Err(GateError::TooMany),
            None => {
                let files = vec![(stat, Arc::clone(object))];
                in_flight.insert(pid, OnItsWay { files, alone: false });
                Ok(false)
            }
        }
    }

    pub(super) fn forget(&self, pid: Pid) {
        self.common.admitted.settle(pid);
        self.common.on_their_way.lock().remove(&pid);
    }

    /// Moves the blocked process into a frozen cgroup of its own, waits until nothing else in it moves, arms the guard
    /// for this file, and lets the exec go on. Dropping `blocked` on the way denies the exec.
    fn arm(
        self: &Arc<Self>,
        blocked: Blocked,
        stat: Stat,
        object: &Protected,
    ) -> Result<(Unblocked, ArmedHold, Option<Credentials>), GateError> {
        let mut hold = ArmedHold::capture(self, blocked.pid, Arc::clone(&blocked.process))?;
        self.wait_until_alone(blocked.pid)?;
        if let Some(exec) = self.common.on_their_way.lock().get_mut(&blocked.pid) {
            exec.alone = true;
        }
        hold.arm(match files::is_executable_image(&blocked.file) {
            true => Armed::executable(object.key),
            false => Armed::script(object.key),
        })?;
        let before = object.privileged.then(|| Credentials::of(blocked.pid)).transpose()?;
        self.common.admitted.owe(blocked.pid, &blocked.process, stat);
        Ok((blocked.allow()?, hold, before))
    }

    /// Waits, briefly, until every thread of the process but the one that executes has been stopped by the freezer. A
    /// process with one thread is so at once, unless an answer to another process has just woken it (all that wait for
    /// an answer are woken). There is no event to wait for: a thread that is still in the kernel is looked at again; one
    /// process at a time, lest those that look keep those that are to stop from the processor.
    fn wait_until_alone(&self, pid: Pid) -> Result<(), GateError> {
        let end = Instant::now() + ALONE_LIMIT;
        let [mut pause, longest] = LOOK_AGAIN;
        loop {
            let look = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            if admitted::alone(pid)? {
                return Ok(());
            }
            drop(look);
            if Instant::now() >= end {
                return Err(GateError::Concurrent);
            }
            std::thread::sleep(pause);
            pause = longest.min(pause * 2);
        }
    }

    /// Waits until the process has stopped. True: it is at the first instruction of the new image. False: the exec failed.
    async fn arrive(&self, unblocked: &Unblocked, hold: &ArmedHold) -> Result<bool, GateError> {
        tokio::time::timeout(ARRIVAL_LIMIT, hold.hold()?.frozen())
            .await
            .map_err(|_elapsed| GateError::Stalled)??;
        // The exec's report is written before its process can stop: once the ring is drained, none means no exec.
        let report = self.router.exec_in(hold.id()?).await;
        if sys::process::ended(unblocked.process.as_fd())? {
            return Err(GateError::Ended);
        }
        if report.is_some() && self.common.admitted.owes(unblocked.pid) {
            // Something was executed here, but it was not what we let go on.
            return Err(GateError::Concurrent);
        }
        Ok(report.is_some())
    }

    /// Reads the frozen image.
    async fn read(
        self: &Arc<Self>,
        unblocked: Unblocked,
        stat: Stat,
        before: Option<Credentials>,
    ) -> Result<Read, GateError> {
        let baseline = self.baseline().await?;
        let Unblocked { file, pid, .. } = unblocked;
        let look = move |gate: &Self| {
            let mut image = process::read(pid, &baseline)?;
            let gain = match before {
                Some(before) => Credentials::of(pid)?.gained_since(&before, &gate.common.harmless_groups),
                None => None,
            };
            image.ids.capabilities = gain.as_ref().and_then(Gain::capabilities);
            Ok((image, gain))
        };
        let (image, gain) = self.blocking(look).await?;
        self.hashing(move |gate| {
            let hash = gate.common.hashes.of(&file)?;
            let files =
                gate.common.on_their_way.lock().get(&pid).map(|exec| exec.files.clone()).unwrap_or_default();
            let object = files.iter().find(|(s, _)| *s == stat).ok_or(GateError::UnknownFile)?;
            let judged = files::describe(&file, object.1.key, hash, &gate.common.user)?;
            let (program, script, run) = match files::is_executable_image(&file) {
                true => (judged, None, None),
                false => {
                    let run = script::run_of(&file, pid, stat, &image, &gate.common.user)?;
                    // The interpreter opens the script once more, by the name it was given.
                    let named = Path::new(OsStr::from_bytes(&image.cwd.0)).join(OsStr::from_bytes(&run.name));
                    let not_fixed = judged.not_fixed || files::not_fixed(&file, &named, &gate.common.user);
                    let judged = operation::File { not_fixed, ..judged };
                    let script = operation::Script { file: judged, opened: false };
                    (program_of(gate, pid)?, Some(script), Some(run))
                }
            };
            let protected = files.into_iter().map(|(_, object)| object).collect();
            let subject = Subject { image, program, script, argument_files: Vec::new(), exclusive: false };
            Ok(Read { pid, subject, gain, run, protected, file, stat, hash, memory: Memory::of(pid)? })
        })
        .await
    }

    fn held(
        self: &Arc<Self>,
        read: Read,
        passage: Option<Passage>,
        hold: ArmedHold,
        process: Arc<OwnedFd>,
    ) -> Held {
        Held {
            gate: Arc::clone(self),
            pid: read.pid,
            process,
            protected: read.protected,
            subject: read.subject,
            gain: read.gain,
            script_arguments: read.run.map(|run| run.arguments),
            memory: read.memory,
            passage,
            file: read.file,
            stat: read.stat,
            hash: read.hash,
            stop: Stop::Frozen(hold),
            standstill: None,
        }
    }
}

impl Read {
    /// No rule names it, and it gives this caller nothing: who calls is root, or may not gain (no_new_privs, nosuid).
    fn gains_nothing(&self) -> bool {
        self.gain.is_none() && self.protected.iter().all(|file| file.listed.is_empty())
    }
}

/// What is read of a frozen image.
struct Read {
    pid: Pid,
    subject: Subject,
    gain: Option<Gain>,
    run: Option<script::Run>,
    protected: Vec<Arc<Protected>>,
    file: Arc<File>,
    stat: Stat,
    hash: [u8; 32],
    memory: Memory,
}
