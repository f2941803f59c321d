//! What runs, read from /proc.

use std::fs;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Every process number there is.
pub fn all() -> Vec<i32> {
    fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The name in /proc/PID/comm (15 bytes at most).
pub fn name(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|text| text.trim_end().to_owned())
}

/// The file name of the program that runs; what the process calls itself does not matter.
pub fn program(pid: i32) -> Option<String> {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(exe.file_name()?.to_str()?.trim_end_matches(" (deleted)").to_owned())
}

/// The arguments, separated by zero bytes; empty when the process is gone.
pub fn command_line(pid: i32) -> String {
    fs::read(format!("/proc/{pid}/cmdline"))
        .map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into())
}

/// State letter and parent, from /proc/PID/stat.
pub fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    // A process may call itself by any bytes.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// True until the process is gone or a zombie.
pub fn alive(pid: i32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// The user that a process runs as.
pub fn uid(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().next()?.parse().ok()
}

/// All processes below `root`, itself not included.
pub fn below(root: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> =
        all().into_iter().filter_map(|pid| Some((pid, state_and_parent(pid)?.1))).collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// The processes below `root` that carry this name.
pub fn below_named(root: i32, wanted: &str) -> Vec<i32> {
    below(root).into_iter().filter(|&pid| name(pid).as_deref() == Some(wanted)).collect()
}

/// Whether `needle` is in the bytes of /proc/PID/environ or /proc/PID/cmdline.
pub fn mentions(pid: i32, needle: &[u8]) -> bool {
    ["environ", "cmdline"].iter().any(|file| {
        fs::read(format!("/proc/{pid}/{file}"))
            .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    })
}

/// SIGKILL; a process that is gone already is fine.
pub fn end(pid: i32) {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("cannot kill {pid}: {error}"),
    }
}

/// The cgroup2 path of a process ("/ana/01J…/work").
pub fn cgroup(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned))
}

/// Where cgroup2 is mounted (a hybrid machine has it at /sys/fs/cgroup/unified).
pub fn cgroup2_mount() -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo can be read");
    mounts
        .lines()
        .find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4))?
        })
        .expect("cgroup2 is mounted")
        .to_owned()
}
