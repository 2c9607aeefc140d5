//! `plimsoll scan`: the models in files and folders, what they are, and whether they fit here.
//!
//! | file | what it has |
//! |---|---|
//! | `report.rs` | what is found at the paths |
//! | `found.rs` | what is said of one model |
//! | `fit.rs` | what is free here, and what fits into it |
//! | `table.rs` | the report as text |
//! | `progress.rs` | what is being done, where that lasts |

mod fit;
mod found;
mod progress;
mod report;
mod table;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Args;

use super::Done;
use crate::output::{Output, complain};
use fit::Room;
use report::Report;

/// List the models in files and folders, and whether they fit here.
#[derive(Debug, Args)]
#[command(after_help = "\
Only headers are read. Folders are searched 16 deep, each once; an index stands for its shards.

Columns:
  what         what it is, by the names and shapes of its tensors and its metadata; with ~ where
               several families have the same form; of an adapter, its base
  params       elements, of tied tensors once
  in place     share of its bytes that `mapped` can use where they lie in the file
  cached       share of its files that is in the page cache now
  RAM, VRAM    whether it fits into what is free now: ~ is an estimate, `maybe` that at most
               enough is free, n/a that it is not known

With --long:
  alignment    the power of two that divides every tensor's place in its file
  misaligned   tensors that cannot be used in place, because their type needs more
  anonymous    RAM that it takes as `anonymous` storage, which a device takes too
  mapped       RAM that it can come to take as `mapped` storage, which the kernel can take back
               where nothing was written

Exit codes:
  0  every path had models, and all can be read
  1  some files in a folder cannot be read
  2  a path cannot be used, or there are no models

Examples:
  plimsoll scan ~/models
  plimsoll scan ~/models --long
  plimsoll scan unet.safetensors --json | jq '.models[].kind'")]
pub(crate) struct Scan {
    /// Files of models, and folders to search
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Show more columns, and what each model is known by
    #[arg(long)]
    long: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with = "long")]
    json: bool,
}

pub(crate) fn run(options: &Scan) -> Done {
    let output = Output::new(options.json);
    let report = Report::of(&options.paths, Room::here());
    if options.json {
        output.value(&report)?;
    } else {
        output.text(&table::text(&report, &output.paint, options.long))?;
    }
    for bad in &report.unusable {
        complain(&bad.error);
    }
    Ok(report.exit_code())
}
