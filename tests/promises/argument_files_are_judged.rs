//! A file that an argument names is part of what a person is asked about: its content is shown, and a change of it after
//! the judgement denies.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    time::{Duration, Instant},
};

use ana_tests::{
    Ground,
    answers::{Answer, Question},
    machine::{admin, machine, path_str},
    records::bytes_of,
    wait,
};

/// (argument, path, sha256 if it could be read, not fixed), as the operation has them.
fn files(question: &Question) -> Vec<(u64, String, Option<String>, bool)> {
    let all = question.operation["exec"]["argument_files"].as_array().cloned().unwrap_or_default();
    let file = |value: &serde_json::Value| {
        (
            value["index"].as_u64().expect("an index"),
            String::from_utf8(bytes_of(&value["path"])).expect("UTF-8"),
            value["sha256"].as_str().map(str::to_owned),
            value["not_fixed"].as_bool().expect("a flag"),
        )
    };
    all.iter().map(file).collect()
}

/// The hash as another program computes it, base64url.
fn sha256(path: &Path) -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let said = admin("sha256sum", &[path_str(path)]);
    let hex = said.split(' ').next().expect("a hash");
    let bytes: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex"))
        .collect();
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn files_are_shown_with_their_hashes_however_they_are_named() {
    let ground = Ground::new("argument-files");
    let own = ground.write_home("deploy.yaml", 0o644, "replicas: 3\n");
    let roots = ground.write("etc/base.yaml", 0o644, "region: here\n");
    std::os::unix::fs::symlink(&roots, ground.home().join("link.yaml")).expect("a link");
    let script = format!(
        "exec {} -f deploy.yaml --base={} @deploy.yaml -fdeploy.yaml link.yaml . nothing",
        ground.deploy().display(),
        roots.display()
    );
    let mut session = ground.start(&["/bin/sh", "-c", &script]);
    let question = ground.question_of(&mut session);
    let (own_hash, roots_hash) = (Some(sha256(&own)), Some(sha256(&roots)));
    let expected = [
        (2, "deploy.yaml".to_owned(), own_hash.clone(), true),
        (3, path_str(&roots).to_owned(), roots_hash.clone(), false),
        (4, "deploy.yaml".to_owned(), own_hash.clone(), true),
        (5, "deploy.yaml".to_owned(), own_hash, true),
        // What the link leads to is root's; the link is not.
        (6, "link.yaml".to_owned(), roots_hash, true),
    ];
    assert_eq!(files(&question), expected, "{:#}", question.operation);
    ground.approve(&question.id);
    session.finish().assert_code(0);
    assert_eq!(ground.markers().len(), 1);
    ground.verify();
}

/// What is signed is what the person's side renders.
#[test]
fn the_prompt_shows_them() {
    let ground = Ground::new("argument-prompt");
    let own = ground.write_home("deploy.yaml", 0o644, "replicas: 3\n");
    let deploy = ground.deploy();
    let mut session = ground.start(&[path_str(&deploy), "deploy.yaml"]);
    let question = ground.question_of(&mut session);
    let approved = ground.try_approve(&question.id);
    assert!(approved.status.success());
    session.finish().assert_code(0);
    let record = ground.decisions().pop().expect("a decision");
    let file = &record.payload["operation"]["exec"]["argument_files"][0];
    assert_eq!(file["sha256"], sha256(&own).as_str(), "{:#}", record.payload);
}

/// Runs `deploy deploy.yaml`, changes something while the question waits, approves: it must not run.
#[track_caller]
fn a_change_denies(name: &str, change: impl FnOnce(&Ground)) {
    let ground = Ground::new(name);
    ground.write_home("deploy.yaml", 0o644, "replicas: 3\n");
    let deploy = ground.deploy();
    let mut session = ground.start(&[path_str(&deploy), "deploy.yaml", "later.yaml"]);
    let question = ground.question_of(&mut session);
    assert_eq!(files(&question).len(), 1, "{:#}", question.operation);
    change(&ground);
    ground.approve(&question.id);
    let finished = session.finish();
    assert_ne!(finished.code(), 0);
    finished.assert_stderr("a file was changed after it was judged");
    ground.assert_never_ran();
    ground.verify();
}

#[test]
fn a_file_that_is_rewritten_during_the_hold_denies() {
    a_change_denies("argument-rewritten", |ground| {
        fs::write(ground.home().join("deploy.yaml"), "replicas: 9\n").expect("written");
    });
}

#[test]
fn a_file_that_is_replaced_during_the_hold_denies() {
    a_change_denies("argument-replaced", |ground| {
        let fresh = ground.write_home("fresh", 0o644, "replicas: 9\n");
        fs::rename(fresh, ground.home().join("deploy.yaml")).expect("renamed");
    });
}

#[test]
fn a_file_that_appears_during_the_hold_denies() {
    a_change_denies("argument-appears", |ground| {
        ground.write_home("later.yaml", 0o644, "replicas: 9\n");
    });
}

/// Whoever asks has the agent's rights: root's secrets have no hash in a question.
#[test]
fn a_file_that_the_agent_may_not_read_is_not_read() {
    let ground = Ground::new("argument-secret");
    let secret = ground.write("etc/secret", 0o600, "swordfish\n");
    let hidden = ground.write("etc/hidden/file", 0o644, "swordfish\n");
    fs::set_permissions(ground.root().join("etc/hidden"), fs::Permissions::from_mode(0o700)).expect("mode");
    let of_group = ground.write("etc/group", 0o640, "of the group\n");
    chown(&of_group, None, Some(machine().gid.as_raw())).expect("chown");
    let command = [ground.deploy(), secret.clone(), hidden, of_group.clone(), "/proc/self/environ".into()];
    let mut session = ground.start(&command);
    let question = ground.question_of(&mut session);
    let expected = [
        (1, path_str(&secret).to_owned(), None, false),
        (3, path_str(&of_group).to_owned(), Some(sha256(&of_group)), false),
    ];
    assert_eq!(files(&question), expected, "{:#}", question.operation);
    ground.deny(&question.id, "");
    session.finish();
}

/// Nothing that is opened waits: no FIFO, no device, nothing too large, no protected file.
#[test]
fn what_is_no_plain_file_is_not_opened() {
    let ground = Ground::new("argument-odd");
    let fifo = ground.home().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    ground.give(&fifo);
    let large = ground.write_home("large", 0o644, "");
    fs::OpenOptions::new().write(true).open(&large).and_then(|f| f.set_len((64 << 20) + 1)).expect("large");
    let mut command = vec![ground.deploy(), fifo, "/dev/null".into(), large.clone(), ground.deploy()];
    command.extend((0..20).map(|number| ground.write_home(&format!("file-{number}"), 0o644, "x")));
    let began = Instant::now();
    let mut session = ground.start(&command);
    let question = ground.question_of(&mut session);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let files = files(&question);
    assert_eq!(files[0], (3, path_str(&large).to_owned(), None, true));
    assert_eq!((files[1].0, files[1].2.as_ref()), (4, None), "a protected file was opened: {files:?}");
    assert_eq!(files.len(), 22, "{files:?}");
    assert_eq!(files.iter().filter(|file| file.2.is_some()).count(), 16, "{files:?}");
    ground.approve(&question.id);
    session.finish().assert_code(0);
    ground.verify();
}

/// What is allowed is not looked at: it costs nothing.
#[test]
fn an_allowed_operation_has_none() {
    let ground = Ground::new("argument-allowed");
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"status\", \"**\"]]")));
    ground.write_home("deploy.yaml", 0o644, "replicas: 3\n");
    let deploy = ground.deploy();
    let command = [path_str(&deploy), "status", "deploy.yaml"];
    let (finished, questions) = ground.run_answered(&command, Answer::Approve);
    finished.assert_code(0);
    assert!(questions.is_empty());
    let record = ground.decisions().pop().expect("a decision");
    assert!(record.payload["operation"]["exec"].get("argument_files").is_none(), "{:#}", record.payload);
    wait::until("it ran", || (ground.markers().len() == 1).then_some(()));
}

/// A path that somebody serves and does not answer for holds up nobody: it is shown as what could not be read.
#[test]
fn a_stalled_path_costs_a_second() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use std::os::fd::AsRawFd;
    let ground = Ground::new("argument-stalled");
    let folder = ground.root().join("stalled");
    fs::create_dir(&folder).expect("a folder");
    // Nobody reads the requests, so that every lookup waits.
    let server = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("FUSE");
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", server.as_raw_fd());
    mount(Some("stalled"), &folder, Some("fuse"), MsFlags::empty(), Some(options.as_str())).expect("a mount");
    let command = [ground.deploy(), folder.join("file")];
    let mut session = ground.start(&command);
    let question = ground.question_of(&mut session);
    let expected = [(1, path_str(&folder.join("file")).to_owned(), None, true)];
    assert_eq!(files(&question), expected, "{:#}", question.operation);
    ground.approve(&question.id);
    session.finish().assert_code(0);
    assert_eq!(ground.markers().len(), 1);
    // The lookups come back with an error.
    drop(server);
    umount2(&folder, MntFlags::MNT_DETACH).expect("unmounted");
    ground.verify();
}
