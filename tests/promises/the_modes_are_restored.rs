//! Byte by byte, on a terminal of the test's own: which modes a question leaves, and which it sets again.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use ana_tests::{
    Ground,
    ground::GROUND_VARIABLE,
    machine::{USER, machine},
    terminal::{ASKED, settle},
    wait,
};
use nix::pty::{Winsize, openpty};

const SIZE: Winsize = Winsize { ws_row: 60, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };

/// `ana-run` on a terminal that the test has the other end of.
struct Pty {
    run: Child,
    keys: File,
    output: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    fn start(ground: &Ground, script: &str) -> Self {
        let script = ground.write_home("modes.sh", 0o755, script);
        let pty = openpty(&SIZE, None).expect("a pty");
        let end = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let run = Command::new(machine().ana("ana-run"))
            .args(["--user", USER, "--state"])
            .arg(ground.state())
            .args(["--", "sh"])
            .arg(script)
            .env_clear()
            .envs(ground.environment())
            .env("TERM", "xterm-256color")
            .env(GROUND_VARIABLE, ground.root())
            .current_dir(ground.home())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("ana-run can be started");
        let output = Arc::new(Mutex::new(Vec::new()));
        let (into, keys) = (Arc::clone(&output), File::from(pty.master));
        let mut from = File::from(OwnedFd::from(keys.try_clone().expect("a descriptor")));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                into.lock().expect("no reader panics").extend_from_slice(&bytes[..length]);
            }
        });
        Self { run, keys, output }
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("no reader panics")).into_owned()
    }

    /// Waits for this in the output that follows the first `from` bytes; where it ends.
    #[track_caller]
    fn until(&self, from: usize, text: &str) -> usize {
        let found = wait::poll(wait::LIMIT, || self.output()[from..].find(text));
        let at = found.unwrap_or_else(|| panic!("no {text:?} in {:?}", &self.output()[from..]));
        from + at + text.len()
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("a pty");
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        self.run.kill().ok();
        self.run.wait().ok();
    }
}

const SET: &str = "\x1b[?1003h\x1b[?1006h\x1b[?1004h\x1b[?2004h\x1b[>1u\x1b[>4;2m\x1b[?25l\x1b[?1h\x1b=\x1b[31m\x1b[5;5Hdrawn";

/// What a terminal is told at a question on a page of its own, up to the question's first letter.
const LEFT: &str = "\x18\x1b\\\x1b[?1049h\x1b[r\x1b[?69l\x1b[?6l\x1b[4l\x1b[m\x1b[0\"q\x1b(B\x0f\x1b[?1l\x1b[?7h\x1b[?25h\
    \x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004h\x1b[?2026l\x1b>\x1b[>0u\x1b[>4m\x1b[H\x1b[2J";

/// And after it.
const RESTORED: &str = "\x1b[<1u\x1b[>4;2m\x1b[?1003h\x1b[?1006h\x1b[?1004h\x1b[?2004h\x1b[?25l\x1b[?1h\x1b=\x1b[?1049l\
    \x1b[m\x1b[31m";

fn script(ground: &Ground) -> String {
    let set = SET.replace('\x1b', "\\033");
    format!("printf '{set}'\n{} modes >/dev/null 2>&1\nprintf after\nread key\n", ground.deploy().display())
}

/// What a terminal makes of some output.
fn shown(output: &str) -> (String, String, (u16, u16), bool, String) {
    let rows = SIZE.ws_row.try_into().expect("rows");
    let mut terminal = vt100::Parser::new(rows, SIZE.ws_col.try_into().expect("columns"), 0);
    terminal.process(output.as_bytes());
    let screen = terminal.screen();
    let (contents, modes) = (screen.contents_formatted(), screen.input_mode_formatted());
    (contents, modes, screen.cursor_position(), screen.hide_cursor(), screen.attributes_formatted())
}

#[test]
fn exactly_those_that_were_set() {
    let ground = Ground::new("modes");
    let mut pty = Pty::start(&ground, &script(&ground));
    let drawn = pty.until(0, "drawn");
    let asked = pty.until(drawn, ASKED);
    let during = pty.output()[drawn..asked].to_owned();
    assert!(during.starts_with(LEFT), "{during:?}");
    let before = shown(&pty.output()[..drawn]);
    let question = shown(&pty.output()[..asked]);
    assert!(question.0.contains("deploy modes") && !question.0.contains("drawn"), "{}", question.0);
    // Reports of a mouse, of the focus, of a terminal's answer to the agent are no words.
    settle();
    pty.press(b"\x1b[<0;3;3M\x1b[I\x1b[?62;1c\x1b[A");
    pty.press(b"approve\r");
    let closed = pty.until(asked, "\x1b[?1049l");
    let after = pty.until(closed, "after");
    let output = pty.output();
    let from = output[..closed].rfind("\x1b[<1u").unwrap_or_else(|| panic!("{:?}", &output[asked..]));
    // The terminal's answer has got to the agent, whose own terminal shows that.
    assert_eq!(output[from..after], format!("{RESTORED}^[[?62;1cafter"), "{:?}", &output[asked..]);
    assert_eq!(shown(&output[..from + RESTORED.len()]), before, "nothing is left of the question");
    wait::until("it ran", || (ground.markers().len() == 1).then_some(()));
    pty.press(b"\n");
    ground.verify_at_end();
}

/// Killed while its question is asked, the agent leaves a terminal as it was found.
#[test]
fn a_kill_during_the_question() {
    let ground = Ground::new("modes-kill");
    let pty = Pty::start(&ground, &script(&ground));
    pty.until(0, ASKED);
    let question = ground.question();
    let killed = ground.ana(&["sessions", "kill", &question.session]).output().expect("ana");
    assert!(killed.status.success(), "{killed:?}");
    let end = pty.until(0, "the session was ended");
    let (_, modes, _, hidden, _) = shown(&pty.output()[..end]);
    assert_eq!((modes.as_str(), hidden), ("\x1b>\x1b[?1l\x1b[?2004l", false));
    assert!(pty.output()[..end].contains("\x1b[<32u"), "{:?}", pty.output());
}
