//! What eBPF offers here: each kind of program is tried by loading the smallest one.

use std::{fs, io};

use super::{AS_ROOT, Check};
use crate::{
    kernel::{
        btf::{Btf, Kind},
        load,
        network::NetworkPrograms,
        pins,
    },
    sys::bpf::{ProbeKind, probe_program},
};

const NEEDS_BTF: &str = "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (every large distribution's is)";
const NEEDS_BPF: &str = "use a kernel with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and CONFIG_BPF_EVENTS";

/// The kernel's types, and what is to be said about them.
pub(super) fn btf() -> (Check, Option<Btf>) {
    let name = "btf";
    let btf = match Btf::of_the_kernel() {
        Ok(btf) => btf,
        Err(error) => return (Check::missing(name, error.to_string(), NEEDS_BTF), None),
    };
    let check = match load::offsets(&btf) {
        Ok(offsets) => Check::ok(name, format!("{} fields found in the kernel's types", offsets.len())),
        Err(error) => Check::missing(name, error.to_string(), NEEDS_BTF),
    };
    (check, Some(btf))
}

pub(super) fn exec_guard() -> Check {
    loaded("exec-guard", ProbeKind::Tracepoint, "tracepoint programs (raw_tp)")
}

pub(super) fn device_guard() -> Check {
    loaded("device-guard", ProbeKind::CgroupDevice, "cgroup device programs")
}

/// The programs themselves, on this kernel: nothing less shows that their helpers and the storage of sockets are there.
pub(super) fn connect_gate() -> Check {
    let name = "connect-gate";
    match NetworkPrograms::load() {
        Ok(_unloaded_at_once) => {
            Check::ok(name, "the kernel loads its programs (sock_addr, sock_ops, egress)")
        }
        Err(_) if !nix::unistd::geteuid().is_root() => {
            Check::degraded(name, "its programs cannot be tried without root", AS_ROOT)
        }
        // A policy without [network] and [[connect]] does without.
        Err(error) => Check::degraded(
            name,
            format!("the kernel refuses its programs: {error}"),
            "use a kernel of 6.1 or later; a policy that protects connections does not start on this one",
        ),
    }
}

fn loaded(name: &str, kind: ProbeKind, what: &str) -> Check {
    match probe_program(kind) {
        Ok(()) => Check::ok(name, format!("the kernel loads {what}")),
        Err(_) if !nix::unistd::geteuid().is_root() => {
            Check::degraded(name, format!("{what} cannot be tried without root"), AS_ROOT)
        }
        Err(error) => Check::missing(name, format!("the kernel refuses {what}: {error}"), NEEDS_BPF),
    }
}

/// The list of active LSMs proves nothing: some virtual machines have `bpf` in it and refuse every program.
pub(super) fn lsm(btf: Option<&Btf>) -> Check {
    let (name, listed) = ("lsm", listed());
    let way_out = "no need: the exec gate and guard do without; for LSM programs boot with bpf in lsm=";
    let Some(id) = btf.and_then(|btf| btf.id(Kind::Function, "bpf_lsm_bprm_check_security")) else {
        return Check::degraded(name, format!("no LSM hooks for eBPF; {listed}"), way_out);
    };
    match probe_program(ProbeKind::Lsm(id)) {
        Ok(()) if listed.split(['=', ',']).any(|lsm| lsm == "bpf") => {
            Check::ok(name, format!("programs load; {listed}"))
        }
        Ok(()) => Check::degraded(name, format!("programs load, but would not run; {listed}"), way_out),
        Err(_) if !nix::unistd::geteuid().is_root() => {
            Check::degraded(name, format!("cannot be tried without root; {listed}"), AS_ROOT)
        }
        Err(error) => {
            Check::degraded(name, format!("the kernel refuses LSM programs: {error}; {listed}"), way_out)
        }
    }
}

fn listed() -> String {
    match fs::read_to_string("/sys/kernel/security/lsm") {
        Ok(list) => format!("active: lsm={}", list.trim()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "the list of active ones is not visible (securityfs is not mounted)".to_owned()
        }
        Err(error) => format!("the list of active ones cannot be read: {error}"),
    }
}

pub(super) fn bpffs() -> Check {
    let name = "bpffs";
    if pins::is_mounted() {
        return Check::ok(name, format!("mounted at {}", pins::BPFFS));
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.split_whitespace().last() == Some("bpf")) {
        return Check::ok(
            name,
            format!("not mounted; ana mounts it at {} when a session starts", pins::BPFFS),
        );
    }
    Check::missing(name, "this kernel has no bpffs", NEEDS_BPF)
}
