//! Between the person's streams and the agent's, until the agent ends.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::{
    Streams,
    prompt::{Outcome, Questions},
    say,
    terminal::Terminal,
};
use crate::{
    api::{
        client::{Client, ClientError},
        wire::{Reply, Request},
    },
    cli::{answer::readable, question::Answer},
    launch::child::OURS,
    sys,
};

/// How long the last output of a dead session may take to arrive.
const DRAIN: Duration = Duration::from_secs(2);
/// Bytes of keys (a paste, say) that wait for an agent that does not read; more are lost, as in any terminal.
const KEYS_MAX: usize = 1 << 20;
/// What bubblewrap says when it may not make a user namespace, or may not be root in it.
const SANDBOX_FAILED: [&[u8]; 2] = [b"No permissions to creat", b"setting up uid map: Permission denied"];

pub(super) struct Relay {
    client: Client,
    signals: SignalFd,
    master: Option<File>,
    /// Told by each thread that copies one of the agent's pipes to one of our streams, when it ends: with its pipe.
    outputs: Receiver<bool>,
    /// The person's terminal, when the session is interactive.
    terminal: Option<Terminal>,
    questions: Questions,
    /// The end of the last output, in case a message is cut in two.
    tail: Vec<u8>,
    sandbox_failed: bool,
    keys_ended: bool,
    /// Keys that the agent's terminal has no room for yet.
    to_agent: Vec<u8>,
}

/// How the session ended.
enum End {
    /// Nobody is left to say how.
    Lost,
    Status(i32),
    Code(u8),
}

impl Relay {
    pub(super) fn new(client: Client, streams: Streams, interactive: bool) -> anyhow::Result<Self> {
        let mut handled = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGWINCH] {
            handled.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&handled), None)?;
        let signals = SignalFd::with_flags(&handled, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let Streams { master, stdin, stdout, stderr } = streams;
        if let Some(master) = &master {
            fcntl(master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        }
        if let Some(pipe) = stdin {
            // Ends with our input, or with us.
            std::thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut File::from(pipe)).ok());
        }
        let (done, outputs) = channel();
        if let Some(pipe) = stdout {
            copy(pipe, io::stdout(), done.clone());
        }
        if let Some(pipe) = stderr {
            copy(pipe, io::stderr(), done);
        }
        Ok(Self {
            client,
            signals,
            master: master.map(File::from),
            outputs,
            terminal: if interactive { Some(Terminal::take()?) } else { None },
            questions: Questions::default(),
            tail: Vec::new(),
            sandbox_failed: false,
            keys_ended: false,
            to_agent: Vec::new(),
        })
    }

    /// Runs to the agent's end; the exit code.
    pub(super) fn run(mut self) -> anyhow::Result<u8> {
        let end = loop {
            if let Some(end) = self.step()? {
                break end;
            }
        };
        self.drain()?;
        drop(self.terminal.take());
        self.finish_outputs(matches!(end, End::Lost));
        if self.sandbox_failed {
            say(
                "the agent's own sandbox could not start: the seal leaves no user namespaces in a session.\n\
                 Run the agent with its sandbox off (ana is one), or set namespaces = true under [session] in the \
                 policy, which weakens the seal.",
            );
        }
        Ok(match end {
            End::Lost => OURS,
            End::Code(code) => code,
            End::Status(status) => exit_code(status),
        })
    }

    fn step(&mut self) -> anyhow::Result<Option<End>> {
        let asking = self.questions.open();
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::new(self.client.connection.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        let keys = self.terminal.is_some() && !self.keys_ended;
        if keys {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        // While a question is on the screen the agent's output waits.
        let output = self.master.as_ref().filter(|_| !asking).map(AsFd::as_fd);
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !self.to_agent.is_empty());
        fds.extend(output.map(|master| PollFd::new(master, wanted)));
        let unsettled = self.questions.unsettled();
        // Rounded up: woken too early, it would ask again at once.
        let timeout = unsettled.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.revents().is_some_and(|r| !r.is_empty())).collect();
        let has_output = output.is_some();
        drop(fds);
        self.questions.settle()?;
        if ready.get(1) == Some(&true) {
            self.take_signals()?;
        }
        if has_output && ready.last() == Some(&true) {
            self.pass_keys()?;
            self.show_output()?;
        }
        if keys && ready.get(2) == Some(&true) {
            self.take_keys()?;
        }
        match ready.first() {
            Some(true) => self.hear(),
            _ => Ok(None),
        }
    }

    /// What the supervisor says.
    fn hear(&mut self) -> anyhow::Result<Option<End>> {
        let replies: Vec<Reply> = match self.client.connection.receive_ready() {
            Ok(replies) => replies,
            // With something of ours that it has not read, it is a reset.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) =>
            {
                say("the supervisor has ended; the session is dead");
                return Ok(Some(End::Lost));
            }
            Err(error) => return Err(error.into()),
        };
        let mut keys: std::collections::VecDeque<OwnedFd> = self.client.connection.take_fds().into();
        for reply in replies {
            match reply {
                Reply::Question { options, key } => {
                    let key = if key { keys.pop_front().map(File::from) } else { None };
                    self.questions.push(options, key);
                    self.ask()?;
                }
                Reply::Withdrawn { id } => {
                    if let Outcome::Over = self.questions.withdraw(&id)? {
                        self.give_back()?;
                    }
                }
                Reply::Alike { id, more } => self.questions.alike(&id, more)?,
                Reply::Pending { operation, .. } => say(&format!(
                    "waits for approval: {}\nanswer in another terminal: ana approve {}",
                    operation.summary(),
                    operation.id
                )),
                Reply::Notice(text) => say(&text),
                Reply::Refused { why } => say(&format!("not accepted: {why}")),
                Reply::Stopped => self.stop()?,
                Reply::Exited { status } => return Ok(Some(End::Status(status))),
                Reply::Failed(failure) => {
                    say(&format!("{}: {}", failure.doing, failure.error));
                    return Ok(Some(End::Code(failure.code)));
                }
                Reply::Ended { why } => {
                    say(&format!("the session was ended: {why}"));
                    return Ok(Some(End::Code(OURS)));
                }
                Reply::Done | Reply::Changed => {}
                Reply::Streams { .. } | Reply::End | Reply::Session(_) => {
                    return Err(ClientError::Protocol.into());
                }
            }
        }
        Ok(None)
    }

    /// Puts the next question on the screen, if none is there.
    fn ask(&mut self) -> anyhow::Result<()> {
        if let Some(terminal) = &self.terminal
            && !self.questions.open()
            && !self.questions.is_empty()
        {
            terminal.open_question()?;
            self.questions.show()?;
        }
        Ok(())
    }

    /// A question is over: the next one, or the agent again.
    fn give_back(&mut self) -> anyhow::Result<()> {
        if !self.questions.is_empty() {
            return self.ask();
        }
        let Some(terminal) = &self.terminal else { return Ok(()) };
        terminal.close_question()?;
        if let (true, Some(master), Some(size)) = (terminal.full_screen, &self.master, super::terminal_size())
        {
            // A full-screen program draws itself anew when its size changes.
            let smaller = sys::terminal::Size { rows: size.rows.saturating_sub(1).max(1), ..size };
            sys::terminal::resize(master.as_fd(), smaller)?;
            sys::terminal::resize(master.as_fd(), size)?;
        }
        Ok(())
    }

    fn take_keys(&mut self) -> anyhow::Result<()> {
        let mut bytes = [0; 4096];
        let length = io::stdin().lock().read(&mut bytes)?;
        if length == 0 {
            self.keys_ended = true;
            return Ok(());
        }
        if !self.questions.open() {
            self.to_agent.extend_from_slice(&bytes[..length]);
            return self.pass_keys();
        }
        if let Outcome::Over = self.questions.typed(&bytes[..length], &self.client)? {
            self.give_back()?;
        }
        Ok(())
    }

    /// Passes on what the agent's terminal has room for. An agent that does not read must not keep us from asking.
    fn pass_keys(&mut self) -> anyhow::Result<()> {
        let Some(master) = &mut self.master else { return Ok(()) };
        match master.write(&self.to_agent) {
            Ok(length) => drop(self.to_agent.drain(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        self.to_agent.truncate(KEYS_MAX);
        Ok(())
    }

    fn show_output(&mut self) -> anyhow::Result<()> {
        let Some(master) = &mut self.master else { return Ok(()) };
        let mut bytes = [0; 16 << 10];
        match master.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // EIO: no process has the session's terminal open any more.
            Ok(0) | Err(_) => self.master = None,
            Ok(length) => {
                let output = &bytes[..length];
                if let Some(terminal) = &mut self.terminal {
                    terminal.watch(output);
                }
                self.sandbox_failed |= mentions_sandbox(&mut self.tail, output);
                write_to_person(output)?;
            }
        }
        Ok(())
    }

    /// The agent was stopped: the shell that started us gets its terminal, until it lets us go on.
    fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(terminal) = &self.terminal {
            terminal.restore()?;
        }
        raise(Signal::SIGSTOP)?;
        if let Some(terminal) = &self.terminal {
            terminal.raw()?;
        }
        self.resize()?;
        Ok(self.client.send(&Request::Continue)?)
    }

    fn take_signals(&mut self) -> anyhow::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            let number = i32::try_from(info.ssi_signo)?;
            let signal = Signal::try_from(number)?;
            if signal == Signal::SIGWINCH {
                self.resize()?;
            } else if signal == Signal::SIGINT && self.questions.open() {
                if let Outcome::Over = self.questions.answer(Answer::Deny, &self.client)? {
                    self.give_back()?;
                }
            } else if signal != Signal::SIGCONT {
                // After a stop of our own making `stop` goes on; after another one the agent was not stopped.
                self.client.send(&Request::Signal(number))?;
            }
        }
        Ok(())
    }

    fn resize(&self) -> anyhow::Result<()> {
        if let (Some(master), Some(size)) = (&self.master, super::terminal_size()) {
            sys::terminal::resize(master.as_fd(), size)?;
        }
        Ok(())
    }

    /// Waits for what the agent's pipes still hold: as long as they are open, but when nobody is left who would end the
    /// session, not for long.
    fn finish_outputs(&mut self, lost: bool) {
        let end = Instant::now() + DRAIN;
        loop {
            let complained = match lost {
                false => self.outputs.recv().map_err(|_ended| RecvTimeoutError::Disconnected),
                true => self.outputs.recv_timeout(end.saturating_duration_since(Instant::now())),
            };
            match complained {
                Ok(complained) => self.sandbox_failed |= complained,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    return say(
                        "something of the session still runs, with nobody to ask: the kernel refuses it whatever is \
                         protected.\nThe next ana-run ends it.",
                    );
                }
            }
        }
    }

    /// What the agent's terminal still holds.
    fn drain(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + DRAIN;
        while let Some(master) = &self.master {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !readable(master.as_fd(), left)? {
                break;
            }
            self.show_output()?;
        }
        Ok(())
    }
}

/// The session's terminal speaks to whichever of our streams is one.
fn write_to_person(bytes: &[u8]) -> io::Result<()> {
    if io::stdout().is_terminal() {
        io::stdout().write_all(bytes)?;
        io::stdout().flush()
    } else {
        io::stderr().write_all(bytes)
    }
}

/// Copies a pipe of the agent's to one of our streams in a thread; tells at its end whether the agent's sandbox complained
/// there.
fn copy(pipe: OwnedFd, mut to: impl Write + Send + 'static, done: Sender<bool>) {
    std::thread::spawn(move || {
        let (mut from, mut bytes, mut tail, mut complained) =
            (File::from(pipe), vec![0; 64 << 10], Vec::new(), false);
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            complained |= mentions_sandbox(&mut tail, &bytes[..length]);
            // Nobody reads on (`| head`): the agent gets SIGPIPE or EPIPE when we close our end.
            if to.write_all(&bytes[..length]).and_then(|()| to.flush()).is_err() {
                break;
            }
        }
        done.send(complained).ok();
    });
}

fn mentions_sandbox(tail: &mut Vec<u8>, output: &[u8]) -> bool {
    tail.extend_from_slice(output);
    let found = SANDBOX_FAILED.iter().any(|text| tail.windows(text.len()).any(|window| window == *text));
    let longest = SANDBOX_FAILED.iter().map(|text| text.len()).max().unwrap_or_default();
    tail.drain(..tail.len().saturating_sub(longest));
    found
}

/// As a shell has it: the exit code, or 128 and the signal.
fn exit_code(status: i32) -> u8 {
    let code = match status & 0x7f {
        0 => status >> 8,
        signal => 128 + signal,
    };
    u8::try_from(code & 0xff).unwrap_or(OURS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_what_a_shell_would_say() {
        assert_eq!(exit_code(3 << 8), 3);
        assert_eq!(exit_code(255 << 8), 255);
        assert_eq!(exit_code(9), 137);
        assert_eq!(exit_code(0x80 | 11), 139);
    }

    #[test]
    fn a_complaint_that_is_cut_in_two_is_found() {
        for text in SANDBOX_FAILED.map(|text| [b"bwrap: ", text, b"\n"].concat()) {
            for cut in 0..text.len() {
                let mut tail = Vec::new();
                let first = mentions_sandbox(&mut tail, &text[..cut]);
                assert!(first | mentions_sandbox(&mut tail, &text[cut..]), "{cut}");
            }
        }
        assert!(!mentions_sandbox(&mut Vec::new(), b"Permission denied"));
    }
}
