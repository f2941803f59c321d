//! The pipe, and everything that can wake up whoever waits: an order, a key's answer, the end.

use std::{
    collections::VecDeque,
    os::unix::net::UnixStream,
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use ana_supervisor::approval::security_key::wire::{self, Fault, News, Order, Pin};

/// How long the keys may take to go dark when our parent is gone.
const END_MAX: Duration = Duration::from_millis(500);

/// Copies are the same.
#[derive(Clone)]
pub(crate) struct Talk {
    shared: Arc<Shared>,
}

struct Shared {
    pipe: UnixStream,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    orders: VecDeque<Order>,
    pin: Option<Pin>,
    /// What is going on is to end.
    cancelled: bool,
    /// Nobody listens any more.
    closed: bool,
    busy: bool,
    /// Until when what is going on may go on; `None`: as long as it takes.
    until: Option<Instant>,
    /// The last thing that was said; it is not said twice.
    said: Option<News>,
}

/// How long an order may take.
fn limit(order: &Order) -> Option<Duration> {
    match order {
        Order::Make(wish) => Some(Duration::from_millis(wish.limit_ms)),
        Order::Assert(wish) => Some(Duration::from_millis(wish.limit_ms)),
        Order::List | Order::Pin(_) | Order::Cancel => None,
    }
}

impl State {
    /// Why what is going on is to end.
    fn ended(&self) -> Option<Fault> {
        if self.cancelled {
            return Some(Fault::Cancelled);
        }
        self.until.is_some_and(|until| until <= Instant::now()).then_some(Fault::Late)
    }
}

impl Talk {
    /// Reads the pipe in a thread from here on.
    pub(crate) fn new(pipe: UnixStream) -> Self {
        let shared = Shared { pipe, state: Mutex::default(), bell: Condvar::new() };
        let talk = Self { shared: Arc::new(shared) };
        thread::spawn({
            let talk = talk.clone();
            move || talk.listen()
        });
        talk
    }

    fn listen(&self) {
        loop {
            // A message that is none of our words is the end as well.
            let order = wire::receive::<Order>(&self.shared.pipe).ok().flatten();
            let mut state = self.lock();
            match order {
                Some(Order::Cancel) => state.cancelled = true,
                Some(Order::Pin(pin)) => state.pin = Some(pin),
                Some(order @ (Order::List | Order::Make(_) | Order::Assert(_))) => {
                    state.orders.push_back(order)
                }
                None => {
                    state.cancelled = true;
                    state.closed = true;
                }
            }
            let closed = state.closed;
            drop(state);
            self.shared.bell.notify_all();
            if closed {
                return self.end();
            }
        }
    }

    /// Gives what is going on the time to stop the blinking, and ends the process.
    fn end(&self) {
        let until = Instant::now() + END_MAX;
        let mut state = self.lock();
        while state.busy && Instant::now() < until {
            state = self.wait(state, until.saturating_duration_since(Instant::now()));
        }
        process::exit(0);
    }

    /// The next order; `None` when there will be none.
    pub(crate) fn next_order(&self) -> Option<Order> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(order) = state.orders.pop_front() {
                state.busy = true;
                state.cancelled = false;
                state.pin = None;
                state.said = None;
                state.until = limit(&order).and_then(|limit| Instant::now().checked_add(limit));
                return Some(order);
            }
            state = self.wait(state, Duration::MAX);
        }
    }

    /// The answer to the last order.
    pub(crate) fn done(&self, news: &News) {
        self.write(news);
        self.lock().busy = false;
        self.ring();
    }

    /// Tells what goes on, unless it has just been told.
    pub(crate) fn say(&self, news: &News) {
        let before = self.lock().said.replace(news.clone());
        if before.as_ref() != Some(news) {
            self.write(news);
        }
    }

    /// Tells it even if it is the same as before.
    pub(crate) fn say_again(&self, news: &News) {
        self.lock().said = Some(news.clone());
        self.write(news);
    }

    fn write(&self, news: &News) {
        // Nobody is left to be told when the pipe is closed; the reading thread notices that as well.
        wire::send(&self.shared.pipe, news).ok();
    }

    /// # Errors
    /// What goes on is to end.
    pub(crate) fn go_on(&self) -> Result<(), Fault> {
        self.lock().ended().map_or(Ok(()), Err)
    }

    /// Waits for the PIN.
    pub(crate) fn pin(&self, limit: Duration) -> Result<Option<Pin>, Fault> {
        self.wait_in(limit, |state| state.pin.take())
    }

    /// Throws away a PIN that came before it was asked for.
    pub(crate) fn forget_pin(&self) {
        self.lock().pin = None;
    }

    /// Wakes up whoever waits.
    pub(crate) fn ring(&self) {
        // Under the lock: nobody is between looking and falling asleep.
        drop(self.lock());
        self.shared.bell.notify_all();
    }

    /// Waits until `look` finds something, what goes on is to end, or `limit` is over. `look` is called at first and
    /// whenever the bell rings.
    pub(crate) fn wait_for<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        self.wait_in(limit, |_| look())
    }

    fn wait_in<T>(
        &self,
        limit: Duration,
        look: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        self.wait_until(limit, State::ended, look)
    }

    /// The same, not ended by anything but its limit.
    pub(crate) fn wait_on<T>(&self, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        self.wait_until(limit, |_| None, |_| look()).unwrap_or_default()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// What goes on is to end.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), Fault> {
        self.wait_for(time, || None::<()>).map(drop)
    }

    /// # Errors
    /// What `ends` says.
    fn wait_until<T>(
        &self,
        limit: Duration,
        ends: fn(&State) -> Option<Fault>,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Ok(Some(found));
            }
            if let Some(fault) = ends(&state) {
                return Err(fault);
            }
            let now = Instant::now();
            let left = until.saturating_duration_since(now);
            if left.is_zero() {
                return Ok(None);
            }
            let all =
                state.until.map(|until| until.saturating_duration_since(now)).filter(|all| !all.is_zero());
            state = self.wait(state, all.map_or(left, |all| all.min(left)));
        }
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        match limit {
            Duration::MAX => self.shared.bell.wait(state).unwrap_or_else(PoisonError::into_inner),
            limit => self.shared.bell.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
