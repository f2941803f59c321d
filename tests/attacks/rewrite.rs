//! Changes a script while it is held, as told on stdin: `start` runs it, `write` writes into it, `append` adds a
//! line, `rename` puts another file in its place, `wait` tells how it ended. Arguments: the script, the new text.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, Write},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    process::{Child, Command},
};

use ana_tests::attempt::{argument, say, tell_io};

fn main() {
    let script = argument(1);
    let evil = fs::read(argument(2)).unwrap_or_default();
    let mut running: Option<Child> = None;
    say("ready");
    for order in std::io::stdin().lock().lines().map_while(Result::ok) {
        match order.as_str() {
            "start" => running = tell_io("start", Command::new(&script).arg("honest").spawn()),
            "write" => {
                let written = OpenOptions::new()
                    .write(true)
                    .truncate(true)
                    .open(&script)
                    .and_then(|mut file| file.write_all(&evil));
                tell_io("write", written);
            }
            "append" => {
                let added =
                    OpenOptions::new().append(true).open(&script).and_then(|mut file| file.write_all(&evil));
                tell_io("append", added);
            }
            "rename" => {
                let fresh = script.with_extension("fresh");
                let replaced = fs::write(&fresh, &evil)
                    .and_then(|()| fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)))
                    .and_then(|()| fs::rename(&fresh, &script));
                tell_io("rename", replaced);
            }
            "wait" => match running.take().map(|mut child| child.wait()) {
                Some(Ok(status)) if status.success() => say("attempt run: ok"),
                Some(Ok(status)) => {
                    say(&format!("attempt run: exit {:?} signal {:?}", status.code(), status.signal()));
                }
                Some(Err(error)) => say(&format!("attempt run: {error}")),
                None => say("attempt run: not started"),
            },
            unknown => say(&format!("attempt {unknown}: no such order")),
        }
        say(&format!("done {order}"));
    }
}
