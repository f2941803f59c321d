//! Execs that give more than the session's user has: set-user-ID and set-group-ID files, and files with capabilities
//! (execve(2), capabilities(7)). They are held like listed programs; what is not found here, the guard kills.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, DirEntry},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Group, Pid};

use super::protected::stat_in;
use crate::{gate::process, launch::spec::Identity, sys};

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const EXECUTABLE: u32 = 0o111;

/// Where programs lie that a PATH does not name but that run all the same, and how deep is looked.
const BEYOND_THE_PATH: [(&str, u32); 2] = [("/usr/libexec", 2), ("/usr/lib", 2)];
/// Looked through whatever the agent's PATH says.
const SYSTEM: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Groups that own nothing: a program gets one only to be closed to other processes of its user (as ssh-agent, and as
/// ana's own programs). And the one that owns the list of who is logged in, where every terminal is entered (tmux, script).
const HARMLESS: [&str; 5] = ["_ssh", "ssh", "nogroup", "ana", "utmp"];

/// The ids of the groups that own nothing, as far as this machine has them.
pub fn harmless_groups() -> HashSet<u32> {
    let gid = |name: &&str| Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    HARMLESS.iter().filter_map(gid).collect()
}

/// What a process may do beyond its user, as far as an exec can change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    uid: u32,
    euid: u32,
    gid: u32,
    egid: u32,
    /// The permitted capabilities (capabilities(7)), a bit each.
    permitted: u64,
}

/// What an exec gained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gain {
    now: Credentials,
    /// Capabilities that were not there before.
    capabilities: u64,
}

impl Credentials {
    /// Of a process that cannot move.
    ///
    /// # Errors
    /// It has gone, or /proc says something else than proc_pid_status(5).
    pub fn of(pid: Pid) -> io::Result<Self> {
        Self::parse(&process::status(pid)?)
            .ok_or_else(|| io::Error::other("no credentials in /proc/PID/status"))
    }

    fn parse(status: &str) -> Option<Self> {
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let pair = |name: &str| {
            let mut ids = line(name)?.split_whitespace().map_while(|id| id.parse().ok());
            Some((ids.next()?, ids.next()?))
        };
        let ((uid, euid), (gid, egid)) = (pair("Uid:")?, pair("Gid:")?);
        let permitted = u64::from_str_radix(line("CapPrm:")?, 16).ok()?;
        Some(Self { uid, euid, gid, egid, permitted })
    }

    /// What this image has that the one before it had not. Who was root by its real id gains nothing.
    pub fn gained_since(&self, before: &Self, harmless: &HashSet<u32>) -> Option<Gain> {
        if before.uid == 0 {
            return None;
        }
        let capabilities = self.permitted & !before.permitted;
        let user = self.euid != before.euid && self.euid != self.uid;
        let group = self.egid != before.egid && self.egid != self.gid && !harmless.contains(&self.egid);
        (user || group || capabilities != 0).then(|| Gain { now: self.clone(), capabilities })
    }
}

impl Gain {
    /// Root, or a part of what root may.
    pub fn reaches_root(&self) -> bool {
        self.now.euid == 0 || self.capabilities != 0
    }

    /// The gained capabilities as /proc shows them, if there are any.
    pub fn capabilities(&self) -> Option<String> {
        (self.capabilities != 0).then(|| format!("{:016x}", self.capabilities))
    }

    pub fn euid(&self) -> u32 {
        self.now.euid
    }

    pub fn egid(&self) -> u32 {
        self.now.egid
    }
}

/// Whether an exec of this file can give `user` anything.
pub fn gives(file: BorrowedFd, user: &Identity, harmless: &HashSet<u32>) -> io::Result<bool> {
    path_gives(&Path::new("/proc/self/fd").join(file.as_raw_fd().to_string()), user, harmless)
}

fn path_gives(path: &Path, user: &Identity, harmless: &HashSet<u32>) -> io::Result<bool> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() || meta.mode() & EXECUTABLE == 0 {
        return Ok(false);
    }
    let user_id = meta.mode() & SET_USER_ID != 0 && meta.uid() != user.uid;
    let group_id =
        meta.mode() & SET_GROUP_ID != 0 && meta.gid() != user.gid && !harmless.contains(&meta.gid());
    Ok(user_id || group_id || sys::file::has_attribute(path, c"security.capability")?)
}

/// The files of the agent's PATH and of the system's folders that give its user something. Looks through a thousand files
/// and more: beside other work, if there is any.
pub fn find(path_variable: &[u8], user: &Identity, harmless: &HashSet<u32>) -> Vec<PathBuf> {
    let mut search = Search { user, harmless, seen: HashSet::new(), found: Vec::new() };
    let named = path_variable.split(|&byte| byte == b':').filter(|folder| !folder.is_empty());
    let named = named.map(|folder| Path::new(OsStr::from_bytes(folder)));
    for folder in SYSTEM.iter().map(Path::new).chain(named) {
        search.folder(folder, 0);
    }
    for (folder, depth) in BEYOND_THE_PATH {
        search.folder(Path::new(folder), depth);
    }
    search.found
}

struct Search<'a> {
    user: &'a Identity,
    harmless: &'a HashSet<u32>,
    /// Folders by device and inode: /bin is /usr/bin on many systems.
    seen: HashSet<(u64, u64)>,
    found: Vec<PathBuf>,
}

impl Search<'_> {
    /// What cannot be read is left to the guard.
    fn folder(&mut self, path: &Path, depth: u32) {
        let Ok(meta) = fs::metadata(path) else { return };
        if !self.seen.insert(stat_in(&meta)) {
            return;
        }
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            self.entry(&entry, depth);
        }
    }

    fn entry(&mut self, entry: &DirEntry, depth: u32) {
        let Ok(kind) = entry.file_type() else { return };
        let path = entry.path();
        if kind.is_dir() {
            if depth > 0 {
                self.folder(&path, depth - 1);
            }
        } else if kind.is_file() && path_gives(&path, self.user, self.harmless).unwrap_or(false) {
            // A link's target is found in its own folder, or by the guard.
            self.found.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uids: &str, gids: &str, permitted: &str) -> Credentials {
        Credentials::parse(&format!(
            "Name:\tx\nUid:\t{uids}\nGid:\t{gids}\nCapInh:\t0\nCapPrm:\t{permitted}\n"
        ))
        .unwrap()
    }

    #[test]
    fn a_gain_is_more_than_before() {
        let harmless = HashSet::from([7]);
        let plain = status("1000 1000 1000 1000", "100 100 100 100", "0000000000000000");
        let gained = |after: &Credentials, before: &Credentials| after.gained_since(before, &harmless);
        assert_eq!(gained(&plain, &plain), None);
        let root = status("1000 0 0 0", "100 100 100 100", "000001ffffffffff");
        assert!(gained(&root, &plain).unwrap().reaches_root());
        assert_eq!(gained(&root, &root), None, "it was that before");
        let shadow = status("1000 1000 1000 1000", "100 42 42 42", "0000000000000000");
        assert!(!gained(&shadow, &plain).unwrap().reaches_root());
        let agent = status("1000 1000 1000 1000", "100 7 7 7", "0000000000000000");
        assert_eq!(gained(&agent, &plain), None);
        let ping = status("1000 1000 1000 1000", "100 100 100 100", "0000000000002000");
        let gain = gained(&ping, &plain).unwrap();
        assert_eq!((gain.reaches_root(), gain.capabilities().as_deref()), (true, Some("0000000000002000")));
        assert_eq!(gained(&plain, &root), None, "to lose is no gain");
        let real = status("0 0 0 0", "0 0 0 0", "000001ffffffffff");
        assert_eq!(gained(&root, &real), None);
        assert!(Credentials::parse("Uid:\t1\n").is_none());
    }

    #[test]
    fn what_gives_something_is_found() {
        let user = Identity { uid: 4242, gid: 4242, groups: vec![4242] };
        let found = find(b"/usr/bin", &user, &harmless_groups());
        let has = |path: &str| found.iter().any(|found| found == Path::new(path));
        assert!(has("/usr/bin/su") && has("/usr/bin/passwd"), "{found:?}");
        assert!(!has("/usr/bin/ssh-agent") && !has("/usr/bin/env"));
    }
}
