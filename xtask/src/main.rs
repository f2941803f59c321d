//! `cargo xtask …`: what the project needs beyond `cargo build` and `cargo test`.

mod bpf;
mod bpf_toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the eBPF object that is committed with the sources, or check that it is what the sources say.
    Bpf(bpf::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Bpf(args) => bpf::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
