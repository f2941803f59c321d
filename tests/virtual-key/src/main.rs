//! Plugs a virtual security key into this machine, for trying ana by hand in a virtual machine: the person presses Enter.

use std::{
    io::{self, BufRead},
    process::ExitCode,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use ana_virtual_key::{Algorithm, Person, VirtualKey};
use clap::Parser;

/// A virtual FIDO2 security key (as root, with /dev/uhid). Ends at the end of the input.
#[derive(Parser)]
struct Args {
    /// What the key is called
    #[arg(long, default_value = "virtual security key")]
    name: String,
    /// With this PIN; otherwise none is set yet
    #[arg(long)]
    pin: Option<String>,
    /// Who touches it: at-once, after:MILLISECONDS, deny, never or enter (press Enter; "n" and Enter refuses)
    #[arg(long, default_value = "enter", value_parser = person)]
    touch: Person,
    /// Sign with Ed25519 only
    #[arg(long)]
    ed25519: bool,
}

/// How often it is looked whether something new was asked.
const LOOK: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtual-key: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> io::Result<()> {
    let mut builder = VirtualKey::builder(&args.name);
    if let Some(pin) = &args.pin {
        builder = builder.pin(pin);
    }
    if args.ed25519 {
        builder = builder.algorithms(&[Algorithm::EdDsa]);
    }
    let key = builder.plug().map_err(|error| io::Error::other(format!("cannot plug a key in: {error}")))?;
    key.person(args.touch);
    println!("{} is {:?}", key.hidraw().display(), args.name);
    let (sender, lines) = channel();
    thread::spawn(move || read(&sender));
    let (mut told, mut blinking) = (0, false);
    loop {
        let seen = key.seen();
        // Those that are not answered yet are told of later, with their answer.
        while let Some(request) = seen.get(told).filter(|_| told + 1 < seen.len() || !key.is_blinking()) {
            println!("{request:?}");
            told += 1;
        }
        if key.is_blinking() != blinking {
            blinking = key.is_blinking();
            println!("{}", if blinking { "* the key blinks: touch it" } else { "* the key is dark" });
        }
        match lines.recv_timeout(LOOK) {
            Ok(line) if line.trim() == "n" => key.deny(),
            Ok(_) => key.touch(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn read(lines: &Sender<String>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if lines.send(line).is_err() {
            return;
        }
    }
}

fn person(text: &str) -> Result<Person, String> {
    match text.split_once(':') {
        None if text == "at-once" => Ok(Person::Touches),
        None if text == "deny" => Ok(Person::Denies),
        None if text == "never" => Ok(Person::Never(None)),
        None if text == "enter" => Ok(Person::ByHand),
        Some(("after", milliseconds)) => {
            let number = milliseconds.parse().map_err(|error| format!("{milliseconds}: {error}"))?;
            Ok(Person::TouchesAfter(Duration::from_millis(number)))
        }
        _ => Err("at-once, after:MILLISECONDS, deny, never or enter".to_owned()),
    }
}
