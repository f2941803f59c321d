//! The process that talks to the keys, as its parent sees it.

use std::{
    ffi::CString,
    io,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::unistd::{Uid, User, geteuid, getgrouplist};
use thiserror::Error;

use super::wire::{self, Inbox, News, Order};
use crate::sys;

/// The program, installed beside ours.
pub const PROGRAM: &str = "ana-key";

/// The longest silence of a working helper: it asks a key anew every 40 s and says so, and gives one that does not answer
/// two more seconds.
const SILENCE_MAX: Duration = Duration::from_secs(50);
/// How long it may take to let go of the keys when it is told to.
const END_MAX: Duration = Duration::from_secs(1);

/// Why the helper is of no use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HelperError {
    #[error("{} is missing; install it beside the other programs of ana", path.display())]
    Missing { path: PathBuf },
    #[error("cannot run {}", path.display())]
    Run {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot talk to ana-key")]
    Pipe(#[from] io::Error),
    #[error("ana-key has ended ({0})")]
    Ended(ExitStatus),
    #[error("ana-key did not say anything for {} s, and was killed", .0.as_secs())]
    Hangs(Duration),
}

/// A running `ana-key`. Dropping it lets go of the keys.
#[derive(Debug)]
pub struct Helper {
    process: Child,
    pipe: UnixStream,
    inbox: Inbox,
    heard: Instant,
    working: bool,
}

impl Helper {
    /// Starts the one that is installed beside our own program. It inherits nothing but its pipe.
    ///
    /// # Errors
    /// There is none, or it cannot be run.
    pub fn start() -> Result<Self, HelperError> {
        let us = std::env::current_exe()?;
        Self::run(us.parent().unwrap_or(Path::new("/")).join(PROGRAM))
    }

    fn run(path: PathBuf) -> Result<Self, HelperError> {
        if !path.is_file() {
            return Err(HelperError::Missing { path });
        }
        let (ours, theirs) = UnixStream::pair()?;
        let process = Command::new(&path)
            .args(person())
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| HelperError::Run { path, source })?;
        Ok(Self { process, pipe: ours, inbox: Inbox::default(), heard: Instant::now(), working: false })
    }

    /// Tells it something.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, order: &Order) -> Result<(), HelperError> {
        self.heard = Instant::now();
        self.working = !matches!(order, Order::Cancel);
        wire::send(&self.pipe, order).map_err(|error| self.lost(error))
    }

    /// What it has said, after a poll(2) of [`Helper::as_fd`] said that there is something.
    ///
    /// # Errors
    /// It has ended, or said something else.
    pub fn hear(&mut self) -> Result<Vec<News>, HelperError> {
        let news: Vec<News> = self.inbox.take(&self.pipe).map_err(|error| self.lost(error))?;
        self.heard = Instant::now();
        for news in &news {
            // While a person types or plugs in, it has nothing to say.
            self.working = matches!(news, News::Touch { .. } | News::Choose { .. });
        }
        Ok(news)
    }

    /// Waits for the next thing it says.
    ///
    /// # Errors
    /// As [`Helper::hear`]; it hangs.
    pub fn wait(&mut self) -> Result<Vec<News>, HelperError> {
        loop {
            let limit = self.silence_left().unwrap_or(SILENCE_MAX);
            if sys::readiness::readable(self.as_fd(), limit)? {
                return self.hear();
            }
            self.check()?;
        }
    }

    /// How long it may still be silent; `None`: as long as the person takes.
    pub fn silence_left(&self) -> Option<Duration> {
        self.working.then(|| SILENCE_MAX.saturating_sub(self.heard.elapsed()))
    }

    /// Kills it when it hangs.
    ///
    /// # Errors
    /// It did.
    pub fn check(&mut self) -> Result<(), HelperError> {
        if self.silence_left() != Some(Duration::ZERO) {
            return Ok(());
        }
        self.kill();
        Err(HelperError::Hangs(SILENCE_MAX))
    }

    /// The pipe is closed: it has ended, which says more.
    fn lost(&mut self, error: io::Error) -> HelperError {
        match self.ended_within(END_MAX) {
            Some(status) => HelperError::Ended(status),
            None => HelperError::Pipe(error),
        }
    }

    fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        let ended =
            sys::process::pidfd_open(pid).and_then(|pidfd| sys::process::wait_ended(pidfd.as_fd(), limit));
        match ended {
            Ok(true) => self.process.wait().ok(),
            Ok(false) | Err(_) => self.process.try_wait().ok().flatten(),
        }
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Under sudo, the ids of the person who called it: the helper needs no more than he has. User, group, further groups; empty
/// where there is nobody else to be.
fn person() -> Vec<String> {
    let called = std::env::var("SUDO_UID").ok().and_then(|text| text.parse().ok()).map(Uid::from_raw);
    let Some(uid) = called.filter(|uid| geteuid().is_root() && !uid.is_root()) else { return Vec::new() };
    let Ok(Some(user)) = User::from_uid(uid) else { return Vec::new() };
    let groups = CString::new(user.name).ok().and_then(|name| getgrouplist(&name, user.gid).ok());
    let groups = groups.unwrap_or_default().into_iter().map(|group| group.to_string());
    [user.uid.to_string(), user.gid.to_string()].into_iter().chain(groups).collect()
}

impl AsFd for Helper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The end of its pipe tells it to stop the blinking and to end.
        self.pipe.shutdown(Shutdown::Both).ok();
        if self.ended_within(END_MAX).is_none() {
            self.kill();
        }
    }
}
