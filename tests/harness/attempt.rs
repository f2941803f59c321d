//! What attack programs say: one line for each thing they tried, `attempt NAME: ok` or `attempt NAME: EPERM`.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, SocketAddr},
};

use nix::errno::Errno;

/// Prints how an attempt ended, at once: the attacker may be killed right after.
pub fn tell<T>(name: &str, result: Result<T, Errno>) -> Option<T> {
    let (word, value) = match result {
        Ok(value) => ("ok".to_owned(), Some(value)),
        Err(errno) => (format!("{errno:?}"), None),
    };
    say(&format!("attempt {name}: {word}"));
    value
}

/// The same for a system call made through std.
pub fn tell_io<T>(name: &str, result: std::io::Result<T>) -> Option<T> {
    tell(name, result.map_err(|error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)))
}

/// Prints a line at once.
pub fn say(line: &str) {
    let mut out = std::io::stdout();
    // Whoever closed our stdout does not want to know.
    let said = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
    drop(said);
}

/// The attempts in an attack program's output.
pub fn attempts(stdout: &str) -> BTreeMap<String, String> {
    stdout
        .lines()
        .filter_map(|line| line.strip_prefix("attempt ")?.split_once(": "))
        .map(|(name, word)| (name.to_owned(), word.to_owned()))
        .collect()
}

/// Panics unless every named attempt was made and ended in this word.
#[track_caller]
pub fn assert_all(stdout: &str, names: &[&str], word: &str) {
    let told = attempts(stdout);
    for name in names {
        assert_eq!(told.get(*name).map(String::as_str), Some(word), "attempt {name} in:\n{stdout}");
    }
}

/// Panics unless every named attempt was made and none was granted.
#[track_caller]
pub fn assert_none_granted(stdout: &str, names: &[&str]) {
    let told = attempts(stdout);
    for name in names {
        let word = told.get(*name).unwrap_or_else(|| panic!("attempt {name} was not made:\n{stdout}"));
        assert_ne!(word, "ok", "attempt {name} was granted:\n{stdout}");
    }
}

/// What an attack on the network is told: its way, `ADDRESS PORT`, and perhaps another address, with the same port.
pub fn destinations() -> (String, SocketAddr, Option<SocketAddr>) {
    let text = |index| argument(index).to_string_lossy().into_owned();
    let address = |text: &str| text.parse::<IpAddr>().unwrap_or_else(|e| panic!("{text}: {e}"));
    let to = SocketAddr::new(address(&text(2)), text(3).parse().unwrap_or_else(|e| panic!("a port: {e}")));
    let other = std::env::args().nth(4).map(|other| SocketAddr::new(address(&other), to.port()));
    (text(1), to, other)
}

/// The attack program's argument number `index`, counted from 1.
pub fn argument(index: usize) -> std::path::PathBuf {
    std::env::args_os().nth(index).unwrap_or_else(|| panic!("argument {index} is missing")).into()
}

/// Runs a command to its end and tells how: `ok`, `exit 3`, `signal 9` or the errno of a failed start.
pub fn run(name: &str, command: &mut std::process::Command) {
    use std::os::unix::process::ExitStatusExt;
    match command.status() {
        Err(error) => drop(tell_io::<()>(name, Err(error))),
        Ok(status) if status.success() => say(&format!("attempt {name}: ok")),
        Ok(status) => match status.signal() {
            Some(number) => say(&format!("attempt {name}: signal {number}")),
            None => say(&format!("attempt {name}: exit {}", status.code().unwrap_or(-1))),
        },
    }
}

/// A path as the C strings that system calls take.
pub fn c_path(path: &std::path::Path) -> std::ffi::CString {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path has no zero byte")
}

/// The environment as C strings, for a direct execve.
pub fn c_environment() -> Vec<std::ffi::CString> {
    use std::os::unix::ffi::OsStringExt;
    std::env::vars_os()
        .map(|(name, value)| {
            let mut text = name.into_vec();
            text.push(b'=');
            text.extend(value.into_vec());
            std::ffi::CString::new(text).expect("the environment has no zero bytes")
        })
        .collect()
}

/// Becomes root of a user and mount namespace of one's own; false when any step of it is refused.
pub fn enter_namespaces() -> bool {
    use nix::sched::{CloneFlags, unshare};
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    if tell("unshare", unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)).is_none() {
        return false;
    }
    tell_io("setgroups", std::fs::write("/proc/self/setgroups", "deny")).is_some()
        && tell_io("uid_map", std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))).is_some()
        && tell_io("gid_map", std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))).is_some()
}

/// Mounts and tells whether it was allowed.
pub fn mount(
    name: &str,
    source: &std::path::Path,
    target: &std::path::Path,
    kind: Option<&str>,
    flags: nix::mount::MsFlags,
    data: Option<&str>,
) -> bool {
    tell(name, nix::mount::mount(Some(source), target, kind, flags, data)).is_some()
}

/// Makes a FIFO that is full and that nobody reads; whoever writes to it waits.
pub fn full_fifo(path: &std::path::Path) -> Result<std::fs::File, Errno> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
    use nix::sys::stat::Mode;
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let fifo = std::fs::File::from(open(path, OFlag::O_RDWR | OFlag::O_NONBLOCK, Mode::empty())?);
    for size in [4096, 1] {
        while let Ok(1..) = (&fifo).write(&vec![b'x'; size]) {}
    }
    fcntl(&fifo, FcntlArg::F_SETFL(OFlag::O_RDWR))?;
    Ok(fifo)
}
