//! `plimsoll run`: the main job.

mod options;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use malloc_stats::Size;
use plimsoll_cache::observe::Trace;
use plimsoll_profiles::{Profile, builtin};
use plimsoll_tui::report;

pub(crate) use self::options::RunOptions;
use super::{Done, FAILED, live};
use crate::output::{Later, Output, complain};
use crate::run::{INTERRUPTED, Publishing, Recording, drive};
use crate::synthetic;

/// Hold models under a chosen allocator, and show what happened to memory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll run                                              a mixed set that it makes itself
  plimsoll run --models ~/models --ram 8GiB --workload zipf
  plimsoll run --profile jemalloc-purge --storage heap --churn
  plimsoll run --synthetic six --ram 1200MiB --workload cyclic --steps 18 --churn --storage heap
  plimsoll run --device simulated:1GiB,25 --ram auto        on a device, at 25 GB/s
  plimsoll run --device simulated:1GiB --inject transfer:5  every fifth load fails halfway
  plimsoll run --models ~/models --patch style.safetensors:0.8 --device simulated:8GiB,12
  plimsoll run --models unet.safetensors --device simulated:3GiB,12 --partial=50% --trace pass.json
  plimsoll run --record trace.jsonl && plimsoll replay trace.jsonl
  plimsoll run --clean                                      remove the models it made

A workload file has one JSON object a line:
  {\"lease\":[\"m0\",\"m1\"],\"on\":\"cpu\",\"hold_ms\":20,\"at_ms\":0}
`lease` names file stems; `on`, `hold_ms` and `at_ms` may be left out. `on` takes cpu, or device,
which is what --device names and what a lease is asked for on where nothing is said.

A device cuda:N is an NVIDIA GPU; plimsoll-cuda has them (docs/cuda.md). Its budget follows what the
driver says is free, less --working-memory or 3 GiB.

A simulated device is memory of this host that behaves like a device's: it has SIZE of its own,
takes GBPS gigabytes a second, verifies what it is given, and can be made to fail. What is measured
on it says `simulated`.

Faults to inject, each at every load of the device, or with :N at every Nth:
  oom       the device says that it has no memory
  transfer  a transfer fails halfway
  slow      transfers take ten times as long, and 1 ms for each MiB at least
  stuck     a transfer stands still; leases give up after 2 s, and then it goes on
  read      a read of a file fails, with :N every Nth read; on any device

Churn does to the heap what loaders do, by a seeded recipe: around each tensor a staging buffer of
twice its size, and a metadata block of 32 to 256 bytes that stays to the end; after each step 96
buffers of 16 KiB to 6 MiB, at most 8 of them alive at once, of which 4 stay, at most 16 in all.")]
pub(crate) struct Run {
    #[command(flatten)]
    what: RunOptions,
    /// The allocator profile: a built-in one, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = builtin::DEFAULT)]
    profile: String,
    /// Record the events in a new file
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write what came to devices in part, and what was done with it meanwhile, to a file for a trace
    /// viewer (Perfetto, chrome://tracing)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["live", "clean"])]
    trace: Option<PathBuf>,
    /// Show the run on the live screen, as `plimsoll top` does, and print the report after it
    #[arg(long, conflicts_with_all = ["no_publish", "clean"])]
    live: bool,
    /// Show the run to live screens on a socket there [default: where `plimsoll top` looks]
    #[arg(long, value_name = "PATH", conflicts_with = "no_publish")]
    publish: Option<PathBuf>,
    /// Do not show the run to live screens
    #[arg(long)]
    no_publish: bool,
    /// Print one JSON object and nothing else to stdout
    #[arg(long)]
    json: bool,
    /// Add a table of memory after each step
    #[arg(long)]
    steps_table: bool,
    /// Remove the models that `run` made, and do nothing else
    #[arg(long, exclusive = true)]
    clean: bool,
}

/// Writes a trace, and says where it is not whole.
fn write_trace(file: Later, trace: &Trace) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut text = Vec::new();
    trace.write(&mut text)?;
    file.replace(&String::from_utf8_lossy(&text))?;
    if trace.missed() > 0 {
        complain(&format!(
            "the trace leaves out {} events, the last ones",
            trace.missed()
        ));
    }
    Ok(())
}

pub(crate) fn run(options: &Run) -> Done {
    let output = Output::new(options.json);
    if options.live {
        return live::run(options.publish.as_deref());
    }
    if options.clean {
        let removed = synthetic::clean()?;
        output.text(&format!(
            "removed {} files, {}\n",
            removed.files,
            Size(removed.bytes)
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let profile = Profile::find(&options.profile)?;
    // Before anything else: it may execute this program again.
    plimsoll_profiles::apply(&profile)?;
    let publishing = match &options.publish {
        Some(path) => Publishing::At(path.clone()),
        None if options.no_publish => Publishing::Not,
        None => Publishing::Usual,
    };
    let job = options.what.job()?;
    let recording = options
        .record
        .as_deref()
        .map(Recording::begin)
        .transpose()?;
    let trace = options.trace.as_deref().map(Later::open).transpose()?;
    let plan = job.plan(profile, publishing, &output)?;
    let outcome = drive(&plan, recording, trace.is_some(), &output)?;
    if let (Some(file), Some(gathered)) = (trace, &outcome.trace) {
        write_trace(file, gathered)?;
    }
    if options.json {
        output.value(&outcome.report)?;
    } else {
        output.text("\n")?;
        output.text(&report::text(&output.paint, &outcome.report))?;
        if options.steps_table {
            output.text(&format!("\n{}", report::steps(&outcome.report)))?;
        }
    }
    for known in &outcome.report.errors {
        let times = if known.count > 1 {
            format!(" ({} times)", known.count)
        } else {
            String::new()
        };
        complain(&format!("{}{times}", known.error));
    }
    if let Some(failure) = &outcome.recording_failed {
        complain(&format!("the recording is incomplete: {failure}"));
    }
    Ok(ExitCode::from(if outcome.interrupted {
        INTERRUPTED
    } else if outcome.report.failed_loads > 0
        || outcome.is_poisoned
        || outcome.recording_failed.is_some()
    {
        FAILED
    } else {
        0
    }))
}
