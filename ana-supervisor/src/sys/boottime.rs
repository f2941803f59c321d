//! CLOCK_BOOTTIME: deadlines run on while the machine sleeps (clock_gettime(2), timerfd_create(2)).

use std::{io, os::fd::OwnedFd, time::Duration};

use nix::{
    sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
    time::{ClockId as Clock, clock_gettime},
};
use tokio::io::Interest;

/// Nanoseconds since boot, suspension included.
///
/// # Errors
/// Never on a kernel since 2.6.39; the error is handed on all the same.
pub fn now() -> io::Result<u64> {
    let time = clock_gettime(Clock::CLOCK_BOOTTIME)?;
    u64::try_from(Duration::from(time).as_nanos()).map_err(io::Error::other)
}

/// `now() + delay`.
pub fn after(delay: Duration) -> io::Result<u64> {
    Ok(now()?.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
}

/// Returns once CLOCK_BOOTTIME has reached `deadline` (nanoseconds). tokio's own timers stop while the machine sleeps.
pub async fn sleep_until(deadline: u64) -> io::Result<()> {
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    // A zero time would disarm the timer.
    let at = TimeSpec::from(Duration::from_nanos(deadline.max(1)));
    timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
    let fd = super::readiness::watch(OwnedFd::from(timer), Interest::READABLE)?;
    let _ready = fd.readable().await?;
    Ok(())
}
