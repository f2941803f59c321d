//! What is measured, inside and outside of a session.

use std::{
    fs::File,
    io::Write,
    process::{Command, Stdio},
};

use ana_tests::bench::{self, now, times};

pub(crate) fn run(words: &[String]) {
    match words.first().map(String::as_str) {
        Some("serve") => serve(),
        // The protected program: says when it ran.
        Some("now") => println!("{}", now()),
        // One of many: says which one it is as well.
        Some("number") => println!("{} {}", words.get(1).map_or("", String::as_str), now()),
        Some("nothing") | None => {}
        Some(other) => panic!("probe {other}"),
    }
}

fn serve() {
    let mut stdout = std::io::stdout();
    bench::serve(|words| {
        match words {
            ["spawn", count, program] => times(count, || spawn(program)),
            // A hundred at a time: one is not much longer than reading the clock.
            ["open", count] => {
                times(count, || (0..100).for_each(|_| drop(File::open("/etc/hostname").expect("there"))))
            }
            ["run", count, program, arguments @ ..] => times(count, || {
                let mut command = Command::new(program);
                let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
                assert!(status.expect("started").success(), "{words:?}");
            }),
            ["crowd", count, program] => crowd(count, program),
            ["attempt", program] => {
                writeln!(stdout, "{}", now()).expect("heard");
                stdout.flush().expect("heard");
                let output = Command::new(program).args(["probe", "now"]).output().expect("started");
                stdout.write_all(&output.stdout).expect("heard");
                stdout.flush().expect("heard");
            }
            _ => panic!("{words:?}"),
        }
    });
}

/// Starts so many at once; nobody waits for them here.
fn crowd(count: &str, program: &str) {
    for number in 0..count.parse::<usize>().expect("a number") {
        let number = number.to_string();
        // Reaped by whoever is their parent when this one has ended.
        drop(Command::new(program).args(["probe", "number", &number]).spawn().expect("started"));
    }
    println!("started");
}

fn spawn(program: &str) {
    let status = Command::new(program).args(["probe", "nothing"]).status().expect("started");
    assert!(status.success(), "{program}: {status}");
}
