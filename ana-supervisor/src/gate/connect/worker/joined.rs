//! A client and its server, joined.

use std::time::Instant;

use nix::sys::epoll::EpollFlags;

use super::{
    FromWorker,
    connection::{Context, Fate, Side, Socket},
    copy::{Direction, Pipes, Stop},
    look::{Look, Sight},
};
use crate::gate::connect::peek::Protocol;

/// How far a client's tunnel through another proxy is.
#[derive(Debug)]
enum Tunnel {
    /// Everything passes: there is no tunnel, or it was looked into.
    Open,
    /// The head of the client's CONNECT passes, and nothing behind it.
    Head,
    /// What the client says into the tunnel is looked at.
    Looking(Look),
    /// The supervisor decides.
    Waiting {
        tls: bool,
        /// The head of another CONNECT, to the same proxy.
        head: Option<usize>,
    },
}

#[derive(Debug)]
pub(super) struct Joined {
    id: u64,
    pub(super) upstream: Socket,
    up: Direction,
    down: Direction,
    tunnel: Tunnel,
    began: Instant,
}

impl Joined {
    /// `head`: how many bytes pass until the client is looked at again.
    pub(super) fn new(id: u64, upstream: Socket, head: Option<usize>, now: Instant) -> Self {
        let tunnel = if head.is_some() { Tunnel::Head } else { Tunnel::Open };
        let up = Direction::of(head);
        Self { id, upstream, up, down: Direction::default(), tunnel, began: now }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.tunnel {
            Tunnel::Looking(look) => look.deadline(),
            Tunnel::Open | Tunnel::Head | Tunnel::Waiting { .. } => None,
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

    /// The supervisor lets the tunnel's bytes pass.
    pub(super) fn pass(&mut self) {
        let Tunnel::Waiting { head, .. } = self.tunnel else { return };
        self.up.allowance = head;
        self.tunnel = if head.is_some() { Tunnel::Head } else { Tunnel::Open };
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

    /// Does what can be done now.
    pub(super) fn go_on(&mut self, client: &mut Socket, context: &mut Context) -> Fate {
        self.turn(client, true, true, context)
    }

    fn turn(&mut self, client: &mut Socket, up: bool, down: bool, context: &mut Context) -> Fate {
        let down = if down { self.move_down(client, context) } else { Fate::Keep };
        if matches!(down, Fate::Reset) {
            return down;
        }
        let up = if up { self.move_up(client, context) } else { Fate::Keep };
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

    fn move_down(&mut self, client: &mut Socket, context: &mut Context) -> Fate {
        match self.down.pump(&self.upstream.fd, &client.fd, context.pipes) {
            Stop::Empty | Stop::Finished | Stop::Allowance => Fate::Keep,
            Stop::Full => arm(client, context),
            Stop::Turn => Fate::Again,
            Stop::Broken => Fate::Reset,
        }
    }

    fn move_up(&mut self, client: &mut Socket, context: &mut Context) -> Fate {
        match &mut self.tunnel {
            Tunnel::Open | Tunnel::Head => {}
            Tunnel::Looking(_) => return self.look(client, context),
            // As before the join.
            Tunnel::Waiting { tls, .. } if client.ended && *tls => {
                context.said.push(FromWorker::Gone { id: self.id });
                return Fate::Reset;
            }
            Tunnel::Waiting { .. } => return Fate::Keep,
        }
        match self.up.pump(&client.fd, &self.upstream.fd, context.pipes) {
            Stop::Empty | Stop::Finished => Fate::Keep,
            Stop::Full => arm(&mut self.upstream, context),
            Stop::Turn => Fate::Again,
            Stop::Broken => Fate::Reset,
            Stop::Allowance => {
                // Whoever is silent here hears the server, and that is all: there is nothing to decide yet.
                self.tunnel = Tunnel::Looking(Look::new(None));
                self.look(client, context)
            }
        }
    }

    fn look(&mut self, client: &mut Socket, context: &mut Context) -> Fate {
        let Tunnel::Looking(look) = &mut self.tunnel else { return Fate::Keep };
        match look.at(&client.fd, client.ended, context.buffer, context.now) {
            Sight::Nothing => Fate::Keep,
            Sight::Broken => Fate::Reset,
            Sight::Ended => {
                // Nothing was said: the server learns that.
                self.up.allowance = None;
                self.tunnel = Tunnel::Open;
                self.move_up(client, context)
            }
            Sight::Shown(shown) => {
                let head = (shown.protocol == Protocol::Connect).then_some(shown.head);
                self.tunnel = Tunnel::Waiting { tls: shown.tls, head };
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
