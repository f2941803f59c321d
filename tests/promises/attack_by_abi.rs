//! With `i386 = true` 32-bit programs run in a session: what they execute is held, and the base filter holds for their
//! system calls, too.

use std::ffi::OsString;

use ana_tests::{
    Ground,
    answers::Answer,
    attempt::{assert_all, assert_none_granted, attempts},
};

const REFUSED: [&str; 7] =
    ["ptrace", "vm-readv", "vm-writev", "pidfd-getfd", "io-uring", "clone-fs", "listener"];

fn abi(ground: &Ground, what: &str) -> Vec<OsString> {
    ground.attack("abi", &[ground.deploy().into_os_string(), what.into()])
}

fn with_i386(ground: &Ground) {
    ground.policy(&(ground.head() + "[session]\ni386 = true\n" + &ground.rule("otherwise = \"approve\"")));
}

/// Whether this kernel has the calls at all.
fn no_i386(ground: &Ground, test: &str) -> bool {
    let finished = ground.run_without_ana(&abi(ground, "i386-calls"));
    let told = attempts(&finished.stdout());
    let missing = told.get("ptrace").is_none_or(|word| word == "ENOSYS");
    if missing {
        ana_tests::skip::skipped(test, "this kernel runs no 32-bit system calls");
    }
    missing
}

#[test]
fn i386_calls_without_ana() {
    let ground = Ground::bare("i386-calls");
    if no_i386(&ground, "i386_calls_without_ana") {
        return;
    }
    let told = attempts(&ground.run_without_ana(&abi(&ground, "i386-calls")).stdout());
    for name in REFUSED {
        let word = told.get(name).unwrap_or_else(|| panic!("{name} was not tried: {told:#?}"));
        assert!(!["EPERM", "ENOSYS"].contains(&word.as_str()), "{name}: {word}");
    }
}

#[test]
fn the_filter_holds_for_i386() {
    let ground = Ground::new("i386-calls");
    if no_i386(&ground, "the_filter_holds_for_i386") {
        return;
    }
    with_i386(&ground);
    let finished = ground.run(&abi(&ground, "i386-calls"));
    assert_all(&finished.stdout(), &REFUSED, "EPERM");
    assert_all(&finished.stdout(), &["clone3", "socketcall"], "ENOSYS");
    assert_all(&finished.stdout(), &["socket-alg"], "EAFNOSUPPORT");
}

#[test]
fn an_i386_exec_is_held() {
    let ground = Ground::new("i386-held");
    if no_i386(&ground, "an_i386_exec_is_held") {
        return;
    }
    with_i386(&ground);
    let (finished, questions) = ground.run_answered(&abi(&ground, "i386"), Answer::Deny);
    assert_eq!((finished.code(), questions.len()), (137, 1), "{questions:#?}");
    ground.assert_never_ran();
    let (finished, questions) = ground.run_answered(&abi(&ground, "i386"), Answer::Approve);
    assert_eq!((finished.code(), questions.len()), (0, 1), "{questions:#?}");
    assert_eq!(ground.markers()[0].args(), ["i386"]);
    // x32 stays away.
    let finished = ground.run(&abi(&ground, "x32"));
    assert_none_granted(&finished.stdout(), &["x32-execve"]);
    ground.assert_every_run_was_decided();
    ground.verify();
}
