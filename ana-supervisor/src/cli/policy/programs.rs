//! Where this machine keeps the programs that a starter policy lists.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use super::files::identity;

/// Looked through after the agent's PATH.
const SYSTEM: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// Files to list, and what people should know about the others.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    pub(super) notes: Vec<String>,
}

/// One file under many names, which starts the program that is meant. Listing it would ask about everything else that
/// it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    /// `~/.cargo/bin/cargo`: starts a toolchain's.
    Rustup,
    /// pyenv, asdf and their like: a script for each name.
    Shim,
    /// `/snap/bin/kubectl`: starts a file on an image of its own.
    Snap,
}

/// The folders of a PATH and the system's own, each once, links resolved for the comparison only.
pub(super) fn folders(path: &OsStr) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    std::env::split_paths(path)
        .chain(SYSTEM.map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        .filter(|folder| {
            let real = fs::canonicalize(folder).unwrap_or_else(|_missing| folder.clone());
            let fresh = !seen.contains(&real);
            if fresh {
                seen.push(real);
            }
            fresh
        })
        .collect()
}

/// The same, with the folders in which the gits found there keep their own programs: what `git --exec-path` prints,
/// guessed from where the program lies (it may be the agent's, and is not run for this).
pub(super) fn with_git_core(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = folders.to_vec();
    for git in folders.iter().map(|folder| folder.join("git")).filter(|git| git.is_file()) {
        let real = fs::canonicalize(&git).unwrap_or_else(|_gone| git.clone());
        for git in [git, real] {
            let Some(prefix) = git.parent().and_then(Path::parent) else { continue };
            for core in ["lib/git-core", "libexec/git-core"].map(|core| prefix.join(core)) {
                if core.is_dir() && !all.contains(&core) {
                    all.push(core);
                }
            }
        }
    }
    all
}

/// Every file of these names in the folders; in place of a proxy, what it starts.
pub(super) fn find(folders: &[PathBuf], names: &[&str], home: &Path) -> Found {
    let mut found = Found::default();
    for name in names {
        for file in folders.iter().map(|folder| folder.join(name)).filter(|file| file.is_file()) {
            let Some(proxy) = proxy(&file) else {
                found.list(file);
                continue;
            };
            let behind = behind(proxy, name, home);
            if behind.is_empty() {
                found.notes.push(format!(
                    "{} is not listed: it is one file under many names; list what it starts",
                    file.display()
                ));
            }
            behind.into_iter().for_each(|file| found.list(file));
        }
    }
    found
}

impl Found {
    fn list(&mut self, file: PathBuf) {
        if !self.files.contains(&file) {
            self.files.push(file);
        }
    }
}

/// Whether the file starts another one of its own name.
pub(super) fn proxy(file: &Path) -> Option<Proxy> {
    let folder = file.parent()?;
    let same = |other: &Path| matches!((identity(file), identity(other)), (Ok(a), Ok(b)) if a == b);
    if file.file_name() != Some(OsStr::new("rustup")) && same(&folder.join("rustup")) {
        return Some(Proxy::Rustup);
    }
    if folder.file_name() == Some(OsStr::new("shims")) {
        return Some(Proxy::Shim);
    }
    same(Path::new("/usr/bin/snap")).then_some(Proxy::Snap)
}

/// The files of that name that a proxy chooses from.
fn behind(proxy: Proxy, name: &str, home: &Path) -> Vec<PathBuf> {
    let versions = match proxy {
        Proxy::Rustup => home.join(".rustup/toolchains"),
        Proxy::Shim => home.join(".pyenv/versions"),
        Proxy::Snap => return Vec::new(),
    };
    let mut files: Vec<PathBuf> = fs::read_dir(versions)
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|file| file.is_file())
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn with(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        root
    }

    #[test]
    fn a_proxy_is_replaced_by_what_it_starts() {
        let root = with(&[
            "bin/rustup",
            "shims/aws",
            ".rustup/toolchains/a/bin/cargo",
            ".rustup/toolchains/b/bin/cargo",
            ".rustup/toolchains/b/bin/rustc",
            ".pyenv/versions/3/bin/aws",
            "plain/cargo",
        ]);
        let at = |path: &str| root.path().join(path);
        symlink(at("bin/rustup"), at("bin/cargo")).unwrap();
        assert_eq!(proxy(&at("bin/cargo")), Some(Proxy::Rustup));
        assert_eq!(proxy(&at("bin/rustup")), None);
        assert_eq!(proxy(&at("plain/cargo")), None);
        let found = find(&["bin", "shims", "plain"].map(at), &["cargo", "aws"], root.path());
        let expected = [
            ".rustup/toolchains/a/bin/cargo",
            ".rustup/toolchains/b/bin/cargo",
            "plain/cargo",
            ".pyenv/versions/3/bin/aws",
        ];
        assert_eq!(found.files, expected.map(at));
        assert!(found.notes.is_empty(), "{:?}", found.notes);
        let nothing_behind = find(&[at("shims")], &["aws"], Path::new("/nowhere"));
        assert!(nothing_behind.files.is_empty());
        assert_eq!(nothing_behind.notes.len(), 1);
    }

    #[test]
    fn a_folder_counts_once_and_gits_own_is_found() {
        let root = with(&["usr/bin/git", "usr/libexec/git-core/git"]);
        let at = |path: &str| root.path().join(path);
        symlink(at("usr/bin"), at("bin")).unwrap();
        let path = std::env::join_paths([at("usr/bin"), at("bin"), PathBuf::from("relative")]).unwrap();
        let ours: Vec<PathBuf> =
            folders(&path).into_iter().filter(|folder| folder.starts_with(root.path())).collect();
        assert_eq!(ours, [at("usr/bin")]);
        assert_eq!(with_git_core(&ours), [at("usr/bin"), at("usr/libexec/git-core")]);
    }
}
