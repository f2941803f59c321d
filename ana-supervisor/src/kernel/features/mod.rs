//! What this kernel can do for ana: a value, not a log line. Everything is tried, nothing is concluded from a version.

mod bpf;
pub mod overlay;
mod system;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

pub use system::kernel_release;

/// The way out of what only root can try.
const AS_ROOT: &str = "run it as root: sudo ana doctor";

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// ana works with less protection, or could not tell.
    Degraded,
    /// The main job cannot run without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Check {
    /// A stable name, kebab-case.
    pub name: String,
    pub status: Status,
    /// What is there.
    pub found: String,
    /// What to do about it; `None` when nothing is to be done.
    pub way_out: Option<String>,
}

impl Check {
    /// Nothing to do.
    pub fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: Status::Ok, found: found.into(), way_out: None }
    }

    /// Works with less.
    pub fn degraded(name: &str, found: impl Into<String>, way_out: impl Into<String>) -> Self {
        let (name, way_out) = (name.to_owned(), Some(way_out.into()));
        Self { name, status: Status::Degraded, found: found.into(), way_out }
    }

    /// The main job cannot run.
    pub fn missing(name: &str, found: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { status: Status::Missing, ..Self::degraded(name, found, way_out) }
    }
}

/// What would protect a session that starts now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Active {
    /// What keeps a session's processes out of other processes' memory: `landlock`, or `None`.
    pub seal: Option<&'static str>,
    /// What stops operations: `exec: fanotify`, `connect: cgroup`.
    pub gates: Vec<&'static str>,
    /// What refuses without waiting: `exec: raw_tp`, `devices: cgroup`.
    pub guards: Vec<&'static str>,
}

/// What this kernel can do for ana.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Features {
    /// `uname -r`.
    pub kernel: String,
    /// Where the v2 hierarchy is mounted.
    pub cgroup2: Option<PathBuf>,
    pub checks: Vec<Check>,
    pub active: Active,
}

impl Features {
    /// Tries everything. Without root much of it cannot be tried, and is `degraded` then.
    pub fn probe() -> Self {
        let kernel = kernel_release();
        let (cgroup, cgroup2) = system::cgroup2();
        let (btf_check, btf) = bpf::btf();
        let seal = system::landlock();
        let yama = system::yama(seal.status == Status::Ok);
        let checks = vec![
            system::privilege(),
            Check::ok("kernel", kernel.as_str()),
            cgroup,
            system::pids(cgroup2.as_deref()),
            btf_check,
            bpf::exec_guard(),
            bpf::device_guard(),
            bpf::connect_gate(),
            bpf::bpffs(),
            system::fanotify(),
            system::seccomp(),
            seal,
            yama,
            bpf::lsm(btf.as_ref()),
            system::peer_pidfd(),
            overlay::check(),
        ];
        let active = active(&checks);
        Self { kernel, cgroup2, checks, active }
    }

    /// Can the main job run on this kernel?
    pub fn can_run(&self) -> bool {
        can_run(&self.checks)
    }
}

/// Nothing that the main job needs is missing.
pub fn can_run(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.status != Status::Missing)
}

fn active(checks: &[Check]) -> Active {
    let is_ok = |name: &str| checks.iter().any(|check| check.name == name && check.status == Status::Ok);
    let those = |pairs: &[(&str, &'static str)]| {
        pairs.iter().filter(|(check, _)| is_ok(check)).map(|(_, text)| *text).collect()
    };
    Active {
        seal: is_ok("landlock").then_some("landlock"),
        gates: those(&[("fanotify", "exec: fanotify"), ("connect-gate", "connect: cgroup")]),
        guards: those(&[("exec-guard", "exec: raw_tp"), ("device-guard", "devices: cgroup")]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_stops_the_main_job() {
        let ok = Check::ok("a", "x");
        let degraded = Check::degraded("b", "x", "y");
        assert!(can_run(&[ok.clone(), degraded.clone()]));
        assert!(!can_run(&[ok, degraded, Check::missing("c", "x", "y")]));
    }

    #[test]
    fn what_is_active_follows_from_what_works() {
        assert_eq!(
            active(&[Check::degraded("landlock", "ABI 4", ""), Check::missing("fanotify", "", "")]),
            Active::default()
        );
        let all = active(
            &["landlock", "fanotify", "connect-gate", "exec-guard", "device-guard"]
                .map(|name| Check::ok(name, "")),
        );
        assert_eq!(all.seal, Some("landlock"));
        assert_eq!((all.gates.len(), all.guards.len()), (2, 2));
    }

    #[test]
    fn the_value_is_stable_json() {
        let check = Check::degraded("landlock", "ABI 4", "a kernel of 6.12");
        let json = serde_json::to_value(&check).unwrap();
        let expected = serde_json::json!({
            "name": "landlock", "status": "degraded", "found": "ABI 4", "way_out": "a kernel of 6.12"
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::to_value(Check::ok("a", "b")).unwrap()["way_out"], serde_json::Value::Null);
    }

    /// What the guard's own tests prove natively, the probe must find.
    #[test]
    fn a_kernel_on_which_the_guard_works_is_found_fit() {
        assert!(nix::unistd::geteuid().is_root(), "probing takes root");
        let features = Features::probe();
        let status = |name| features.checks.iter().find(|check| check.name == name).map(|check| check.status);
        for name in ["privilege", "cgroup2", "btf", "exec-guard", "device-guard", "connect-gate", "bpffs"] {
            assert_eq!(status(name), Some(Status::Ok), "{name}");
        }
        let names: std::collections::BTreeSet<_> = features.checks.iter().map(|check| &check.name).collect();
        assert_eq!(names.len(), features.checks.len(), "every name once");
        for check in &features.checks {
            assert_eq!(check.way_out.is_none(), check.status == Status::Ok, "{check:?}");
        }
    }
}
