//! What can be wrong with the state, each with the way out.

use std::path::PathBuf;
use std::string::FromUtf8Error;

use nix::errno::Errno;

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("there is no policy at {}: write one, and `ana policy check` it", path.display())]
    NoPolicy { path: PathBuf },
    #[error("{} is not there", path.display())]
    Missing { path: PathBuf },
    #[error("{} cannot be opened{}", path.display(), way_out(*source))]
    Open { path: PathBuf, source: Errno },
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} is a symbolic link or not a folder: name the real folder (`realpath {}`)", path.display(), path.display())]
    NotAFolder { path: PathBuf },
    #[error("{} is not a regular file (symbolic links are not followed)", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} {what}: `{fix}`", path.display())]
    Loose { path: PathBuf, what: String, fix: String },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{} holds more than {limit} files", path.display())]
    TooMany { path: PathBuf, limit: usize },
    #[error("{} is not UTF-8 text", path.display())]
    NotText { path: PathBuf, source: FromUtf8Error },
    #[error("the current folder is unknown, so a relative path means nothing")]
    CurrentFolder { source: std::io::Error },
}

impl StateError {
    /// The file or folder is simply not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::NoPolicy { .. })
    }

    /// The caller may not look at it: root may.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Open { source: Errno::EACCES | Errno::EPERM, .. })
    }
}

fn way_out(errno: Errno) -> &'static str {
    if matches!(errno, Errno::EACCES | Errno::EPERM) && !nix::unistd::geteuid().is_root() {
        ": it belongs to root, try again with `sudo`"
    } else {
        ""
    }
}
