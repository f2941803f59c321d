//! Runs a protected script in all the ways there are but naming it. Arguments: the script, then which ways.

use std::{fs::File, process::Command};

use ana_tests::attempt::{argument, run, say, tell_io};

fn main() {
    let script = argument(1);
    for way in std::env::args().skip(2) {
        match way.as_str() {
            "exec" => run("exec", Command::new(&script).arg("exec")),
            "sh" => run("sh", Command::new("sh").arg(&script).arg("sh")),
            "source" => run("source", Command::new("sh").arg("-c").arg(format!(". {}", script.display()))),
            "redirect" => {
                run("redirect", Command::new("sh").arg("-c").arg(format!("sh < {}", script.display())))
            }
            "stdin" => match tell_io("open-stdin", File::open(&script)) {
                Some(file) => run("stdin", Command::new("sh").stdin(file)),
                None => say("attempt stdin: no file"),
            },
            "cat" => run(
                "cat",
                Command::new("bash")
                    .args(["-o", "pipefail", "-c"])
                    .arg(format!("cat {} | sh", script.display())),
            ),
            "copy" => {
                tell_io("copy-file", std::fs::copy(&script, "copied-script"));
                run("copy", Command::new("sh").arg("copied-script").arg("copy"));
            }
            unknown => say(&format!("attempt {unknown}: no such way")),
        }
    }
}
