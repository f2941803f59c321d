//! Tries to leave its cgroup, or to thaw one: writes into every cgroup file that decides, in every mounted hierarchy.
//! Argument: the folder to start from (the mount of the cgroup tree).

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use ana_tests::attempt::{argument, say, tell_io};

#[derive(Default)]
struct Tally {
    seen: u32,
    granted: Vec<String>,
}

fn main() {
    let mut tally = Tally::default();
    walk(&argument(1), &mut tally);
    say(&format!("tried {}", tally.seen));
    for path in &tally.granted {
        say(&format!("granted {path}"));
    }
    let word = if tally.granted.is_empty() { "refused" } else { "ok" };
    say(&format!("attempt cgroup: {word}"));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    say(&format!("own {}", own.lines().find(|line| line.starts_with("0::")).unwrap_or_default()));
}

fn walk(folder: &Path, tally: &mut Tally) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), tally);
        }
    }
    let own = std::process::id().to_string();
    for (name, value) in [("cgroup.procs", own.as_str()), ("cgroup.threads", &own), ("tasks", &own)] {
        write(&folder.join(name), value, tally);
    }
    for (name, value) in [("cgroup.freeze", "0"), ("pids.max", "max"), ("devices.allow", "a *:* rwm")] {
        write(&folder.join(name), value, tally);
    }
    let made = folder.join("made-by-an-attack");
    tally.seen += 1;
    if fs::create_dir(&made).is_ok() {
        tally.granted.push(made.display().to_string());
        tell_io("rmdir", fs::remove_dir(&made));
    }
}

fn write(path: &Path, value: &str, tally: &mut Tally) {
    if !path.exists() {
        return;
    }
    tally.seen += 1;
    let wrote =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    if wrote.is_ok() {
        tally.granted.push(path.display().to_string());
    }
}
