//! A protected program is held under whatever name it is called: what counts is the file.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ana_tests::{
    Ground,
    answers::{Answer, Question},
    attempt::{assert_all, assert_none_granted, attempts},
    machine::path_str,
};

/// The attack's command and the ways in which it runs the program.
fn attack(ground: &Ground, name: &str) -> Vec<OsString> {
    let second = ground.root().join("bin/second-name");
    if !second.exists() {
        fs::hard_link(ground.deploy(), &second).expect("root may link");
    }
    ground.attack(name, &[ground.deploy(), second])
}

/// Without ana every way runs the program.
#[track_caller]
fn works_without_ana(name: &str, ways: &[&str]) {
    let ground = Ground::bare(name);
    let finished = ground.run_without_ana(&attack(&ground, name));
    assert_all(&finished.stdout(), ways, "ok");
    assert_eq!(ground.markers().len(), ways.len(), "{:#?}", ground.markers());
}

/// In a session every way is asked, about the very file, and runs only with its decision. `policy` may say that there is no
/// such session here.
#[track_caller]
fn is_asked(name: &str, ways: &[&str], policy: impl FnOnce(&Ground) -> bool) {
    let ground = Ground::new(name);
    if !policy(&ground) {
        return;
    }
    let (finished, questions) = ground.run_answered(&attack(&ground, name), Answer::Approve);
    assert_all(&finished.stdout(), ways, "ok");
    assert_eq!(questions.len(), ways.len(), "{questions:#?}\n{}", finished.stdout());
    for question in &questions {
        assert_same_file(question, &ground.deploy());
    }
    assert_eq!(ground.markers().len(), ways.len());
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// In a session no way works when the answer is no.
#[track_caller]
fn is_denied(name: &str, way: &str) {
    let ground = Ground::new(name);
    let (finished, questions) = ground.run_answered(&attack(&ground, name), Answer::Deny);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    assert_eq!(attempts(&finished.stdout()).get(way).map(String::as_str), Some("signal 9"));
    ground.assert_never_ran();
    ground.verify();
}

#[track_caller]
fn assert_same_file(question: &Question, program: &Path) {
    let inode = fs::metadata(program).expect("the program is there").ino();
    assert_eq!(question.operation["exec"]["program"]["inode"], inode.to_string(), "{question:#?}");
}

#[test]
fn hard_link_without_ana() {
    works_without_ana("hard-link", &["exec"]);
}

#[test]
fn hard_link() {
    is_asked("hard-link", &["exec"], |_| true);
    is_denied("hard-link", "exec");
}

#[test]
fn symlink_without_ana() {
    works_without_ana("symlink", &["exec-symlink", "exec-chain"]);
}

#[test]
fn symlink() {
    is_asked("symlink", &["exec-symlink", "exec-chain"], |_| true);
}

#[test]
fn proc_root_without_ana() {
    works_without_ana("proc-root", &["exec-root", "exec-cwd"]);
}

#[test]
fn proc_root() {
    is_asked("proc-root", &["exec-root", "exec-cwd"], |_| true);
}

#[test]
fn descriptor_without_ana() {
    works_without_ana("descriptor", &["execveat", "exec-fd"]);
}

#[test]
fn descriptor() {
    is_asked("descriptor", &["execveat", "exec-fd"], |_| true);
}

#[test]
fn bind_mount_without_ana() {
    works_without_ana("bind-mount", &["exec"]);
}

#[test]
fn bind_mount_is_refused_by_the_seal() {
    let ground = Ground::new("bind-mount");
    let finished = ground.run(&attack(&ground, "bind-mount"));
    assert_none_granted(&finished.stdout(), &["exec"]);
    ground.assert_never_ran();
    ground.assert_nothing_pending();
}

#[test]
fn bind_mount_with_namespaces() {
    is_asked("bind-mount", &["exec"], |ground| allow_namespaces(ground, "bind_mount_with_namespaces"));
}

#[test]
fn overlay_without_ana() {
    works_without_ana("overlay", &["exec-lower", "exec-upper"]);
}

#[test]
fn overlay_is_refused_by_the_seal() {
    let ground = Ground::new("overlay");
    let finished = ground.run(&attack(&ground, "overlay"));
    assert_none_granted(&finished.stdout(), &["exec-lower", "exec-upper"]);
    ground.assert_never_ran();
}

/// With namespaces the overlay can be mounted. The lower file is the protected one: an exec of it is asked or refused, and
/// the copy-up that would make an unmarked copy is refused.
#[test]
fn overlay_with_namespaces() {
    let ground = Ground::new("overlay");
    if !allow_namespaces(&ground, "overlay_with_namespaces") {
        return;
    }
    let (finished, _) = ground.run_answered(&attack(&ground, "overlay"), Answer::Deny);
    assert_all(&finished.stdout(), &["overlay"], "ok");
    assert_none_granted(&finished.stdout(), &["exec-lower", "exec-upper", "copy-up"]);
    ground.assert_never_ran();
    ground.verify();
}

/// In a foreign mount namespace the question says so.
#[test]
fn a_foreign_namespace_is_shown() {
    let ground = Ground::new("bind-shown");
    if !allow_namespaces(&ground, "a_foreign_namespace_is_shown") {
        return;
    }
    let (_, questions) = ground.run_answered(&attack(&ground, "bind-mount"), Answer::Deny);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    let foreign = questions[0].operation["exec"]["foreign_namespaces"].to_string();
    assert!(foreign.contains("mnt") && foreign.contains("user"), "{foreign}");
}

fn allow_namespaces(ground: &Ground, test: &str) -> bool {
    ground.with_namespaces(test, &ground.rule("otherwise = \"approve\""))
}

#[test]
fn argv0_without_ana() {
    works_without_ana("argv0", &["other-name", "empty-name", "slash-name", "other-folder", "no-name"]);
}

/// `deploy status` is allowed; another argv[0] makes another program of it and is asked. Only the name counts, so
/// `/elsewhere/deploy/` is a matter of taste: it is asked or allowed, but never unrecorded.
#[test]
fn argv0() {
    let ground = Ground::new("argv0");
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"status\"]]\notherwise = \"approve\"")));
    ground.run(&[ground.deploy().as_os_str(), "status".as_ref()]).assert_code(0);
    ground.assert_nothing_pending();
    let (finished, questions) = ground.run_answered(&attack(&ground, "argv0"), Answer::Approve);
    assert_all(&finished.stdout(), &["other-name", "empty-name", "slash-name", "no-name"], "ok");
    let asked: Vec<Vec<u8>> = questions.iter().map(|q| q.argv()[0].clone()).collect();
    for name in [&b"deploy-everything"[..], b"", b"/"] {
        assert!(asked.iter().any(|seen| seen == name), "{name:?} was not asked: {questions:#?}");
    }
    ground.assert_every_run_was_decided();
}

/// A file system of the machine that gives each hard link an inode of its own, with one number (overlayfs without
/// `index`, as under a container). The folder with the two names of one program.
fn linked_on_an_overlay(name: &str) -> (Ground, [PathBuf; 2]) {
    let ground = Ground::bare(name);
    let folder = |name: &str| {
        let folder = ground.root().join(name);
        fs::create_dir(&folder).expect("a folder");
        folder
    };
    let (lower, upper, work) = (folder("lower"), folder("upper"), folder("work"));
    fs::copy(ground.deploy(), lower.join("one")).expect("copy");
    fs::set_permissions(lower.join("one"), fs::Permissions::from_mode(0o755)).expect("mode");
    fs::hard_link(lower.join("one"), lower.join("two")).expect("root may link");
    let options = format!(
        "lowerdir={},upperdir={},workdir={},index=off",
        path_str(&lower),
        path_str(&upper),
        path_str(&work)
    );
    let merged = ground.root().join("merged");
    ground.mount(&["-t", "overlay", "overlay", "-o", &options], &merged);
    let names = ["one", "two"].map(|name| merged.join(name));
    let number = |path: &PathBuf| fs::metadata(path).expect("it is there").ino();
    assert_eq!(number(&names[0]), number(&names[1]), "so the guard knows them as one");
    (ground, names)
}

/// A rule for these names.
fn listing(ground: &Ground, names: &[PathBuf]) {
    ground.policy(
        &(ground.head()
            + &format!("[[exec]]\nname = \"linked\"\nfile = {names:?}\notherwise = \"approve\"\n")),
    );
    ground.enroll();
}

#[test]
fn both_listed_names_on_an_overlay_are_asked() {
    let (ground, names) = linked_on_an_overlay("overlay-links");
    listing(&ground, &names);
    for name in &names {
        let (finished, questions) = ground.run_answered(&[name], Answer::Approve);
        finished.assert_code(0);
        assert_eq!(questions.len(), 1, "{name:?}: {questions:#?}");
    }
    assert_eq!(ground.markers().len(), 2);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// The kernel does not stop it, so the guard ends it.
#[test]
fn an_unlisted_name_on_an_overlay_is_killed() {
    let (ground, names) = linked_on_an_overlay("overlay-link");
    listing(&ground, &names[..1]);
    ground.run(&[&names[1]]).assert_code(137);
    ground.assert_never_ran();
    let killed: Vec<_> = ground
        .records_of("tamper")
        .iter()
        .map(|record| record.payload["detail"]["killed"].to_string())
        .collect();
    assert!(killed.len() == 1 && killed[0].contains("outside of any hold"), "{killed:?}");
    ground.verify();
}
