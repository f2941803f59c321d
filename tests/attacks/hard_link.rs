//! Runs the protected program through a hard link: its own when the kernel lets it make one, else one that is
//! already there. Arguments: the program, a second name of it.

use std::process::Command;

use ana_tests::attempt::{argument, run, tell_io};

fn main() {
    let own = std::path::PathBuf::from("./second-name");
    let made = tell_io("link", std::fs::hard_link(argument(1), &own)).is_some();
    run("exec", Command::new(if made { own } else { argument(2) }).arg("hard-link"));
}
