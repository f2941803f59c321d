//! The folders that ana keeps: policy, evidence, keys, passkeys, sockets.
//!
//! Takes nothing or one folder (`--state`, ANA_STATE_DIR); gives [`Folder`]s that are open and stay what they
//! were when they were checked. Every folder is opened from `/` component by component, without following a
//! symbolic link, and has to pass what sshd calls StrictModes: it and every folder above it belong to root and
//! nobody else can write to them. As in sshd, a sticky bit (`/tmp`) is no excuse.
//!
//! At the default paths anything else is refused. A folder that was named explicitly is accepted all the same,
//! with one [`State::warning`], and [`State::development`] marks every record from then on.

mod error;
mod folder;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::policy;

pub use error::StateError;
pub use folder::{Folder, Missing, Strictness};

/// A policy file larger than this is refused.
pub const POLICY_BYTES_MAX: u64 = 1 << 20;
/// So is `passkeys.json`.
pub const PASSKEYS_BYTES_MAX: u64 = 1 << 20;
/// More files than this in `policy.d` are refused.
pub const POLICY_FILES_MAX: usize = 256;

const POLICY_FILE: &str = "policy.toml";
const POLICY_FOLDER: &str = "policy.d";
const PASSKEYS_FILE: &str = "passkeys.json";

/// Where everything lies; computed, not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// policy.toml; policy.d lies beside it.
    pub policy: PathBuf,
    /// Segments of the evidence log, and its lock.
    pub evidence: PathBuf,
    /// The public keys, `<kid>.jwk`.
    pub keys: PathBuf,
    /// The signing key, `<kid>.pem`.
    pub signing: PathBuf,
    /// The sockets, `<session>.sock`.
    pub run: PathBuf,
    /// The enrolled passkeys.
    pub passkeys: PathBuf,
}

impl Paths {
    fn new(policy: &Path, base: &Path, run: &Path) -> Self {
        Self {
            policy: policy.join(POLICY_FILE),
            evidence: base.join("evidence"),
            keys: base.join("keys"),
            signing: base.join("keys/signing"),
            run: run.to_path_buf(),
            passkeys: base.join(PASSKEYS_FILE),
        }
    }
}

/// The state, opened by the supervisor (and by what writes, like `ana passkey`).
#[derive(Debug)]
pub struct State {
    paths: Paths,
    strictness: Strictness,
    base: Folder,
    evidence: Folder,
    keys: Folder,
    signing: Folder,
    run: Folder,
    /// Why this state is for development only; shared with the folders, which find it out.
    loose: Arc<OnceLock<String>>,
}

impl State {
    /// Opens the default folders, or those below `explicit`, and creates what is missing (not the policy).
    ///
    /// # Errors
    /// A folder cannot be opened or created, or at the default paths is not root's alone.
    pub fn open(explicit: Option<&Path>) -> Result<Self, StateError> {
        let loose = Arc::new(OnceLock::new());
        let strictness = Strictness::of(explicit);
        let paths = Self::paths(explicit);
        let open = |path: &Path, mode: u32| {
            Folder::open(path, strictness, Missing::Create { mode }, Arc::clone(&loose))
        };
        let base = open(explicit.unwrap_or(Path::new("/var/lib/ana")), 0o755)?;
        let evidence = base.subfolder("evidence", Missing::Create { mode: 0o700 })?;
        let keys = base.subfolder("keys", Missing::Create { mode: 0o755 })?;
        let signing = keys.subfolder("signing", Missing::Create { mode: 0o700 })?;
        let run = open(&paths.run, 0o755)?;
        Ok(Self { paths, strictness, base, evidence, keys, signing, run, loose })
    }

    /// Where everything lies, for clients that only read or connect. Opens nothing.
    pub fn paths(explicit: Option<&Path>) -> Paths {
        match explicit {
            Some(base) => Paths::new(base, base, &base.join("run")),
            None => Paths::new(Path::new("/etc/ana"), Path::new("/var/lib/ana"), Path::new("/run/ana")),
        }
    }

    /// `policy.toml`, then `policy.d/*.toml` in the order of their names.
    ///
    /// # Errors
    /// There is no policy, or a file of it is too large, not text, a symbolic link or (at the default paths)
    /// not root's alone.
    pub fn policy_sources(&self) -> Result<Vec<policy::Source>, StateError> {
        let missing = || StateError::NoPolicy { path: self.paths.policy.clone() };
        let path = self.paths.policy.parent().ok_or_else(missing)?;
        let folder = Folder::open(path, self.strictness, Missing::Refuse, Arc::clone(&self.loose))
            .map_err(|error| if error.is_missing() { missing() } else { error })?;
        let mut sources = vec![source(&folder, POLICY_FILE)?.ok_or_else(missing)?];
        let more = match folder.subfolder(POLICY_FOLDER, Missing::Refuse) {
            Ok(more) => more,
            Err(error) if error.is_missing() => return Ok(sources),
            Err(error) => return Err(error),
        };
        let names =
            more.names()?.into_iter().filter(|name| name.ends_with(".toml") && !name.starts_with('.'));
        for name in names {
            if sources.len() > POLICY_FILES_MAX {
                return Err(StateError::TooMany { path: more.path().to_path_buf(), limit: POLICY_FILES_MAX });
            }
            sources.extend(source(&more, &name)?);
        }
        Ok(sources)
    }

    /// The one policy file that `--policy` names.
    ///
    /// # Errors
    /// As [`State::policy_sources`]; a file that is not root's alone is accepted and marks the state as
    /// development.
    pub fn policy_file(&self, path: &Path) -> Result<Vec<policy::Source>, StateError> {
        let missing = || StateError::NoPolicy { path: path.to_path_buf() };
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(missing)?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let folder = Folder::open(parent, Strictness::Preferred, Missing::Refuse, Arc::clone(&self.loose))?;
        Ok(vec![source(&folder, name)?.ok_or_else(missing)?])
    }

    /// The evidence log (0700).
    pub fn evidence_dir(&self) -> &Folder {
        &self.evidence
    }

    /// The public keys (0755).
    pub fn keys_dir(&self) -> &Folder {
        &self.keys
    }

    /// The signing key (0700).
    pub fn signing_dir(&self) -> &Folder {
        &self.signing
    }

    /// The sockets (0755).
    pub fn run_dir(&self) -> &Folder {
        &self.run
    }

    /// The folder that holds `passkeys.json`, evidence, keys.
    pub fn base_dir(&self) -> &Folder {
        &self.base
    }

    /// Where the enrolled passkeys lie.
    pub fn passkeys_file(&self) -> PathBuf {
        self.paths.passkeys.clone()
    }

    /// The bytes of `passkeys.json`, `None` when nothing is enrolled yet.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or is not root's alone at the default path.
    pub fn read_passkeys(&self) -> Result<Option<Vec<u8>>, StateError> {
        self.base.read(PASSKEYS_FILE, PASSKEYS_BYTES_MAX)
    }

    /// Replaces `passkeys.json`: the old or the new content is there, never a part, also after a power cut.
    ///
    /// # Errors
    /// The file cannot be written; the old one is still there.
    pub fn replace_passkeys(&self, bytes: &[u8]) -> Result<(), StateError> {
        self.base.replace(PASSKEYS_FILE, bytes, 0o644)
    }

    /// Someone other than root could change this state: fit to try ana out, not to protect anything.
    pub fn development(&self) -> bool {
        self.loose.get().is_some()
    }

    /// The one line to show when [`State::development`] is true.
    pub fn warning(&self) -> Option<String> {
        self.loose.get().map(|why| {
            format!(
                "{why}: fit to try ana out, not to protect anything; every record is marked \"development\""
            )
        })
    }

    /// The mark itself, for what outlives a borrow of the state.
    pub(crate) fn mark(&self) -> Arc<OnceLock<String>> {
        Arc::clone(&self.loose)
    }
}

fn source(folder: &Folder, name: &str) -> Result<Option<policy::Source>, StateError> {
    let Some(bytes) = folder.read(name, POLICY_BYTES_MAX)? else {
        return Ok(None);
    };
    let path = folder.path().join(name);
    let text =
        String::from_utf8(bytes).map_err(|source| StateError::NotText { path: path.clone(), source })?;
    Ok(Some(policy::Source { name: path.display().to_string(), text }))
}
