//! The command `plimsoll`: see, tune and hold the memory of processes that load big models.

mod cli;
mod exec;
mod output;
mod run;
mod synthetic;
mod trial;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

fn main() -> ExitCode {
    cli::main()
}
