//! A client and its server, joined.

use std::time::Instant;

use nix::sys::epoll::EpollFlags;

use super::{
    FromWorker,
    connection::{Context, Fate, Side, Socket},
    copy::{Direction, Pipes, Stop},
    half_closed::HalfClosed,
    look::{Look, Sight},
    requests::{self, Expected, Passing, Then},
};

/// How much of the client passes now.
#[derive(Debug)]
enum Way {
    /// Everything.
    Open,
    /// What was let pass, and nothing behind it.
    Passing(Then),
    /// Nothing: the proxy has not answered the client's CONNECT.
    Answer,
    /// Nothing: what the client says next is looked at.
    Looking(Look, Expected),
    /// Nothing: the supervisor decides.
    Waiting { tls: bool, half_closed: HalfClosed, next: Option<Passing> },
}

#[derive(Debug)]
pub(super) struct Joined {
    id: u64,
    pub(super) upstream: Socket,
    up: Direction,
    down: Direction,
    way: Way,
    began: Instant,
}

impl Joined {
    /// `first`: what passes until the client is looked at again; `None`: everything.
    pub(super) fn new(id: u64, upstream: Socket, first: Option<Passing>, now: Instant) -> Self {
        let (up, down) = (Direction::default(), Direction::default());
        let mut joined = Self { id, upstream, up, down, way: Way::Open, began: now };
        joined.let_pass(first);
        joined
    }

    fn let_pass(&mut self, what: Option<Passing>) {
        self.up.allowance = what.map(|passing| passing.bytes);
        self.way = what.map_or(Way::Open, |passing| Way::Passing(passing.then));
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.way {
            Way::Looking(look, _) => look.deadline(),
            Way::Waiting { half_closed, .. } => half_closed.deadline(),
            Way::Open | Way::Passing(_) | Way::Answer => None,
        }
    }

    /// The last word about it.
    pub(super) fn done(&self, now: Instant) -> FromWorker {
        let milliseconds = now.saturating_duration_since(self.began).as_millis();
        FromWorker::Done {
            id: self.id,
            sent: self.up.moved,
            received: self.down.moved,
            milliseconds: u64::try_from(milliseconds).unwrap_or(u64::MAX),
        }
    }

    /// Gives the pipes back.
    pub(super) fn let_go(&mut self, pipes: &mut Pipes) {
        self.up.release(pipes);
        self.down.release(pipes);
    }

    /// The supervisor lets pass what waits.
    pub(super) fn pass(&mut self) {
        let Way::Waiting { next, .. } = self.way else { return };
        self.let_pass(next);
    }

    /// epoll reports something of one side.
    pub(super) fn event(
        &mut self,
        client: &mut Socket,
        side: Side,
        flags: EpollFlags,
        context: &mut Context,
    ) -> Fate {
        let reads = flags.intersects(!EpollFlags::EPOLLOUT);
        let writes = flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        let (up, down) = if side == Side::Client { (reads, writes) } else { (writes, reads) };
        self.turn(client, up, down, context)
    }

    /// Moves what the client has said before the join.
    pub(super) fn begin(&mut self, client: &mut Socket, context: &mut Context) -> Fate {
        self.turn(client, true, false, context)
    }

    /// Does what can be done now.
    pub(super) fn go_on(&mut self, client: &mut Socket, context: &mut Context) -> Fate {
        self.turn(client, true, true, context)
    }

    fn turn(&mut self, client: &mut Socket, up: bool, down: bool, context: &mut Context) -> Fate {
        let heard = down && self.hear(context);
        let down = if down { self.move_down(client, context) } else { Fate::Keep };
        if matches!(down, Fate::Reset) {
            return down;
        }
        let up = if up || heard { self.move_up(client, context) } else { Fate::Keep };
        if matches!(up, Fate::Reset | Fate::Close) {
            return up;
        }
        // What was still to be read has been moved by now, as far as the other side takes it.
        if client.broken || self.upstream.broken {
            return Fate::Reset;
        }
        if self.up.finished() && self.down.finished() {
            return Fate::Close;
        }
        if up == Fate::Again || down == Fate::Again { Fate::Again } else { Fate::Keep }
    }

    /// Looks at what a proxy answers to the first CONNECT, before it passes; true once it is known.
    fn hear(&mut self, context: &mut Context) -> bool {
        if !self.awaits() {
            return false;
        }
        let Some(expected) = requests::answered(&self.upstream, context.buffer) else { return false };
        // One that comes before all of the question does not answer it.
        let early = matches!(self.way, Way::Passing(_));
        self.way = match early {
            true => Way::Passing(Then::Look(Expected::Request)),
            false => Way::Looking(Look::new(None), expected),
        };
        true
    }

    fn awaits(&self) -> bool {
        matches!(self.way, Way::Passing(Then::Answer) | Way::Answer)
    }

    fn move_down(&mut self, client: &mut Socket, context: &mut Context) -> Fate {
        if self.awaits() {
            // There is nothing yet, or too little to know what it is.
            return Fate::Keep;
        }
        match self.down.pump(&self.upstream.fd, &client.fd, context.pipes) {
            Stop::Empty | Stop::Finished | Stop::Allowance => Fate::Keep,
            Stop::Full => arm(client, context),
            Stop::Turn => Fate::Again,
            Stop::Broken => Fate::Reset,
        }
    }

    fn move_up(&mut self, client: &mut Socket, context: &mut Context) -> Fate {
        match &mut self.way {
            Way::Open | Way::Passing(_) => {}
            Way::Answer if client.ended => {
                // The proxy may wait for that.
                self.way = Way::Looking(Look::new(None), Expected::TlsOrRequest);
                return self.look(client, context);
            }
            Way::Answer => return Fate::Keep,
            Way::Looking(..) => return self.look(client, context),
            // As before the join.
            Way::Waiting { tls, .. } if client.ended && *tls => {
                context.said.push(FromWorker::Gone { id: self.id });
                return Fate::Reset;
            }
            Way::Waiting { half_closed, .. } => {
                if client.ended && half_closed.is_due(&client.fd, context.now) {
                    context.said.push(FromWorker::HalfClosed { id: self.id });
                }
                return Fate::Keep;
            }
        }
        match self.up.pump(&client.fd, &self.upstream.fd, context.pipes) {
            Stop::Empty | Stop::Finished => Fate::Keep,
            Stop::Full => arm(&mut self.upstream, context),
            Stop::Turn => Fate::Again,
            Stop::Broken => Fate::Reset,
            Stop::Allowance => {
                // Whoever is silent here hears the server, and that is all: there is nothing to decide yet.
                self.way = match self.way {
                    Way::Passing(Then::Answer) => Way::Answer,
                    Way::Passing(Then::Look(expected)) => Way::Looking(Look::new(None), expected),
                    Way::Open | Way::Answer | Way::Looking(..) | Way::Waiting { .. } => return Fate::Keep,
                };
                self.move_up(client, context)
            }
        }
    }

    fn look(&mut self, client: &mut Socket, context: &mut Context) -> Fate {
        let Way::Looking(look, expected) = &mut self.way else { return Fate::Keep };
        match look.at(&client.fd, client.ended, context.buffer, context.now) {
            Sight::Nothing => Fate::Keep,
            Sight::Broken => Fate::Reset,
            Sight::Ended => {
                // Nothing was said: the server learns that.
                self.let_pass(None);
                self.move_up(client, context)
            }
            Sight::Shown(shown) => {
                let (shown, next) = requests::next(shown, *expected);
                self.way = Way::Waiting { tls: shown.tls, half_closed: HalfClosed::default(), next };
                context.said.push(FromWorker::Peeked { id: self.id, shown });
                self.move_up(client, context)
            }
        }
    }
}

/// Has epoll say when the socket takes more.
fn arm(socket: &mut Socket, context: &mut Context) -> Fate {
    match socket.arm(context.epoll, EpollFlags::EPOLLOUT) {
        Ok(()) => Fate::Keep,
        Err(_broken) => Fate::Reset,
    }
}
