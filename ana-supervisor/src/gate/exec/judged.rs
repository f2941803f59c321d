//! Which processes run an image that this gate has held and judged: a rule for connections may be about the program that
//! opens them, and a program is what was judged, environment included, not what a path or a process says of itself.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use ana_common::{FileKey, network::Origin};
use nix::unistd::Pid;

/// Processes that are remembered; the dead among them are forgotten when there are more.
const REMEMBERED_MAX: usize = 4096;

/// The judged images of a session, by process.
#[derive(Debug, Default)]
pub struct JudgedImages(Mutex<HashMap<u32, JudgedImage>>);

#[derive(Debug)]
struct JudgedImage {
    /// Field 22 of /proc/PID/stat.
    started: u64,
    file: FileKey,
    listed: Vec<PathBuf>,
}

impl JudgedImages {
    /// The process that started then runs `file`, which the policy calls `listed`.
    pub fn add(&self, pid: Pid, started: u64, file: FileKey, listed: Vec<PathBuf>) {
        let mut images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if images.len() >= REMEMBERED_MAX {
            images.retain(|pid, _| std::path::Path::new(&format!("/proc/{pid}")).exists());
        }
        images.insert(pid.as_raw().unsigned_abs(), JudgedImage { started, file, listed });
    }

    /// What the policy calls the image that opened a connection; nothing, if it was not judged.
    pub fn listed(&self, origin: &Origin) -> Vec<PathBuf> {
        let images = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |image: &&JudgedImage| image.started == origin.started && image.file == origin.exe;
        images.get(&origin.tgid).filter(same).map(|image| image.listed.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_image_of_the_very_process_counts() {
        let file = FileKey { ino: 7, dev: 1, pad: 0 };
        let images = JudgedImages::default();
        images.add(Pid::from_raw(42), 100, file, vec!["/usr/bin/git".into()]);
        let origin = |tgid, started, exe| Origin { tgid, started, exe, ..Origin::default() };
        assert_eq!(images.listed(&origin(42, 100, file)), [PathBuf::from("/usr/bin/git")]);
        for other in [
            origin(43, 100, file),
            origin(42, 101, file),
            origin(42, 100, FileKey { ino: 8, ..file }),
            Origin::default(),
        ] {
            assert_eq!(images.listed(&other), <[PathBuf; 0]>::default());
        }
    }
}
