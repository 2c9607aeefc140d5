//! Running it once, in numbers.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use plimsoll_events::Report;
use plimsoll_profiles::Profile;
use plimsoll_trials::{Outcome, Trial};

use super::Subject;
use super::printed::Printed;
use super::subject::Unfit;
use crate::exec::kernel::Signals;
use crate::exec::{Attendance, ExecError, Group, Looks, Manners, Plan, Ran, Streams, exec};

/// How often the memory of a command is read.
const INTERVAL: Duration = Duration::from_millis(50);

/// A report is smaller, bytes.
const LARGEST_REPORT: u64 = 256 << 20;

/// Runs a subject.
#[derive(Debug)]
pub(crate) struct Runner<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) signals: &'a Signals,
    /// Ends it after so long, which is no failure.
    pub(crate) limit: Option<Duration>,
    /// An exit code other than 0 is no failure either.
    pub(crate) any_code: bool,
}

/// What it prints.
enum Stdout {
    Forgotten(Printed),
    Report(File),
}

/// Why there is no trial.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrialError {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("nothing to print to: {0}")]
    Printed(#[source] io::Error),
    #[error("our own program cannot be found: {0}")]
    Own(#[source] io::Error),
    #[error("under profile `{profile}` the command failed: {how}{said}")]
    Failed {
        profile: String,
        how: String,
        said: String,
    },
    #[error("under profile `{profile}` the run printed no report: {why}{said}")]
    NoReport {
        profile: String,
        why: String,
        said: String,
    },
    #[error("interrupted")]
    Interrupted(i32),
}

impl Runner<'_> {
    /// Runs it under a profile, which was called `given` on the command line.
    pub(crate) fn run(&self, profile: &Profile, given: &str) -> Result<Trial, TrialError> {
        let environment = self.subject.environment(profile)?;
        let (stdout, printed) = self.stdout().map_err(TrialError::Printed)?;
        let (stderr, said) = Printed::begin().map_err(TrialError::Printed)?;
        let (program, arguments) = match self.subject {
            Subject::Command { program, arguments } => (program.clone(), arguments.clone()),
            Subject::Run { options } => {
                let own = std::env::current_exe().map_err(TrialError::Own)?;
                let fixed = [
                    "plimsoll",
                    "run",
                    "--json",
                    "--no-publish",
                    "--profile",
                    given,
                ];
                let fixed = fixed.into_iter().map(OsString::from);
                (own, fixed.chain(options.iter().cloned()).collect())
            }
        };
        let plan = Plan {
            program,
            arguments,
            environment: environment
                .variables
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            profile: profile.clone(),
            group: Group::Own,
            streams: Streams::Files { stdout, stderr },
            attendance: Attendance {
                manners: Manners::Measured,
                follow: true,
                limit: self.limit,
            },
            interval: INTERVAL,
            // A run looks at itself.
            looks: match self.subject {
                Subject::Command { .. } => Looks::FirstAtOnce,
                Subject::Run { .. } => Looks::Never,
            },
            recording: None,
        };
        let ran = exec(plan, self.signals, |_| ());
        let said = said.end();
        let report = match printed {
            Stdout::Forgotten(printed) => {
                printed.end();
                None
            }
            Stdout::Report(file) => Some(file),
        };
        let ran = ran?;
        if let Some(signal) = ran.interrupted {
            return Err(TrialError::Interrupted(signal));
        }
        self.accept(profile, &ran, &said)?;
        let Some(file) = report else {
            return Ok(Trial::from(&ran.outcome));
        };
        let report = read_report(file).map_err(|why| TrialError::NoReport {
            profile: profile.name.clone(),
            why,
            said: quote(&said),
        })?;
        Ok(Trial::of_run(&report, cpu(&ran.outcome)))
    }

    /// Where it prints to. A command may print without end, and nobody reads that.
    fn stdout(&self) -> io::Result<(File, Stdout)> {
        match self.subject {
            Subject::Command { .. } => {
                let (writer, printed) = Printed::begin()?;
                Ok((writer, Stdout::Forgotten(printed)))
            }
            Subject::Run { .. } => {
                let file = tempfile::tempfile()?;
                Ok((file.try_clone()?, Stdout::Report(file)))
            }
        }
    }

    /// Whether it ended as it should.
    fn accept(&self, profile: &Profile, ran: &Ran, said: &[u8]) -> Result<(), TrialError> {
        let ended_by_us = ran.limited && ran.outcome.ended.oom.is_none();
        let good =
            ran.status.success() || ended_by_us || self.any_code && ran.status.signal().is_none();
        if good {
            return Ok(());
        }
        Err(TrialError::Failed {
            profile: profile.name.clone(),
            how: ran.outcome.ended.how.clone(),
            said: quote(said),
        })
    }
}

fn cpu(outcome: &Outcome) -> Duration {
    let seconds = outcome.user_seconds + outcome.system_seconds;
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn read_report(mut stdout: File) -> Result<Report, String> {
    let mut text = String::new();
    stdout
        .seek(SeekFrom::Start(0))
        .and_then(|_| stdout.take(LARGEST_REPORT).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// The last of what it said, on lines of its own.
fn quote(said: &[u8]) -> String {
    match String::from_utf8_lossy(said).trim() {
        "" => String::new(),
        said => format!("; it said:\n{said}"),
    }
}
