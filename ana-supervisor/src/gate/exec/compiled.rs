//! Compiled copies of protected scripts: Python runs `__pycache__/deploy.cpython-311.pyc` in the place of `deploy.py` when a
//! module is imported or run by `-m`, without opening the source. If it may not read the copy, it reads the source.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// The compiled copies of a script that are there now.
pub(super) fn copies_of(script: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(stem)) = (script.parent(), script.file_stem().and_then(OsStr::to_str)) else {
        return Vec::new();
    };
    if script.extension() != Some(OsStr::new("py")) {
        return Vec::new();
    }
    let start = format!("{stem}.");
    let cached = fs::read_dir(folder.join("__pycache__")).into_iter().flatten().flatten();
    let is_copy = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with(&start) && name.ends_with(".pyc")
    };
    let mut copies: Vec<PathBuf> = cached.map(|entry| entry.path()).filter(is_copy).collect();
    // Beside the source it is run when the source is not there (PEP 3147).
    copies.extend(Some(script.with_extension("pyc")).filter(|beside| beside.is_file()));
    copies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("deploy.py");
        fs::create_dir(folder.path().join("__pycache__")).unwrap();
        for name in ["deploy.cpython-311.pyc", "deploy.cpython-312.opt-1.pyc", "deployed.cpython-311.pyc"] {
            fs::write(folder.path().join("__pycache__").join(name), "").unwrap();
        }
        fs::write(folder.path().join("deploy.pyc"), "").unwrap();
        assert_eq!(copies_of(&script).len(), 3);
        assert!(copies_of(&folder.path().join("deploy.sh")).is_empty());
        assert!(copies_of(&folder.path().join("other.py")).is_empty());
    }
}
