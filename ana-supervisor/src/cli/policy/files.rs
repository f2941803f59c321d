//! The files behind a policy: its own text, and what its rules list.

use std::{
    ffi::OsStr,
    fmt, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{
    PolicyCommandError,
    programs::{self, Proxy},
};
use crate::policy::{Policy, Source};

/// Where the policy lies unless a state folder is named.
const INSTALLED: &str = "/etc/ana";

/// The home of the person who runs this: under sudo, of the one who called it.
pub fn home() -> Option<PathBuf> {
    let of = |uid: nix::unistd::Uid| nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.dir);
    let own = nix::unistd::geteuid();
    let caller = std::env::var("SUDO_UID").ok().filter(|_| own.is_root()).and_then(|uid| uid.parse().ok());
    match caller {
        Some(uid) => of(nix::unistd::Uid::from_raw(uid)),
        None => {
            std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()).or_else(|| of(own))
        }
    }
}

/// The named files, in order.
pub(super) fn named(files: &[PathBuf]) -> Result<Vec<Source>, PolicyCommandError> {
    files.iter().map(|file| read(file)).collect()
}

/// policy.toml and policy.d/*.toml, sorted by name, of the state folder or of /etc/ana.
pub(super) fn installed(state: Option<&Path>) -> Result<Vec<Source>, PolicyCommandError> {
    let folder = state.unwrap_or(Path::new(INSTALLED));
    let mut files = vec![folder.join("policy.toml")];
    let further = folder.join("policy.d");
    let failed = |source| PolicyCommandError::Read { path: further.clone(), source };
    match fs::read_dir(&further) {
        Ok(entries) => {
            let paths: Result<Vec<PathBuf>, _> =
                entries.map(|entry| entry.map(|entry| entry.path())).collect();
            let mut paths = paths.map_err(failed)?;
            paths.retain(|path| path.extension() == Some(OsStr::new("toml")));
            paths.sort();
            files.extend(paths);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    named(&files)
}

fn read(path: &Path) -> Result<Source, PolicyCommandError> {
    let bytes =
        fs::read(path).map_err(|source| PolicyCommandError::Read { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes)
        .map_err(|source| PolicyCommandError::NotText { path: path.to_owned(), source })?;
    Ok(Source { name: path.display().to_string(), text })
}

/// What identifies a file: device and inode.
pub(super) fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The policy's files that are this very file.
pub(super) fn listed(policy: &Policy, identity: (u64, u64)) -> Vec<&Path> {
    policy.exec_files().filter(|file| self::identity(file).is_ok_and(|found| found == identity)).collect()
}

/// The executable that a shell would start for a bare name.
pub(super) fn in_path(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| {
        fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// Listed files that cannot be found: their rules protect nothing until they are there and the policy is loaded
/// again.
pub fn missing_files(policy: &Policy) -> Vec<String> {
    let of_rule = |rule: &crate::policy::ExecRule| {
        let missing = rule.files().filter_map(|file| {
            let error = fs::metadata(file).err()?;
            Some(format!(
                "rule \"{}\" lists {}, which cannot be protected: {error}",
                rule.name(),
                file.display()
            ))
        });
        missing.collect::<Vec<_>>()
    };
    policy.exec_rules().iter().flat_map(of_rule).collect()
}

/// A program that people mean by a listed name, and that no rule lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathWarning {
    /// The name, as in the listed files.
    pub name: String,
    /// What PATH finds.
    pub found: PathBuf,
    /// What the policy lists under that name.
    pub listed: Vec<PathBuf>,
}

impl fmt::Display for PathWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed: Vec<String> = self.listed.iter().map(|file| file.display().to_string()).collect();
        let (name, found) = (&self.name, self.found.display());
        write!(f, "PATH finds {found} for `{name}`, which no rule lists; listed: {}", listed.join(", "))
    }
}

/// For every name among the listed files: whether PATH finds a file of that name that no rule lists.
pub fn path_warnings(policy: &Policy, path: &OsStr) -> Vec<PathWarning> {
    let names: std::collections::BTreeSet<&OsStr> = policy.exec_files().filter_map(Path::file_name).collect();
    names.into_iter().filter_map(|name| path_warning(policy, name, path)).collect()
}

/// The same for one name.
pub(super) fn path_warning(policy: &Policy, name: &OsStr, path: &OsStr) -> Option<PathWarning> {
    let found = in_path(name, path)?;
    let is_listed = identity(&found).is_ok_and(|identity| !listed(policy, identity).is_empty());
    let same_name: Vec<PathBuf> =
        policy.exec_files().filter(|file| file.file_name() == Some(name)).map(Path::to_path_buf).collect();
    // rustup's cargo and pyenv's aws start the listed one.
    let leads_there = same_name.iter().any(|file| file.exists())
        && matches!(programs::proxy(&found), Some(Proxy::Rustup | Proxy::Shim));
    if is_listed || leads_there || same_name.is_empty() {
        return None;
    }
    Some(PathWarning { name: name.to_string_lossy().into_owned(), found, listed: same_name })
}
