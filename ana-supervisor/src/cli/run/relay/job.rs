//! Signals, stops and sizes: what a shell and a terminal do to a job.

use std::{
    fs::File,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::sys::signal::{Signal, raise};

use super::{super::terminal_size, DRAIN, Relay};
use crate::{
    api::wire::Request,
    cli::terminal::obey,
    sys::{self, readiness::readable},
};

impl Relay {
    /// The agent was stopped: the shell that started us gets its terminal, until it lets us go on.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        if self.questions.secret() {
            self.rest.expect();
        }
        if self.questions.open() {
            self.questions.hide()?;
            if let Some(terminal) = &mut self.terminal {
                terminal.close_question()?;
            }
            // What it has said on its way out.
            let end = Instant::now() + DRAIN;
            let more = |master: &File| readable(master.as_fd(), Duration::ZERO).unwrap_or(false);
            while self.master.as_ref().is_some_and(more) && Instant::now() < end {
                self.show_output()?;
            }
        }
        self.rest.wait();
        if let Some(terminal) = &self.terminal {
            terminal.restore()?;
        }
        self.stopped = true;
        raise(Signal::SIGSTOP)?;
        if let Some(terminal) = &self.terminal {
            terminal.raw()?;
        }
        self.resize()?;
        self.client.send(&Request::Continue)?;
        self.ask()
    }

    pub(super) fn take_signals(&mut self) -> anyhow::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            let number = i32::try_from(info.ssi_signo)?;
            let signal = Signal::try_from(number)?;
            if signal == Signal::SIGWINCH {
                self.resize()?;
            } else if signal == Signal::SIGINT && self.questions.open() {
                self.questions.interrupt(&self.client)?;
            } else if signal == Signal::SIGCONT {
                // After a stop of our own making `stop` has gone on.
                if !std::mem::take(&mut self.stopped) {
                    self.come_back()?;
                }
            } else if matches!(signal, Signal::SIGHUP | Signal::SIGQUIT) {
                // They end us, and the session with us; the terminal is somebody's.
                self.terminal = None;
                obey(signal)?;
            } else {
                self.client.send(&Request::Signal(number))?;
            }
        }
        Ok(())
    }

    /// We were stopped from outside, the agent was not: somebody else has had the terminal meanwhile.
    fn come_back(&mut self) -> anyhow::Result<()> {
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        terminal.raw()?;
        if self.questions.open() {
            self.questions.hide()?;
            terminal.close_question()?;
        }
        self.resize()?;
        self.ask()
    }

    pub(super) fn resize(&mut self) -> anyhow::Result<()> {
        if let (Some(master), Some(size)) = (&self.master, terminal_size()) {
            sys::terminal::resize(master.as_fd(), size)?;
            if let Some(terminal) = &mut self.terminal {
                terminal.resize(size);
            }
            self.questions.resize(size)?;
        }
        Ok(())
    }

    /// The agent's terminal is as large again as the person's.
    pub(super) fn end_nudge(&mut self) -> anyhow::Result<()> {
        if self.nudge.is_some_and(|end| end <= Instant::now()) {
            self.nudge = None;
            if let (Some(master), Some(size)) = (&self.master, terminal_size()) {
                sys::terminal::resize(master.as_fd(), size)?;
            }
        }
        Ok(())
    }
}
