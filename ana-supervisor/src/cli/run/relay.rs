//! Between the person's streams and the agent's, until the agent ends.

mod job;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags},
    sys::{signal::Signal, signalfd::SignalFd},
};

use super::{
    Streams,
    output::{copy, mentions_sandbox, write_to_person},
    prompt::{News, Questions},
    say,
    terminal::Terminal,
};
use crate::{
    api::{
        client::{Client, ClientError},
        wire::{Reply, Request},
    },
    cli::{ceremony::Rest, keys, question, terminal::signals},
    launch::child::OURS,
    sys::{self, readiness::readable},
};

/// How long the last output of a dead session may take to arrive.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a full-screen program has a smaller terminal, so that it draws itself anew.
const NUDGE: Duration = Duration::from_millis(50);
/// Bytes of keys (a paste, say) that wait for an agent that does not read; more are lost, as in any terminal.
const KEYS_MAX: usize = 1 << 20;
pub(super) struct Relay {
    client: Client,
    signals: SignalFd,
    master: Option<File>,
    /// Told by each thread that copies one of the agent's pipes to one of our streams, when it ends: with its pipe.
    outputs: Receiver<bool>,
    /// The person's terminal, when the session is interactive.
    terminal: Option<Terminal>,
    questions: Questions,
    /// What there is to be told when the agent's screen is no longer in the way.
    untold: Vec<String>,
    /// The end of the last output, in case a message is cut in two.
    tail: Vec<u8>,
    sandbox_failed: bool,
    keys_ended: bool,
    /// Keys that the agent's terminal has no room for yet.
    to_agent: Vec<u8>,
    /// By ourselves; the SIGCONT of it is still to be read.
    stopped: bool,
    /// When the agent's terminal gets its size back, so that it sees a change of it.
    nudge: Option<Instant>,
    /// What is still typed of a PIN whose question is gone.
    rest: Rest,
}

/// Which of them can be read.
struct Ready {
    supervisor: bool,
    signals: bool,
    keys: bool,
    output: bool,
    passkey: bool,
}

/// How the session ended.
enum End {
    /// Nobody is left to say how.
    Lost,
    Status(i32),
    Code(u8),
}

impl Relay {
    pub(super) fn new(
        client: Client,
        streams: Streams,
        interactive: bool,
        plain: bool,
    ) -> anyhow::Result<Self> {
        use Signal::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
        let signals = signals(&[SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH])?;
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
        let plain = plain || question::dumb();
        let take = || Terminal::take(plain, super::terminal_size());
        Ok(Self {
            client,
            signals,
            master: master.map(File::from),
            outputs,
            terminal: if interactive { Some(take()?) } else { None },
            questions: Questions::default(),
            untold: Vec::new(),
            tail: Vec::new(),
            sandbox_failed: false,
            keys_ended: false,
            to_agent: Vec::new(),
            stopped: false,
            nudge: None,
            rest: Rest::default(),
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
        self.give_terminal(&end)?;
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
        let ready = self.wait()?;
        self.end_nudge()?;
        // What was typed while it stood there belongs to it.
        if ready.keys {
            self.take_keys()?;
        }
        let secret = self.questions.secret();
        let end = self.take_other(&ready)?;
        if secret && (end.is_some() || !self.questions.secret()) {
            self.rest.expect();
        }
        Ok(end)
    }

    fn take_other(&mut self, ready: &Ready) -> anyhow::Result<Option<End>> {
        if ready.signals {
            self.take_signals()?;
        }
        if ready.output {
            self.pass_keys()?;
            self.show_output()?;
        }
        if self.questions.is_due_to_settle() {
            // What waits to be read was typed before.
            while !self.keys_ended && readable(io::stdin().as_fd(), Duration::ZERO)? {
                self.take_keys()?;
            }
            self.questions.settle();
        }
        let news = self.questions.tick(ready.passkey, &self.client)?;
        self.react(news)?;
        if ready.supervisor { self.hear() } else { Ok(None) }
    }

    fn wait(&self) -> anyhow::Result<Ready> {
        let stdin = io::stdin();
        let keys = (self.terminal.is_some() && !self.keys_ended).then(|| stdin.as_fd());
        // While a question is on the screen the agent's output waits.
        let output = self.master.as_ref().filter(|_| !self.questions.open()).map(AsFd::as_fd);
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !self.to_agent.is_empty());
        let mut fds = vec![
            PollFd::new(self.client.connection.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        let mut add = |fd: Option<_>, wanted| {
            fd.map(|fd| {
                fds.push(PollFd::new(fd, wanted));
                fds.len() - 1
            })
        };
        let keys = add(keys, PollFlags::POLLIN);
        let output = add(output, wanted);
        let passkey = add(self.questions.fd(), PollFlags::POLLIN);
        let nudge = self.nudge.map(|end| end.saturating_duration_since(Instant::now()));
        let limit = self.questions.timeout().into_iter().chain(nudge).min();
        let ready = sys::readiness::wait(&mut fds, limit)?;
        let is_ready = |place: Option<usize>| place.and_then(|place| ready.get(place)) == Some(&true);
        Ok(Ready {
            supervisor: is_ready(Some(0)),
            signals: is_ready(Some(1)),
            keys: is_ready(keys),
            output: is_ready(output),
            passkey: is_ready(passkey),
        })
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
                self.untold.push("the supervisor has ended; the session is dead".to_owned());
                return Ok(Some(End::Lost));
            }
            Err(error) => return Err(error.into()),
        };
        let mut keys: std::collections::VecDeque<OwnedFd> = self.client.connection.take_fds().into();
        for reply in replies {
            match reply {
                Reply::Question { options, key } => {
                    let key = if key { keys.pop_front().map(File::from) } else { None };
                    self.questions.push(options, key)?;
                    self.ask()?;
                }
                Reply::Withdrawn { id } => {
                    if self.questions.withdraw(&id)? {
                        self.give_back()?;
                    }
                }
                Reply::Alike { id, more } => self.questions.alike(&id, more)?,
                Reply::Pending { operation, .. } => self.tell(format!(
                    "waits for approval: {}\nanswer in another terminal: ana approve {}",
                    operation.summary(),
                    operation.id
                )),
                Reply::Notice(text) => self.tell(text),
                Reply::Refused { why } => {
                    if !self.questions.refused(&why)? {
                        self.tell(format!("not accepted: {why}"));
                    }
                }
                Reply::Done => {
                    if self.questions.done()? {
                        self.give_back()?;
                    }
                }
                Reply::Stopped => self.stop()?,
                Reply::Exited { status } => return Ok(Some(End::Status(status))),
                Reply::Failed(failure) => {
                    self.untold.push(format!("{}: {}", failure.doing, failure.error));
                    return Ok(Some(End::Code(failure.code)));
                }
                Reply::Ended { why } => {
                    self.untold.push(format!("the session was ended: {why}"));
                    return Ok(Some(End::Code(OURS)));
                }
                Reply::Changed => {}
                Reply::Streams { .. } | Reply::End | Reply::Session(_) => {
                    return Err(ClientError::Protocol.into());
                }
            }
        }
        Ok(None)
    }

    /// One message for the person, when there is room for it.
    fn tell(&mut self, text: String) {
        match self.terminal.as_ref().is_some_and(Terminal::is_drawn_on) {
            true => self.untold.push(text),
            false => say(&text),
        }
    }

    /// Puts the next question on the screen, if none is there.
    fn ask(&mut self) -> anyhow::Result<()> {
        if let Some(terminal) = &mut self.terminal
            && !self.questions.open()
            && !self.questions.is_empty()
        {
            let size = super::terminal_size();
            let tall = self.questions.is_tall(size);
            let way = terminal.open_question(tall)?;
            self.questions.show(way, size, tall)?;
        }
        Ok(())
    }

    /// A question is over: the next one, or the agent again.
    fn give_back(&mut self) -> anyhow::Result<()> {
        if !self.questions.is_empty() {
            return self.ask();
        }
        let Some(terminal) = &mut self.terminal else { return Ok(()) };
        if let (true, Some(master), Some(size)) =
            (terminal.close_question()?, &self.master, super::terminal_size())
        {
            // A full-screen program draws itself anew when its size changes; some look whether it really did.
            let smaller = sys::terminal::Size { rows: size.rows.saturating_sub(1).max(1), ..size };
            sys::terminal::resize(master.as_fd(), smaller)?;
            self.nudge = Some(Instant::now() + NUDGE);
        }
        Ok(())
    }

    /// The agent is dead: the terminal is the person's again. What a killed agent has made of it is undone; one that has
    /// ended by itself may have meant it.
    fn give_terminal(&mut self, end: &End) -> anyhow::Result<()> {
        self.rest.wait();
        if let Some(mut terminal) = self.terminal.take() {
            terminal.close_question()?;
            terminal.finish()?;
            if !matches!(end, End::Status(status) if status & 0x7f == 0) {
                terminal.undo()?;
            }
        }
        for text in std::mem::take(&mut self.untold) {
            say(&text);
        }
        Ok(())
    }

    fn take_keys(&mut self) -> anyhow::Result<()> {
        let bytes = keys::read()?;
        if bytes.is_empty() {
            self.keys_ended = true;
            return Ok(());
        }
        if self.rest.takes(&bytes) {
            return Ok(());
        }
        if !self.questions.open() {
            self.to_agent.extend_from_slice(&bytes);
            return self.pass_keys();
        }
        let news = self.questions.typed(&bytes, &self.client)?;
        self.react(news)
    }

    fn react(&mut self, news: News) -> anyhow::Result<()> {
        if !news.reports.is_empty() {
            self.to_agent.extend(news.reports);
            self.pass_keys()?;
        }
        if news.suspend {
            self.client.send(&Request::Signal(Signal::SIGTSTP as i32))?;
        }
        if news.over { self.give_back() } else { Ok(()) }
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
                self.sandbox_failed |= mentions_sandbox(&mut self.tail, output);
                match &mut self.terminal {
                    Some(terminal) => terminal.show(output)?,
                    None => write_to_person(output)?,
                }
            }
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
}
