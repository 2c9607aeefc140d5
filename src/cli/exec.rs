//! `plimsoll exec`: any command under a profile, seen from outside.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use plimsoll_profiles::{NotFound, Profile, builtin, foreign_environment, reach, resolve};
use plimsoll_trials::Outcome;
use plimsoll_tui::paint::Paint;
use plimsoll_tui::trials::outcome;

use crate::exec::kernel::{Signals, end_by};
use crate::exec::{Attendance, ExecError, Group, Looks, Manners, Plan, Ran, Streams, exec};
use crate::output::complain;
use crate::run::Recording;

/// Something of ours failed.
pub(super) const OWN_FAILURE: u8 = 125;
/// The command is there, and cannot be run.
const CANNOT_RUN: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;

/// Run any command under a profile, seen from outside, and show what happened to memory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll exec -- python server.py
  plimsoll exec --profile glibc-mmap-1m -- python server.py
  plimsoll exec --profile jemalloc-default --record trace.jsonl -- ./server --port 80
  plimsoll exec --json -o report.json -- make test | tee log

The command has our input, output, terminal and signals, and ends us as it ends itself. The report goes
to standard error, or to --output. It is said beforehand where the profile cannot reach the command (a
static or setuid program, another C library), and seen afterwards whether it took.

Processes that the command leaves behind are followed to their end; Ctrl-C ends that, or --no-follow.

A program can mark moments, to be measured then: connect to the Unix socket in PLIMSOLL_MARKS, send
`baseline`, `cycle` or `dropped` and a newline, and wait for the answer `ok`. Rust: malloc_stats::mark.")]
pub(crate) struct Exec {
    /// The allocator profile: a built-in one, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = builtin::DEFAULT)]
    profile: String,
    /// Record what is seen in a new file, for `plimsoll top` and `replay`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// How often memory is read, such as 100ms; less often where that costs too much
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = interval)]
    interval: Duration,
    /// Do not walk heaps
    #[arg(long)]
    no_looks: bool,
    /// Do not wait for processes that the command leaves behind
    #[arg(long)]
    no_follow: bool,
    /// End the command after so long, such as 30s or 5m: by SIGTERM, and SIGKILL 10 s later
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    limit: Option<Duration>,
    /// Report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report to this file rather than to standard error
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What went wrong, and the code that says so.
struct Failed(u8, String);

impl Failed {
    fn own(error: impl ToString) -> Failed {
        Failed(OWN_FAILURE, error.to_string())
    }
}

pub(super) fn run(options: &Exec) -> ExitCode {
    match run_command(options) {
        Ok(ran) => end_as(ran.status),
        Err(Failed(code, what)) => {
            complain(&what);
            ExitCode::from(code)
        }
    }
}

fn run_command(options: &Exec) -> Result<Ran, Failed> {
    let profile = Profile::find(&options.profile).map_err(Failed::own)?;
    let environment = foreign_environment(&profile).map_err(Failed::own)?;
    let name = options.command.first().ok_or(Failed::own("no command"))?;
    let program = resolve(name).map_err(not_found)?;
    for note in &environment.notes {
        complain(&format!("note: {note}"));
    }
    let reach = reach(&program, &profile);
    for obstacle in reach.blocking() {
        complain(&format!("warning: {obstacle}"));
    }
    for note in reach.notes() {
        tracing::info!("{note}");
    }
    let report = options.output.as_deref().map(create).transpose()?;
    let recording = options.record.as_deref().map(Recording::begin);
    let recording = recording.transpose().map_err(Failed::own)?;
    let variables = environment.variables.into_iter();
    // From here on nothing but the command is to be interrupted.
    let signals = Signals::hold().map_err(Failed::own)?;
    let follows = !options.no_follow;
    let plan = Plan {
        program,
        arguments: options.command.clone(),
        environment: variables
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        profile,
        group: Group::as_without_us(),
        streams: Streams::Inherited,
        attendance: Attendance {
            manners: Manners::Transparent,
            follow: follows,
            limit: options.limit,
        },
        interval: options.interval,
        looks: if options.no_looks {
            Looks::Never
        } else {
            Looks::Paced
        },
        recording,
    };
    let left = |status: ExitStatus| {
        complain(&format!(
            "note: the command has ended ({status}); what it left running is followed to its end \
             (Ctrl-C, or --no-follow, to leave it)"
        ));
    };
    let ran = exec(plan, &signals, left).map_err(|error| match &error {
        ExecError::Start { source, .. } => {
            let code = match source.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => CANNOT_RUN,
            };
            Failed(code, error.to_string())
        }
        ExecError::Own { .. } => Failed::own(error),
    })?;
    if let Some(failure) = &ran.recording_failed {
        complain(&format!("the recording is incomplete: {failure}"));
    }
    tell(options, report, &ran.outcome);
    Ok(ran)
}

fn not_found(error: NotFound) -> Failed {
    Failed(error.exit_code(), error.to_string())
}

fn create(path: &Path) -> Result<File, Failed> {
    File::create(path)
        .map_err(|error| Failed::own(format!("cannot write {}: {error}", path.display())))
}

/// Writes the report. The command has run; that its report is lost does not change how it ended.
fn tell(options: &Exec, file: Option<File>, seen: &Outcome) {
    let is_terminal = file.is_none() && io::stderr().is_terminal();
    let paint = Paint::detect(is_terminal);
    let text = if options.json {
        serde_json::to_string_pretty(seen).map(|text| text + "\n")
    } else {
        Ok(format!("\n{}", outcome::text(&paint, seen)))
    };
    let written = text.map_err(io::Error::from).and_then(|text| match file {
        Some(mut file) => file.write_all(text.as_bytes()),
        None => io::stderr().write_all(text.as_bytes()),
    });
    if let Err(error) = written {
        complain(&format!("the report cannot be written: {error}"));
    }
}

/// Ends as the command ended.
fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        end_by(signal);
        // It did not end us: then as shells tell it.
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(OWN_FAILURE));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(OWN_FAILURE))
}

/// 5 ms to a minute.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    let range = Duration::from_millis(5)..=Duration::from_secs(60);
    if range.contains(&interval) {
        Ok(interval)
    } else {
        Err("takes 5ms to 60s".to_owned())
    }
}

/// More than nothing, and a month at most.
pub(super) fn lasting(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration.is_zero() || duration > Duration::from_secs(31 * 86_400) {
        return Err("takes more than 0, and 31 days at most".to_owned());
    }
    Ok(duration)
}

fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let seconds = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        Some(number * seconds)
    });
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| {
            let text = text.escape_debug();
            format!("`{text}` is no time: a number with ms, s, m or h, such as 100ms")
        })
}
