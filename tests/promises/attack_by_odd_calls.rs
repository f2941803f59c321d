//! Calls that are allowed by what they say, and odd in what they are: each is executed as it was read, or is not executed.

use std::{fs, os::unix::fs::PermissionsExt};

use ana_tests::{
    Ground, Session,
    attempt::{assert_all, attempts},
    machine::{admin, path_str},
};

fn judged(ground: &Ground) {
    ground.policy(&(ground.head() + &ground.rule(JUDGED)));
}

fn judged_with_namespaces(ground: &Ground, test: &str) -> bool {
    ground.with_namespaces(test, &ground.rule(JUDGED))
}

const JUDGED: &str = "allow = [[\"status\", \"**\"]]\notherwise = \"deny\"";

/// What the scripts have in common.
const CALL: &str = r"
import ctypes, os, resource, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
deploy = sys.argv[1].encode()
here = [k + b'=' + v for k, v in os.environb.items()]
def vector(strings):
    return None if strings is None else (ctypes.c_char_p * (len(strings) + 1))(*strings, None)
def said(name, status):
    if os.WIFSIGNALED(status): word = 'signal %d' % os.WTERMSIG(status)
    else: word = 'ok' if os.WEXITSTATUS(status) == 0 else 'exit %d' % os.WEXITSTATUS(status)
    print('attempt %s: %s' % (name, word), flush=True)
def call(name, path, argv, envp=here, prepare=lambda: None):
    child = os.fork()
    if child == 0:
        prepare()
        libc.execve(path, vector(argv), vector(envp))
        os._exit(100 + min(ctypes.get_errno(), 100))
    said(name, os.waitpid(child, 0)[1])
subprocess.run([deploy, 'status', 'first'], check=True)
";

/// Runs Python in a session in which it is known what the protected program is. `call(name, path, argv, envp)` is execve(2)
/// in a child, after `prepare`, and tells how that ended; the arguments are `[deploy, …]`.
fn python(ground: &Ground, script: &str, more: &[&str]) -> ana_tests::Finished {
    ground.run(&python_command(ground, script, more))
}

fn python_command(ground: &Ground, script: &str, more: &[&str]) -> Vec<String> {
    let script = ground.write_home("odd.py", 0o644, &format!("{CALL}{script}"));
    let deploy = ground.deploy();
    let command = ["/usr/bin/python3", path_str(&script), path_str(&deploy)];
    command.iter().chain(more).map(|&word| word.to_owned()).collect()
}

fn killed(ground: &Ground, why: &str) -> usize {
    let killed = |record: &ana_tests::records::Record| {
        record.payload["detail"]["killed"].as_str().is_some_and(|told| told.contains(why))
    };
    ground.records_of("tamper").iter().filter(|record| killed(record)).count()
}

fn runs(ground: &Ground) -> Vec<Vec<String>> {
    ground.markers().iter().map(ana_tests::Marker::args).collect()
}

/// The arguments that the gate reads are allowed; those that the kernel makes of them for an interpreter are others. The
/// guard kills.
#[test]
fn as_the_interpreter_of_a_script() {
    let ground = Ground::new("odd-script");
    judged(&ground);
    let script = "
for name, line in (('plain', b'#!' + deploy), ('argument', b'#!' + deploy + b' status')):
    with open(name, 'wb') as file: file.write(line + b'\\n')
    os.chmod(name, 0o755)
    call(name, b'./' + name.encode(), [b'deploy', b'status'])
";
    let finished = python(&ground, script, &[]).assert_code(0);
    assert_all(&finished.stdout(), &["plain", "argument"], "signal 9");
    assert_eq!(runs(&ground), [["status", "first"]]);
    assert_eq!(killed(&ground, "let through"), 2);
    ground.verify();
}

/// No arguments are not allowed ones; a null environment is an empty one; what leaves no room for the arguments does not run.
#[test]
fn vectors_and_limits() {
    let ground = Ground::new("odd-vectors");
    judged(&ground);
    let script = "
call('empty', deploy, [])
call('null', deploy, None)
call('named', deploy, [b''])
marks = [v for v in here if v.startswith(b'ANA_TEST_MARKS=')]
call('few', deploy, [b'deploy', b'status', b'few'], marks)
twice = [b'deploy', b'status', b'twice'] + marks
call('twice', deploy, twice[:3], marks + marks)
for size in (1 << 12, 1 << 16):
    limit = lambda: resource.setrlimit(resource.RLIMIT_STACK, (size, size))
    call('stack-%d' % size, deploy, [b'deploy', b'status', b'stack'], prepare=limit)
";
    let told = python(&ground, script, &[]).assert_code(0).stdout();
    // The first three are refused by the rule, or by the kernel.
    ana_tests::attempt::assert_none_granted(&told, &["empty", "null", "named"]);
    assert_all(&told, &["few", "twice"], "ok");
    let stacks = attempts(&told).iter().filter(|(name, _)| name.starts_with("stack")).count();
    assert_eq!(stacks, 2, "{told}");
    let runs = runs(&ground);
    assert!(runs.iter().all(|args| args.first().is_some_and(|word| word == "status")), "{runs:?}");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Where a descriptor leads is what is judged, and its arguments are.
#[test]
fn by_a_descriptor() {
    let ground = Ground::new("odd-fd");
    judged(&ground);
    let script = "
fd = os.open(deploy, os.O_PATH)
os.set_inheritable(fd, True)
def at(name, argv, flags):
    child = os.fork()
    if child == 0:
        code = libc.syscall(322, fd, b'', vector(argv), vector(here), flags)
        os._exit(0 if code == 0 else 100 + min(ctypes.get_errno(), 100))
    said(name, os.waitpid(child, 0)[1])
at('allowed', [b'deploy', b'status', b'fd'], 0x1000)
at('denied', [b'deploy', b'attack'], 0x1000)
call('proc', b'/proc/self/fd/%d' % fd, [b'deploy', b'status', b'proc'])
call('proc-denied', b'/proc/self/fd/%d' % fd, [b'deploy', b'attack'])
# AT_EXECVE_CHECK: asks whether it could be executed, and executes nothing (since Linux 6.14).
at('check', [b'deploy', b'status', b'check'], 0x11000)
";
    let told = python(&ground, script, &[]).assert_code(0).stdout();
    assert_all(&told, &["allowed", "proc"], "ok");
    assert_all(&told, &["denied", "proc-denied"], "signal 9");
    assert!(attempts(&told).contains_key("check"), "{told}");
    assert_eq!(runs(&ground), [["status", "first"], ["status", "fd"], ["status", "proc"]]);
    ground.verify();
}

/// What was let through and failed is remembered until the process ends or executes: another file is not what was let
/// through, and is killed. The same program is judged anew.
#[test]
fn after_a_call_that_failed() {
    let ground = Ground::new("odd-failed");
    judged(&ground);
    // AT_EXECVE_CHECK opens the file as an exec does, and ends there (since Linux 6.14).
    let script = "
def checked():
    fd = os.open(deploy, os.O_PATH)
    code = libc.syscall(322, fd, b'', vector([b'deploy', b'status', b'checked']), vector(here), 0x11000)
    if code != 0: os._exit(99)
call('control', b'/bin/true', [b'true'])
call('another', b'/bin/true', [b'true'], prepare=checked)
call('same', deploy, [b'deploy', b'status', b'same'], prepare=checked)
call('worse', deploy, [b'deploy', b'attack'], prepare=checked)
";
    let told = python(&ground, script, &[]).assert_code(0).stdout();
    let told_of = attempts(&told);
    if told_of.get("another").is_some_and(|word| word == "exit 99") {
        return ana_tests::skip::skipped("after_a_call_that_failed", "no AT_EXECVE_CHECK here");
    }
    assert_all(&told, &["control", "same"], "ok");
    assert_all(&told, &["another", "worse"], "signal 9");
    assert_eq!(killed(&ground, "let through"), 1);
    assert_eq!(runs(&ground), [["status", "first"], ["status", "same"]]);
    ground.verify();
}

/// In a user namespace of its own a process finds other files where it looks for its own: allowed arguments mean nothing
/// there, and the namespace is shown.
#[test]
fn from_another_user_namespace() {
    let ground = Ground::new("odd-namespace");
    if !judged_with_namespaces(&ground, "from_another_user_namespace") {
        return;
    }
    let script = "
def apart():
    if libc.unshare(0x10000000) != 0: os._exit(98)
for i in range(3): call('apart', deploy, [b'deploy', b'status', b'apart'], prepare=apart)
";
    let before = "call('here', deploy, [b'deploy', b'status', b'here'])\n";
    let told = python(&ground, &format!("{before}{script}"), &[]).assert_code(0).stdout();
    assert_all(&told, &["here"], "ok");
    assert_all(&told, &["apart"], "signal 9");
    let apart: Vec<_> = ground.decisions().into_iter().filter(|d| d.args() == ["status", "apart"]).collect();
    assert_eq!(apart.len(), 3);
    for decision in &apart {
        assert!(decision.denies(), "{}", decision.payload);
        let foreign = decision.payload["operation"]["exec"]["foreign_namespaces"].to_string();
        assert!(foreign.contains("user"), "{foreign}");
    }
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Executes the protected program by a descriptor, from a root folder of the agent's own with a loader of the agent's own.
const OWN_ROOT: &str = "
child = os.fork()
if child == 0:
    program = os.open(deploy, os.O_PATH)
    if libc.unshare(0x10000000) != 0: os._exit(98)
    os.chroot(sys.argv[2])
    libc.syscall(322, program, b'', vector([b'deploy', b'status', b'own']), vector(here), 0x1000)
    os._exit(97)
said('own-root', os.waitpid(child, 0)[1])
";

/// That folder. Its loader does what it wants inside of the protected program: it ends with 42.
fn own_root(ground: &Ground) -> std::path::PathBuf {
    let root = ground.home().join("root");
    let text = "void _start(void) { __asm__ volatile(\"syscall\" : : \"a\"(231), \"D\"(42)); }";
    let source = ground.write_home("loader.c", 0o644, text);
    fs::create_dir_all(root.join("lib64")).expect("root may");
    let loader = root.join("lib64/ld-linux-x86-64.so.2");
    admin("gcc", &["-nostdlib", "-static-pie", "-o", path_str(&loader), path_str(&source)]);
    root
}

#[test]
fn with_a_loader_of_its_own() {
    let ground = Ground::new("odd-loader");
    let root = own_root(&ground);
    for (namespaces, end) in [(false, "exit 98"), (true, "signal 9")] {
        judged(&ground);
        if namespaces && !judged_with_namespaces(&ground, "with_a_loader_of_its_own") {
            continue;
        }
        let told = python(&ground, OWN_ROOT, &[path_str(&root)]).assert_code(0).stdout();
        assert_all(&told, &["own-root"], end);
    }
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn with_a_loader_of_its_own_without_ana() {
    let ground = Ground::bare("odd-loader");
    let root = own_root(&ground);
    let command = python_command(&ground, OWN_ROOT, &[path_str(&root)]);
    let told = ground.run_without_ana(&command).assert_code(0).stdout();
    assert_all(&told, &["own-root"], "exit 42");
}

/// The arguments of a script's call are chosen for its interpreter, which is protected as well and may run with those: it
/// runs with others.
#[test]
fn a_script_whose_arguments_are_its_interpreters() {
    let ground = Ground::new("odd-both");
    let interpreter = ground.root().join("bin/python3");
    fs::copy("/usr/bin/python3", &interpreter).expect("copy");
    let text = format!(
        "#!{}\nimport subprocess\nsubprocess.run([{:?}, 'script-ran'])\n",
        path_str(&interpreter),
        path_str(&ground.benign())
    );
    let script = ground.write("bin/listed.py", 0o755, &text);
    let rules = format!(
        "[[exec]]\nname = \"python\"\nfile = [{interpreter:?}]\nallow = [[\"--version\"]]\notherwise = \"deny\"\n\
         [[exec]]\nname = \"script\"\nfile = [{script:?}]\nallow = [[\"**\"]]\n"
    );
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"status\", \"**\"]]") + &rules));
    let attack = "
import time
for i in range(5): call('alone', sys.argv[2].encode(), [b'python3', b'--version'])
for i in range(5): call('both', sys.argv[3].encode(), [b'python3', b'--version'])
";
    let told = python(&ground, attack, &[path_str(&interpreter), path_str(&script)]).assert_code(0).stdout();
    assert_all(&told, &["alone"], "ok");
    assert_all(&told, &["both"], "signal 9");
    let benign = ground.all_markers().len() - ground.markers().len();
    assert_eq!(benign, 0, "the script ran");
    ground.verify();
}

/// A file that others than root can write is held each time: what it is now was not known before.
#[test]
fn a_file_of_the_agents_own() {
    let ground = Ground::new("odd-own");
    let own = ground.home().join("own");
    fs::copy(ground.benign(), &own).expect("copy");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).expect("mode");
    ground.give(&own);
    let rule = format!("[[exec]]\nname = \"own\"\nfile = [{own:?}]\nallow = [[\"status\", \"**\"]]\n");
    ground.policy(&(ground.head() + &rule));
    let script = format!(
        "for i in 1 2 3; do {0} status $i; done; cp {1} x; cat x > {0}; {0} status 4\n\
         printf '#!/bin/sh\\necho it is a script now\\n' > {0}; {0} status 5; true",
        path_str(&own),
        path_str(&ground.benign())
    );
    let finished = ground.run_shell(&script);
    let decisions = ground.decisions();
    println!("{} decisions, {}", decisions.len(), finished.stdout());
    let (allowed, held) =
        (decisions.iter().filter(|d| d.approves()).count(), ground.records_of("outcome").len());
    assert!(allowed >= 3 && allowed == held, "{allowed} allowed, {held} held");
    // Every one of them was what its record says.
    let hashes: std::collections::BTreeSet<String> =
        decisions.iter().map(|d| d.payload["operation"]["exec"]["program"]["sha256"].to_string()).collect();
    assert!(!hashes.is_empty());
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// It was no set-user-ID program when its file was protected: with allowed arguments it is let through, and killed.
#[test]
fn a_program_that_gains_privilege_meanwhile() {
    let ground = Ground::new("odd-privilege");
    judged(&ground);
    let mut session: Session = ground.launch(&["/bin/sh"]).start_listening();
    let deploy = ground.deploy();
    for _ in 0..2 {
        session.say(&format!("{} status before; echo ended: $?", path_str(&deploy)));
    }
    ana_tests::wait::until("both have run", || {
        (session.stdout().matches("ended: 0").count() == 2).then_some(())
    });
    admin("chmod", &["4755", path_str(&deploy)]);
    // The first is held, because its file has changed.
    for _ in 0..3 {
        session.say(&format!("{} status after; echo ended: $?", path_str(&deploy)));
    }
    session.hush();
    let told = session.finish().stdout();
    println!("{told}");
    assert_eq!(told.matches("ended: ").count(), 5, "{told}");
    assert!(killed(&ground, "gained privilege") >= 1, "{told}");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// A program that is to run alone is held, however allowed it is.
#[test]
fn an_exclusive_rule_is_never_quick() {
    let ground = Ground::new("odd-exclusive");
    let rule = ground.rule("allow = [[\"status\", \"**\"]]\nexclusive = true");
    ground.policy(&(ground.head() + &rule));
    let script = format!("for i in 1 2 3 4; do {} status $i || exit 1; done", path_str(&ground.deploy()));
    ground.run_shell(&script).assert_code(0);
    assert_eq!((ground.decisions().len(), ground.records_of("outcome").len()), (4, 4));
    ground.assert_every_run_was_decided();
    ground.verify();
}
