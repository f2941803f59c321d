//! The real Claude Code, installed by npm into the build folder once.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::PathBuf,
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    ground::Ground,
    machine::{BASE, admin, assignment, path_str, target_dir},
};

/// The version that the tests were written with.
const PACKAGE: &str = "@anthropic-ai/claude-code@2.1.330";
/// The native program, from the package that npm picks for this platform.
const PROGRAM: &str = "node_modules/@anthropic-ai/claude-code-linux-x64/claude";

/// The path of a copy that every user can run.
pub fn program() -> PathBuf {
    let folder = target_dir().join("agents");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    let lock = File::create(folder.join("lock")).expect("the lock can be made");
    let lock = Flock::lock(lock, FlockArg::LockExclusive).expect("the lock can be taken");
    let built = folder.join(PROGRAM);
    if !built.exists() {
        // The package's own install script only links the program to a second name.
        admin(
            "npm",
            &[
                "install",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--prefix",
                path_str(&folder),
                PACKAGE,
            ],
        );
    }
    assert!(built.exists(), "npm installed no {}", built.display());
    // The checkout may lie where a user cannot go.
    let reachable = PathBuf::from(BASE).join("installed/claude");
    let same = fs::metadata(&reachable).is_ok_and(|m| fs::metadata(&built).is_ok_and(|b| b.len() == m.len()));
    if !same {
        fs::create_dir_all(PathBuf::from(BASE).join("installed")).expect("folder");
        let fresh = reachable.with_extension("new");
        fs::copy(&built, &fresh).expect("the program can be copied");
        fs::rename(&fresh, &reachable).expect("rename");
    }
    drop(lock);
    reachable
}

/// The command that starts Claude Code's own screen in the ground's home, past everything that it asks a newcomer.
pub fn interactive(ground: &Ground, url: &str) -> Vec<OsString> {
    let mut command = command(ground, url);
    let flag = command.iter().position(|word| word == "-p").expect("it is there");
    command.splice(flag..flag + 2, ["--permission-mode", "default"].map(OsString::from));
    let home = path_str(&ground.home()).to_owned();
    let known = serde_json::json!({
        "hasCompletedOnboarding": true,
        "theme": "dark",
        "numStartups": 5,
        "customApiKeyResponses": {"approved": ["dummy"], "rejected": []},
        "projects": {home: {"hasTrustDialogAccepted": true, "hasCompletedProjectOnboarding": true}},
    });
    ground.write_home(".claude.json", 0o600, &known.to_string());
    command
}

/// The command that lets Claude Code talk to the model at `url` for one prompt, with leave to use its Bash tool.
pub fn command(ground: &Ground, url: &str) -> Vec<OsString> {
    let settings = ground.write_home("settings.json", 0o644, "{\"permissions\":{\"allow\":[\"Bash(*)\"]}}");
    let mut command = vec![OsString::from("/usr/bin/env"), OsString::from("-i")];
    command.extend(ground.environment().iter().map(|(name, value)| assignment(name, value)));
    command.extend([
        assignment("ANTHROPIC_BASE_URL", url),
        assignment("ANTHROPIC_API_KEY", "dummy"),
        assignment("DISABLE_AUTOUPDATER", "1"),
        assignment("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ]);
    command.push(program().into_os_string());
    command.extend(["-p", "hi", "--settings"].map(OsString::from));
    command.push(settings.into_os_string());
    command
}
