//! A program that gives privilege is asked about by whatever way it is reached, and what nobody found is killed.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use ana_tests::{
    Ground,
    answers::{Answer, Question},
    machine::{has, path_str},
    skip::skipped,
};

const RULE: &str = "builtin:privilege";

fn set_user_id(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).expect("mode");
}

/// Runs a shell whose PATH names the ground's own programs, and `ana-run` itself, because that PATH is the agent's.
fn answered(ground: &Ground, command: &str, answer: Answer) -> (ana_tests::Finished, Vec<Question>) {
    let path = format!("PATH={}:/usr/bin:/bin:/usr/sbin:/sbin", ground.root().join("bin").display());
    let mut launch = ground.launch(&["/usr/bin/env", &path, "/bin/sh", "-c", command]);
    launch.command().env("PATH", &path[5..]);
    ground.answered(launch.start(), answer, std::time::Duration::from_secs(120))
}

fn denied(ground: &Ground, command: &str) -> (ana_tests::Finished, Vec<Question>) {
    answered(ground, command, Answer::Deny)
}

fn killed(ground: &Ground) -> usize {
    let why = |record: &ana_tests::records::Record| {
        record.payload["detail"]["killed"].as_str().is_some_and(|why| why.contains("gained privilege"))
    };
    ground.records_of("tamper").iter().filter(|record| why(record)).count()
}

/// The file is the same whatever its name: asked each time.
#[test]
fn by_another_name() {
    let ground = Ground::new("privilege-name");
    let helper = ground.install("marker", "helper");
    set_user_id(&helper);
    let link = ground.root().join("elsewhere-link");
    fs::hard_link(&helper, &link).expect("root may link");
    ground.write_home("run", 0o755, &format!("#!{}\n", path_str(&link)));
    let mounted = ground.root().join("mounted");
    ground.mount(&["--bind", path_str(&ground.root().join("bin"))], &mounted);
    let command = format!(
        "{} link; echo $?; {} bound; echo $?; ./run script; echo $?",
        path_str(&link),
        path_str(&mounted.join("helper"))
    );
    let (finished, asked) = denied(&ground, &command);
    assert_eq!(finished.stdout(), "137\n137\n137\n", "{}", finished.stderr());
    // The third of a person's denials in a row is not asked any more, but refused.
    assert!(asked.len() >= 2 && asked.iter().all(|question| question.rule == RULE), "{asked:#?}");
    let refused: Vec<_> = ground.decisions().iter().filter(|d| d.denies()).map(|d| d.args()).collect();
    let script = [path_str(&link), "./run", "script"].map(str::to_owned);
    assert_eq!(refused[..2], [["link"], ["bound"]]);
    assert_eq!(refused[2][..], script[1..], "{script:?}");
    ground.assert_never_ran();
    ground.verify();
}

/// Where nobody looked for one: a copy by its name, by a script, and by a descriptor. The guard kills.
#[test]
fn where_nobody_looked() {
    let ground = Ground::new("privilege-hidden");
    let hidden = ground.write("hidden/deep/helper", 0o755, "");
    fs::copy(ground.benign(), &hidden).expect("copy");
    set_user_id(&hidden);
    ground.write_home("run", 0o755, &format!("#!{}\n", path_str(&hidden)));
    let command = format!(
        "{0} x; echo $?; ./run x; echo $?; exec 9<{0}; /proc/self/fd/9 x; echo $?",
        path_str(&hidden)
    );
    let (finished, asked) = denied(&ground, &command);
    assert_eq!(finished.stdout(), "137\n137\n137\n", "{}", finished.stderr());
    assert!(asked.is_empty(), "{asked:#?}");
    assert_eq!(killed(&ground), 3);
    ground.assert_never_ran();
    ground.verify();
}

/// Who may not gain gains nothing: not asked, not killed, and it has no privilege.
#[test]
fn without_new_privileges() {
    let ground = Ground::new("privilege-nnp");
    let helper = ground.install("marker", "helper");
    set_user_id(&helper);
    let (finished, asked) = denied(&ground, "setpriv --no-new-privs helper x; echo $?");
    assert_eq!(finished.stdout(), "marker: ran x\n0\n", "{}", finished.stderr());
    assert!(asked.is_empty() && killed(&ground) == 0, "{asked:#?}");
    ground.verify();
}

/// What changes groups and maps is set-user-ID itself.
#[test]
fn the_systems_own_helpers() {
    let ground = Ground::new("privilege-helpers");
    let namespaces = ground.with_namespaces("the_systems_own_helpers", "");
    if !namespaces {
        ground.policy(&ground.head());
    }
    let mut asked_for = 0;
    for (program, call) in [
        ("sg", "sg nogroup -c true; echo $?"),
        ("newgrp", "newgrp nogroup </dev/null; echo $?"),
        ("newuidmap", "unshare -U sleep 5 & newuidmap $! 0 100000 1; echo $?"),
        ("newgidmap", "unshare -U sleep 5 & newgidmap $! 0 100000 1; echo $?"),
    ] {
        if !namespaces && call.starts_with("unshare") {
            continue;
        }
        if !has(program) {
            skipped("the_systems_own_helpers", &format!("no {program}"));
            continue;
        }
        let (finished, asked) = denied(&ground, call);
        assert_eq!(finished.stdout(), "137\n", "{program}: {}", finished.stderr());
        assert_eq!(asked.len(), 1, "{program}: {asked:#?}");
        assert_eq!(asked[0].rule, RULE, "{program}");
        asked_for += 1;
    }
    assert!(asked_for > 0, "none of them is here");
    ground.verify();
}

/// An approval goes with the process and what it starts: what has no approved process above it is killed, before and after.
#[test]
fn an_approval_is_not_for_the_neighbours() {
    let ground = Ground::new("privilege-neighbour");
    let hidden = ground.write("hidden/deep/helper", 0o755, "");
    fs::copy(ground.benign(), &hidden).expect("copy");
    set_user_id(&hidden);
    let helper = ground.install("marker", "helper");
    set_user_id(&helper);
    let command =
        format!("{0} before; echo $?; helper approved; echo $?; {0} after; echo $?", path_str(&hidden));
    let (finished, asked) = answered(&ground, &command, Answer::Approve);
    assert_eq!(finished.stdout(), "137\nmarker: ran approved\n0\n137\n", "{}", finished.stderr());
    assert_eq!((asked.len(), killed(&ground)), (1, 2));
    ground.verify();
}
