//! The real process: this test binary once more, with nothing but a socket.

use std::{
    io::Write,
    os::fd::AsRawFd,
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        signal::kill,
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::Mode,
    },
    unistd::{Pid, execve, getppid},
};
use tokio::io::AsyncWriteExt;

use super::{
    super::{Events, Worker, confine},
    HELLO, LONG, connection, done, exactly, rest, shown,
};
use crate::sys;

const MODULE: &str = "gate::connect::worker::tests::confined";

/// This binary as one of the ignored tests below.
fn itself(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{MODULE}::{test}"), "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

pub(super) async fn process() -> (Worker, Events) {
    Worker::start_as(itself("worker_process")).await.expect("a worker")
}

#[test]
#[ignore = "the other process of the tests"]
fn worker_process() {
    let Ok(socket) = sys::process::inherited(0) else { return };
    let copy = socket.try_clone().unwrap();
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null").unwrap()).unwrap();
    std::mem::forget(socket);
    // By hand it has no socket, and says so.
    drop(super::super::run(copy));
}

/// Of the thread that confined itself: the test harness has one more. (The real worker has one thread.)
fn status(pid: u32, key: &str) -> String {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut all =
        threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    let status = all.find(|status| status.starts_with("Name:\tana-proxy\n")).expect("a confined thread");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_process_serves_and_has_no_rights() {
    let (worker, mut events) = process().await;
    let pid = events.pid().unwrap();
    assert_eq!(status(pid, "Uid"), "65534 65534 65534 65534");
    assert_eq!(status(pid, "Gid"), "65534 65534 65534 65534");
    assert_eq!(status(pid, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!((status(pid, "NoNewPrivs").as_str(), status(pid, "Seccomp").as_str()), ("1", "2"));
    let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|fd| std::fs::read_link(fd.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .collect();
    open.sort();
    let kinds: Vec<&str> = open.iter().map(|target| target.split(":[").next().unwrap()).collect();
    // And, from its first turn on, its own epoll.
    let given: Vec<&str> = kinds.into_iter().filter(|kind| *kind != "anon_inode").collect();
    assert_eq!(given, ["/dev/null", "/dev/null", "/dev/null", "socket"]);

    let (mut client, near) = connection();
    client.write_all(HELLO).await.unwrap();
    worker.peek(1, near, LONG).await.unwrap();
    assert_eq!(shown(&mut events).await.1.name.as_deref(), Some("api.stripe.com"));
    let (mut server, upstream) = connection();
    worker.join(1, upstream, false).await.unwrap();
    assert_eq!(exactly(&mut server, HELLO.len()).await, HELLO);
    let many = vec![7; 8 << 20];
    let send = async {
        server.write_all(&many).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let ((), (got, _)) = tokio::join!(send, rest(&mut client));
    assert!(got == many);
    drop((client, server));
    assert_eq!(done(&mut events).await, (1, HELLO.len() as u64, 8 << 20));

    // Its death is the end of what it has, and is said.
    let (mut held, near) = connection();
    held.write_all(HELLO).await.unwrap();
    worker.peek(2, near, LONG).await.unwrap();
    shown(&mut events).await;
    kill(Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(events.next().await.is_err());
    rest(&mut held).await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it is reaped");
}

#[tokio::test]
async fn the_process_ends_with_its_supervisor() {
    let (worker, events) = process().await;
    let pid = Pid::from_raw(events.pid().unwrap().cast_signed());
    let pidfd = sys::process::pidfd_open(pid).unwrap();
    drop((worker, events));
    sys::readiness::ended(pidfd).await.unwrap();
}

#[test]
fn what_is_confined_can_do_nothing_else() {
    let output = itself("confined_process")
        .env("ANA_TEST_CONFINED", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> =
        said.lines().filter_map(|line| line.split_once("tried ")).map(|(_, l)| l).collect();
    assert_eq!(lines.len(), attempts_expected().len(), "{said}");
    for (line, expected) in lines.iter().zip(attempts_expected()) {
        assert_eq!(*line, expected);
    }
}

fn attempts_expected() -> Vec<String> {
    let attempts = [
        "open", "openat2", "inet", "unix", "netlink", "exec", "fork", "signal", "pidfd", "ptrace", "connect",
        "fastopen", "owner", "code", "setuid", "unshare", "mount", "bpf", "io_uring", "keyctl", "ioctl",
    ];
    attempts.map(|attempt| format!("{attempt}: EPERM")).to_vec()
}

/// A system call by its number, with these arguments.
fn call(number: libc::c_long, arguments: [u64; 4]) -> Result<(), Errno> {
    sys::confine::call(number, arguments).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

#[test]
#[ignore = "the other process of the test above"]
fn confined_process() {
    if std::env::var_os("ANA_TEST_CONFINED").is_none() {
        return;
    }
    // What it was given: a client's socket, here one that has been reset.
    let (client, near) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (far, listener.accept().unwrap().0)
    };
    let parent = getppid();
    confine().expect("confined");
    let fd = near.as_raw_fd().unsigned_abs();
    let attempts: [(&str, Result<(), Errno>); 21] = [
        ("open", open("/", OFlag::O_RDONLY, Mode::empty()).map(drop)),
        ("openat2", call(libc::SYS_openat2, [0; 4])),
        ("inet", socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).map(drop)),
        ("unix", socket(AddressFamily::Unix, SockType::Datagram, SockFlag::empty(), None).map(drop)),
        ("netlink", socket(AddressFamily::Netlink, SockType::Raw, SockFlag::empty(), None).map(drop)),
        ("exec", execve(c"/bin/true", &[c"true"], &[c"A=b"]).map(|_never| ())),
        ("fork", call(libc::SYS_clone, [libc::SIGCHLD.unsigned_abs().into(), 0, 0, 0])),
        ("signal", kill(parent, None)),
        ("pidfd", call(libc::SYS_pidfd_open, [u64::from(parent.as_raw().unsigned_abs()), 0, 0, 0])),
        ("ptrace", call(libc::SYS_ptrace, [16, u64::from(parent.as_raw().unsigned_abs()), 0, 0])),
        ("connect", call(libc::SYS_connect, [fd.into(), 0, 0, 0])),
        ("fastopen", call(libc::SYS_sendto, [fd.into(), 0, 0, 0x2000_0000])),
        ("owner", call(libc::SYS_fcntl, [fd.into(), libc::F_SETOWN.unsigned_abs().into(), 1, 0])),
        ("code", code()),
        ("setuid", call(libc::SYS_setuid, [0; 4])),
        ("unshare", call(libc::SYS_unshare, [libc::CLONE_NEWUSER.unsigned_abs().into(), 0, 0, 0])),
        ("mount", call(libc::SYS_mount, [0; 4])),
        ("bpf", call(libc::SYS_bpf, [0; 4])),
        ("io_uring", call(libc::SYS_io_uring_setup, [1, 0, 0, 0])),
        ("keyctl", call(libc::SYS_keyctl, [0; 4])),
        ("ioctl", call(libc::SYS_ioctl, [fd.into(), 0, 0, 0])),
    ];
    let mut out = std::io::stdout();
    for (attempt, result) in attempts {
        let said = result.map_or_else(|errno| format!("{errno:?}"), |()| "done".to_owned());
        writeln!(out, "\ntried {attempt}: {said}").unwrap();
    }
    drop(client);
    std::process::exit(0);
}

fn code() -> Result<(), Errno> {
    call(libc::SYS_mmap, [0, 4096, u64::from((libc::PROT_READ | libc::PROT_EXEC).unsigned_abs()), 34])
}
