//! Runs an agent under ana.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // From here on no process of the same user reads our memory or our keys.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("ana-run: cannot become non-dumpable: {error}");
        return ExitCode::from(ana_supervisor::launch::child::OURS);
    }
    ana_supervisor::cli::run::run(&ana_supervisor::cli::run::Args::parse())
}
