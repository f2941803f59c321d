//! Who starts a protected program does not notice that it is held: no stalled event loop, no blocked spawn, no
//! stopped job.

use std::time::Duration;

use ana_tests::{Ground, machine::which, skip::skipped, terminal::Terminal, wait};

/// How long the program is held in these tests.
const HOLD: Duration = Duration::from_secs(2);

/// Leaves a question open for [`HOLD`]; it must not go away or run meanwhile.
fn hold(ground: &Ground) {
    wait::never_during(HOLD, "it did not stay held", || {
        (!ground.markers().is_empty()).then(|| "it ran".to_owned())
    });
}

const NODE: &str = r"
const { execFile } = require('child_process');
let last = performance.now(), gap = 0;
setInterval(() => { const now = performance.now(); gap = Math.max(gap, now - last); last = now; }, 5);
// The timer ticks before the child is started, so that the gap is the child's doing.
setTimeout(() => { gap = 0; last = performance.now(); execFile(process.argv[2], ['from-node'], (error, out) => {
  console.log('gap=' + gap.toFixed(1) + ' error=' + (error ? error.code || error.signal : 'none') + ' out=' + out.trim());
  process.exit(0);
}); console.log('started'); }, 100);
";

#[test]
fn nodes_event_loop_goes_on() {
    let Some(node) = which("node") else {
        skipped("nodes_event_loop_goes_on", "no node in the system's folders");
        return;
    };
    let ground = Ground::new("node");
    let script = ground.write_home("hold.js", 0o644, NODE);
    let mut session = ground.start(&[node.as_path(), &script, &ground.deploy()]);
    let question = ground.question_of(&mut session);
    hold(&ground);
    ground.approve(&question.id);
    let said = session.finish().assert_code(0).stdout();
    let gap: f64 = said
        .split("gap=")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no gap in {said}"));
    println!("largest gap of the event loop: {gap} ms");
    assert!(said.contains("error=none out=marker: ran from-node"), "{said}");
    assert!(gap < 100.0, "the event loop stood still for {gap} ms");
}

const PYTHON: &str = r"
import subprocess, sys, time
begin = time.monotonic()
child = subprocess.Popen([sys.argv[1], 'from-python'], stdout=subprocess.PIPE)
print('popen=%.3f' % (time.monotonic() - begin), flush=True)
print('poll=%s' % child.poll(), flush=True)
out, _ = child.communicate()
print('out=%s code=%s' % (out.decode().strip(), child.returncode), flush=True)
";

#[test]
fn pythons_popen_returns_at_once() {
    let ground = Ground::new("python");
    let script = ground.write_home("hold.py", 0o644, PYTHON);
    let mut session =
        ground.start(&["/usr/bin/python3".as_ref(), script.as_os_str(), ground.deploy().as_os_str()]);
    let question = ground.question_of(&mut session);
    // The question is open, and Popen has returned.
    let said = session.until_stdout("poll=None");
    let took: f64 = said
        .split("popen=")
        .nth(1)
        .and_then(|rest| rest.lines().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no time in {said}"));
    println!("Popen returned after {took} s");
    assert!(took < 0.5, "Popen took {took} s");
    hold(&ground);
    ground.approve(&question.id);
    session.finish().assert_code(0).assert_stdout("out=marker: ran from-python code=0");
}

/// An interactive shell with job control waits for its held job as for any that computes: nothing is "Stopped".
#[test]
fn bash_sees_no_stopped_job() {
    let ground = Ground::new("bash");
    let terminal = Terminal::of_root(&ground);
    // Questions are answered from outside: the terminal belongs to bash.
    terminal.line(&terminal.ana_run(&ground, "bash --norc --noprofile -i"));
    terminal.line("PS1='inner> '");
    terminal.until_shows("inner>");
    terminal.line(&format!("{} in-front; echo first=$?", ground.deploy().display()));
    let question = ground.question();
    hold(&ground);
    ground.approve(&question.id);
    terminal.until_shows("first=0");
    terminal.line(&format!("{} behind & jobs; wait; echo second=$?", ground.deploy().display()));
    let question = ground.question();
    ground.approve(&question.id);
    let screen = terminal.until_shows("second=0");
    assert!(!screen.contains("Stopped"), "{screen}");
    assert!(screen.contains("Running"), "the background job runs while it is held:\n{screen}");
    terminal.line("exit 5");
    terminal.until_prompt();
    terminal.line("echo left=$?");
    terminal.until_shows("left=5");
    ground.assert_every_run_was_decided();
}
