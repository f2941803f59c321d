//! A process, bare or in a session, that does one unit of work for each line that it is told.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::now;
use crate::{Ground, Net, session::Launch};

/// The process. Ends when it is told nothing more.
pub struct Worker {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Worker {
    pub fn start(mut command: Command) -> Self {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a worker starts");
        let to = process.stdin.take().expect("piped");
        let from = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, to, from }
    }

    /// Without ana, in the environment that a session has: a longer one costs each exec, a language costs git its texts.
    pub fn bare(ground: &Ground, command: &[&str]) -> Self {
        let mut bare = ground.without_ana(command);
        bare.envs(std::env::vars_os()).envs(ground.environment());
        Self::start(bare)
    }

    pub fn in_session(ground: &Ground, command: &[&str]) -> Self {
        Self::launched(ground, ground.launch(command))
    }

    /// Without ana, in this world. A session's processes are not of this program's terminal session, so this one is not:
    /// the scheduler shares the processors out by terminal sessions (sched(7), autogroup), and one that shares with the
    /// servers gives way to them.
    pub fn bare_in(net: &Net, ground: &Ground, command: &[&str]) -> Self {
        let alone: Vec<&str> = ["setsid"].iter().chain(command).copied().collect();
        Self::start(net.without_ana(ground, &alone))
    }

    /// In a session in this world.
    pub fn in_session_in(net: &Net, ground: &Ground, command: &[&str]) -> Self {
        Self::launched(ground, net.launch(ground, command))
    }

    fn launched(ground: &Ground, mut launch: Launch) -> Self {
        let mut plain = Command::new(launch.command().get_program());
        plain.args(launch.command().get_args());
        for (name, value) in launch.command().get_envs() {
            match value {
                Some(value) => plain.env(name, value),
                None => plain.env_remove(name),
            };
        }
        plain.current_dir(ground.home()).stderr(Stdio::null());
        Self::start(plain)
    }

    pub fn tell(&mut self, line: &str) {
        writeln!(self.to, "{line}").expect("the worker listens");
    }

    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    pub fn hear(&mut self) -> String {
        let mut answer = String::new();
        self.from.read_line(&mut answer).expect("the worker answers");
        assert!(!answer.is_empty(), "the worker ended");
        answer.trim().to_owned()
    }

    /// The times that it answers, in microseconds.
    pub fn numbers(&mut self, line: &str) -> Vec<f64> {
        self.ask(line).split(' ').map(|n| n.parse::<f64>().expect("a number") / 1e3).collect()
    }

    pub fn end(mut self) {
        drop(self.to);
        self.process.wait().expect("the worker ends");
    }
}

/// The same work by several workers, in turns, so that a slow minute of the machine hits all. Answers, a list each, in
/// microseconds. The first round warms up and is not counted.
pub fn in_turns<const N: usize>(rounds: usize, mut work: [(&mut Worker, &str); N]) -> [Vec<f64>; N] {
    let mut results = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for ((worker, line), result) in work.iter_mut().zip(&mut results) {
            let times = worker.numbers(line);
            if round > 0 {
                result.extend(times);
            }
        }
    }
    results
}

/// The worker's side: hands every line, split at its spaces, to `work`.
pub fn serve(mut work: impl FnMut(&[&str])) {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split(' ').collect();
        work(&words);
    }
}

/// Does something so many times, and says how long each one took, in nanoseconds.
pub fn times(count: &str, mut work: impl FnMut()) {
    let count: usize = count.parse().expect("a number");
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let start = now();
        work();
        all.push((now() - start).to_string());
    }
    println!("{}", all.join(" "));
}
