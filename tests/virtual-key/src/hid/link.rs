//! A plugged key: the threads between the device and the authenticator.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    framing::{Assembly, BROADCAST, Message, Received, command, error},
    node::Arrivals,
    uhid::Uhid,
};
use crate::{
    ctap::{Authenticator, Status},
    fault::Fault,
    live::{Tick, Turn},
    seen::Command,
};

/// Version of CTAPHID, and capabilities: WINK, CBOR, and no MSG (CTAP 2.1, 11.2.9.1.3).
const PROTOCOL: u8 = 2;
const CAPABILITIES: u8 = 0x01 | 0x04 | 0x08;
/// `CTAPHID_KEEPALIVE`'s (11.2.9.1.7).
const PROCESSING: u8 = 1;
const UPNEEDED: u8 = 2;

/// Channels that are given out come after this one.
const CHANNELS: u32 = 0x0a00_0000;

/// The device, as long as this lives.
pub(crate) struct Link {
    wire: Arc<Wire>,
    node: PathBuf,
    /// Closed, it ends the reader.
    wake: Option<UnixStream>,
    reader: Option<JoinHandle<()>>,
}

struct Wire {
    uhid: Uhid,
    key: Arc<Authenticator>,
    /// Also held while a message is sent: the next one cannot be refused as too early.
    busy: Mutex<Option<Busy>>,
    changed: Condvar,
    channels: AtomicU32,
}

/// The one request that is worked on.
#[derive(Clone, Copy)]
struct Busy {
    channel: u32,
    /// Nobody waits for the answer.
    dropped: bool,
}

impl Link {
    pub(crate) fn plug(key: Arc<Authenticator>) -> io::Result<Self> {
        let arrivals = Arrivals::listen()?;
        let uhid = Uhid::create(&key.settings.name, &key.settings.unique)?;
        let unique = key.settings.unique.clone();
        let wire = Arc::new(Wire {
            uhid,
            key,
            busy: Mutex::new(None),
            changed: Condvar::new(),
            channels: AtomicU32::new(CHANNELS),
        });
        let (wake, woken) = UnixStream::pair()?;
        let reading = Arc::clone(&wire);
        let reader =
            thread::Builder::new().name(format!("key {unique}")).spawn(move || reading.read(&woken))?;
        let mut link = Self { wire, node: PathBuf::new(), wake: Some(wake), reader: Some(reader) };
        link.node = arrivals.wait_for(&unique)?;
        Ok(link)
    }

    pub(crate) const fn node(&self) -> &PathBuf {
        &self.node
    }
}

impl Drop for Link {
    /// Unplugs: the device goes first, then all that went on.
    fn drop(&mut self) {
        self.wire.uhid.destroy().ok();
        self.wake = None;
        self.wire.drop_request();
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            eprintln!("the reader of {} panicked", self.node.display());
        }
        // It may have begun one more request in between.
        self.wire.drop_request();
    }
}

impl Wire {
    fn read(self: &Arc<Self>, woken: &UnixStream) {
        let mut assembly = Assembly::default();
        loop {
            let mut polled =
                [self.uhid.file().as_fd(), woken.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            if polled[1].any().unwrap_or(true) {
                return;
            }
            // The device is gone, or an event that is not for a key.
            let Ok(event) = self.uhid.read() else { return };
            let Some(report) = event else { continue };
            match assembly.receive(&report, Instant::now()) {
                Received::Nothing => {}
                Received::Message(message) => self.receive(message),
                Received::Error(channel, code) => self.send_error(channel, code),
            }
        }
    }

    fn receive(self: &Arc<Self>, message: Message) {
        let Message { channel, command, payload } = message;
        let allocated = (CHANNELS + 1..=self.channels.load(Ordering::Relaxed)).contains(&channel);
        if !(allocated || channel == BROADCAST && command == command::INIT) {
            return self.send_error(channel, error::INVALID_CHANNEL);
        }
        match command {
            command::INIT => return self.init(channel, payload),
            command::CANCEL => return self.cancel(channel),
            _ => {}
        }
        let mut busy = self.busy();
        if busy.is_some() {
            return self.send_all(&Message::error(channel, error::CHANNEL_BUSY).reports());
        }
        match command {
            command::PING => {
                self.key.live.note(Command::Ping);
                self.send_all(&Message { channel, command, payload }.reports());
            }
            command::WINK => {
                self.key.live.note(Command::Wink);
                self.send_all(&Message { channel, command, payload: Vec::new() }.reports());
            }
            command::CBOR => {
                let turn = self.key.live.begin(Command::of(payload.first().copied().unwrap_or(0)));
                *busy = Some(Busy { channel, dropped: false });
                drop(busy);
                let wire = Arc::clone(self);
                thread::spawn(move || wire.work(turn, channel, &payload));
            }
            _ => self.send_all(&Message::error(channel, error::INVALID_CMD).reports()),
        }
    }

    /// A channel, or a new beginning on one (11.2.9.1.3).
    fn init(&self, channel: u32, mut nonce: Vec<u8>) {
        if nonce.len() != 8 {
            return self.send_error(channel, error::INVALID_LEN);
        }
        if self.busy().is_some_and(|busy| busy.channel == channel) {
            self.drop_request();
        }
        self.key.live.note(Command::Init);
        let given = match channel {
            BROADCAST => self.channels.fetch_add(1, Ordering::Relaxed) + 1,
            ours => ours,
        };
        let fault = self.key.live.fault(Command::Init);
        if fault == Some(Fault::DifferentNonce) {
            nonce.iter_mut().for_each(|byte| *byte = !*byte);
        }
        let version = [PROTOCOL, 1, 0, 0, CAPABILITIES];
        let payload = [&nonce, given.to_be_bytes().as_slice(), &version].concat();
        let _sending = self.busy();
        self.answer(fault, Message { channel, command: command::INIT, payload });
    }

    fn cancel(&self, channel: u32) {
        self.key.live.note(Command::Cancel);
        if self.busy().is_some_and(|busy| busy.channel == channel) {
            self.key.live.cancel();
        }
    }

    /// Answers one CBOR message, with keepalives meanwhile.
    fn work(self: Arc<Self>, turn: Turn, channel: u32, message: &[u8]) {
        let live = &self.key.live;
        let fault = live.fault(turn.command);
        if matches!(fault, Some(Fault::Silence | Fault::ErrorFrame(_))) {
            live.end(turn, None);
            return self.finish(fault, Message { channel, command: command::CBOR, payload: Vec::new() });
        }
        let answer = thread::scope(|scope| {
            scope.spawn(|| self.keep_alive(turn, channel));
            if fault == Some(Fault::KeepaliveForever) {
                live.blink_forever(turn);
            }
            let answer = self.key.answer(turn, message);
            live.end(turn, answer.first().copied().map(Status));
            answer
        });
        // What was ordered meanwhile counts.
        let fault = live.fault(turn.command);
        self.finish(fault, Message { channel, command: command::CBOR, payload: answer });
    }

    fn keep_alive(&self, turn: Turn, channel: u32) {
        let mut last = Tick::Processing;
        loop {
            last = self.key.live.tick(turn, self.key.settings.keepalive, last);
            let status = match last {
                Tick::Over => return,
                Tick::Processing => PROCESSING,
                Tick::UserPresenceNeeded => UPNEEDED,
            };
            let message = Message { channel, command: command::KEEPALIVE, payload: vec![status] };
            let busy = self.busy();
            if busy.is_some_and(|busy| !busy.dropped) {
                self.send_all(&message.reports());
            }
        }
    }

    /// The answer, if anybody waits for it; then the key is free.
    fn finish(&self, fault: Option<Fault>, message: Message) {
        let mut busy = self.busy();
        if busy.is_some_and(|busy| !busy.dropped) {
            self.answer(fault, message);
            self.key.live.answered();
        }
        *busy = None;
        drop(busy);
        self.changed.notify_all();
    }

    /// An answer, with what is to be wrong with its frames.
    fn answer(&self, fault: Option<Fault>, mut message: Message) {
        let length = u16::try_from(message.payload.len()).unwrap_or(u16::MAX);
        let reports = match fault {
            Some(Fault::Silence) => return,
            Some(Fault::ErrorFrame(code)) => Message::error(message.channel, code).reports(),
            Some(Fault::Garbage) => message.reports_claiming(length.saturating_add(200)),
            Some(Fault::HugeLength) => message.reports_claiming(u16::MAX),
            Some(Fault::ShortReport) => {
                let mut reports = message.reports();
                reports[0].truncate(20);
                reports
            }
            Some(Fault::WrongChannel) => {
                message.channel ^= 0x0100_0000;
                message.reports()
            }
            Some(Fault::WrongCommand) => {
                message.command = command::PING;
                message.reports()
            }
            _ => message.reports(),
        };
        self.send_all(&reports);
    }

    fn send_error(&self, channel: u32, code: u8) {
        let _sending = self.busy();
        self.send_all(&Message::error(channel, code).reports());
    }

    /// Under the lock of `busy`: messages do not mix.
    fn send_all(&self, reports: &[Vec<u8>]) {
        for report in reports {
            // Unplugged: nobody reads it.
            if self.uhid.write(report).is_err() {
                return;
            }
        }
    }

    /// Ends the request that is worked on, without an answer, and waits for its end.
    fn drop_request(&self) {
        let mut busy = self.busy();
        while let Some(current) = busy.as_mut() {
            current.dropped = true;
            self.key.live.drop_request();
            busy = self.changed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn busy(&self) -> MutexGuard<'_, Option<Busy>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
