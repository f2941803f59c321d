//! An exec that gains privilege is held although no rule names it, and what is missed does not run.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use ana_tests::{
    Ground,
    answers::Answer,
    machine::{admin, has, path_str},
    skip::skipped,
    sudoers::Sudoers,
};

const RULE: &str = "builtin:privilege";

fn set_user_id(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).unwrap();
}

/// The ground's own programs are in the agent's PATH.
fn in_path(ground: &Ground, command: &str) -> Vec<String> {
    let path = format!("PATH={}:/usr/bin:/bin", ground.root().join("bin").display());
    vec!["/usr/bin/env".into(), path, "/bin/sh".into(), "-c".into(), command.into()]
}

/// `ana-run` itself has this PATH: it is the agent's.
fn start(ground: &Ground, command: &str) -> ana_tests::Session {
    let mut launch = ground.launch(&in_path(ground, command));
    let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", ground.root().join("bin").display());
    launch.command().env("PATH", path);
    launch.start()
}

#[test]
fn sudo_asks_once_and_is_recorded_as_root_reached() {
    if !has("sudo") {
        return skipped("sudo_asks_once_and_is_recorded_as_root_reached", "no sudo");
    }
    let ground = Ground::new("privilege-sudo");
    let _leave = Sudoers::new();
    // What root does is not asked about again: sudo in sudo, passwd and su by root.
    let command = ["sudo", "-n", "sh", "-c", "id -u; sudo -n id -u; passwd --status root >/dev/null"];
    let mut session = ground.start(&command);
    let question = ground.question_of(&mut session);
    assert_eq!(question.rule, RULE);
    assert_eq!(question.operation["exec"]["ids"]["euid"], 0);
    assert_eq!(ground.records_of("root-reached").len(), 0);
    ground.approve(&question.id);
    let finished = session.finish().assert_code(0);
    assert_eq!(finished.stdout().trim(), "0\n0");
    let [reached] = &ground.records_of("root-reached")[..] else { panic!("{:?}", ground.records()) };
    assert_eq!(reached.payload["detail"]["operation_id"], question.id);
    assert_eq!(ground.decisions().len(), 1);
    // On the disk between the decision and the outcome.
    let events: Vec<String> = ground.records().iter().map(|record| record.event().to_owned()).collect();
    let at = |event: &str| events.iter().position(|other| other == event);
    assert!(at("decision") < at("root-reached") && at("root-reached") < at("session-end"), "{events:?}");
    ground.verify();
}

#[test]
fn denied_it_never_gets_it() {
    let ground = Ground::new("privilege-denied");
    let program = ground.install("marker", "helper");
    set_user_id(&program);
    let mut session = start(&ground, "helper now; echo status $?");
    let question = ground.question_of(&mut session);
    assert_eq!((question.rule.as_str(), question.args()), (RULE, vec!["now".to_owned()]));
    ground.deny(&question.id, "no");
    let finished = session.finish().assert_stdout("status 137");
    assert!(finished.stderr().contains("(rule \"builtin:privilege\""), "{}", finished.stderr());
    ground.assert_never_ran();
    assert!(ground.records_of("root-reached").is_empty());
    ground.verify();
}

#[test]
fn capabilities_and_groups_count() {
    let ground = Ground::new("privilege-kinds");
    let (capable, group) = (ground.install("marker", "capable"), ground.install("marker", "group"));
    admin("setcap", &["cap_net_raw=ep", path_str(&capable)]);
    admin("chgrp", &["shadow", path_str(&group)]);
    admin("chmod", &["2755", path_str(&group)]);
    let mut session = start(&ground, "capable; group");
    let question = ground.question_of(&mut session);
    assert_eq!(question.operation["exec"]["ids"]["capabilities"], "0000000000002000");
    ground.approve(&question.id);
    let question = ground.question_of(&mut session);
    let ids = &question.operation["exec"]["ids"];
    assert!(ids["egid"] != ids["gid"] && ids["capabilities"].is_null(), "{ids}");
    ground.approve(&question.id);
    session.finish().assert_code(0);
    assert_eq!(ground.markers().len(), 2);
    assert_eq!(ground.records_of("root-reached").len(), 1, "the group shadow is not root");
}

/// ssh-agent is set-group-ID only to be closed to its user's other processes; and where nothing can be gained, nothing is.
#[test]
fn what_gains_nothing_is_not_asked_about() {
    let ground = Ground::new("privilege-none");
    let script =
        "ssh-agent true && setpriv --no-new-privs passwd --status; exec setpriv --no-new-privs su -c true";
    let asked =
        ground.run_answered(&["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()], Answer::Approve).1;
    assert!(asked.is_empty(), "{asked:#?}");
    assert!(
        ground.decisions().is_empty() && ground.records_of("tamper").is_empty(),
        "{:#?}",
        ground.records()
    );
}

/// A set-user-ID program where nobody looked for one: the guard kills it before its first instruction.
#[test]
fn what_was_missed_is_killed() {
    let ground = Ground::new("privilege-missed");
    let program = ground.write("hidden/deep/helper", 0o755, "");
    fs::copy(ground.benign(), &program).unwrap();
    let run = |ground: &Ground| ground.run(&[program.as_os_str(), "x".as_ref()]);
    run(&ground).assert_code(0);
    ground.clear_markers();
    set_user_id(&program);
    assert_eq!(run(&ground).code(), 128 + libc::SIGKILL);
    ground.assert_never_ran();
    let [tamper] = &ground.records_of("tamper")[..] else { panic!("{:?}", ground.records()) };
    let killed = tamper.payload["detail"]["killed"].as_str().unwrap();
    assert!(killed.contains("gained privilege"), "{killed}");
    ground.verify();
}

#[test]
fn the_policy_may_say_otherwise() {
    let ground = Ground::new("privilege-policy");
    let program = ground.install("marker", "helper");
    set_user_id(&program);
    let with = |lines: &str| {
        ground.clear_markers();
        ground.policy(&(ground.head() + lines));
        start(&ground, "helper list; helper change").finish().code()
    };
    assert_eq!(with("[defaults]\nprivilege = \"deny\"\n"), 128 + libc::SIGKILL);
    ground.assert_never_ran();
    assert_eq!(with("[defaults]\nprivilege = \"allow\"\n"), 0);
    assert_eq!(ground.markers().len(), 2);
    assert_eq!(ground.records_of("root-reached").len(), 2);
    let rule = format!(
        "[[exec]]\nname = \"helper\"\nfile = [{:?}]\nallow = [[\"list\"]]\notherwise = \"deny\"\n",
        path_str(&program)
    );
    assert_eq!(with(&rule), 128 + libc::SIGKILL);
    assert_eq!(ground.markers().iter().map(|marker| marker.args().concat()).collect::<Vec<_>>(), ["list"]);
    assert_eq!(ground.records_of("root-reached").len(), 3);
    ground.verify();
}
