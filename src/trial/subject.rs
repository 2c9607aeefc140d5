//! What is run.

use std::ffi::OsString;
use std::path::PathBuf;

use plimsoll_profiles::{
    Error, ForeignEnvironment, NotFound, Profile, Reclaim, foreign_environment, reach, resolve,
};

/// What is run, time and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Any command.
    Command {
        program: PathBuf,
        /// Its name as it was called, and its arguments.
        arguments: Vec<OsString>,
    },
    /// A run of the cache, with these options of `plimsoll run`.
    Run { options: Vec<OsString> },
}

/// Why a profile cannot be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error(transparent)]
    Profile(#[from] Error),
    #[error("profile `{profile}` would not reach {}: {why}", program.display())]
    Unreached {
        profile: String,
        program: PathBuf,
        why: String,
    },
    #[error("profile `{profile}` is for other programs only: give one as a command after `--`")]
    Foreign { profile: String },
}

impl Subject {
    /// A command, or with no words a run.
    pub(crate) fn new(words: &[OsString], options: Vec<OsString>) -> Result<Subject, NotFound> {
        let Some(name) = words.first() else {
            return Ok(Subject::Run { options });
        };
        Ok(Subject::Command {
            program: resolve(name)?,
            arguments: words.to_vec(),
        })
    }

    /// The words on the command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let words = match self {
            Subject::Command { arguments, .. } => arguments,
            Subject::Run { options } => options,
        };
        words
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    /// The same in a line.
    pub(crate) fn line(&self) -> String {
        match self {
            Subject::Command { .. } => self.words().join(" "),
            Subject::Run { .. } => format!("plimsoll run {}", self.words().join(" ")),
        }
    }

    /// The environment in which a profile is tried.
    pub(crate) fn environment(&self, profile: &Profile) -> Result<ForeignEnvironment, Unfit> {
        match self {
            // It applies the profile itself.
            Subject::Run { .. } if profile.allocator.serves_here().is_some() => {
                Ok(ForeignEnvironment {
                    variables: Vec::new(),
                    library: None,
                    notes: Vec::new(),
                })
            }
            Subject::Run { .. } => Err(Unfit::Foreign {
                profile: profile.name.clone(),
            }),
            Subject::Command { program, .. } => {
                let environment = foreign_environment(profile)?;
                let reach = reach(program, profile);
                let why: Vec<String> = reach.blocking().map(ToString::to_string).collect();
                if why.is_empty() {
                    Ok(environment)
                } else {
                    Err(Unfit::Unreached {
                        profile: profile.name.clone(),
                        program: reach.program.clone(),
                        why: why.join("; "),
                    })
                }
            }
        }
    }

    /// Whether a profile is another one for it than that without its reclaim: what is done after
    /// an unload, only a run does.
    pub(crate) fn tells_apart(&self, profile: &Profile) -> bool {
        matches!(self, Subject::Run { .. }) || profile.reclaim == Reclaim::None
    }
}
