//! Whatever its first line says, a protected script is held once, with its own arguments; what cannot be followed is
//! refused, and says why.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ana_tests::{
    Ground,
    answers::{Answer, Question},
    machine::{admin, has, path_str},
    session::Finished,
    skip::skipped,
};

const ALLOWS: &str = "allow = [[\"status\"]]\ndeny = [[\"never\"]]\notherwise = \"approve\"";

/// A Python script of root's that leaves a mark through `benign`.
fn python(ground: &Ground, line: &str) -> PathBuf {
    let text = format!(
        "{line}\nimport subprocess, sys\nsubprocess.run([{:?}, 'script-ran'] + sys.argv[1:], check=True)\n",
        path_str(&ground.benign())
    );
    ground.write("bin/deploy.py", 0o755, &text)
}

fn shell(ground: &Ground, line: &str) -> PathBuf {
    let text = format!("{line}\n{} script-ran \"$@\"\n", ground.benign().display());
    ground.write("bin/deploy.sh", 0o755, &text)
}

fn protect(ground: &Ground, script: &Path, rule: &str) {
    let rule = format!("[[exec]]\nname = \"script\"\nfile = [{script:?}]\n{rule}\n");
    ground.policy(&(ground.head() + &rule));
}

/// What the script was run with, each time.
fn runs(ground: &Ground) -> Vec<String> {
    ground.all_markers().iter().map(|marker| marker.args()[1..].join(" ")).collect()
}

/// Runs a shell line in a session; every question is approved.
fn run(ground: &Ground, line: &str) -> (Finished, Vec<Question>) {
    ground.run_answered(&["/bin/sh", "-c", line], Answer::Approve)
}

/// The script is judged by its own arguments, and asked about once.
#[track_caller]
fn is_judged_by_its_arguments(ground: &Ground, script: &Path) {
    protect(ground, script, ALLOWS);
    let (finished, questions) = run(ground, &format!("{} status", script.display()));
    finished.assert_code(0);
    assert!(questions.is_empty(), "an allowed script was asked about: {questions:#?}");
    assert_eq!(runs(ground), ["status"]);
    let (finished, questions) = run(ground, &format!("{} production", script.display()));
    finished.assert_code(0);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    let shown = questions[0].operation["exec"]["script"]["file"].to_string();
    assert!(shown.contains(path_str(script)), "{shown}");
    let (finished, questions) = run(ground, &format!("{} never; exit 0", script.display()));
    finished.assert_stderr("ana: denied");
    assert!(questions.is_empty(), "{questions:#?}");
    assert_eq!(runs(ground), ["status", "production"]);
    ground.verify();
}

#[test]
fn env_is_followed() {
    for line in
        ["#!/usr/bin/env python3", "#!/usr/bin/env -S python3 -B", "#! /usr/bin/env -S A=b python3 -B"]
    {
        let ground = Ground::new("env");
        let script = python(&ground, line);
        is_judged_by_its_arguments(&ground, &script);
    }
}

/// A program of the session's own in front of the interpreter is not what the arguments were judged for.
#[test]
fn env_is_not_led_astray() {
    let ground = Ground::new("env-path");
    let script = python(&ground, "#!/usr/bin/env python3");
    protect(&ground, &script, ALLOWS);
    let fake = format!("#!/bin/sh\nexec /usr/bin/python3 {} production\n", script.display());
    let fake = ground.write_home("bin/python3", 0o755, &fake);
    let line = format!("PATH={}:$PATH {} status", fake.parent().unwrap().display(), script.display());
    let outside = ground.run_without_ana(&["/bin/sh", "-c", &line]);
    outside.assert_code(0);
    assert_eq!(runs(&ground), ["production"], "the attack works where nothing stops it");
    ground.clear_markers();
    let (finished, questions) = run(&ground, &line);
    finished.assert_stderr("which is no interpreter of the policy");
    assert!(questions.is_empty() && runs(&ground).is_empty(), "{questions:#?}");
    ground.verify();
}

/// The same, but the program appears only after env has been looked at: the guard sees it.
#[test]
fn env_is_not_led_astray_later() {
    let ground = Ground::new("env-later");
    let script = python(&ground, "#!/usr/bin/env python3");
    protect(&ground, &script, ALLOWS);
    ground.write_home("bin/x", 0o644, "");
    let line = format!("PATH={}/bin:$PATH {} production", ground.home().display(), script.display());
    let mut session = ground.start(&["/bin/sh", "-c", &line]);
    let question = ground.question_of(&mut session);
    let fake = format!("#!/bin/sh\nexec /usr/bin/python3 {} other\n", script.display());
    ground.write_home("bin/python3", 0o755, &fake);
    ground.approve(&question.id);
    assert_eq!(session.finish().code(), 137);
    assert!(runs(&ground).is_empty());
    ground.verify();
}

#[test]
fn env_lines_that_are_not_followed_say_so() {
    for line in
        ["#!/usr/bin/env -i python3", "#!/usr/bin/env -S 'python3'", "#!/usr/bin/env -S PATH=/x python3"]
    {
        let ground = Ground::new("env-odd");
        let script = python(&ground, line);
        protect(&ground, &script, ALLOWS);
        let (finished, questions) = run(&ground, &format!("{} status", script.display()));
        finished.assert_stderr("its #! line is one of env that ana does not follow");
        assert!(questions.is_empty() && runs(&ground).is_empty());
    }
}

/// An interpreter that is a script of root's, and reads the other one itself.
#[test]
fn an_interpreter_that_is_a_script_is_followed() {
    let ground = Ground::new("nested");
    let wrapper = ground.write("bin/wrapper", 0o755, "#!/bin/sh -e\nscript=$1\nshift\n. \"$script\"\n");
    let script = shell(&ground, &format!("#!{}", wrapper.display()));
    is_judged_by_its_arguments(&ground, &script);
}

#[test]
fn an_interpreter_that_is_a_script_of_the_sessions_is_refused() {
    let ground = Ground::new("nested-own");
    let wrapper = ground.write_home("wrapper", 0o755, "#!/bin/sh\nscript=$1\nshift\n. \"$script\"\n");
    let script = shell(&ground, &format!("#!{}", wrapper.display()));
    protect(&ground, &script, ALLOWS);
    let (finished, questions) = run(&ground, &format!("{} status", script.display()));
    finished.assert_stderr("is a script that the session can change");
    assert!(questions.is_empty() && runs(&ground).is_empty());
}

/// What was approved is one run: the interpreter that the process becomes again is asked about again.
#[test]
fn a_scripts_process_that_starts_it_again_is_asked_again() {
    let ground = Ground::new("again");
    let text = format!(
        "#!/bin/sh\n{} script-ran \"$@\"\n[ \"$1\" = one ] && exec /bin/sh \"$0\" two\nexit 0\n",
        ground.benign().display()
    );
    let script = ground.write("bin/again.sh", 0o755, &text);
    protect(&ground, &script, "allow = [[\"one\"]]\notherwise = \"approve\"");
    let (finished, questions) = run(&ground, &format!("{} one", script.display()));
    finished.assert_code(0);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    assert_eq!(runs(&ground), ["one", "two"]);
    ground.verify();
}

/// Every way in which an interpreter comes to the script opens it, and is asked about once.
#[test]
fn interpreters_that_open_the_script_are_asked() {
    let ground = Ground::new("opened");
    let python = python(&ground, "#!/usr/bin/python3");
    let folder = ground.root().join("bin").display().to_string();
    let mut ways = vec![
        (python.clone(), format!("python3 {}", python.display())),
        (python.clone(), format!("cd {folder} && python3 -m deploy")),
        (python.clone(), format!("cd {folder} && python3 -c 'import deploy'")),
        (python, format!("python3 < {folder}/deploy.py")),
    ];
    let script = shell(&ground, "#!/bin/sh");
    let sh = script.display();
    for way in ["bash -c '. F'", "bash F", "sh < F", "bash -c 'source F'", "sh -c 'cat F > /dev/null; . F'"] {
        ways.push((script.clone(), way.replace('F', &sh.to_string())));
    }
    if has("perl") {
        let text = format!("system('{}', 'script-ran');\n", ground.benign().display());
        let perl = ground.write("bin/deploy.pl", 0o755, &text);
        ways.push((perl.clone(), format!("perl {}", perl.display())));
        ways.push((perl.clone(), format!("perl -e 'require \"{}\"'", perl.display())));
    }
    if has("node") {
        let text =
            format!("require('child_process').spawnSync('{}', ['script-ran'])", ground.benign().display());
        let node = ground.write("bin/deploy.js", 0o755, &text);
        ways.push((node.clone(), format!("node {}", node.display())));
        ways.push((node.clone(), format!("node --require {} -e 0", node.display())));
    } else {
        skipped("interpreters_that_open_the_script_are_asked", "node is not installed");
    }
    for (script, way) in ways {
        ground.clear_markers();
        protect(&ground, &script, "otherwise = \"approve\"");
        let (finished, questions) = run(&ground, &way);
        assert_eq!(questions.len(), 1, "{way}: {questions:#?}\n{}", finished.stderr());
        let asked = &questions[0].operation["exec"]["script"];
        assert_eq!(asked["opened"], true, "{way}: {asked}");
        assert_eq!(runs(&ground).len(), 1, "{way}: {}", finished.stderr());
    }
    ground.verify();
}

/// A compiled copy from before is not run in the script's place.
#[test]
fn a_compiled_copy_is_not_run() {
    let ground = Ground::new("compiled");
    let script = python(&ground, "#!/usr/bin/python3");
    let folder = script.parent().unwrap().to_owned();
    admin("/usr/bin/python3", &["-m", "py_compile", path_str(&script)]);
    let copy = fs::read_dir(folder.join("__pycache__")).unwrap().next().unwrap().unwrap().path();
    let line = format!("cd {} && python3 -m deploy", folder.display());
    // It is what runs, and not the source: without ana nobody opens that.
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    ground.run_without_ana(&["/bin/sh", "-c", &line]).assert_code(0);
    assert_eq!(runs(&ground).len(), 1);
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    ground.clear_markers();

    protect(&ground, &script, "otherwise = \"approve\"");
    let (finished, questions) = ground.run_answered(&["/bin/sh", "-c", &line], Answer::Deny);
    assert_ne!(finished.code(), 0);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    assert!(runs(&ground).is_empty());
    let direct = format!("python3 {}", copy.display());
    let (finished, questions) = run(&ground, &direct);
    assert_ne!(finished.code(), 0);
    assert!(questions.is_empty() && runs(&ground).is_empty(), "{questions:#?}");
    let (finished, questions) = run(&ground, &line);
    finished.assert_code(0);
    assert_eq!((questions.len(), runs(&ground).len()), (1, 1));
    ground.verify();
}

/// Takes a handler of binfmt_misc back.
struct Format(PathBuf);

impl Drop for Format {
    fn drop(&mut self) {
        drop(fs::write(&self.0, "-1"));
    }
}

/// binfmt_misc with a handler for files that end in `.NAME`; `None` where that cannot be had.
fn format(ground: &Ground, name: &str, flags: &str) -> Option<Format> {
    let folder = ground.root().join("binfmt");
    fs::create_dir(&folder).unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "binfmt_misc", "none"]).arg(&folder).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return None;
    }
    let line = format!(":{name}:E::{name}::/bin/sh:{flags}");
    let registered = fs::write(folder.join("register"), line);
    let entry = Format(folder.join(name));
    registered.ok().map(|()| entry)
}

/// Scripts without a first line, run through a handler that root has registered.
#[test]
fn binfmt_misc_is_followed() {
    for (name, flags) in [("anaplain", ""), ("anakept", "P")] {
        let ground = Ground::new("binfmt");
        let Some(entry) = format(&ground, name, flags) else {
            skipped("binfmt_misc_is_followed", "binfmt_misc cannot be mounted");
            return;
        };
        let take = if flags.contains('P') { "shift; " } else { "" };
        let text = format!("{take}{} script-ran \"$@\"\n", ground.benign().display());
        let script = ground.write(&format!("bin/deploy.{name}"), 0o755, &text);
        is_judged_by_its_arguments(&ground, &script);
        drop(entry);
        admin("umount", &[path_str(&ground.root().join("binfmt"))]);
    }
}
