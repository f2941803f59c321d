//! The program that tests protect. It writes down that it ran, by one append to the file in `ANA_TEST_MARKS`, and says
//! so on stdout. Arguments: `--exit=N`, `--signal=N`, `--read` (waits for a line on stdin first), `--stderr`,
//! `--exec=PROGRAM` (becomes another program).
#![allow(clippy::expect_used, reason = "test code: a mark that cannot be written must be loud")]

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io::Write as _,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        process::CommandExt,
    },
};

use nix::{
    sys::signal::{Signal, raise},
    time::{ClockId, clock_gettime},
};

fn main() {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let marks = std::env::var_os("ANA_TEST_MARKS").expect("ANA_TEST_MARKS names the file for the marks");
    let exe = std::fs::read_link("/proc/self/exe").expect("a running program has a path");
    let argv_hex: Vec<String> = argv.iter().map(|arg| hex(arg)).collect();
    let line = format!(
        "{{\"pid\":{},\"at\":{},\"exe\":{},\"argv\":[{}]}}\n",
        std::process::id(),
        now(),
        hex(exe.as_os_str()),
        argv_hex.join(",")
    );
    let mut file = std::fs::OpenOptions::new().append(true).open(marks).expect("the marks can be opened");
    file.write_all(line.as_bytes()).expect("the mark can be written");

    let mut out = b"marker: ran".to_vec();
    for arg in argv.iter().skip(1).filter(|arg| arg.len() < 1000) {
        out.push(b' ');
        out.extend_from_slice(&arg.clone().into_vec());
    }
    out.push(b'\n');
    // A closed stdout is the test's business, not ours.
    let told = std::io::stdout().write_all(&out);
    drop(told);
    for arg in argv.iter().skip(1).filter_map(|arg| arg.to_str()) {
        obey(arg);
    }
}

/// The bytes as a quoted string of hexadecimal digits.
fn hex(bytes: &OsStr) -> String {
    let mut text = String::from("\"");
    for byte in bytes.as_bytes() {
        write!(text, "{byte:02x}").expect("a string grows");
    }
    text.push('"');
    text
}

fn obey(arg: &str) {
    if let Some(code) = arg.strip_prefix("--exit=") {
        std::process::exit(code.parse().expect("an exit status"));
    } else if let Some(number) = arg.strip_prefix("--signal=") {
        let number: i32 = number.parse().expect("a signal number");
        raise(Signal::try_from(number).expect("a signal")).expect("a signal can be raised");
    } else if arg == "--read" {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).expect("a line");
        print!("marker: read {line}");
    } else if let Some(program) = arg.strip_prefix("--exec=") {
        let error = std::process::Command::new(program).exec();
        println!("marker: {program}: {error}");
    } else if arg == "--stderr" {
        eprintln!("marker: on stderr");
    }
}

fn now() -> u128 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the clock can be read");
    std::time::Duration::from(time).as_nanos()
}
