//! What `compare` and `check` run: any command, or a run of the cache.

use std::ffi::OsString;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args};

use super::exec::lasting;
use super::run::RunOptions;
use crate::trial::Subject;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is run, and how often.
#[derive(Debug, Args)]
pub(crate) struct SubjectOptions {
    /// Run it so often first, and do not count that: the page cache fills, models are made
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(super) warm_up: u32,
    /// End a command after so long, such as 30s or 5m, as a server does not end by itself: by
    /// SIGTERM, and SIGKILL 10 s later
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    pub(super) limit: Option<Duration>,
    /// A command that ends with another exit code than 0 has not failed
    #[arg(long)]
    pub(super) any_code: bool,
    #[command(flatten, next_help_heading = "What a run does (without a command)")]
    run: RunOptions,
    /// A command and its arguments; without one, a run of the cache
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl SubjectOptions {
    /// What is run. `given` are the matches of the subcommand.
    pub(super) fn subject(&self, given: &ArgMatches) -> Result<Subject, Failure> {
        let options = as_given::<RunOptions>(given);
        if let (Some(option), false) = (options.first(), self.command.is_empty()) {
            let option = option.to_string_lossy();
            let option = option.split('=').next().unwrap_or_default();
            return Err(format!(
                "{option} is of a run, and a command is given: what the command does stands after `--`"
            )
            .into());
        }
        if self.command.is_empty() {
            // Before anything is run, as it would be refused every time.
            self.run.job()?;
        }
        Ok(Subject::new(&self.command, options)?)
    }
}

/// The options of a kind that stand on the command line, as they stand there.
fn as_given<T: Args>(given: &ArgMatches) -> Vec<OsString> {
    let known = T::augment_args(clap::Command::new("options"));
    let mut words = Vec::new();
    for argument in known.get_arguments() {
        let id = argument.get_id().as_str();
        let Some(long) = argument.get_long() else {
            continue;
        };
        if given.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        if matches!(argument.get_action(), ArgAction::SetTrue) {
            words.push(OsString::from(format!("--{long}")));
            continue;
        }
        for value in given.get_raw(id).into_iter().flatten() {
            let mut word = OsString::from(format!("--{long}="));
            word.push(value);
            words.push(word);
        }
    }
    words
}
