//! The seal: what keeps one process of the session out of another's memory, and the whole session out of the person's
//! other processes (landlock(7)).

use std::{
    collections::BTreeSet,
    fs,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, Scope,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum SealError {
    #[error("make the Landlock ruleset")]
    Ruleset(#[from] landlock::RulesetError),
    #[error("{doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
}

/// How much of the seal there is. A value, written into the session-start record, not a log line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Seal {
    /// Landlock's ABI; 0: none.
    pub landlock_abi: i32,
    /// Signals and abstract sockets end at the session's border; with it ptrace access, /proc/PID/{mem,root,fd}.
    pub scoped: bool,
    /// No process of the session can write below /proc or /sys: not another's memory, not uid_map.
    pub memory: bool,
}

impl Seal {
    /// What this kernel offers under this policy.
    pub fn expected(landlock_abi: i32, namespaces: bool) -> Self {
        Self { landlock_abi, scoped: landlock_abi >= 6, memory: landlock_abi >= 2 && !namespaces }
    }

    /// Whether the processes outside, and held images inside, are out of reach.
    pub fn complete(&self) -> bool {
        self.scoped && self.memory
    }
}

/// Builds the ruleset in the session's mount namespace; the agent's process enters it with [`enter`].
/// `None` where the kernel has no Landlock that helps.
pub fn prepare(seal: &Seal) -> Result<Option<RulesetCreated>, SealError> {
    if !seal.scoped && !seal.memory {
        return Ok(None);
    }
    // Refer has to be handled and allowed too: without it every rename between folders fails with EXDEV.
    let writing = AccessFs::WriteFile | AccessFs::Refer;
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if seal.memory {
        ruleset = ruleset.handle_access(writing)?;
    }
    if seal.scoped {
        ruleset = ruleset.scope(Scope::from_all(ABI::V6))?;
    }
    // sudo must work in a session: no_new_privs stays off, CAP_SYS_ADMIN stands in for it.
    let mut created = ruleset.create()?.no_new_privs(false);
    if seal.memory {
        for path in writable(&forbidden()?)? {
            let Some((file, folder)) = open(&path)? else { continue };
            let access = if folder { writing } else { AccessFs::WriteFile.into() };
            created = created.add_rule(PathBeneath::new(file, access))?;
        }
    }
    Ok(Some(created))
}

/// Binds the calling thread and everything it will start.
pub fn enter(ruleset: RulesetCreated) -> Result<(), SealError> {
    ruleset.restrict_self()?;
    Ok(())
}

/// Where processes and the kernel are written to: every mount of procfs, sysfs and cgroup file systems.
fn forbidden() -> Result<BTreeSet<PathBuf>, SealError> {
    let path = PathBuf::from("/proc/self/mountinfo");
    let text = fs::read_to_string(&path).map_err(|source| SealError::Io {
        doing: "read",
        path: path.clone(),
        source,
    })?;
    let mounts = text.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let kind = kind.split(' ').next()?;
        let point = mount.split(' ').nth(4)?;
        ["proc", "sysfs", "cgroup", "cgroup2", "bpf", "debugfs", "tracefs", "securityfs"]
            .contains(&kind)
            .then(|| PathBuf::from(point))
    });
    Ok(["/proc", "/sys"].into_iter().map(PathBuf::from).chain(mounts).collect())
}

/// The largest folders (and files of the root) that contain nothing forbidden.
fn writable(forbidden: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, SealError> {
    let (mut open, mut granted) = (vec![PathBuf::from("/")], Vec::new());
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).map_err(|source| SealError::Io {
            doing: "list",
            path: folder.clone(),
            source,
        })?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if forbidden.contains(&path) {
                continue;
            }
            match forbidden.iter().any(|f| f.starts_with(&path)) {
                true => open.push(path),
                false => granted.push(path),
            }
        }
    }
    Ok(granted)
}

/// The file behind a path (a link of the root folder, such as /bin, stands for what it points to), and whether it is a
/// folder; `None` for a link that points nowhere.
fn open(path: &Path) -> Result<Option<(OwnedFd, bool)>, SealError> {
    let file = match fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SealError::Io { doing: "open", path: path.to_owned(), source }),
    };
    let folder = file
        .metadata()
        .map_err(|source| SealError::Io { doing: "look at", path: path.to_owned(), source })?
        .is_dir();
    Ok(Some((file.into(), folder)))
}

/// The ABI version that landlock_create_ruleset(2) reports; 0 when Landlock is missing or disabled.
pub fn landlock_abi() -> i32 {
    crate::sys::landlock::abi().ok().and_then(|abi| i32::try_from(abi).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_granted_contains_anything_forbidden() {
        let forbidden = ["/proc", "/sys", "/usr/lib"].map(PathBuf::from).into();
        let granted = writable(&forbidden).unwrap();
        assert!(granted.contains(&PathBuf::from("/tmp")) && granted.contains(&PathBuf::from("/usr/bin")));
        for path in &granted {
            assert!(
                !forbidden.iter().any(|f| f.starts_with(path) || path.starts_with(f)),
                "{}",
                path.display()
            );
        }
    }

    #[test]
    fn the_policy_and_the_kernel_decide_what_holds() {
        assert!(Seal::expected(7, false).complete());
        assert!(!Seal::expected(7, true).complete() && Seal::expected(7, true).scoped);
        assert!(!Seal::expected(5, false).complete());
        assert!(prepare(&Seal::expected(0, false)).unwrap().is_none());
    }
}
