//! The worker's loop: one thread, one epoll. Nothing in it waits for a single connection.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    io::{self, ErrorKind},
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use super::{
    FromWorker, ToWorker,
    connection::{Connection, Context, Fate, ID_MAX, Side, token},
    copy::Pipes,
    wire::{Packet, Received, Receiver},
};
use crate::gate::connect::peek::{self, LOOK_MAX};

/// epoll's word for the socket to the supervisor.
const CONTROL: u64 = u64::MAX;
/// How many events and how many words of the supervisor are taken at once.
const AT_ONCE: usize = 128;

/// Serves until the supervisor closes its end.
///
/// # Errors
/// The worker's own system calls fail, or the supervisor does not speak its language.
pub(super) fn serve(control: OwnedFd) -> io::Result<()> {
    Server::new(control)?.run()
}

struct Server {
    control: OwnedFd,
    receiver: Receiver,
    /// Packets that the supervisor has not taken yet.
    unsent: VecDeque<Packet>,
    connections: HashMap<u64, Connection>,
    /// Those that have more to do.
    again: VecDeque<u64>,
    alarms: BinaryHeap<Reverse<(Instant, u64)>>,
    tools: Tools,
}

struct Tools {
    epoll: Epoll,
    pipes: Pipes,
    buffer: Vec<u8>,
    now: Instant,
    said: Vec<FromWorker>,
}

impl Tools {
    fn context(&mut self) -> Context<'_> {
        Context {
            epoll: &self.epoll,
            pipes: &mut self.pipes,
            buffer: &mut self.buffer,
            now: self.now,
            said: &mut self.said,
        }
    }
}

impl Server {
    fn new(control: OwnedFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&control, EpollEvent::new(EpollFlags::EPOLLIN, CONTROL))?;
        let tools = Tools {
            epoll,
            pipes: Pipes::default(),
            buffer: vec![0; LOOK_MAX],
            now: Instant::now(),
            said: Vec::new(),
        };
        Ok(Self {
            control,
            receiver: Receiver::new(),
            unsent: VecDeque::new(),
            connections: HashMap::new(),
            again: VecDeque::new(),
            alarms: BinaryHeap::new(),
            tools,
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); AT_ONCE];
        loop {
            let timeout = self.timeout();
            let count = match self.tools.epoll.wait(&mut events, timeout) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            self.tools.now = Instant::now();
            for event in events.iter().take(count) {
                if event.data() != CONTROL {
                    self.connection_event(event.data(), event.events())?;
                } else if !self.control_event(event.events())? {
                    return Ok(());
                }
            }
            self.take_alarms()?;
            for _ in 0..self.again.len() {
                let Some(id) = self.again.pop_front() else { break };
                self.with(id, |connection, context| connection.go_on(context))?;
            }
        }
    }

    fn timeout(&mut self) -> EpollTimeout {
        if !self.again.is_empty() {
            return EpollTimeout::ZERO;
        }
        // What nobody waits for any more does not wake: most connections have shown themselves long before their time.
        while let Some(&Reverse((time, id))) = self.alarms.peek() {
            if self.connections.get(&id).is_some_and(|connection| connection.alarm == Some(time)) {
                break;
            }
            self.alarms.pop();
        }
        let Some(Reverse((next, _))) = self.alarms.peek() else { return EpollTimeout::NONE };
        // Rounded up: not to wake before it is time.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        u16::try_from(left.as_millis()).map_or(EpollTimeout::MAX, EpollTimeout::from)
    }

    fn connection_event(&mut self, word: u64, flags: EpollFlags) -> io::Result<()> {
        let id = word / 2;
        let side = if word == token(id, Side::Client) { Side::Client } else { Side::Upstream };
        self.with(id, |connection, context| connection.event(side, flags, context))
    }

    fn take_alarms(&mut self) -> io::Result<()> {
        while let Some(&Reverse((time, id))) = self.alarms.peek() {
            if time > self.tools.now {
                break;
            }
            self.alarms.pop();
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            // Another one has taken its place.
            if connection.alarm != Some(time) {
                continue;
            }
            connection.alarm = None;
            self.with(id, |connection, context| connection.go_on(context))?;
        }
        Ok(())
    }

    /// Does something with a connection, if it is still there, and sees to what follows.
    fn with(
        &mut self,
        id: u64,
        act: impl FnOnce(&mut Connection, &mut Context<'_>) -> Fate,
    ) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let fate = act(connection, &mut self.tools.context());
        self.settle(id, fate)
    }

    fn settle(&mut self, id: u64, fate: Fate) -> io::Result<()> {
        match fate {
            Fate::Keep | Fate::Again => {
                if fate == Fate::Again && !self.again.contains(&id) {
                    self.again.push_back(id);
                }
                self.set_alarm(id);
            }
            Fate::Reset | Fate::Close => {
                if let Some(connection) = self.connections.remove(&id) {
                    connection.end(fate == Fate::Reset, &mut self.tools.pipes);
                }
            }
        }
        self.tell()
    }

    fn set_alarm(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(time) = connection.deadline() else {
            connection.alarm = None;
            return;
        };
        // One that comes too early finds nothing to do, and sets the right one.
        if connection.alarm.is_none_or(|set| time < set) {
            connection.alarm = Some(time);
            self.alarms.push(Reverse((time, id)));
        }
    }

    /// What the supervisor says; false when it has closed.
    fn control_event(&mut self, flags: EpollFlags) -> io::Result<bool> {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.flush()?;
        }
        for _ in 0..AT_ONCE {
            match self.receiver.receive(&self.control) {
                Ok(Some(received)) => self.obey(received)?,
                Ok(None) => return Ok(false),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn obey(&mut self, received: Received<ToWorker>) -> io::Result<()> {
        let Received { message, raw, mut fds } = received;
        match message {
            ToWorker::Peek { id, grace_ms } => self.peek(id, grace_ms, fds.pop()),
            ToWorker::Join { id, tunnel } => match fds.pop() {
                Some(upstream) => {
                    self.with(id, |connection, context| connection.join(upstream, tunnel, context))
                }
                // There was no room for it (RLIMIT_NOFILE).
                None => self.with(id, |connection, context| connection.lose(context)),
            },
            ToWorker::Continue { id } => self.with(id, |connection, context| connection.pass(context)),
            ToWorker::Refuse { id, how } => {
                self.with(id, |connection, context| connection.refuse(&how, context))
            }
            ToWorker::Forget { id } => self.with(id, |connection, context| connection.forget(context)),
            ToWorker::Answer { id } => {
                let answer = peek::dns_answer(&raw).ok();
                self.tools.said.push(FromWorker::Answered { id, answer });
                self.tell()
            }
        }
    }

    fn peek(&mut self, id: u64, grace_ms: u32, client: Option<OwnedFd>) -> io::Result<()> {
        let client = client.filter(|_| id <= ID_MAX && !self.connections.contains_key(&id));
        let Some(client) = client else {
            self.tools.said.push(FromWorker::Gone { id });
            return self.tell();
        };
        let grace = Duration::from_millis(grace_ms.into());
        self.connections.insert(id, Connection::new(id, client, grace, self.tools.now));
        self.with(id, |connection, context| connection.go_on(context))?;
        self.with(id, |connection, context| connection.watch(context))
    }

    /// Sends what there is to say.
    fn tell(&mut self) -> io::Result<()> {
        for said in std::mem::take(&mut self.tools.said) {
            let packet = packet(&said)?;
            if self.unsent.is_empty() {
                match packet.send(self.control.as_fd(), &[]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.arm_control(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)?;
                        self.unsent.push_back(packet);
                    }
                    // The end of the socket comes as an event.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                    other => other?,
                }
            } else {
                self.unsent.push_back(packet);
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(packet) = self.unsent.front() {
            match packet.send(self.control.as_fd(), &[]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                other => other?,
            }
            self.unsent.pop_front();
        }
        self.arm_control(EpollFlags::EPOLLIN)
    }

    fn arm_control(&self, flags: EpollFlags) -> io::Result<()> {
        Ok(self.tools.epoll.modify(&self.control, &mut EpollEvent::new(flags, CONTROL))?)
    }
}

fn packet(said: &FromWorker) -> io::Result<Packet> {
    let raw: &[u8] = match said {
        FromWorker::Answered { answer: Some(answer), .. } => &answer.message,
        FromWorker::Answered { answer: None, .. }
        | FromWorker::Peeked { .. }
        | FromWorker::Gone { .. }
        | FromWorker::HalfClosed { .. }
        | FromWorker::Done { .. } => &[],
    };
    Packet::new(said, raw)
}
