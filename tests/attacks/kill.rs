//! Tries to end, stop, trace and starve other processes. Arguments: pairs LABEL PID.

use ana_tests::attempt::{say, tell, tell_io};
use nix::{
    sys::{
        ptrace,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for pair in arguments.chunks_exact(2) {
        let (label, Ok(pid)) = (&pair[0], pair[1].parse::<i32>()) else { continue };
        let target = Pid::from_raw(pid);
        if tell(&format!("{label}-seize"), ptrace::seize(target, ptrace::Options::empty())).is_some() {
            say(&format!("{label} is traced"));
        }
        let memory = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"));
        tell_io(&format!("{label}-mem"), memory);
        tell_io(&format!("{label}-environ"), std::fs::read(format!("/proc/{pid}/environ")));
        tell(&format!("{label}-stop"), kill(target, Signal::SIGSTOP));
        tell(&format!("{label}-continue"), kill(target, Signal::SIGCONT));
        tell(&format!("{label}-kill"), kill(target, Signal::SIGKILL));
    }
}
