use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;

use super::{Folder, Missing, PASSKEYS_BYTES_MAX, POLICY_BYTES_MAX, State, StateError, Strictness};

fn open(path: &Path, strictness: Strictness, missing: Missing) -> Result<Folder, StateError> {
    Folder::open(path, strictness, missing, Arc::new(OnceLock::new()))
}

fn strict(path: &Path) -> Result<Folder, StateError> {
    open(path, Strictness::Required, Missing::Refuse)
}

/// A folder with root above it everywhere; `None` (and a word) when we are not root.
fn root_owned() -> Option<TempDir> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    let folder = tempfile::tempdir_in("/var/lib").expect("a folder in /var/lib");
    mode(folder.path(), 0o755);
    Some(folder)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}

#[test]
fn strictness_looks_at_every_ancestor() {
    let Some(root) = root_owned() else { return };
    let (parent, folder) = (root.path().join("parent"), root.path().join("parent/folder"));
    fs::create_dir_all(&folder).expect("created");
    strict(&folder).expect("root's alone");
    for (loose, bits) in
        [(&folder, 0o775), (&folder, 0o757), (&parent, 0o777), (&parent, 0o1777), (&parent, 0o770)]
    {
        mode(loose, bits);
        let error = strict(&folder).expect_err("loose").to_string();
        let says = [
            format!("{}", loose.display()),
            format!("mode {bits:04o}"),
            format!("chmod go-w {}", loose.display()),
        ];
        assert!(says.iter().all(|part| error.contains(part)), "{error}");
        mode(loose, 0o755);
    }
    for loose in [&parent, &folder] {
        chown(loose, Some(1000), None).expect("given away");
        let error = strict(&folder).expect_err("loose").to_string();
        assert!(error.contains("belongs to uid 1000") && error.contains("chown root:root"), "{error}");
        chown(loose, Some(0), None).expect("taken back");
    }
    strict(&folder).expect("root's alone again");
}

#[test]
fn strictness_looks_at_files_too() {
    let Some(root) = root_owned() else { return };
    let folder = strict(root.path()).expect("root's alone");
    let file = root.path().join("file");
    fs::write(&file, "x").expect("written");
    mode(&file, 0o644);
    assert_eq!(folder.read("file", 10).expect("read").as_deref(), Some(&b"x"[..]));
    assert!(folder.read_private("file", 10).is_err(), "others can read it");
    mode(&file, 0o666);
    assert!(matches!(folder.read("file", 10), Err(StateError::Loose { .. })));
    mode(&file, 0o600);
    assert!(folder.read_private("file", 10).is_ok());
    chown(&file, Some(1000), None).expect("given away");
    assert!(matches!(folder.read("file", 10), Err(StateError::Loose { .. })));
}

#[test]
fn symbolic_links_are_not_followed() {
    let base = tempfile::tempdir().expect("a folder");
    let real = base.path().join("real");
    fs::create_dir_all(real.join("below")).expect("created");
    fs::write(real.join("file"), "x").expect("written");
    symlink(&real, base.path().join("link")).expect("linked");
    symlink("file", real.join("link")).expect("linked");
    for path in ["link", "link/below"] {
        let error =
            open(&base.path().join(path), Strictness::Preferred, Missing::Refuse).expect_err("a link");
        assert!(matches!(error, StateError::NotAFolder { .. }), "{error}");
    }
    let folder = open(&real, Strictness::Preferred, Missing::Refuse).expect("opened");
    assert!(matches!(folder.read("link", 10), Err(StateError::NotAFile { .. })));
    assert!(State::open(Some(&base.path().join("link"))).is_err());
}

#[test]
fn only_regular_files_within_their_limit_are_read() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = open(base.path(), Strictness::Preferred, Missing::Refuse).expect("opened");
    fs::create_dir(base.path().join("folder")).expect("created");
    nix::unistd::mkfifo(&base.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("created");
    fs::write(base.path().join("ten"), [0; 10]).expect("written");
    for name in ["folder", "fifo"] {
        assert!(matches!(folder.read(name, 10), Err(StateError::NotAFile { .. })), "{name}");
    }
    assert_eq!(folder.read("ten", 10).expect("read").map(|bytes| bytes.len()), Some(10));
    assert!(matches!(folder.read("ten", 9), Err(StateError::TooLarge { limit: 9, .. })));
    assert!(folder.read("none", 9).expect("it is just not there").is_none());
}

#[test]
fn replacing_leaves_the_new_content_and_nothing_else() {
    let base = tempfile::tempdir().expect("a folder");
    let folder = open(base.path(), Strictness::Preferred, Missing::Refuse).expect("opened");
    for text in ["one", "two"] {
        folder.replace("file", text.as_bytes(), 0o640).expect("replaced");
        assert_eq!(fs::read_to_string(base.path().join("file")).expect("read"), text);
    }
    assert_eq!(folder.names().expect("listed"), ["file"]);
    let bits = fs::metadata(base.path().join("file")).expect("it is there").permissions().mode();
    assert_eq!(bits & 0o7777, 0o640);
}

#[test]
fn an_explicit_state_that_is_not_roots_alone_is_for_development() {
    let base = tempfile::tempdir().expect("a folder");
    mode(base.path(), 0o777);
    let state = State::open(Some(base.path())).expect("accepted");
    assert!(state.development());
    assert!(state.warning().is_some_and(|warning| warning.contains("development")));
    let Some(root) = root_owned() else { return };
    let state = State::open(Some(&root.path().join("state"))).expect("created");
    assert!(!state.development() && state.warning().is_none());
    let policy = base.path().join("other.toml");
    fs::write(&policy, "version = 1").expect("written");
    assert_eq!(state.policy_file(&policy).expect("read")[0].text, "version = 1");
    assert!(state.development(), "a policy that others can write makes it so");
}

#[test]
fn an_open_evidence_folder_is_not_strict() {
    let Some(root) = root_owned() else { return };
    let base = strict(root.path()).expect("root's alone");
    let missing = Missing::Create { mode: 0o700 };
    base.subfolder("evidence", missing).expect("created");
    mode(&root.path().join("evidence"), 0o750);
    let error = base.subfolder("evidence", missing).expect_err("open to a group").to_string();
    assert!(error.contains("chmod go-rwx"), "{error}");
}

#[test]
fn policy_sources_come_in_order() {
    let base = tempfile::tempdir().expect("a folder");
    let state = State::open(Some(base.path())).expect("opened");
    let error = state.policy_sources().expect_err("there is none").to_string();
    assert!(error.contains("there is no policy at") && error.contains("policy.toml"), "{error}");
    let write = |name: &str, text: &[u8]| fs::write(base.path().join(name), text).expect("written");
    write("policy.toml", b"first");
    let names = || {
        let sources = state.policy_sources()?;
        Ok(sources.into_iter().map(|source| source.text).collect::<Vec<_>>())
    };
    let texts: Result<_, StateError> = names();
    assert_eq!(texts.expect("read"), ["first"]);
    fs::create_dir(base.path().join("policy.d")).expect("created");
    write("policy.d/20.toml", b"third");
    write("policy.d/10.toml", b"second");
    write("policy.d/README", b"no policy");
    write("policy.d/.hidden.toml", b"an editor's");
    let texts: Result<_, StateError> = names();
    assert_eq!(texts.expect("read"), ["first", "second", "third"]);
    write("policy.d/30.toml", b"\xff");
    assert!(matches!(state.policy_sources(), Err(StateError::NotText { .. })));
    let large = usize::try_from(POLICY_BYTES_MAX + 1).expect("small");
    write("policy.d/30.toml", &vec![b' '; large]);
    assert!(matches!(state.policy_sources(), Err(StateError::TooLarge { .. })));
    fs::remove_file(base.path().join("policy.d/30.toml")).expect("removed");
    symlink("10.toml", base.path().join("policy.d/30.toml")).expect("linked");
    assert!(matches!(state.policy_sources(), Err(StateError::NotAFile { .. })));
}

#[test]
fn passkeys_are_replaced_whole() {
    let base = tempfile::tempdir().expect("a folder");
    let state = State::open(Some(base.path())).expect("opened");
    assert!(state.read_passkeys().expect("nothing yet").is_none());
    state.replace_passkeys(b"{}").expect("written");
    assert_eq!(state.read_passkeys().expect("read").as_deref(), Some(&b"{}"[..]));
    let large = usize::try_from(PASSKEYS_BYTES_MAX + 1).expect("small");
    fs::write(state.passkeys_file(), vec![b' '; large]).expect("written");
    assert!(matches!(state.read_passkeys(), Err(StateError::TooLarge { .. })));
}

#[test]
fn paths_are_the_contract() {
    let paths = State::paths(None);
    assert_eq!(paths.policy, Path::new("/etc/ana/policy.toml"));
    assert_eq!(paths.evidence, Path::new("/var/lib/ana/evidence"));
    assert_eq!(paths.signing, Path::new("/var/lib/ana/keys/signing"));
    assert_eq!(paths.run, Path::new("/run/ana"));
    let paths = State::paths(Some(Path::new("/x")));
    assert_eq!(
        (paths.policy.as_path(), paths.run.as_path()),
        (Path::new("/x/policy.toml"), Path::new("/x/run"))
    );
    assert_eq!(
        (paths.keys.as_path(), paths.passkeys.as_path()),
        (Path::new("/x/keys"), Path::new("/x/passkeys.json"))
    );
}
