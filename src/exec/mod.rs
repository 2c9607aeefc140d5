//! Running any command under a profile, seen from outside.
//!
//! | file | what |
//! |---|---|
//! | `origin` | how we were started, which it is to inherit |
//! | `start` | starting it as if we were not there |
//! | `job` | attending it: signals, stops, its end and that of what it left |
//! | `witness` | whether a signal came to our whole group |
//! | `kernel` | the system calls that takes |
//! | `sampler` | looking at it and its children meanwhile |
//! | `gathering` | what was seen, gathered into an outcome |
//! | `programs` | which programs those are, and whether the profile took in them |
//! | `log` | the recording |

mod gathering;
mod job;
pub(crate) mod kernel;
mod log;
mod origin;
mod programs;
mod sampler;
mod start;
mod witness;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use malloc_stats::inspect::{Ending, Target, Watch};
use malloc_stats::mark;
use plimsoll_profiles::Profile;
use plimsoll_trials::outcome::{Ended, Outcome};

use self::gathering::Gathering;
pub(crate) use self::job::{Attendance, Manners};
use self::job::{Attended, Job};
use self::kernel::Signals;
use self::log::Log;
pub(crate) use self::sampler::Looks;
use self::sampler::{Sampler, Sampling};
pub(crate) use self::start::{Group, Streams, Terminal};
use self::start::{Start, start};
use self::witness::Witness;
use crate::run::Recording;

/// A command to run, and how it is looked at.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    /// The name it is called by, and its arguments.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, Option<OsString>)>,
    pub(crate) profile: Profile,
    pub(crate) group: Group,
    pub(crate) streams: Streams,
    pub(crate) attendance: Attendance,
    pub(crate) interval: Duration,
    pub(crate) looks: Looks,
    pub(crate) recording: Option<Recording>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    pub(crate) status: ExitStatus,
    /// It was ended because its time was over.
    pub(crate) limited: bool,
    /// The signal that asked us to end meanwhile.
    pub(crate) interrupted: Option<i32>,
    pub(crate) recording_failed: Option<String>,
}

/// Why a command was not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    /// It could not be started.
    #[error("cannot run {}: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
    /// Something of ours failed.
    #[error("{what}: {source}")]
    Own {
        what: &'static str,
        source: io::Error,
    },
}

fn own(what: &'static str) -> impl FnOnce(io::Error) -> ExecError {
    move |source| ExecError::Own { what, source }
}

/// Runs a command to its end. `left` is called where it has ended and processes that it left are
/// waited for.
pub(crate) fn exec(
    plan: Plan,
    signals: &Signals,
    left: impl FnMut(ExitStatus),
) -> Result<Ran, ExecError> {
    kernel::adopt_orphans().map_err(own("orphans cannot be adopted"))?;
    let folder = tempfile::Builder::new().prefix("plimsoll-").tempdir();
    let folder = folder.map_err(own("no folder for the program's marks"))?;
    let desk = sampler::desk(folder.path()).map_err(own("no socket for the program's marks"))?;
    let mut environment = plan.environment;
    let variables = environment.iter().map(|(name, _)| name.clone()).collect();
    let marks = desk.path().as_os_str().to_owned();
    environment.push((mark::VARIABLE.to_owned(), Some(marks)));
    let command: Vec<String> = plan
        .arguments
        .iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let terminal = match plan.attendance.manners {
        Manners::Transparent => Terminal::controlling(),
        Manners::Measured => None,
    };
    // Without one less is known of signals, which is no reason not to run the command.
    let witness = match plan.attendance.manners {
        Manners::Transparent => Witness::call().ok(),
        Manners::Measured => None,
    };
    let begun = Instant::now();
    let started = start(
        Start {
            program: plan.program.clone(),
            arguments: plan.arguments,
            environment,
            group: plan.group,
            streams: plan.streams,
        },
        signals.inheritance(),
        terminal.as_ref(),
    );
    let child = started.map_err(|source| ExecError::Start {
        program: plan.program,
        source,
    })?;
    let pid = child.id();
    let watch = Target::open(pid)
        .ok()
        .and_then(|target| Watch::begin(&target).ok());
    let mut log = Log::begin(plan.recording, begun);
    let name = command.first().map_or("", String::as_str).to_owned();
    log.open(pid, &name, &plan.profile.name);
    let sampler = Sampler::begin(Sampling {
        pid,
        gathering: Gathering::new(begun, command, plan.profile.name.clone()),
        profile: plan.profile,
        variables,
        interval: plan.interval,
        looks: plan.looks,
        besides: witness.as_ref().map(Witness::pid),
        desk,
        log,
    });
    let sampler = sampler.map_err(own("no thread to look at it"))?;
    let job = Job {
        pid,
        group: plan.group,
        terminal: terminal.as_ref(),
        signals,
        witness: witness.as_ref(),
        begun,
    };
    let attended = job.attend(plan.attendance, left);
    let attended = attended.map_err(own("the command cannot be waited for"))?;
    let (gathering, log) = sampler.end().map_err(own("looking at it failed"))?;
    let ended = ended(&attended, watch, plan.attendance);
    let recording_failed = log.close(ended.how.clone());
    Ok(Ran {
        outcome: gathering.finish(ended, attended.used, attended.lasted),
        status: attended.status,
        limited: attended.was_limited,
        interrupted: attended.interrupted,
        recording_failed,
    })
}

/// How it ended, in words, with what the kernel says about memory.
fn ended(attended: &Attended, watch: Option<Watch>, attendance: Attendance) -> Ended {
    let oom = watch.and_then(|mut watch| watch.ending()?.oom);
    let (code, signal) = (attended.status.code(), attended.status.signal());
    let mut how = Ending {
        code,
        signal,
        oom: oom.clone(),
        unknown: None,
    }
    .to_string();
    if attended.was_limited {
        let limit = attendance.limit.unwrap_or_default().as_secs_f64();
        how.push_str(&format!("; asked to end after {limit} s (--for)"));
    }
    if attended.was_killed {
        how.push_str("; killed, as it did not end within 10 s of being asked to");
    }
    Ended {
        code,
        signal,
        oom,
        how,
    }
}
