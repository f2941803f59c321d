//! One connection: looked at, held, joined or refused.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollEvent, EpollFlags},
};

use super::{
    FromWorker, Refusal,
    copy::Pipes,
    half_closed::HalfClosed,
    joined::Joined,
    look::{Look, Sight},
    refuse::Refused,
    requests::Passing,
};
use crate::sys::socket::end_by_reset;

/// What a connection works with.
pub(super) struct Context<'a> {
    pub(super) epoll: &'a Epoll,
    pub(super) pipes: &'a mut Pipes,
    /// Of [`crate::gate::connect::peek::LOOK_MAX`] bytes.
    pub(super) buffer: &'a mut [u8],
    pub(super) now: Instant,
    /// What the supervisor is to be told.
    pub(super) said: &'a mut Vec<FromWorker>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Fate {
    Keep,
    /// It has more to do, when others had their turn.
    Again,
    /// It ends, and each side learns that by a reset.
    Reset,
    /// It ends.
    Close,
}

/// Which of its two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Upstream,
}

/// A socket, and what epoll reports of it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    token: u64,
    armed: Option<EpollFlags>,
    /// It sends no more.
    pub(super) ended: bool,
    /// It is broken, or closed in both directions.
    pub(super) broken: bool,
}

impl Socket {
    fn new(fd: OwnedFd, id: u64, side: Side) -> Self {
        Self { fd, token: token(id, side), armed: None, ended: false, broken: false }
    }

    /// Has epoll report this, too, once for each change. What is the case already is reported if this is new; else whoever
    /// calls has just been told EAGAIN, behind which a change follows.
    pub(super) fn arm(&mut self, epoll: &Epoll, wanted: EpollFlags) -> Result<(), Errno> {
        let flags = wanted | self.armed.unwrap_or(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET);
        if self.armed == Some(flags) {
            return Ok(());
        }
        let mut event = EpollEvent::new(flags, self.token);
        match self.armed {
            None => epoll.add(&self.fd, event)?,
            Some(_) => epoll.modify(&self.fd, &mut event)?,
        }
        self.armed = Some(flags);
        Ok(())
    }

    fn note(&mut self, flags: EpollFlags) {
        self.ended |= flags.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP);
        self.broken |= flags.contains(EpollFlags::EPOLLERR);
    }

    /// The next close(2) resets it.
    fn reset(&self) {
        end_by_reset(&self.fd).ok();
    }
}

/// The largest number of a connection: one bit of epoll's word says which side it is, and the largest word is taken.
pub(super) const ID_MAX: u64 = u64::MAX / 4;

pub(super) fn token(id: u64, side: Side) -> u64 {
    id * 2 + u64::from(side == Side::Upstream)
}

#[derive(Debug)]
enum State {
    Peeking(Look),
    Held {
        tls: bool,
        half_closed: HalfClosed,
        /// What passes if it is joined as a tunnel.
        first: Passing,
    },
    Joined(Box<Joined>),
    Refused(Refused),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: u64,
    client: Socket,
    state: State,
    /// When the server's timer looks at it.
    pub(super) alarm: Option<Instant>,
}

impl Connection {
    /// Takes a client over.
    pub(super) fn new(id: u64, client: OwnedFd, grace: Duration, now: Instant) -> Self {
        let client = Socket::new(client, id, Side::Client);
        Self { id, client, state: State::Peeking(Look::new(Some(now + grace))), alarm: None }
    }

    /// Has epoll report its client, after the first look: what there is to say about that is said by now, and the supervisor
    /// is at work on it.
    pub(super) fn watch(&mut self, context: &mut Context) -> Fate {
        // While it is held, only its end is of interest.
        let wanted = match self.state {
            State::Peeking(_) => EpollFlags::EPOLLIN,
            State::Held { .. } | State::Joined(_) | State::Refused(_) => EpollFlags::empty(),
        };
        match self.client.arm(context.epoll, wanted) {
            Ok(()) => Fate::Keep,
            Err(_broken) => self.gone(context),
        }
    }

    /// When it wants to be looked at, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Peeking(look) => look.deadline(),
            State::Held { half_closed, .. } => half_closed.deadline(),
            State::Joined(joined) => joined.deadline(),
            State::Refused(refused) => Some(refused.until),
        }
    }

    /// epoll reports something.
    pub(super) fn event(&mut self, side: Side, flags: EpollFlags, context: &mut Context) -> Fate {
        match (&mut self.state, side) {
            (State::Joined(joined), Side::Upstream) => joined.upstream.note(flags),
            (_, Side::Upstream) => {}
            (_, Side::Client) => self.client.note(flags),
        }
        match &mut self.state {
            State::Joined(joined) => {
                let fate = joined.event(&mut self.client, side, flags, context);
                self.joined(fate, context)
            }
            State::Peeking(_) | State::Held { .. } | State::Refused(_) => self.go_on(context),
        }
    }

    /// Does what can be done now.
    pub(super) fn go_on(&mut self, context: &mut Context) -> Fate {
        match &mut self.state {
            State::Peeking(_) => self.peek(context),
            State::Held { .. } => self.hold(context),
            State::Joined(joined) => {
                let fate = joined.go_on(&mut self.client, context);
                self.joined(fate, context)
            }
            State::Refused(refused) => refused.go_on(&self.client.fd, context.buffer, context.now),
        }
    }

    fn peek(&mut self, context: &mut Context) -> Fate {
        let State::Peeking(look) = &mut self.state else { return Fate::Keep };
        if self.client.broken {
            return self.gone(context);
        }
        match look.at(&self.client.fd, self.client.ended, context.buffer, context.now) {
            Sight::Nothing => Fate::Keep,
            Sight::Ended | Sight::Broken => self.gone(context),
            Sight::Shown(shown) => {
                let first = Passing::first(&shown);
                self.state = State::Held { tls: shown.tls, half_closed: HalfClosed::default(), first };
                context.said.push(FromWorker::Peeked { id: self.id, shown });
                self.hold(context)
            }
        }
    }

    fn hold(&mut self, context: &mut Context) -> Fate {
        let State::Held { tls, half_closed, .. } = &mut self.state else { return Fate::Keep };
        // A TLS client has nothing to do with half a connection before it has the whole one.
        if self.client.broken || (self.client.ended && *tls) {
            return self.gone(context);
        }
        if self.client.ended && half_closed.is_due(&self.client.fd, context.now) {
            context.said.push(FromWorker::HalfClosed { id: self.id });
        }
        Fate::Keep
    }

    /// The client has gone by itself.
    fn gone(&mut self, context: &mut Context) -> Fate {
        context.said.push(FromWorker::Gone { id: self.id });
        Fate::Close
    }

    /// Joins it with its server. Only what is held can be joined: else both are let go of.
    pub(super) fn join(&mut self, upstream: OwnedFd, tunnel: bool, context: &mut Context) -> Fate {
        let State::Held { first, .. } = self.state else { return Fate::Keep };
        let upstream = Socket::new(upstream, self.id, Side::Upstream);
        let mut joined = Box::new(Joined::new(self.id, upstream, tunnel.then_some(first), context.now));
        // What the client has said goes on before anything else is seen to: the server can be at work.
        let fate = joined.begin(&mut self.client, context);
        let armed = joined
            .upstream
            .arm(context.epoll, EpollFlags::EPOLLIN)
            .and_then(|()| self.client.arm(context.epoll, EpollFlags::EPOLLIN));
        self.state = State::Joined(joined);
        let fate = if armed.is_ok() { fate } else { Fate::Reset };
        self.joined(fate, context)
    }

    /// The server's socket was lost on its way.
    pub(super) fn lose(&mut self, context: &mut Context) -> Fate {
        if matches!(self.state, State::Held { .. }) {
            let (id, sent, received, milliseconds) = (self.id, 0, 0, 0);
            context.said.push(FromWorker::Done { id, sent, received, milliseconds });
        }
        Fate::Reset
    }

    /// Lets pass what waits after the join.
    pub(super) fn pass(&mut self, context: &mut Context) -> Fate {
        let State::Joined(joined) = &mut self.state else { return Fate::Keep };
        joined.pass();
        self.go_on(context)
    }

    pub(super) fn refuse(&mut self, how: &Refusal, context: &mut Context) -> Fate {
        if matches!(self.state, State::Refused(_)) {
            return Fate::Keep;
        }
        self.end_of_join(context);
        let Some(refused) = Refused::new(how, context.now) else { return Fate::Reset };
        self.state = State::Refused(refused);
        match self.client.arm(context.epoll, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT) {
            Ok(()) => self.go_on(context),
            Err(_broken) => Fate::Reset,
        }
    }

    /// The supervisor has no more interest in it.
    pub(super) fn forget(&mut self, context: &mut Context) -> Fate {
        self.end_of_join(context);
        Fate::Reset
    }

    /// After the end of a joined connection its last word is said.
    fn joined(&mut self, fate: Fate, context: &mut Context) -> Fate {
        match fate {
            Fate::Keep | Fate::Again => {}
            Fate::Reset | Fate::Close => self.say_done(context),
        }
        fate
    }

    fn say_done(&mut self, context: &mut Context) {
        let State::Joined(joined) = &self.state else { return };
        context.said.push(joined.done(context.now));
    }

    /// Ends the joined part, with a reset for the server.
    fn end_of_join(&mut self, context: &mut Context) {
        self.say_done(context);
        if let State::Joined(joined) = &mut self.state {
            joined.upstream.reset();
            joined.let_go(context.pipes);
        }
    }

    /// Closes what it has. Where the supervisor has not closed its copy yet, epoll may report a socket once more, under a
    /// number that is nobody's then.
    pub(super) fn end(self, reset: bool, pipes: &mut Pipes) {
        let Self { client, state, .. } = self;
        let upstream = match state {
            State::Joined(mut joined) => {
                joined.let_go(pipes);
                Some(joined.upstream)
            }
            State::Peeking(_) | State::Held { .. } | State::Refused(_) => None,
        };
        if reset {
            [Some(client), upstream].iter().flatten().for_each(Socket::reset);
        }
    }
}
