//! Locks files exclusively and keeps the locks until stdin closes: a writer that locks the same files would wait.
//! Arguments: the files, or folders of them.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use ana_tests::attempt::{say, tell, tell_io};
use nix::fcntl::{Flock, FlockArg};

fn main() {
    let mut files = Vec::new();
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        match fs::read_dir(&path) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => files.push(path),
        }
    }
    let mut kept = Vec::new();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(file) = tell_io(&format!("open-{name}"), File::open(&path)) else { continue };
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno);
        kept.extend(tell(&format!("lock-{name}"), locked));
    }
    say(&format!("locks {}", kept.len()));
    say("ready");
    let read = std::io::read_to_string(std::io::stdin());
    drop(read);
}
