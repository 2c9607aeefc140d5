//! The command line: one file per subcommand, which parses, calls and prints.

mod check;
mod compare;
mod exec;
mod inspect;
mod live;
mod mark;
mod profiles;
mod ps;
mod replay;
mod run;
mod scan;
mod snapshot;
mod subject;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::output::{Output, StdoutError, complain};

/// What a subcommand gives back.
pub(crate) type Done = Result<ExitCode, Box<dyn std::error::Error + Send + Sync>>;

/// Bad usage or bad input: nothing was done.
pub(crate) const BAD_INPUT: u8 = 2;
/// It was done, and something in it failed.
pub(crate) const FAILED: u8 = 1;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    done, and something in it failed (a load, a recording); of check: a regression
  2    bad usage or bad input, nothing was done; of check: no verdict
  130  interrupted; what was done until then is reported

  exec exits as its command does, by the same signal where one ended it; itself with
  125  if it fails, or is used wrongly
  126  if the command cannot be run
  127  if there is no such command

Environment:
  NO_COLOR       no colours
  COLUMNS        how wide curves and paragraphs may be
  PLIMSOLL_LOG   log levels, such as `debug` or `plimsoll_cache=debug` (to stderr)";

/// See, tune and hold the memory of processes that load big models.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, after_long_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold models under a chosen allocator, and show what happened to memory
    Run(Box<run::Run>),
    /// Run any command under a profile, seen from outside, and show what happened to memory
    Exec(exec::Exec),
    /// Run profiles side by side: what each saves, what it costs, and which to take
    Compare(Box<compare::Compare>),
    /// Fail where memory got worse than a baseline: a gate for CI
    Check(Box<check::Check>),
    /// Tell `exec`, from a script that it runs, that a moment has come
    Mark(mark::Mark),
    /// List the allocator profiles, show one, or print what to export for a foreign program
    Profiles(profiles::Profiles),
    /// List the models in files and folders, and whether they fit here
    Scan(scan::Scan),
    /// See inside a live process: its heap, what pins it, its limits, and what could be done
    Inspect(inspect::Inspect),
    /// List processes by memory, with their allocator, its waste and the nearest limit
    Ps(ps::Ps),
    /// See a cache, any process or a recording live on one screen
    Top(Box<top::Top>),
    /// Show the memory of this process under a profile, and prove which allocator serves
    Snapshot(snapshot::SnapshotOptions),
    /// Show the report of a recording
    Replay(replay::Replay),
}

/// Parses, runs, and turns errors into words on stderr and an exit code.
pub(crate) fn main() -> ExitCode {
    let matches = match Arguments::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return refuse(&error),
    };
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let given = matches.subcommand().map_or(&matches, |(_, given)| given);
    let filter = tracing_subscriber::EnvFilter::try_from_env("PLIMSOLL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(Output::stderr_has_colour())
        .init();
    // Beyond `ulimit -f` a write then fails, and can be reported, rather than ending the process.
    let beyond = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, beyond);
    let done = match &arguments.command {
        Command::Run(options) => run::run(options),
        Command::Exec(options) => return exec::run(options),
        Command::Compare(options) => compare::run(options, given),
        Command::Check(options) => check::run(options, given),
        Command::Mark(options) => mark::run(options),
        Command::Profiles(options) => profiles::run(options),
        Command::Scan(options) => scan::run(options),
        Command::Inspect(options) => inspect::run(options),
        Command::Ps(options) => ps::run(options),
        Command::Top(options) => top::run(options),
        Command::Snapshot(options) => snapshot::run(options),
        Command::Replay(options) => replay::run(options),
    };
    match done {
        Ok(code) => code,
        Err(error) => match error.downcast::<StdoutError>() {
            Ok(closed) if closed.is_closed() => ExitCode::SUCCESS,
            // What was to be done is done; only its report is lost.
            Ok(lost) => {
                complain(&lost.to_string());
                ExitCode::from(FAILED)
            }
            Err(error) => {
                complain(&error.to_string());
                ExitCode::from(BAD_INPUT)
            }
        },
    }
}

/// Says what is wrong with the command line, or what was asked of it. `exec` has a code of its own
/// for that, as its command may end with any other.
fn refuse(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let is_exec = std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == "exec");
    match (error.use_stderr(), is_exec) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => ExitCode::from(exec::OWN_FAILURE),
        (true, false) => ExitCode::from(BAD_INPUT),
    }
}
