//! What `ana doctor` checks of the installation: ana's own programs, its folders, and what it leans on.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixDatagram,
    },
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use super::check;
use crate::{
    approval::security_key::{
        Helper,
        wire::{News, Order, Plugged},
    },
    evidence::head,
    kernel::{
        Kernel,
        features::{Check, Status},
    },
    launch::seal::Seal,
    operation::Bytes,
    pipeline::chain,
    policy::Policy,
    state::{Folder, Missing, State, Strictness},
    sys,
};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const OTHERS_WRITE: u32 = 0o022;

/// The tier of a session that starts now (README, "What ana stops").
pub(super) fn tier(policy: Option<&Policy>) -> Check {
    const NAME: &str = "tier";
    let session = policy.map(|policy| policy.session().clone()).unwrap_or_default();
    let abi = sys::landlock::abi().ok().and_then(|abi| i32::try_from(abi).ok()).unwrap_or(0);
    let seal = Seal::expected(abi, session.namespaces);
    if seal.complete() {
        return Check::ok(
            NAME,
            "sealed: processes of a session stay out of each other and of everything else",
        );
    }
    let found = if session.namespaces && seal.scoped {
        "base: the policy says namespaces = true"
    } else {
        "base: no seal on this kernel"
    };
    let required = policy.is_some_and(|policy| policy.defaults().require_seal);
    let status = if required { Status::Missing } else { Status::Degraded };
    let way_out = if required {
        "a kernel with Landlock ABI 6 and namespaces = false, or a policy without require = \"seal\""
    } else {
        "Linux 6.12 or later with landlock in lsm=, and namespaces = false in the policy"
    };
    check(NAME, status, found.to_owned(), way_out)
}

/// ana's own eBPF programs, all of them, through this kernel's verifier. Nothing is attached.
pub(super) fn programs() -> Check {
    const NAME: &str = "ebpf-programs";
    if !nix::unistd::geteuid().is_root() {
        return Check::degraded(NAME, "cannot be tried without root", "run it as root: sudo ana doctor");
    }
    match Kernel::load() {
        Ok(_kernel) => Check::ok(NAME, "the kernel has verified ana's own programs"),
        Err(error) => Check::missing(
            NAME,
            chain(&error),
            "use a kernel with CONFIG_DEBUG_INFO_BTF and CONFIG_BPF_EVENTS",
        ),
    }
}

/// Whether the folders are root's alone, as the supervisor demands at the default paths.
pub(super) fn state(explicit: Option<&Path>) -> Check {
    const NAME: &str = "state";
    let paths = State::paths(explicit);
    let mut missing = Vec::new();
    // The evidence lies in the base, the sockets beside it, the policy elsewhere.
    let folders = [paths.policy.parent(), paths.passkeys.parent(), Some(paths.run.as_path())];
    let mut seen: Vec<&Path> = Vec::new();
    for folder in folders.into_iter().flatten() {
        if seen.contains(&folder) {
            continue;
        }
        seen.push(folder);
        match Folder::open(folder, Strictness::Required, Missing::Refuse, Arc::new(OnceLock::new())) {
            Ok(_folder) => {}
            Err(error) if error.is_missing() => missing.push(folder.display().to_string()),
            Err(error) if explicit.is_some() => {
                return check(
                    NAME,
                    Status::Degraded,
                    format!("{}: every record says \"development\"", chain(&error)),
                    "for more than a trial keep it where only root can write, as /var/lib/ana",
                );
            }
            Err(error) => {
                let way_out = format!("chown root:root {0}; chmod go-w {0}", folder.display());
                return check(NAME, Status::Missing, chain(&error), &way_out);
            }
        }
    }
    let shown: Vec<String> = seen.iter().map(|folder| folder.display().to_string()).collect();
    match missing.as_slice() {
        [] => Check::ok(NAME, format!("{}: root's alone", shown.join(", "))),
        missing => {
            Check::ok(NAME, format!("{} not there yet: made when they are needed", missing.join(", ")))
        }
    }
}

/// ana's own programs, side by side, not the agent's to change, and ana-run setgid.
pub(super) fn installed() -> Check {
    match std::env::current_exe().map(|exe| exe.parent().map(Path::to_path_buf)) {
        Ok(Some(folder)) => installed_in(&folder),
        Ok(None) => Check::degraded("installation", "this program lies nowhere", "install it into a folder"),
        Err(error) => Check::degraded("installation", format!("cannot be found: {error}"), "mount /proc"),
    }
}

fn installed_in(folder: &Path) -> Check {
    const NAME: &str = "installation";
    let mut exposed = Vec::new();
    for (name, setgid) in [("ana-run", true), ("ana", true), ("ana-key", true), ("ana-supervisor", false)] {
        let path = folder.join(name);
        let Ok(meta) = fs::metadata(&path) else {
            let way_out = "install ana, ana-run, ana-key and ana-supervisor into one folder";
            return check(NAME, Status::Missing, format!("{} is missing", path.display()), way_out);
        };
        let mode = meta.permissions().mode();
        if meta.uid() != 0 || mode & OTHERS_WRITE != 0 {
            let way_out = format!("chown root:root {0}; chmod go-w {0}", path.display());
            let found = format!("{} can be changed by others than root", path.display());
            return check(NAME, Status::Degraded, found, &way_out);
        }
        if setgid && mode & SETGID == 0 {
            exposed.push(path.display().to_string());
        }
    }
    match exposed.as_slice() {
        [] => Check::ok(NAME, format!("{}: root's, setgid where it matters", folder.display())),
        exposed => check(
            NAME,
            Status::Degraded,
            format!("{} not setgid: a process of yours can read its first moments", exposed.join(", ")),
            &format!("groupadd --system ana; chgrp ana {0}; chmod 2755 {0}", exposed.join(" ")),
        ),
    }
}

/// The security keys that are plugged in, and whether whoever asks can open them.
pub(super) fn security_keys() -> Check {
    const NAME: &str = "security-keys";
    let listed = Helper::start().and_then(|mut helper| {
        helper.tell(&Order::List)?;
        helper.wait()
    });
    let keys = match listed.as_deref() {
        Ok([News::Keys(keys)]) => keys,
        Ok(_) => {
            return Check::degraded(
                NAME,
                "ana-key says something else than it was asked",
                "install ana anew",
            );
        }
        Err(error) => return Check::degraded(NAME, chain(error), "install ana-key beside ana, and libudev1"),
    };
    let names = |keys: &[Plugged]| {
        let named: Vec<String> = keys.iter().map(|key| Bytes::from(key.name.as_str()).escaped()).collect();
        named.join(", ")
    };
    match keys.iter().find_map(|key| key.problem.as_deref()) {
        _ if keys.is_empty() => Check::ok(NAME, "none is plugged in"),
        None => Check::ok(NAME, names(keys)),
        Some(problem) => Check::degraded(
            NAME,
            format!("{}: {}", names(keys), Bytes::from(problem).escaped()),
            "sudo sh -c 'ana passkey udev-rule >/etc/udev/rules.d/70-ana-security-keys.rules; udevadm control --reload; \
             udevadm trigger', and be in the group plugdev",
        ),
    }
}

/// How a person's ana-run gets a supervisor.
pub(super) fn sudo() -> Check {
    const NAME: &str = "sudo";
    const WAY_OUT: &str = "install sudo, and let the person run ana-supervisor; or start ana-run as root";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path).chain(["/usr/bin", "/bin"].map(PathBuf::from));
    let Some(sudo) = candidates.map(|folder| folder.join("sudo")).find(|file| file.is_file()) else {
        return Check::degraded(NAME, "not installed: only root can start sessions", WAY_OUT);
    };
    match fs::metadata(&sudo) {
        Ok(meta) if meta.uid() == 0 && meta.permissions().mode() & SETUID != 0 => {
            Check::ok(NAME, sudo.display().to_string())
        }
        Ok(_) => Check::degraded(NAME, format!("{} is not setuid root", sudo.display()), WAY_OUT),
        Err(error) => Check::degraded(NAME, format!("{}: {error}", sudo.display()), WAY_OUT),
    }
}

/// Where the log's head is told at the end of a session.
pub(super) fn journal() -> Check {
    const NAME: &str = "journal";
    match UnixDatagram::unbound().and_then(|socket| socket.connect(head::SOCKET)) {
        Ok(()) => Check::ok(NAME, "journald is told the log's head when a session ends"),
        Err(error) => Check::degraded(
            NAME,
            format!("no journald at {}: {error}", head::SOCKET),
            "run systemd-journald, or keep the last line that `ana audit verify` prints elsewhere",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_is_looked_at_file_by_file() {
        assert!(nix::unistd::geteuid().is_root(), "files are given to root");
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let status = || installed_in(folder.path()).status;
        assert_eq!(status(), Status::Missing);
        put("ana-run", 0o755);
        put("ana", 0o2755);
        put("ana-key", 0o2755);
        put("ana-supervisor", 0o755);
        let found = installed_in(folder.path());
        assert_eq!(found.status, Status::Degraded);
        assert!(found.found.contains("ana-run not setgid"), "{}", found.found);
        put("ana-run", 0o2755);
        assert_eq!(status(), Status::Ok);
        put("ana-supervisor", 0o775);
        assert_eq!(status(), Status::Degraded);
    }

    #[test]
    fn a_state_that_others_can_write_is_no_default() {
        let folder = tempfile::tempdir().unwrap();
        // Below /tmp: named explicitly it is accepted, and said to be for development.
        let found = state(Some(folder.path()));
        assert_eq!(found.status, Status::Degraded, "{found:?}");
        assert!(found.found.contains("development"), "{found:?}");
    }

    #[test]
    fn a_policy_that_demands_the_seal_cannot_run_without_it() {
        let text = "version = 1\n[session]\nnamespaces = true\n[defaults]\nrequire = \"seal\"\n";
        let source = crate::policy::Source { name: "p".into(), text: text.into() };
        let policy = Policy::parse(&[source], Path::new("/root")).unwrap();
        assert_eq!(tier(Some(&policy)).status, Status::Missing);
    }
}
