//! A rule names a path, the kernel knows files: whatever comes to a listed path while a session runs is protected as soon
//! as it has been seen, and what was there stays protected.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use ana_tests::{
    Ground, Session,
    answers::Question,
    machine::{BASE, admin, has, linux, path_str},
    processes,
    skip::skipped,
    wait,
};
use serde_json::Value;

/// A shell in a session, told on its stdin what to do.
fn shell(ground: &Ground) -> Session {
    listening(ground.launch(&["/bin/sh"]).start_listening())
}

fn listening(mut session: Session) -> Session {
    session.say("echo the session runs");
    session.until_stdout("the session runs");
    session
}

/// The record that says what came to `path`; waits for it. `inode` 0: whatever is there.
fn news(ground: &Ground, what: &str, path: &Path, inode: u64) -> Value {
    let number = inode.to_string();
    let about = |detail: &Value| {
        detail["protected"] == what
            && detail["file"] == path_str(path)
            && (inode == 0 || detail["now"]["inode"] == number.as_str())
    };
    wait::until(&format!("{} has been {what} on the record", path.display()), || {
        let records = ground.records_of("tamper").into_iter();
        records.map(|record| record.payload["detail"].clone()).find(|detail| about(detail))
    })
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).ino()
}

/// Runs a command in the session's shell: it is asked, about this file.
fn is_asked(ground: &Ground, session: &mut Session, command: &str, file: u64) -> Question {
    session.say(&format!("{command}; echo ended: $?"));
    let question = ground.question_of(session);
    let exec = &question.operation["exec"];
    let judged = if exec["script"].is_null() { &exec["program"] } else { &exec["script"]["file"] };
    assert_eq!(judged["inode"], file.to_string(), "{command}: {question:#?}");
    question
}

/// The same; it is killed then. (A person's denials would make the session wait before it is asked again.)
fn is_held(ground: &Ground, session: &mut Session, command: &str, file: u64) {
    let before = session.stdout().matches("ended: ").count();
    let question = is_asked(ground, session, command, file);
    processes::end(question.pid());
    wait::until("the command has ended", || {
        (session.stdout().matches("ended: ").count() > before).then_some(())
    });
    assert!(session.stdout().ends_with("ended: 137\n"), "{}", session.stdout());
}

/// The session ends, and nothing protected ran in it.
#[track_caller]
fn ends_unrun(ground: &Ground, mut session: Session) {
    session.hush();
    session.finish();
    ground.assert_never_ran();
    ground.verify();
}

/// A listed script of the agent's own, which calls `benign honest`, and another one, which calls `benign evil`.
fn scripts(name: &str) -> (Ground, PathBuf, PathBuf) {
    let ground = Ground::new(name);
    let text = |word: &str| format!("#!/bin/sh\n{} {word}\n", ground.benign().display());
    let listed = ground.write_home("bin/release.sh", 0o755, &text("honest"));
    let own = ground.write_home("own.sh", 0o755, &text("evil"));
    ground.policy(&(ground.head() + &format!("[[exec]]\nname = \"release\"\nfile = [{listed:?}]\n")));
    (ground, listed, own)
}

/// Another program with the same work, ready to be moved.
fn fresh(ground: &Ground) -> PathBuf {
    ground.install("marker", "fresh")
}

#[test]
fn a_program_renamed_over_a_protected_one_is_held() {
    let ground = Ground::new("renamed-over");
    let second = ground.root().join("bin/second-name");
    fs::hard_link(ground.deploy(), &second).expect("root may link");
    let old = inode(&second);
    let mut session = shell(&ground);

    let fresh = fresh(&ground);
    let new = inode(&fresh);
    fs::rename(&fresh, ground.deploy()).expect("rename");
    let detail = news(&ground, "replaced", &ground.deploy(), new);
    assert_eq!(detail["before"]["inode"], old.to_string(), "{detail:#}");
    assert_eq!(detail["by"]["in_session"], false, "{detail:#}");
    assert_eq!(detail["by"]["pid"], std::process::id(), "{detail:#}");

    let question = is_asked(&ground, &mut session, path_str(&ground.deploy()), new);
    // Nobody wrote to it meanwhile: what was recorded is what is judged.
    assert_eq!(detail["now"]["sha256"], question.operation["exec"]["program"]["sha256"], "{detail:#}");
    ground.approve(&question.id);
    session.until_stdout("ended: 0");
    // What was there stays what the rule protects.
    is_held(&ground, &mut session, path_str(&second), old);
    session.hush();
    session.finish();
    assert_eq!(ground.markers().len(), 1);
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn a_file_that_appears_at_a_listed_path_is_held() {
    let ground = Ground::new("appears");
    let (later, below) = (ground.root().join("bin/later"), ground.root().join("bin/not/yet/there"));
    let rule = format!("[[exec]]\nname = \"later\"\nfile = [{later:?}, {below:?}]\n");
    ground.policy(&(ground.head() + &rule));
    let mut session = shell(&ground);
    let start = &ground.records_of("session-start")[0].payload["detail"];
    assert_eq!(start["missing_files"].as_array().map(Vec::len), Some(2), "{start:#}");
    let unwatched = start["unwatched_folders"].as_array().expect("there").iter().filter_map(Value::as_str);
    // Those above are the machine's: before Linux 6.6 an overlay, which its root may be, cannot be watched.
    let old = linux() < (6, 6);
    assert_eq!(unwatched.filter(|folder| !old || folder.starts_with(BASE)).count(), 0, "{start:#}");

    fs::rename(fresh(&ground), &later).expect("rename");
    news(&ground, "appeared", &later, inode(&later));
    is_held(&ground, &mut session, path_str(&later), inode(&later));

    // One folder after the other, and a copy instead of a rename: made, written, given its mode.
    fs::create_dir_all(below.parent().expect("folder")).expect("folders");
    fs::copy(ground.benign(), &below).expect("copy");
    fs::set_permissions(&below, fs::Permissions::from_mode(0o755)).expect("mode");
    news(&ground, "appeared", &below, inode(&below));
    is_held(&ground, &mut session, path_str(&below), inode(&below));
    ends_unrun(&ground, session);
}

/// A package with one program, installed into a root folder of its own by the real dpkg.
fn package(ground: &Ground, version: &str) {
    let (tree, root) = (ground.root().join(format!("tree-{version}")), ground.root().join("root"));
    let program = tree.join("usr/bin/deploy");
    fs::create_dir_all(tree.join("DEBIAN")).expect("folder");
    fs::create_dir_all(program.parent().expect("folder")).expect("folder");
    fs::copy(ground.benign(), &program).expect("copy");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    let control = format!(
        "Package: ana-test-deploy\nVersion: {version}\nArchitecture: all\nMaintainer: ana <ana@localhost>\n\
         Description: a program that a test protects\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).expect("control");
    let file = ground.root().join(format!("deploy-{version}.deb"));
    admin("dpkg-deb", &["--root-owner-group", "-Znone", "--build", path_str(&tree), path_str(&file)]);
    for folder in ["info", "updates", "triggers"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(folder)).expect("folder");
    }
    let status = root.join("var/lib/dpkg/status");
    fs::OpenOptions::new().create(true).append(true).open(status).expect("dpkg's state");
    let (root, log) = (format!("--root={}", root.display()), format!("--log={}/dpkg.log", root.display()));
    admin("dpkg", &[&root, &log, "--install", path_str(&file)]);
}

#[test]
fn an_upgraded_package_is_held() {
    if !has("dpkg") || !has("dpkg-deb") {
        skipped("an_upgraded_package_is_held", "no dpkg");
        return;
    }
    let ground = Ground::new("upgrade");
    package(&ground, "1");
    let program = ground.root().join("root/usr/bin/deploy");
    let kept = ground.root().join("root/usr/bin/kept");
    fs::hard_link(&program, &kept).expect("root may link");
    let old = inode(&program);
    ground.policy(&(ground.head() + &format!("[[exec]]\nname = \"deploy\"\nfile = [{program:?}]\n")));
    let mut session = shell(&ground);

    package(&ground, "2");
    let new = inode(&program);
    assert_ne!(new, old, "dpkg puts a new file there");
    let detail = news(&ground, "replaced", &program, new);
    assert_ne!(detail["by"]["in_session"], true, "{detail:#}");
    is_held(&ground, &mut session, path_str(&program), new);
    is_held(&ground, &mut session, path_str(&kept), old);
    ends_unrun(&ground, session);
}

#[test]
fn a_folder_renamed_into_the_place_of_another_is_held() {
    let ground = Ground::new("folder");
    let bin = ground.root().join("bin");
    let program = |app: &str| bin.join(app).join("sub/deploy");
    for app in ["app", "next"] {
        fs::create_dir_all(bin.join(app).join("sub")).expect("folder");
        fs::rename(fresh(&ground), program(app)).expect("rename");
    }
    let (old, new) = (inode(&program("app")), inode(&program("next")));
    let listed = program("app");
    ground.policy(&(ground.head() + &format!("[[exec]]\nname = \"deploy\"\nfile = [{listed:?}]\n")));
    let mut session = shell(&ground);

    fs::rename(bin.join("app"), bin.join("last")).expect("rename");
    fs::rename(bin.join("next"), bin.join("app")).expect("rename");
    news(&ground, "replaced", &listed, new);
    is_held(&ground, &mut session, path_str(&listed), new);
    is_held(&ground, &mut session, path_str(&program("last")), old);

    // What is replaced inside of the new folder is seen as well.
    fs::rename(fresh(&ground), &listed).expect("rename");
    let newest = inode(&listed);
    news(&ground, "replaced", &listed, newest);
    is_held(&ground, &mut session, path_str(&listed), newest);
    ends_unrun(&ground, session);
}

/// No folder tells of a mount.
#[test]
fn what_is_mounted_over_a_folder_is_held() {
    let ground = Ground::new("mounted-over");
    let folder = ground.root().join("bin/app");
    let listed = folder.join("deploy");
    fs::create_dir(&folder).expect("folder");
    fs::rename(fresh(&ground), &listed).expect("rename");
    let old = inode(&listed);
    ground.policy(&(ground.head() + &format!("[[exec]]\nname = \"deploy\"\nfile = [{listed:?}]\n")));
    let mut session = shell(&ground);

    ground.mount(&["-t", "tmpfs", "tmpfs"], &folder);
    let detail = news(&ground, "removed", &listed, 0);
    assert_eq!(detail["before"]["inode"], old.to_string(), "{detail:#}");
    fs::copy(ground.benign(), &listed).expect("copy");
    fs::set_permissions(&listed, fs::Permissions::from_mode(0o755)).expect("mode");
    news(&ground, "appeared", &listed, inode(&listed));
    // Whether the session sees the mount or not: a protected file is what it finds.
    session.say(&format!("{}; echo ended: $?", listed.display()));
    let question = ground.question_of(&mut session);
    ground.deny(&question.id, "the test denies it");
    session.until_stdout("ended: 137");
    ends_unrun(&ground, session);
}

/// As update-alternatives(1) does it: a new link is renamed over the old one.
#[test]
fn what_a_retargeted_link_leads_to_is_held() {
    let ground = Ground::new("link");
    let bin = ground.root().join("bin");
    for version in ["v1", "v2"] {
        fs::create_dir(bin.join(version)).expect("folder");
        fs::rename(fresh(&ground), bin.join(version).join("tool")).expect("rename");
    }
    let listed = bin.join("tool");
    symlink("alternative", &listed).expect("link");
    symlink("v1/tool", bin.join("alternative")).expect("link");
    ground.policy(&(ground.head() + &format!("[[exec]]\nname = \"tool\"\nfile = [{listed:?}]\n")));
    let mut session = shell(&ground);

    symlink("v2/tool", bin.join("alternative.new")).expect("link");
    fs::rename(bin.join("alternative.new"), bin.join("alternative")).expect("rename");
    let new = inode(&bin.join("v2/tool"));
    news(&ground, "replaced", &listed, new);
    is_held(&ground, &mut session, path_str(&listed), new);
    is_held(&ground, &mut session, path_str(&bin.join("v1/tool")), inode(&bin.join("v1/tool")));
    // And in the folder that it leads to now.
    fs::rename(fresh(&ground), bin.join("v2/tool")).expect("rename");
    let newest = inode(&listed);
    news(&ground, "replaced", &listed, newest);
    is_held(&ground, &mut session, path_str(&listed), newest);
    ends_unrun(&ground, session);
}

#[test]
fn a_script_that_the_agent_puts_over_a_listed_one_is_held() {
    let (ground, listed, own) = scripts("own-script");
    let new = inode(&own);
    let mut session = shell(&ground);

    session.say(&format!("mv {} {}", own.display(), listed.display()));
    let detail = news(&ground, "replaced", &listed, new);
    // Gone before it could be looked at, or seen for what it is.
    assert_ne!(detail["by"]["in_session"], false, "{detail:#}");
    is_held(&ground, &mut session, path_str(&listed), new);
    // An interpreter that opens it is asked about, too, and fails to open it.
    let question = is_asked(&ground, &mut session, &format!("sh {}", listed.display()), new);
    ground.deny(&question.id, "the test denies it");
    session.until_stdout("ended: 2");
    session.hush();
    session.finish();
    assert_eq!(ground.all_markers(), []);
    ground.verify();
}

fn unlinked(ground: &Ground) -> Vec<OsString> {
    ground.attack("unlinked", &[ground.deploy()])
}

#[test]
fn unlinked_without_ana() {
    let ground = Ground::bare("unlinked");
    let mut command = ground.without_ana(&unlinked(&ground));
    let mut session = Session::of(command.stdin(std::process::Stdio::piped()));
    session.until_stdout("ready");
    fs::remove_file(ground.deploy()).expect("unlink");
    session.say("go");
    session.finish().assert_code(0);
    assert_eq!(ground.markers().len(), 1);
}

#[test]
fn a_protected_program_that_was_unlinked_is_held() {
    let ground = Ground::new("unlinked");
    let second = ground.root().join("bin/second-name");
    fs::hard_link(ground.deploy(), &second).expect("root may link");
    let file = inode(&second);
    for way in ["descriptor", "hard link"] {
        let mut session = match way {
            "descriptor" => ground.launch(&unlinked(&ground)).start_listening(),
            _ => ground.launch(&[&second]).start_listening(),
        };
        if way == "descriptor" {
            session.until_stdout("ready");
            fs::remove_file(ground.deploy()).expect("unlink");
            session.say("go");
        }
        let question = ground.question_of(&mut session);
        assert_eq!(question.operation["exec"]["program"]["inode"], file.to_string(), "{question:#?}");
        ground.deny(&question.id, "the test denies it");
        session.finish().assert_code(137);
        // The next session protects what is at the path, so the path has to lead there again.
        fs::hard_link(&second, ground.deploy()).ok();
    }
    ground.assert_never_ran();
    ground.verify();
}

/// A file's number is free again once the file is gone: then it names an innocent one.
#[test]
fn an_innocent_file_never_gets_a_protected_ones_number() {
    let ground = Ground::bare("number");
    if !Path::new("/dev/loop-control").exists() {
        skipped("an_innocent_file_never_gets_a_protected_ones_number", "no loop devices");
        return;
    }
    let (image, disk) = (ground.root().join("image"), ground.root().join("disk"));
    fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("a sparse file");
    admin("mkfs.ext4", &["-q", "-N", "64", path_str(&image)]);
    ground.mount(&["-o", "loop", path_str(&image)], &disk);
    let program = |name: &str| {
        fs::copy(ground.benign(), disk.join(name)).expect("copy");
        fs::set_permissions(disk.join(name), fs::Permissions::from_mode(0o755)).expect("mode");
        inode(&disk.join(name))
    };
    // So it is without a session.
    let number = program("deploy");
    fs::remove_file(disk.join("deploy")).expect("unlink");
    assert_eq!(program("deploy"), number, "this file system uses a free number again at once");

    let listed = disk.join("deploy");
    ground.policy(&(ground.head() + &format!("[[exec]]\nname = \"deploy\"\nfile = [{listed:?}]\n")));
    let mut session = shell(&ground);
    fs::remove_file(&listed).expect("unlink");
    assert_ne!(program("innocent"), number);
    // Every number that the file system has left.
    let made = (0..)
        .map(|n| disk.join(format!("file-{n}")))
        .map_while(|path| fs::write(&path, "").is_ok().then_some(path));
    let numbers: Vec<u64> = made.map(|path| inode(&path)).collect();
    assert!(numbers.len() > 30 && !numbers.contains(&number), "{number} in {numbers:?}");
    session.say(&format!("{} innocent; echo ended: $?", disk.join("innocent").display()));
    session.until_stdout("ended: 0");
    ground.assert_nothing_pending();
    session.hush();
    session.finish();
    assert_eq!(ground.markers().len(), 1);
    ground.verify();
}

/// A link of the agent's does not put a program under the rule of that link.
#[test]
fn a_link_of_the_agents_does_not_change_which_rule_judges() {
    let ground = Ground::new("bent");
    let own = ground.home().join("bin/own");
    ground.write_home("bin/other", 0o755, "");
    let lax = format!("[[exec]]\nname = \"lax\"\nfile = [{own:?}]\nallow = [[\"**\"]]\n");
    ground.policy(&(ground.head() + &lax + &ground.rule("otherwise = \"approve\"")));
    // Before the session, and in it.
    symlink(ground.deploy(), &own).expect("link");
    let mut session = shell(&ground);
    let question = is_asked(&ground, &mut session, path_str(&own), inode(&ground.deploy()));
    assert_eq!(question.operation["rule"], "deploy");
    ground.deny(&question.id, "the test denies it");
    session.until_stdout("ended: 137");

    fs::rename(fresh(&ground), ground.deploy()).expect("rename");
    news(&ground, "replaced", &ground.deploy(), inode(&ground.deploy()));
    session.say(&format!("ln -sfn {0} {1}.new; mv -T {1}.new {1}", ground.deploy().display(), own.display()));
    let question = is_asked(&ground, &mut session, path_str(&own), inode(&ground.deploy()));
    assert_eq!(question.operation["rule"], "deploy");
    ground.deny(&question.id, "the test denies it");
    ends_unrun(&ground, session);
}

/// A hundred thousand files in the same folder, made by four processes while the listed file is replaced.
#[test]
fn a_flood_of_files_hides_no_replacement() {
    let (ground, listed, own) = scripts("flood-of-files");
    let new = inode(&own);
    let mut session = shell(&ground);
    let bin = ground.home().join("bin");
    session.say(&format!("cd {}", bin.display()));
    for part in 0..4 {
        session.say(&format!("seq -f {part}-%.0f 25000 | xargs touch &"));
    }
    wait::until("the flood has begun", || {
        (fs::read_dir(&bin).expect("folder").count() > 20_000).then_some(())
    });
    session.say(&format!("mv {} {}", own.display(), listed.display()));
    news(&ground, "replaced", &listed, new);
    session.say("wait; echo the flood is over");
    is_held(&ground, &mut session, path_str(&listed), new);
    assert_eq!(fs::read_dir(&bin).expect("folder").count(), 100_001);
    session.hush();
    session.finish();
    assert_eq!(ground.all_markers(), []);
    ground.verify();
}

/// Between a replacement and its protection lies a moment: it is measured here, and it always ends.
#[test]
fn the_window_of_a_replacement_closes() {
    let ground = Ground::new("window");
    let listed = ground.write_home("bin/release.sh", 0o755, "#!/bin/sh\n");
    ground.policy(&(ground.head() + &format!("[[exec]]\nname = \"release\"\nfile = [{listed:?}]\n")));
    let rounds = 50;
    let finished =
        ground.run(&ground.attack("window", &[listed.into_os_string(), rounds.to_string().into()]));
    let said = finished.stdout();
    println!("{said}");
    assert!(said.contains(&format!("closed {rounds} of {rounds}, ")), "{said}\n{}", finished.stderr());
    let replaced =
        ground.records_of("tamper").into_iter().filter(|r| r.payload["detail"]["protected"] == "replaced");
    // Replacements that follow each other faster than they are seen are seen as one.
    assert!(replaced.count() > rounds / 2);
    ground.verify();
}
