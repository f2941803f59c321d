//! `cargo xtask …`: what the project needs beyond `cargo build` and `cargo test`.

mod agent;
mod bench;
mod bpf;
mod bpf_toolchain;
mod built;
mod code;
mod commands;
mod demo;
mod fuzz;
mod installed;
mod lint;
mod man;
mod mutants;
mod packages;
mod run;
mod state;
mod steps;
mod test;
mod tidy;
mod vm;

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
    Run(run::Args),
    Test(test::Args),
    Lint(lint::Args),
    Bench(bench::Args),
    Bpf(bpf::Args),
    Fuzz(fuzz::Args),
    Man(man::Args),
    Mutants(mutants::Args),
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Lint(args) => lint::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Man(args) => man::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Bpf(args) => bpf::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Mutants(args) => mutants::run(&args),
        Task::Vm(args) => vm::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
