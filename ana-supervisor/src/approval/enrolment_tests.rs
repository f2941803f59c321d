use std::{fs, os::unix::fs::chown, path::Path};

use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{
    super::{
        keyfile::KeyFile,
        samples::*,
        software::{AskPassphrase, SoftwarePasskey},
    },
    *,
};

/// A software passkey to be enrolled, as the command line has it.
struct Wish<'a> {
    name: &'a str,
    key_file: &'a Path,
    with: Option<&'a Path>,
    passphrase: Option<Zeroizing<String>>,
}

fn wish<'a>(name: &'a str, key_file: &'a Path, with: Option<&'a Path>) -> Wish<'a> {
    Wish { name, key_file, with, passphrase: None }
}

fn enrol(list: &Passkeys, wish: &Wish<'_>, ask: fn(&Path) -> AskPassphrase) -> Result<Enrolled, EnrolError> {
    let mut by = authoriser(list, wish.with, &ask)?;
    let key_file = KeyFileWish { key_file: wish.key_file, passphrase: wish.passphrase.clone() };
    let by = by.as_mut().map(|by| by as &mut dyn Authenticator);
    super::enrol(
        list,
        super::Wish { name: wish.name, approver: "bob" },
        &mut NewSoftware::new(key_file, ask),
        by,
    )
}

fn no_terminal(_: &Path) -> AskPassphrase {
    says(None)
}

#[test]
fn the_first_is_roots_and_the_second_needs_the_first() {
    let folder = TempDir::new().unwrap();
    let (one, two) = (folder.path().join("one.key"), folder.path().join("two.key"));
    let mut list = list(vec![]);
    let first = enrol(&list, &wish("one", &one, None), no_terminal).unwrap();
    assert!(first.authorised_by.is_none());
    assert_eq!(*first.possession.challenge(), first.enrolment.challenge().unwrap());
    assert_eq!(first.enrolment.host, "build-1.example");
    list.passkeys.push(first.passkey);
    list.validate().unwrap();

    let second = enrol(&list, &wish("two", &two, Some(&one)), no_terminal).unwrap();
    let by = second.authorised_by.as_ref().unwrap();
    assert_eq!((by.passkey(), *by.challenge()), ("one", second.enrolment.challenge().unwrap()));
    assert_eq!(second.enrolment.public_key, second.passkey.public_key);

    // The remembered key file does it, too.
    let third = enrol(&list, &wish("three", &folder.path().join("three.key"), None), no_terminal).unwrap();
    assert_eq!(third.authorised_by.unwrap().passkey(), "one");
    // Gone, nobody can, and nothing is made.
    fs::remove_file(&one).unwrap();
    let four = folder.path().join("four.key");
    let error = enrol(&list, &wish("four", &four, None), no_terminal).unwrap_err();
    assert!(matches!(error, EnrolError::NeedsAuthorisation { .. }), "{error}");
    assert!(!four.exists());
}

/// A file can be copied by whoever is root for a moment; a security key cannot.
#[test]
fn where_there_is_a_security_key_a_file_authorises_nothing() {
    let folder = TempDir::new().unwrap();
    let one = folder.path().join("one.key");
    let mut list = list(vec![]);
    let first = enrol(&list, &wish("one", &one, None), no_terminal).unwrap().passkey;
    list.passkeys.push(first.clone());
    assert_eq!(Authority::over(&list), Authority::Software);
    list.passkeys.push(Passkey {
        kind: Kind::SecurityKey,
        name: "usb".to_owned(),
        credential_id: b64([9; 32]),
        ..first
    });
    assert_eq!(Authority::over(&list), Authority::SecurityKey);
    for with in [None, Some(one.as_path())] {
        let two = folder.path().join("two.key");
        let error = enrol(&list, &wish("two", &two, with), no_terminal).unwrap_err();
        assert!(matches!(error, EnrolError::NeedsSecurityKey { .. }), "{error:?}");
        assert!(!two.exists(), "nothing is made");
    }
}

/// RFC 8785 by hand: the members in the order of their names, no spaces.
#[test]
fn all_of_an_enrolment_is_signed() {
    let enrolment = Enrolment {
        v: 2,
        kind: "enrolment".to_owned(),
        name: "n".to_owned(),
        approver: "a".to_owned(),
        passkey_kind: Kind::SecurityKey,
        aaguid: "m".to_owned(),
        be: true,
        bs: false,
        credential_id: "c".to_owned(),
        public_key: "p".to_owned(),
        host: "h".to_owned(),
        nonce: "o".to_owned(),
        issued_at: "t".to_owned(),
    };
    let form = r#"{"aaguid":"m","approver":"a","be":true,"bs":false,"credential_id":"c","host":"h","issued_at":"t","kind":"enrolment","name":"n","nonce":"o","passkey_kind":"security-key","public_key":"p","v":2}"#;
    assert_eq!(enrolment.challenge().unwrap().as_slice(), Sha256::digest(form).as_slice());
}

#[test]
fn a_key_that_nobody_enrolled_authorises_nothing() {
    let folder = TempDir::new().unwrap();
    let (one, stranger) = (folder.path().join("one.key"), folder.path().join("stranger.key"));
    let mut list = list(vec![]);
    list.passkeys.push(enrol(&list, &wish("one", &one, None), no_terminal).unwrap().passkey);
    SoftwarePasskey::generate(RP_ID, "eve", None).unwrap().0.create(&stranger).unwrap();
    let error =
        enrol(&list, &wish("two", &folder.path().join("two.key"), Some(&stranger)), no_terminal).unwrap_err();
    assert!(matches!(error, EnrolError::Authorisation(AuthenticatorError::NotOffered)), "{error:?}");
    let error = enrol(
        &list,
        &wish("two", &folder.path().join("two.key"), Some(&folder.path().join("no.key"))),
        no_terminal,
    )
    .unwrap_err();
    assert!(matches!(error, EnrolError::With(_)), "{error:?}");
}

#[test]
fn an_existing_key_file_is_taken_over_or_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("one.key");
    let mut list = list(vec![]);
    let first = enrol(&list, &wish("one", &path, None), no_terminal).unwrap();
    let text = fs::read(&path).unwrap();
    // The attempt broke off before the list was saved.
    let again = enrol(&list, &wish("one", &path, None), no_terminal).unwrap();
    assert_eq!(again.passkey.public_key, first.passkey.public_key);
    let with_passphrase =
        Wish { passphrase: Some(Zeroizing::new("x".to_owned())), ..wish("one", &path, None) };
    assert!(matches!(enrol(&list, &with_passphrase, no_terminal), Err(EnrolError::NoPassphrase { .. })));
    list.passkeys.push(again.passkey);
    let enrolled = enrol(&list, &wish("two", &path, None), no_terminal).unwrap_err();
    assert!(matches!(enrolled, EnrolError::AlreadyEnrolled { .. }), "{enrolled:?}");
    let taken = enrol(&list, &wish("one", &folder.path().join("x.key"), None), no_terminal).unwrap_err();
    assert!(matches!(taken, EnrolError::NameTaken(_)), "{taken:?}");
    assert_eq!(fs::read(&path).unwrap(), text, "the key file was changed");

    let mut other = Passkeys::new("other").unwrap();
    let error = enrol(&other, &wish("one", &path, None), no_terminal).unwrap_err();
    assert!(matches!(error, EnrolError::OtherRpId { .. }), "{error:?}");
    other.passkeys.clear();
    fs::write(folder.path().join("notes"), "not a key").unwrap();
    let error = enrol(&other, &wish("one", &folder.path().join("notes"), None), no_terminal).unwrap_err();
    assert!(matches!(error, EnrolError::KeyFile(_)), "{error:?}");
    assert_eq!(fs::read(folder.path().join("notes")).unwrap(), b"not a key");
}

#[test]
fn an_existing_key_file_has_to_be_roots() {
    if !nix::unistd::geteuid().is_root() {
        // Without root the file cannot be given away; what is left of the test is that one's own is refused.
        return;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("one.key");
    SoftwarePasskey::generate(RP_ID, "bob", None).unwrap().0.create(&path).unwrap();
    chown(&path, Some(1000), Some(1000)).unwrap();
    let error = enrol(&list(vec![]), &wish("one", &path, None), no_terminal).unwrap_err();
    assert!(matches!(error, EnrolError::Owner { uid: 1000, .. }), "{error:?}");
}

#[test]
fn a_passphrase_makes_a_key_that_verifies_its_person() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("one.key");
    let wish = Wish { passphrase: Some(Zeroizing::new("horse".to_owned())), ..wish("one", &path, None) };
    let enrolled = enrol(&list(vec![]), &wish, no_terminal).unwrap();
    assert!(enrolled.possession.user_verified());
    assert!(KeyFile::open(&path).unwrap().encrypted());
}
