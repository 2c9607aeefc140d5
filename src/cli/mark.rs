//! `plimsoll mark`: a moment told by a shell script.

use std::process::ExitCode;

use clap::Args;
use malloc_stats::mark::{Told, tell};

use super::{Done, FAILED};
use crate::output::complain;

/// Tell `exec`, `compare` or `check`, under which this runs, that a moment has come.
#[derive(Debug, Args)]
#[command(after_help = "\
Words:
  baseline   all is warm, and nothing that should be given back is held
  cycle      a request or a model is over, and what it took is dropped
  dropped    everything is dropped: what is resident now is retained
  any other  a note in the report

Where nothing of that kind runs, this does nothing. Programs tell by themselves: malloc_stats::mark.")]
pub(crate) struct Mark {
    /// What it is
    word: String,
}

pub(super) fn run(options: &Mark) -> Done {
    Ok(match tell(&options.word) {
        Told::Heard | Told::Unasked => ExitCode::SUCCESS,
        Told::Unheard(error) => {
            complain(&format!("nobody heard the mark: {error}"));
            ExitCode::from(FAILED)
        }
    })
}
