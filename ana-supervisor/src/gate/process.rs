//! What /proc tells of a process that cannot move: frozen, or blocked in an open.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::ffi::OsStringExt,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

use crate::{
    operation::{Ancestor, Bytes, Change, Environment, Ids, Requester, Variable},
    sys::process::{Info, small_file, small_text, stat_fields},
};

/// The most bytes of an argv or an environment block that are read. The kernel's own limit is 6 MiB
/// (3/4 of _STK_LIM, fs/exec.c).
const BLOCK_MAX: u64 = 8 << 20;
/// How far up the ancestry is followed.
const ANCESTORS_MAX: usize = 32;

/// Everything about a process that goes into an operation, but its files.
#[derive(Debug)]
pub struct Image {
    pub argv: Vec<Vec<u8>>,
    pub environment: Vec<u8>,
    pub cwd: Bytes,
    pub ids: Ids,
    pub foreign_namespaces: Vec<String>,
    pub requester: Requester,
}

/// The session's own namespaces, by kind.
#[derive(Clone, Debug, Default)]
pub struct Namespaces(BTreeMap<&'static str, Option<u64>>);

const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

impl Namespaces {
    pub fn of(pid: Pid) -> Self {
        use std::os::unix::fs::MetadataExt;
        let inode = |kind| fs::metadata(format!("/proc/{pid}/ns/{kind}")).ok().map(|m| m.ino());
        Self(KINDS.into_iter().map(|kind| (kind, inode(kind))).collect())
    }

    /// Whether this is the session's user namespace (its inode number).
    pub fn is_user(&self, inode: u64) -> bool {
        self.0.get("user").copied().flatten() == Some(inode)
    }

    /// The kinds in which `other` differs; one that cannot be read counts.
    fn foreign(&self, other: &Self) -> Vec<String> {
        let differs = |kind: &&str| {
            let theirs = other.0.get(*kind).copied().flatten();
            theirs.is_none() || self.0.get(*kind).copied().flatten() != theirs
        };
        KINDS.iter().filter(|kind| differs(kind)).map(|kind| (*kind).to_owned()).collect()
    }
}

/// What the judgement compares a process with.
#[derive(Debug)]
pub struct Baseline {
    /// The agent's process: the end of every ancestry.
    pub agent: Pid,
    pub namespaces: Namespaces,
    /// The environment that the agent was started with.
    pub environment: Vec<Vec<u8>>,
}

/// Reads a process that cannot change while it is read.
///
/// # Errors
/// When /proc cannot be read (the process has gone), or a block is beyond 8 MiB.
pub fn read(pid: Pid, baseline: &Baseline) -> io::Result<Image> {
    let status = status(pid)?;
    let cwd = fs::read_link(format!("/proc/{pid}/cwd"))?;
    Ok(Image {
        argv: split(&block(pid, "cmdline")?),
        environment: block(pid, "environ")?,
        cwd: Bytes(cwd.into_os_string().into_vec()),
        ids: ids(&status)?,
        foreign_namespaces: baseline.namespaces.foreign(&Namespaces::of(pid)),
        requester: Requester {
            pid: pid.as_raw(),
            start_time: stat(pid)?.start_time,
            ancestry: ancestry(pid, baseline.agent)?,
        },
    })
}

/// /proc/PID/status. The first line is the process's name; a newline in it is escaped.
pub(crate) fn status(pid: Pid) -> io::Result<String> {
    small_text(format!("/proc/{pid}/status"))
}

fn block(pid: Pid, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/{name}"))?.take(BLOCK_MAX).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == BLOCK_MAX {
        return Err(io::Error::other(format!("the process's {name} is larger than {BLOCK_MAX} bytes")));
    }
    Ok(bytes)
}

/// Each string ends with a NUL, the last one too.
pub(crate) fn split(block: &[u8]) -> Vec<Vec<u8>> {
    let block = block.strip_suffix(&[0]).unwrap_or(block);
    block.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

/// `Uid: real effective saved file-system`, the same for Gid (proc_pid_status(5)).
pub(crate) fn ids(status: &str) -> io::Result<Ids> {
    let pair = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let mut numbers = line.split_whitespace().map_while(|n| n.parse::<u32>().ok());
        Some((numbers.next()?, numbers.next()?))
    };
    let (Some((uid, euid)), Some((gid, egid))) = (pair("Uid:"), pair("Gid:")) else {
        return Err(io::Error::other("no ids in /proc/PID/status"));
    };
    Ok(Ids { uid, euid, gid, egid, capabilities: None })
}

pub(crate) struct Stat {
    pub(crate) parent: Pid,
    pub(crate) threads: u32,
    pub(crate) start_time: String,
}

/// Fields 4, 20 and 22 of /proc/PID/stat.
fn stat(pid: Pid) -> io::Result<Stat> {
    parse_stat(&small_file(format!("/proc/{pid}/stat"))?)
}

pub(crate) fn parse_stat(bytes: &[u8]) -> io::Result<Stat> {
    let text = String::from_utf8_lossy(bytes);
    let fields: Option<(i32, u32, String)> = stat_fields(&text).and_then(|fields| {
        Some((fields.get(1)?.parse().ok()?, fields.get(17)?.parse().ok()?, (*fields.get(19)?).to_owned()))
    });
    let (parent, threads, start_time) = fields.ok_or_else(|| io::Error::other("malformed /proc/PID/stat"))?;
    Ok(Stat { parent: Pid::from_raw(parent), threads, start_time })
}

/// When the process started, in clock ticks since boot: with the pid it names a process for ever.
pub fn start_time(pid: Pid) -> io::Result<String> {
    Ok(stat(pid)?.start_time)
}

/// How many threads a process has, and when it started.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    pub count: u32,
    /// Clock ticks since boot.
    pub started: u64,
}

/// # Errors
/// The process has gone.
pub fn threads(pid: Pid) -> io::Result<Threads> {
    let Stat { threads: count, start_time, .. } = stat(pid)?;
    Ok(Threads { count, started: start_time.parse().map_err(io::Error::other)? })
}

/// Where the process is, as the kernel names it.
pub fn working_directory(pid: Pid) -> io::Result<Bytes> {
    Ok(Bytes(fs::read_link(format!("/proc/{pid}/cwd"))?.into_os_string().into_vec()))
}

/// What the kernel tells of a process, from /proc where it does not tell at once. The cgroup is not looked at (0).
pub fn info(pid: Pid) -> io::Result<Info> {
    let Ids { uid, euid, gid, egid, .. } = ids(&status(pid)?)?;
    Ok(Info { cgroup: 0, parent: stat(pid)?.parent.as_raw(), uid, euid, gid, egid })
}

/// A process that goes on, and those above it as far as they still are.
pub fn requester(pid: Pid, started: u64, parent: i32, agent: Pid) -> Requester {
    let ancestry = match pid == agent {
        true => Vec::new(),
        false => above(Pid::from_raw(parent), agent),
    };
    Requester { pid: pid.as_raw(), start_time: started.to_string(), ancestry }
}

fn above(parent: Pid, agent: Pid) -> Vec<Ancestor> {
    let (Ok(of_parent), true) = (stat(parent), parent.as_raw() > 1) else { return Vec::new() };
    let exe = fs::read_link(format!("/proc/{parent}/exe")).unwrap_or_default();
    let exe = Bytes(exe.into_os_string().into_vec());
    let mut all = vec![Ancestor { pid: parent.as_raw(), start_time: of_parent.start_time, exe }];
    all.extend(ancestry(parent, agent).unwrap_or_default());
    all
}

fn ancestry(pid: Pid, agent: Pid) -> io::Result<Vec<Ancestor>> {
    let mut above = Vec::new();
    let mut current = pid;
    while current != agent && above.len() < ANCESTORS_MAX {
        let parent = stat(current)?.parent;
        // An orphan belongs to the session leader, which is not part of the session.
        let (Ok(of_parent), true) = (stat(parent), parent.as_raw() > 1) else { break };
        let exe = fs::read_link(format!("/proc/{parent}/exe")).unwrap_or_default();
        above.push(Ancestor {
            pid: parent.as_raw(),
            start_time: of_parent.start_time,
            exe: Bytes(exe.into_os_string().into_vec()),
        });
        current = parent;
    }
    Ok(above)
}

/// The environment as the operation carries it: hashed with the operation's nonce, and what differs from the session's.
pub fn environment(block: &[u8], nonce: &str, baseline: &Baseline) -> Environment {
    let salted = |bytes: &[u8]| {
        let digest = Sha256::new().chain_update(nonce.as_bytes()).chain_update(bytes).finalize();
        BASE64_URL_SAFE_NO_PAD.encode(digest)
    };
    let now = by_name(block.split(|&byte| byte == 0));
    let before = by_name(baseline.environment.iter().map(Vec::as_slice));
    let mut changed = Vec::new();
    for (name, value) in &now {
        let change = match before.get(name) {
            Some(old) if old == value => continue,
            Some(_) => Change::Changed,
            None => Change::Added,
        };
        changed.push(Variable { name: Bytes(name.to_vec()), change, sha256: Some(salted(&value.concat())) });
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        changed.push(Variable { name: Bytes(name.to_vec()), change: Change::Removed, sha256: None });
    }
    changed.sort_by(|a, b| a.name.cmp(&b.name));
    Environment { sha256: salted(block), changed }
}

/// Variables that make a program run other code than its own: of the dynamic loader, of the C library, of OpenSSL, and of
/// the common interpreters. A `*` stands for any end of the name.
const HOOKS: [&str; 24] = [
    "BASH_ENV",
    "BASH_FUNC_*",
    "BUN_*",
    "DENO_*",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "JAVA_TOOL_OPTIONS",
    "LD_*",
    "LOCPATH",
    "MALLOC_*",
    "NLSPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "OPENSSL_*",
    "PERL5*",
    "PERLLIB",
    "PS4",
    "PYTHON*",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "ZDOTDIR",
    "_JAVA_OPTIONS",
];

/// The hooks that were set since the session began. What the person had set before is the person's.
pub fn changed_hooks(block: &[u8], baseline: &Baseline) -> Vec<String> {
    let hook = |name: &[u8]| {
        HOOKS.iter().any(|hook| match hook.strip_suffix('*') {
            Some(start) => name.starts_with(start.as_bytes()),
            None => hook.as_bytes() == name,
        })
    };
    // Most environments have none: only what is one is looked at.
    let now = by_name(block.split(|&byte| byte == 0).filter(|string| hook(name_of(string))));
    let before = baseline.environment.iter().map(Vec::as_slice);
    let before = by_name(before.filter(|string| hook(name_of(string))));
    let changed = now.iter().filter(|(name, value)| before.get(*name) != Some(value));
    changed.map(|(name, _)| Bytes::from(*name).escaped()).collect()
}

/// Every value of each name, in order: a name may come twice, and programs differ in which one they take.
fn by_name<'a>(strings: impl Iterator<Item = &'a [u8]>) -> BTreeMap<&'a [u8], Vec<&'a [u8]>> {
    let mut all: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for string in strings.filter(|string| !string.is_empty()) {
        let name = name_of(string);
        all.entry(name).or_default().push(&string[name.len()..]);
    }
    all
}

fn name_of(string: &[u8]) -> &[u8] {
    string.split(|&byte| byte == b'=').next().unwrap_or(string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_reads_as_it_is() {
        let pid = Pid::this();
        let agent = nix::unistd::getppid();
        let baseline = Baseline { agent, namespaces: Namespaces::of(pid), environment: Vec::new() };
        let image = read(pid, &baseline).unwrap();
        let argv: Vec<_> = std::env::args_os().map(OsStringExt::into_vec).collect();
        assert_eq!(image.argv, argv);
        assert_eq!(image.ids.uid, nix::unistd::getuid().as_raw());
        assert!(image.foreign_namespaces.is_empty());
        assert_eq!(image.requester.ancestry.len(), 1);
        assert_eq!(image.requester.ancestry[0].pid, agent.as_raw());
    }

    #[test]
    fn empty_arguments_are_arguments() {
        assert_eq!(split(b"a\0\0b\0"), [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
        assert_eq!(split(b"a\0\0"), [b"a".to_vec(), b"".to_vec()]);
    }

    #[test]
    fn only_hooks_that_the_agent_set_count() {
        let baseline = Baseline {
            agent: Pid::from_raw(1),
            namespaces: Namespaces::default(),
            environment: [&b"LD_LIBRARY_PATH=/opt"[..], b"NODE_OPTIONS=a"].map(<[u8]>::to_vec).to_vec(),
        };
        let found = |block: &[u8]| changed_hooks(block, &baseline);
        assert!(found(b"LD_LIBRARY_PATH=/opt\0HOME=/\0LDX=1\0").is_empty());
        assert_eq!(found(b"LD_PRELOAD=x\0NODE_OPTIONS=b\0"), ["LD_PRELOAD", "NODE_OPTIONS"]);
        assert_eq!(found(b"LD_LIBRARY_PATH=/opt\0LD_LIBRARY_PATH=/evil\0"), ["LD_LIBRARY_PATH"]);
    }

    #[test]
    fn the_difference_of_environments_is_complete() {
        let baseline = Baseline {
            agent: Pid::from_raw(1),
            namespaces: Namespaces::default(),
            environment: [&b"A=1"[..], b"B=2", b"C=3"].map(<[u8]>::to_vec).to_vec(),
        };
        let found = environment(b"A=1\0B=x\0D=4\0A=2\0", "n", &baseline);
        let names: Vec<_> = found.changed.iter().map(|v| (v.name.escaped(), v.change)).collect();
        let expected =
            [("A", Change::Changed), ("B", Change::Changed), ("C", Change::Removed), ("D", Change::Added)];
        assert_eq!(names, expected.map(|(name, change)| (name.to_owned(), change)));
    }
}
