//! What is judged is what runs, whatever another thread does to the bytes meanwhile.

use std::{ffi::OsString, time::Duration};

use ana_tests::{Ground, Marker};

/// `status` is allowed, `attack` is denied: a race needs no person.
fn judged(ground: &Ground) {
    ground.policy(
        &(ground.head()
            + &ground.rule("deny = [[\"attack\"]]\nallow = [[\"status\"]]\notherwise = \"approve\"")),
    );
}

fn rounds(default: u32) -> u32 {
    std::env::var("ANA_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn on_folder(ground: &Ground, name: &str, rounds: u32) -> Vec<OsString> {
    ground.attack(name, &[ground.root().join("bin").into_os_string(), rounds.to_string().into()])
}

fn on_program(ground: &Ground, name: &str, rounds: u32) -> Vec<OsString> {
    ground.attack(name, &[ground.deploy().into_os_string(), rounds.to_string().into()])
}

/// Runs of the protected program with the argument that a check beforehand would never have seen.
fn won(ground: &Ground) -> Vec<Marker> {
    ground.markers().into_iter().filter(|marker| marker.args() == ["attack"]).collect()
}

#[track_caller]
fn is_lost(ground: &Ground, command: &[OsString], rounds: u32) {
    judged(ground);
    let limit = Duration::from_secs(240) + Duration::from_millis(100) * rounds;
    let finished = ground.start(command).finish_within(limit).assert_code(0);
    assert!(finished.stdout().contains(&format!("rounds {rounds} ")), "{}", finished.stdout());
    let won = won(ground);
    assert!(won.is_empty(), "{won:#?}");
    let ran = ground.markers().len();
    assert!(ran > 0, "the protected program was never reached: {}", finished.stdout());
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn swap_without_ana() {
    let ground = Ground::bare("swap");
    ground.run_without_ana(&on_folder(&ground, "swap", 500)).assert_code(0);
    assert!(!won(&ground).is_empty(), "the race cannot be won here: the attack proves nothing");
}

#[test]
fn swap() {
    let ground = Ground::new("swap");
    let rounds = rounds(3000);
    is_lost(&ground, &on_folder(&ground, "swap", rounds), rounds);
}

#[test]
fn vfork_without_ana() {
    let ground = Ground::bare("vfork");
    ground.run_without_ana(&on_program(&ground, "vfork", 200)).assert_code(0);
    assert!(!won(&ground).is_empty(), "the race cannot be won here: the attack proves nothing");
}

#[test]
fn vfork() {
    let ground = Ground::new("vfork");
    let rounds = rounds(200);
    is_lost(&ground, &on_program(&ground, "vfork", rounds), rounds);
}

#[test]
fn double_exec_without_ana() {
    let ground = Ground::bare("double");
    ground.run_without_ana(&on_folder(&ground, "double-exec", 60)).assert_code(0);
    assert!(!won(&ground).is_empty(), "the second thread never wins: the attack proves nothing");
}

#[test]
fn double_exec() {
    let ground = Ground::new("double");
    let rounds = rounds(60);
    is_lost(&ground, &on_folder(&ground, "double-exec", rounds), rounds);
}

/// A listed path in a folder of the agent's, and the attack that puts a program there and executes it at once.
fn rename_exec(ground: &Ground, rounds: u32) -> (std::path::PathBuf, Vec<OsString>) {
    let listed = ground.write_home("own/deploy", 0o755, "");
    let arguments: [OsString; 3] = [listed.clone().into(), ground.benign().into(), rounds.to_string().into()];
    (listed, ground.attack("rename-exec", &arguments))
}

#[test]
fn rename_and_exec_without_ana() {
    let ground = Ground::bare("rename-exec");
    let (_, command) = rename_exec(&ground, 20);
    ground.run_without_ana(&command).assert_code(0).assert_stdout("rounds 20 ran 20");
}

/// What has just come to a listed path is killed by the guard as long as it is not marked, and judged from then on.
#[test]
fn rename_and_exec() {
    let ground = Ground::bare("rename-exec");
    let rounds = rounds(1000);
    let (listed, command) = rename_exec(&ground, rounds);
    // Patterns, so that it is not refused whatever its arguments are: each is held, or killed.
    let rule = format!(
        "[[exec]]\nname = \"own\"\nfile = [{listed:?}]\nallow = [[\"status\"]]\notherwise = \"deny\"\n"
    );
    ground.policy(&(ground.head() + &rule));
    ground.enroll();
    let limit = Duration::from_secs(240) + Duration::from_millis(100) * rounds;
    let told = ground.start(&command).finish_within(limit).assert_code(0).stdout();
    assert!(told.contains(&format!("rounds {rounds} ran 0 ")), "{told}");
    assert!(ground.all_markers().is_empty(), "{:#?}", ground.all_markers());
    let tampers = ground.records_of("tamper");
    let killed = |r: &&ana_tests::records::Record| r.payload["detail"]["killed"].is_string();
    let (killed, denied) = (tampers.iter().filter(killed).count(), ground.decisions().len());
    println!("{}; the guard killed {killed}, judged {denied}", told.trim());
    assert!(killed > 0 && killed + denied > 0, "nothing stopped them: {told}");
    ground.verify();
}
