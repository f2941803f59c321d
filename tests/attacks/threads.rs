//! Two threads of one process: one executes the protected file with allowed arguments; the other, starved by a busy
//! machine and on its way through long chains of symlinks, is still inside its own system call meanwhile. Arguments: what
//! the second thread does, the protected file, where the chain leads, an empty folder, the seconds to go on.
//!
//! `open` opens the end of the chain and runs what it read; `exec` executes a script whose interpreter is the end of the
//! chain; `file` executes the end of the chain itself. `…-alone` is the second thread without the first.
#![allow(unsafe_code, reason = "fork, the scheduling class and execve beside another thread are the attack")]

use std::{
    ffi::{CString, OsString},
    fs,
    os::unix::fs::{OpenOptionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicI32, Ordering},
    time::{Duration, Instant},
};

use ana_tests::attempt::{argument, c_environment, c_path, say, tell_io};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, alarm, execve, fork, gettid},
};

/// Links in the chain: the kernel follows 40 in one path.
const LINKS: usize = 39;
/// How the process of a round ends when the second thread has what it wanted.
const WON: i32 = 42;
/// How long a round may take.
const ROUND: Duration = Duration::from_secs(8);

/// What the threads of a round need.
struct Race {
    protected: CString,
    chain: PathBuf,
    /// What the second thread executes, if it does not open: the chain itself, or a script of `#!` and the chain.
    second: Option<CString>,
    copy: PathBuf,
    environment: Vec<CString>,
}

static FIRST: AtomicI32 = AtomicI32::new(0);

fn main() {
    let (kind, protected, target, folder) = (argument(1), argument(2), argument(3), argument(4));
    let seconds = argument(5).to_str().and_then(|text| text.parse().ok()).unwrap_or(20);
    let kind = kind.to_str().unwrap_or_default();
    let (how, alone) = kind.strip_suffix("-alone").map_or((kind, false), |how| (how, true));
    let Some(race) = tell_io("prepare", prepare(how, &protected, &target, &folder)) else { return };
    if alone {
        second(&race);
        return;
    }
    let (mut rounds, mut won) = (0_u64, 0);
    let busy = [(0, 25, 4), (1, 6, 3)].map(|(cpu, on, off)| occupy(cpu, on, off, seconds + 20));
    let end = Instant::now() + Duration::from_secs(seconds.into());
    while Instant::now() < end && won == 0 {
        won += u32::from(round(&race, Duration::from_micros(rounds % 12 * 1500)));
        rounds += 1;
    }
    for pid in busy.into_iter().flatten() {
        // Gone already is as good.
        let Err(_gone) = kill(pid, Signal::SIGKILL) else { continue };
    }
    say(&format!("rounds {rounds} won {won}"));
}

fn prepare(how: &str, protected: &Path, target: &Path, folder: &Path) -> std::io::Result<Race> {
    fs::create_dir_all(folder.join("d"))?;
    let there_and_back = "d/../".repeat(760);
    let to_root = "../".repeat(30);
    for link in 0..LINKS {
        let next = match link {
            0 => format!("{there_and_back}{to_root}{}", target.display().to_string().trim_start_matches('/')),
            _ => format!("{there_and_back}l{}", link - 1),
        };
        symlink(next, folder.join(format!("l{link}")))?;
    }
    let (chain, script) = (folder.join(format!("l{}", LINKS - 1)), folder.join("script"));
    fs::write(&script, format!("#!{}\n", chain.display()))?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut environment = c_environment();
    let read = format!("ANA_TEST_READ={}", protected.display());
    environment.push(CString::new(read).map_err(std::io::Error::other)?);
    let second = match how {
        "open" => None,
        "exec" => Some(c_path(&script)),
        "file" => Some(c_path(&chain)),
        _ => return Err(std::io::ErrorKind::InvalidInput.into()),
    };
    Ok(Race { protected: c_path(protected), chain, second, copy: folder.join("copy"), environment })
}

/// A process that keeps a CPU busy, with short pauses, so that what is scheduled as idle hardly moves.
fn occupy(cpu: usize, on: u64, off: u64, seconds: u32) -> Option<Pid> {
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            alarm::set(seconds);
            pin(cpu);
            // The other tests of this machine come first.
            // SAFETY: nice takes and gives numbers only.
            unsafe { libc::nice(10) };
            loop {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(on) {
                    std::hint::spin_loop();
                }
                std::thread::sleep(Duration::from_millis(off));
            }
        }
        Ok(ForkResult::Parent { child }) => Some(child),
        Err(_) => None,
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    // A machine with one CPU has no second one to go to.
    let Err(_unchanged) = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) else {
        return;
    };
}

fn starve() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the call; the calling thread is meant.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
}

/// One process with the two threads; true when the second one got through.
fn round(race: &Race, later: Duration) -> bool {
    // SAFETY: this process has one thread whenever it forks; the child makes its own.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            std::thread::scope(|scope| {
                scope.spawn(|| first(race));
                scope.spawn(|| {
                    until_first_is_held();
                    std::thread::sleep(later);
                    pin(1);
                    starve();
                    second(race);
                });
            });
            std::process::exit(3)
        }
        Ok(ForkResult::Parent { child }) => child,
        Err(_) => return false,
    };
    let end = Instant::now() + ROUND;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Ok(WaitStatus::StillAlive) => {
                let Err(_gone) = kill(child, Signal::SIGKILL) else { continue };
                return false;
            }
            Ok(WaitStatus::Exited(_, code)) => return code == WON,
            _ => return false,
        }
    }
}

fn first(race: &Race) {
    pin(0);
    if race.second.is_none() {
        starve();
    }
    FIRST.store(gettid().as_raw(), Ordering::Relaxed);
    let arguments = [c"deploy".to_owned(), c"status".to_owned()];
    // Only a failure returns: refused.
    let Err(_refused) = execve(&race.protected, &arguments, &race.environment);
}

fn until_first_is_held() {
    loop {
        let first = FIRST.load(Ordering::Relaxed);
        let place = fs::read_to_string(format!("/proc/self/task/{first}/wchan")).unwrap_or_default();
        if place.contains("fanotify") {
            return;
        }
        // Refused already: there is no race to be won any more.
        if first != 0 && !Path::new(&format!("/proc/self/task/{first}")).exists() {
            return;
        }
    }
}

fn second(race: &Race) {
    if let Some(second) = &race.second {
        let arguments = [c"x".to_owned(), c"status".to_owned()];
        let result = execve(second, &arguments, &race.environment).map_err(std::io::Error::from);
        tell_io("script", result.map(drop));
        return;
    }
    let bytes = match fs::read(&race.chain) {
        Ok(bytes) => bytes,
        Err(error) => return say(&format!("attempt descriptor: {:?}", errno(&error))),
    };
    say("attempt descriptor: ok");
    let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(&race.copy);
    let written = written.and_then(|mut file| std::io::Write::write_all(&mut file, &bytes));
    if tell_io("copy", written).is_some() {
        let copy = [OsString::from("attack")];
        ana_tests::attempt::run("run-copy", std::process::Command::new(&race.copy).args(copy));
    }
    std::process::exit(WON);
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}
