//! What comes to a listed path and cannot be protected ends the session, and stalls nobody.

use std::{
    fs,
    os::{fd::AsRawFd, unix::fs::symlink},
    path::{Path, PathBuf},
};

use ana_tests::{Ground, Session, skip::skipped};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A shell in a session, told on its stdin what to do.
fn shell(ground: &Ground) -> Session {
    let mut session = ground.launch(&["/bin/sh"]).start_listening();
    session.say("echo the session runs");
    session.until_stdout("the session runs");
    session
}

/// The answering thread reads /proc: a mark there would have it wait for itself, and the whole host for it.
#[test]
fn a_path_that_the_agent_bends_into_proc_ends_the_session() {
    let ground = Ground::new("unprotectable");
    let listed = ground.write_home("bin/release.sh", 0o755, "#!/bin/sh\n");
    ground.policy(&(ground.head() + &format!("[[exec]]\nname = \"release\"\nfile = [{listed:?}]\n")));
    let mut session = shell(&ground);
    session.say(&format!("ln -sfn /proc/$$/cgroup {}; read never", listed.display()));
    session.until_stderr("a file on a proc file system cannot be protected");
    session.finish();
    let lost = ground.records_of("loss");
    assert!(lost.iter().any(|record| record.payload["detail"]["unprotected"].is_string()), "{lost:#?}");
    ground.verify();
}

/// A FUSE file system that nobody serves: whoever asks it anything waits for ever.
struct Silent(
    PathBuf,
    #[expect(dead_code, reason = "the file system lives as long as this is open")] fs::File,
);

impl Silent {
    fn mount(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("folder");
        let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("a FUSE device");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("ana-test"), &folder, Some("fuse"), MsFlags::empty(), Some(options.as_str()))
            .expect("mount");
        Self(folder, device)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).expect("unmount");
    }
}

#[test]
fn a_file_system_that_never_answers_stalls_nobody() {
    if !Path::new("/dev/fuse").exists() {
        skipped("a_file_system_that_never_answers_stalls_nobody", "no /dev/fuse");
        return;
    }
    let ground = Ground::new("silent");
    let silent = Silent::mount(ground.root().join("bin/silent"));
    let inside = silent.0.join("deploy");
    let rule = |file: &Path| ground.head() + &format!("[[exec]]\nname = \"deploy\"\nfile = [{file:?}]\n");
    ground.policy(&rule(&inside));
    ground.run(&["true"]).assert_code(125).assert_stderr("a file on a FUSE file system cannot be protected");

    let listed = ground.root().join("bin/tool");
    symlink("deploy", &listed).expect("link");
    ground.policy(&rule(&listed));
    let mut session = shell(&ground);
    symlink(&inside, ground.root().join("bin/next")).expect("link");
    fs::rename(ground.root().join("bin/next"), &listed).expect("rename");
    session.until_stderr("a file on a FUSE file system cannot be protected");
    session.hush();
    session.finish();
    let lost = ground.records_of("loss");
    assert!(lost.iter().any(|record| record.payload["detail"]["unprotected"].is_string()), "{lost:#?}");
    ground.verify();
}
