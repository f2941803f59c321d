use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use tempfile::TempDir;

use super::{super::samples::*, *};
use crate::approval::{
    assertion::AssertionError,
    assertion::{Expected, verify},
    counters::{CounterError, Counters, Stored},
};

fn list_of(folder: &TempDir) -> PathBuf {
    folder.path().join("passkeys.json")
}

fn state_of(folder: &TempDir) -> State {
    State::open(Some(folder.path())).unwrap()
}

fn two() -> Passkeys {
    list(vec![Token::new("one").passkey, EdToken::new("two").passkey])
}

#[test]
fn what_is_saved_is_loaded() {
    let folder = TempDir::new().unwrap();
    let state = state_of(&folder);
    assert_eq!(Passkeys::load_from(&list_of(&folder)).unwrap(), None);
    assert_eq!(Passkeys::load(&state).unwrap(), None);
    for list in [two(), list(vec![Token::new("one").passkey]), list(vec![])] {
        list.save(&state).unwrap();
        assert_eq!(Passkeys::load_from(&list_of(&folder)).unwrap().as_ref(), Some(&list));
        assert_eq!(Passkeys::load(&state).unwrap(), Some(list));
    }
}

#[test]
fn a_list_that_cannot_be_saved_leaves_the_old_one() {
    let folder = TempDir::new().unwrap();
    two().save(&state_of(&folder)).unwrap();
    let mut wrong = two();
    wrong.passkeys[0].name = "a\u{1b}[2J".to_owned();
    assert!(matches!(wrong.save(&state_of(&folder)), Err(PasskeysError::Invalid { .. })));
    assert_eq!(Passkeys::load_from(&list_of(&folder)).unwrap(), Some(two()));
}

#[test]
fn a_list_that_others_can_write_or_a_link_is_refused() {
    let folder = TempDir::new().unwrap();
    two().save(&state_of(&folder)).unwrap();
    for mode in [0o664, 0o646, 0o666] {
        fs::set_permissions(list_of(&folder), fs::Permissions::from_mode(mode)).unwrap();
        let refused = Passkeys::load_from(&list_of(&folder));
        assert!(
            matches!(refused, Err(PasskeysError::Mode { mode: said, .. }) if said == mode),
            "{mode:o}: {refused:?}"
        );
    }
    let link = folder.path().join("link.json");
    std::os::unix::fs::symlink(list_of(&folder), &link).unwrap();
    assert!(matches!(Passkeys::load_from(&link), Err(PasskeysError::Io { action: "open", .. })));
    assert!(matches!(Passkeys::load_from(folder.path()), Err(PasskeysError::NotAFile { .. })));
}

/// Whoever opens a pipe waits for its other end, unless he says that he does not.
#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let folder = TempDir::new().unwrap();
    nix::unistd::mkfifo(&list_of(&folder), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(Passkeys::load_from(&list_of(&folder)), Err(PasskeysError::NotAFile { .. })));
}

#[test]
fn a_wrong_list_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let good = serde_json::to_value(two()).unwrap();
    let put = |value: &serde_json::Value| {
        fs::write(list_of(&folder), value.to_string()).unwrap();
        Passkeys::load_from(&list_of(&folder)).map_err(|error| {
            if let PasskeysError::Invalid { source, .. } = error {
                source.to_string()
            } else {
                error.to_string()
            }
        })
    };
    put(&good).unwrap();
    let one = &good["passkeys"][0];
    for (pointer, value, says) in [
        ("/version", serde_json::json!(2), "version is 2"),
        ("/rp_id", serde_json::json!("localhost"), "relying party id"),
        ("/rp_id", serde_json::json!("ana:a/b"), "relying party id"),
        ("/origin", serde_json::json!("https://evil.example"), "origin"),
        ("/passkeys/0/name", serde_json::json!(""), "not a name"),
        ("/passkeys/0/name", serde_json::json!("-n"), "not a name"),
        ("/passkeys/1/name", one["name"].clone(), "two passkeys have the name"),
        ("/passkeys/1/credential_id", one["credential_id"].clone(), "two passkeys have the credential id"),
        ("/passkeys/0/credential_id", serde_json::json!("AA"), "credential id"),
        ("/passkeys/0/public_key", serde_json::json!("AA"), "public key"),
        ("/passkeys/0/bs", serde_json::json!(true), "bs without be"),
        ("/passkeys/0/kind", serde_json::json!("magic"), "not a list"),
    ] {
        let mut changed = good.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        let error = put(&changed).unwrap_err();
        assert!(error.contains(says), "{pointer}: {error}");
    }
    let many = |count: usize| list((0..count).map(|n| Token::new(&n.to_string()).passkey).collect());
    many(PASSKEYS_MAX).validate().unwrap();
    assert!(matches!(many(PASSKEYS_MAX + 1).validate(), Err(Invalid::TooMany)));
    fs::write(list_of(&folder), "").unwrap();
    assert!(matches!(Passkeys::load_from(&list_of(&folder)), Err(PasskeysError::Parse { .. })));
    fs::write(list_of(&folder), vec![b' '; 1 << 20]).unwrap();
    assert!(matches!(Passkeys::load_from(&list_of(&folder)), Err(PasskeysError::Parse { .. })));
    fs::write(list_of(&folder), vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(matches!(Passkeys::load_from(&list_of(&folder)), Err(PasskeysError::TooLarge { .. })));
    assert!(Passkeys::new("").is_err() && Passkeys::new("a b").is_err() && Passkeys::new("h\u{e9}").is_err());
}

#[test]
fn two_sessions_do_not_take_one_counter_twice() {
    let folder = TempDir::new().unwrap();
    let token = Token::new("one");
    two().save(&state_of(&folder)).unwrap();
    let offered = [token.passkey.clone()];
    let expected = Expected {
        challenge: [1; 32],
        origin: RP_ID,
        rp_id: RP_ID,
        verify: crate::operation::Verify::Presence,
        offered: &offered,
    };
    let client_data = super::super::client_data::encode(&[1; 32], RP_ID);
    let verified =
        verify(&token.sign_parts(&authenticator_data(RP_ID, 1, 5), &client_data), &expected).unwrap();
    let (mut first, mut second) =
        (Stored::new(Arc::new(state_of(&folder))), Stored::new(Arc::new(state_of(&folder))));
    first.store(&verified).unwrap();
    assert!(matches!(
        second.store(&verified),
        Err(CounterError::WentBack(AssertionError::SignCount { stored: 5, .. }))
    ));
    assert_eq!(Passkeys::load_from(&list_of(&folder)).unwrap().unwrap().passkeys[0].sign_count, 5);
}
