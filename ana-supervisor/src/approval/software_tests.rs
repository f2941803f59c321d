use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::{
    super::{
        assertion::{Expected, verify},
        authenticator::{Offer, Options},
        keyfile::folder_of,
        samples::*,
    },
    *,
};

#[test]
fn what_it_signs_is_verified() {
    for (passphrase, uv) in [(None, false), (Some("correct horse"), true)] {
        let (mut key, passkey) = software("alice", passphrase);
        let assertion = sign_with(&mut key, [9; 32], Verify::Presence);
        let offered = [passkey];
        let expected = Expected {
            challenge: [9; 32],
            origin: RP_ID,
            rp_id: RP_ID,
            verify: Verify::Presence,
            offered: &offered,
        };
        let verified = verify(&assertion, &expected).unwrap();
        assert_eq!(
            (verified.user_verified(), verified.sign_count(), verified.kind()),
            (uv, 0, Kind::Software)
        );
        assert!(verify(&assertion, &Expected { challenge: [8; 32], ..expected }).is_err());
    }
}

#[test]
fn a_file_keeps_the_key() {
    let folder = TempDir::new().unwrap();
    for passphrase in [None, Some("pass")] {
        let path = folder.path().join(format!("{}.key", passphrase.is_some()));
        let (file, registration) = SoftwarePasskey::generate(RP_ID, "alice", passphrase).unwrap();
        file.create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.contains("ENCRYPTED"), passphrase.is_some());
        let mut by_path = SoftwarePasskey::open(&path, says(passphrase)).unwrap();
        assert_eq!(by_path.registration().unwrap(), registration);
        let mut by_fd = SoftwarePasskey::from_file(File::open(&path).unwrap(), says(passphrase)).unwrap();
        assert_eq!(by_fd.registration().unwrap(), registration);
        assert!(
            matches!(file.create(&path), Err(KeyFileError::Io { action: "create", .. })),
            "it was overwritten"
        );
    }
}

#[test]
fn the_folder_that_is_synced_is_the_files() {
    assert_eq!(folder_of(Path::new("/etc/ana/one.key")), Path::new("/etc/ana"));
    assert_eq!(folder_of(Path::new("one.key")), Path::new("."));
}

#[test]
fn a_file_for_all_to_read_or_a_link_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key");
    SoftwarePasskey::generate(RP_ID, "alice", None).unwrap().0.create(&path).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(KeyFile::open(&link), Err(KeyFileError::Io { action: "open", .. })));
    assert!(matches!(KeyFile::open(folder.path()), Err(KeyFileError::NotAFile { .. })));
    // Whoever opens a pipe waits for its other end, unless he says that he does not.
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(KeyFile::open(&pipe), Err(KeyFileError::NotAFile { .. })));
    for mode in [0o640, 0o604, 0o620, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let refused = KeyFile::open(&path);
        assert!(matches!(refused, Err(KeyFileError::Mode { mode: said, .. }) if said == mode), "{mode:o}");
        let file = File::open(&path).unwrap();
        assert!(matches!(KeyFile::read(file, &path), Err(KeyFileError::Mode { .. })), "{mode:o}");
    }
}

#[test]
fn damaged_files_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key");
    let (file, _) = SoftwarePasskey::generate(RP_ID, "alice", None).unwrap();
    let good = serde_json::to_value(&file).unwrap();
    let put = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        KeyFile::open(&path)
    };
    put(&good.to_string()).unwrap();
    assert!(matches!(put(""), Err(KeyFileError::Parse { .. })));
    assert!(matches!(put(&" ".repeat(16 << 10)), Err(KeyFileError::Parse { .. })));
    assert!(matches!(put(&" ".repeat((16 << 10) + 1)), Err(KeyFileError::TooLarge { .. })));
    for (field, value) in [
        ("version", serde_json::json!(2)),
        ("rp_id", serde_json::json!("localhost")),
        ("credential_id", serde_json::json!("AAAA")),
        ("user_handle", serde_json::json!("=")),
        ("encrypted", serde_json::json!(true)),
        ("more", serde_json::json!(1)),
    ] {
        let mut changed = good.clone();
        changed[field] = value;
        assert!(put(&changed.to_string()).is_err(), "{field}");
    }
    let mut changed = good;
    changed["private_key"] =
        serde_json::json!("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let mut key = SoftwarePasskey::from_key_file(put(&changed.to_string()).unwrap(), says(None));
    assert!(matches!(key.registration(), Err(AuthenticatorError::KeyFile(KeyFileError::Key))));
}

#[test]
fn a_wrong_passphrase_signs_nothing() {
    let (file, _) = SoftwarePasskey::generate(RP_ID, "alice", Some("right")).unwrap();
    for wrong in ["", "Right", "right ", "wrong"] {
        assert!(matches!(file.unlock(Some(wrong)), Err(KeyFileError::WrongPassphrase)), "{wrong:?}");
    }
    assert!(matches!(file.unlock(None), Err(KeyFileError::Key)));
    let id = file.credential_id().to_owned();
    let mut key = SoftwarePasskey::from_key_file(file, says(None));
    let request = Request {
        challenge: [1; 32],
        rp_id: RP_ID,
        origin: RP_ID,
        allowed: vec![&id],
        verify: Verify::Presence,
    };
    assert!(matches!(key.sign(&request), Err(AuthenticatorError::Passphrase(_))));
}

/// The file says how much memory its passphrase costs: 128 bytes × block size × cost.
#[test]
fn a_file_that_asks_for_too_much_memory_is_not_unlocked() {
    use p256::pkcs8::EncodePrivateKey;
    use pkcs8::{
        LineEnding, PrivateKeyInfo,
        pkcs5::{pbes2, scrypt},
    };
    let der = SecretKey::from_slice(&[1; 32]).unwrap().to_pkcs8_der().unwrap();
    let file = SoftwarePasskey::generate(RP_ID, "alice", Some("pass")).unwrap().0;
    let unlocked = |block_size| {
        let cost = scrypt::Params::new(4, block_size, 1, 32).unwrap();
        let parameters = pbes2::Parameters::scrypt_aes256cbc(cost, &[2; 16], &[3; 16]).unwrap();
        let info = PrivateKeyInfo::try_from(der.as_bytes()).unwrap();
        let document = info.encrypt_with_params(parameters, "pass").unwrap();
        let mut changed = serde_json::to_value(&file).unwrap();
        changed["private_key"] =
            serde_json::json!(*document.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).unwrap());
        serde_json::from_value::<KeyFile>(changed).unwrap().unlock(Some("pass"))
    };
    unlocked(8).unwrap();
    assert!(matches!(unlocked(9), Err(KeyFileError::Key)));
}

#[test]
fn a_wiped_key_holds_no_byte() {
    let mut key = private_cose(&SecretKey::from_slice(&[1; 32]).unwrap());
    wipe(&mut key);
    let left: Vec<_> = key.params.iter().filter_map(|(_, value)| value.as_bytes()).collect();
    assert_eq!(left, [&[0_u8; 0]; 3]);
}

#[test]
fn its_model_is_a_uuid() {
    let registration = SoftwarePasskey::generate(RP_ID, "alice", None).unwrap().1;
    assert_eq!(registration.aaguid, "616e6120-736f-6674-7761-7265206b6579");
}

#[test]
fn it_says_what_it_cannot_do() {
    let (mut key, passkey) = software("alice", None);
    let request =
        |rp_id, allowed, verify| Request { challenge: [1; 32], rp_id, origin: RP_ID, allowed, verify };
    let id = passkey.credential_id.as_str();
    assert!(matches!(
        key.sign(&request(RP_ID, vec![id], Verify::Pin)),
        Err(AuthenticatorError::CannotVerify)
    ));
    assert!(matches!(
        key.sign(&request("ana:other", vec![id], Verify::Presence)),
        Err(AuthenticatorError::RpId { .. })
    ));
    assert!(matches!(
        key.sign(&request(RP_ID, vec!["AAAA"], Verify::Presence)),
        Err(AuthenticatorError::NotOffered)
    ));
}

#[test]
fn the_challenge_is_recomputed_from_what_is_rendered() {
    let (mut key, passkey) = software("alice", None);
    let operation = operation("01J");
    let challenge = operation.challenge().unwrap();
    let options = Options {
        operation,
        rp_id: RP_ID.to_owned(),
        origin: RP_ID.to_owned(),
        offered: vec![Offer {
            name: passkey.name.clone(),
            kind: Kind::Software,
            credential_id: passkey.credential_id.clone(),
            key_file: None,
        }],
        verify: Verify::Presence,
    };
    let assertion = key.assert(&options).unwrap();
    let offered = [passkey];
    let expected =
        Expected { challenge, origin: RP_ID, rp_id: RP_ID, verify: Verify::Presence, offered: &offered };
    verify(&assertion, &expected).unwrap();
    let text = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
    let pin =
        Options { operation: Operation { verify: Verify::Pin, ..options.operation.clone() }, ..options };
    assert!(matches!(key.assert(&pin), Err(AuthenticatorError::CannotVerify)));
}

use crate::operation::Operation;
