//! `ana-run` started by a test, its output collected while it runs.

use std::{
    ffi::{OsStr, OsString},
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    ground::{GROUND_VARIABLE, Ground},
    machine::{USER, assignment, machine},
    processes, wait,
};

/// `ana-run … -- CMD`, not yet started.
pub struct Launch {
    command: Command,
}

/// A running command with its output so far.
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Stream,
    err: Stream,
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Ground {
    /// `ana-run --user anatest --state STATE -- env … COMMAND`, run by root.
    pub fn launch<S: AsRef<OsStr>>(&self, command: &[S]) -> Launch {
        self.launch_with(&[], command)
    }

    /// The same with further options for `ana-run`.
    pub fn launch_with<S: AsRef<OsStr>>(&self, options: &[&str], command: &[S]) -> Launch {
        let mut run = Command::new(machine().ana("ana-run"));
        run.args(["--user", USER, "--state"])
            .arg(self.state())
            .args(options)
            .arg("--")
            .args(self.inside(command));
        run.current_dir(self.home()).env(GROUND_VARIABLE, self.root());
        Launch { command: run }
    }

    /// The same, started by the session's user as a person does it: `ana-run` gets the supervisor through sudo, for
    /// which the test holds a [`crate::sudoers::Sudoers`].
    pub fn launch_by_person<S: AsRef<OsStr>>(&self, command: &[S]) -> Launch {
        let mut run = vec![machine().ana("ana-run").into_os_string(), "--state".into(), self.state().into()];
        run.push("--".into());
        run.extend(self.inside(command));
        Launch { command: self.without_ana(&run) }
    }

    /// The command as it is named to `ana-run`: with the test's own environment.
    pub fn inside<S: AsRef<OsStr>>(&self, command: &[S]) -> Vec<OsString> {
        let mut all = vec![OsString::from("/usr/bin/env")];
        all.extend(self.environment().iter().map(|(name, value)| assignment(name, value)));
        all.extend(command.iter().map(|part| part.as_ref().to_owned()));
        all
    }

    /// Starts `COMMAND` in a session; stdin is empty.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(&self, command: &[S]) -> Session {
        self.launch(command).start()
    }

    /// Runs `COMMAND` in a session to its end.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> Finished {
        self.start(command).finish()
    }

    /// Runs a shell script in a session to its end.
    #[track_caller]
    pub fn run_shell(&self, script: &str) -> Finished {
        self.run(&["/bin/sh", "-c", script])
    }

    /// Runs `COMMAND` as the session's user, without ana.
    #[track_caller]
    pub fn run_without_ana<S: AsRef<OsStr>>(&self, command: &[S]) -> Finished {
        Session::of(self.without_ana(command).stdin(Stdio::null())).finish()
    }
}

impl Launch {
    /// The command that starts it, for further settings.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it with an empty stdin.
    #[track_caller]
    pub fn start(mut self) -> Session {
        Session::of(self.command.stdin(Stdio::null()))
    }

    /// Starts it with a pipe as stdin, written by [`Session::say`].
    #[track_caller]
    pub fn start_listening(mut self) -> Session {
        Session::of(self.command.stdin(Stdio::piped()))
    }
}

impl Session {
    /// Starts any command with its output collected.
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let out = Stream::of(child.stdout.take().expect("piped"));
        let err = Stream::of(child.stderr.take().expect("piped"));
        Self { stdin: child.stdin.take(), child, out, err }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// The supervisor of this `ana-run`, which is not its child: it is started by sudo, or on its own. Found once it
    /// has its warden: what bears its name before that is still on the way to become it.
    #[track_caller]
    pub fn supervisor(&self) -> i32 {
        self.watched().0
    }

    /// The wardens of this session's supervisor.
    #[track_caller]
    pub fn wardens(&self) -> Vec<i32> {
        self.watched().1
    }

    #[track_caller]
    fn watched(&self) -> (i32, Vec<i32>) {
        let owner = format!("--owner\0{}:", self.pid());
        wait::until("ana-run has a supervisor with a warden", || {
            let serves = |pid: &i32| {
                processes::program(*pid).as_deref() == Some("ana-supervisor")
                    && processes::command_line(*pid).contains(&owner)
            };
            let all = processes::all().into_iter().filter(serves);
            all.map(|pid| (pid, processes::below_named(pid, "ana-warden")))
                .find(|(_, wardens)| !wardens.is_empty())
        })
    }

    /// Writes a line to the session's stdin.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("started with start_listening");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the session reads its stdin");
        stdin.flush().expect("a pipe");
    }

    /// Closes the session's stdin.
    pub fn hush(&mut self) {
        self.stdin = None;
    }

    pub fn stdout(&self) -> String {
        self.out.text()
    }

    pub fn stderr(&self) -> String {
        self.err.text()
    }

    /// Waits until stdout contains `text`.
    #[track_caller]
    pub fn until_stdout(&self, text: &str) -> String {
        let seen = wait::poll(wait::LIMIT, || self.stdout().contains(text).then(|| self.stdout()));
        match seen {
            Some(all) => all,
            None => panic!("no {text:?} on stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr()),
        }
    }

    /// Waits until stderr contains `text`.
    #[track_caller]
    pub fn until_stderr(&self, text: &str) -> String {
        let seen = wait::poll(wait::LIMIT, || self.stderr().contains(text).then(|| self.stderr()));
        match seen {
            Some(all) => all,
            None => panic!("no {text:?} on stderr:\n{}\nstdout:\n{}", self.stderr(), self.stdout()),
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("ana-run can be signalled");
    }

    /// Whether it has ended, without waiting.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.finish_within(Duration::from_secs(60))
    }

    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Finished {
        self.stdin = None;
        let status = wait::poll(limit, || self.child.try_wait().expect("a child of ours"));
        let Some(status) = status else {
            panic!("not ended after {limit:?}; stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr());
        };
        // A process that outlives the command could keep the pipes open: give what is there then.
        self.out.close();
        self.err.close();
        let (stdout, stderr) = (self.out.copy(), self.err.copy());
        Finished { status, stdout, stderr }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        // SIGTERM lets ana-run take the session down; what is left after that is the ground's to clear.
        let asked = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
        let gone = wait::poll(Duration::from_secs(5), || self.child.try_wait().ok().flatten());
        if asked.is_err() || gone.is_none() {
            processes::end(self.pid());
        }
        wait::poll(Duration::from_secs(5), || self.child.try_wait().ok().flatten());
    }
}

impl Finished {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit status, or 128 + n for a signal, as a shell says it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Panics with everything the command said unless it ended with `code`.
    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert!(
            self.code() == code,
            "expected exit {code}, got {}\nstdout:\n{}\nstderr:\n{}",
            self.status,
            self.stdout(),
            self.stderr()
        );
        self
    }

    /// Panics unless the command said this on stderr.
    #[track_caller]
    pub fn assert_stderr(self, text: &str) -> Self {
        assert!(self.stderr().contains(text), "no {text:?} on stderr:\n{}", self.stderr());
        self
    }

    /// Panics unless the command said this on stdout.
    #[track_caller]
    pub fn assert_stdout(self, text: &str) -> Self {
        let err = self.stderr();
        assert!(self.stdout().contains(text), "no {text:?} on stdout:\n{}\nstderr:\n{err}", self.stdout());
        self
    }
}

impl Stream {
    fn of(mut from: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                into.lock().expect("no reader panics").extend_from_slice(&buffer[..length]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn copy(&self) -> Vec<u8> {
        self.bytes.lock().expect("no reader panics").clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.copy()).into_owned()
    }

    fn close(&mut self) {
        let done = wait::poll(Duration::from_secs(5), || {
            self.reader.as_ref().is_none_or(JoinHandle::is_finished).then_some(())
        });
        if done.is_some() {
            self.reader.take().map(JoinHandle::join);
        }
    }
}
