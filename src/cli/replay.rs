//! `plimsoll replay`: the report of a recording.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use plimsoll_events::Report;
use plimsoll_tui::{decision, report};

use super::Done;
use crate::output::Output;

/// Show the report of a recording.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll run --record trace.jsonl
  plimsoll replay trace.jsonl
  plimsoll replay trace.jsonl --json | jq .retained_bytes")]
pub(crate) struct Replay {
    /// A file that `run --record` wrote
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Only the summary, without a line per load and unload
    #[arg(long)]
    summary: bool,
    /// Add a table of memory after each step
    #[arg(long)]
    steps_table: bool,
}

pub(crate) fn run(options: &Replay) -> Done {
    let output = Output::new(options.json);
    let mut replay = plimsoll_events::Replay::open(&options.file)?;
    let mut folded = Report::new();
    let mut lines = String::new();
    let with_lines = !options.json && !options.summary;
    if with_lines {
        lines.push_str(&decision::heading(&output.paint));
        lines.push('\n');
    }
    while let Some(event) = replay.next_event()? {
        folded.fold(&event);
        if with_lines && let Some(line) = decision::line(&output.paint, &event) {
            lines.push_str(&line);
            lines.push('\n');
        }
    }
    if let Some(bytes) = replay.cut_off() {
        folded.notes.push(format!(
            "the last line is cut off after {bytes} bytes and was left out"
        ));
    }
    if options.json {
        output.value(&folded)?;
        return Ok(ExitCode::SUCCESS);
    }
    output.text(&lines)?;
    output.text("\n")?;
    output.text(&report::text(&output.paint, &folded))?;
    if options.steps_table {
        output.text(&format!("\n{}", report::steps(&folded)))?;
    }
    Ok(ExitCode::SUCCESS)
}
