//! `plimsoll run`: the main job.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use malloc_stats::Size;
use plimsoll_cache::{Snapshots, Storage};
use plimsoll_profiles::{Profile, builtin};
use plimsoll_tui::report;

use super::{Done, FAILED, live};
use crate::output::{Output, complain};
use crate::run::models::{self, Source};
use crate::run::tiers::{Inject, KeepAlive, Limit, Place, Tiers};
use crate::run::{Churning, INTERRUPTED, Plan, Publishing, Recording, Touch, drive, workload};
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
  plimsoll run --record trace.jsonl && plimsoll replay trace.jsonl
  plimsoll run --clean                                      remove the models it made

A workload file has one JSON object a line:
  {\"lease\":[\"m0\",\"m1\"],\"on\":\"cpu\",\"hold_ms\":20,\"at_ms\":0}
`lease` names file stems; `on`, `hold_ms` and `at_ms` may be left out. `on` takes cpu, or device,
which is what --device names and what a lease is asked for on where nothing is said.

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
    /// Hold the models in this folder, or this one file
    #[arg(long, value_name = "DIR", conflicts_with = "synthetic")]
    models: Option<PathBuf>,
    /// Make models with the tensor shapes of real families, and hold those
    #[arg(long, value_name = "SET")]
    synthetic: Option<synthetic::Set>,
    /// Scale the bytes of made models
    #[arg(
        long,
        value_name = "F",
        default_value_t = 1.0,
        conflicts_with = "models"
    )]
    scale: f64,
    /// Which models are leased in which order: cyclic, zipf, random, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "zipf")]
    workload: String,
    /// How many leases [default: 4 for each model, or the workload file's]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// What random choices start from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The allocator profile: a built-in one, or a file
    #[arg(long, value_name = "NAME|FILE", default_value = builtin::DEFAULT)]
    profile: String,
    /// The RAM budget, such as 1200MiB, or auto: what the machine and its cgroups leave, as that
    /// changes [default: 60 % of the set, at least its largest]
    #[arg(long, value_name = "auto|SIZE")]
    ram: Option<Limit>,
    /// Where models are leased: cpu, or simulated:SIZE or simulated:SIZE,GBPS
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Place,
    /// The device's budget, or auto: what it says is free, less --working-memory [default: all of
    /// its memory, less --working-memory]
    #[arg(long, value_name = "auto|SIZE")]
    vram: Option<Limit>,
    /// What each lease will need besides weights, on its device
    #[arg(long, value_name = "SIZE")]
    working_memory: Option<Size>,
    /// Whether a model stays in RAM once the device has it
    #[arg(
        long,
        value_enum,
        value_name = "yes|no",
        default_value = "yes",
        hide_possible_values = true
    )]
    keep_ram_copy: Keep,
    /// Evict what nobody leased for so long, such as 500ms, 30s or 5m; 0 keeps it for ever
    #[arg(long, value_name = "DURATION", default_value = "0")]
    keep_alive: KeepAlive,
    /// Have things go wrong (see below); may be given more than once
    #[arg(long, value_name = "FAULT[:N]")]
    inject: Vec<Inject>,
    /// Where weights are kept: heap or anonymous
    #[arg(long, value_name = "STORAGE", default_value_t)]
    storage: Storage,
    /// Allocate beside the loads as real loaders do
    #[arg(long, conflicts_with = "churn_only")]
    churn: bool,
    /// Allocate the same with no models loaded: what churn alone retains
    #[arg(long)]
    churn_only: bool,
    /// What is done with leased weights
    #[arg(long, value_enum, default_value_t)]
    touch: Touch,
    /// How deep the snapshots around loads and unloads look
    #[arg(long, value_enum, default_value_t)]
    snapshots: Depth,
    /// How long to wait with everything dropped before `retained` is taken
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    settle: f64,
    /// Record the events in a new file
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
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

/// A yes or a no, as the command line says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Keep {
    Yes,
    No,
}

/// How deep snapshots look, as the command line says it.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Depth {
    /// Everything, while that costs under 1 % of the loads
    #[default]
    Auto,
    /// Process and cgroup only
    Bracket,
    /// Everything, whatever it costs
    Full,
}

impl From<Depth> for Snapshots {
    fn from(depth: Depth) -> Snapshots {
        match depth {
            Depth::Auto => Snapshots::Auto,
            Depth::Bracket => Snapshots::Bracket,
            Depth::Full => Snapshots::Full,
        }
    }
}

/// A day: whoever wants longer wants another tool.
const LONGEST_SETTLE: f64 = 86_400.0;

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
    let settle = settle(options.settle)?;
    let mut tiers = Tiers {
        ram: options.ram.unwrap_or(Limit::Fixed(0)),
        place: options.device.clone(),
        vram: options.vram,
        working: options.working_memory.map_or(0, |size| size.0),
        keep_ram_copy: options.keep_ram_copy == Keep::Yes,
        keep_alive: options.keep_alive.0,
        inject: options.inject.clone(),
    };
    if let Some(fault) = tiers.fault() {
        return Err(fault.into());
    }
    let source = match &options.models {
        Some(path) => Source::Found(models::open(path)?),
        None => {
            let set = options.synthetic.unwrap_or(synthetic::Set::Mixed);
            Source::Planned(synthetic::plan(set, options.scale)?)
        }
    };
    // Models are made only for a run that makes sense.
    let steps = workload::read(
        &options.workload,
        &source.names(),
        options.steps,
        options.seed,
    )?;
    let recording = options
        .record
        .as_deref()
        .map(Recording::begin)
        .transpose()?;
    let models = source.models(&output)?;
    if options.ram.is_none() {
        tiers.ram = Limit::Fixed(default_budget(&models, options.storage));
    }
    let plan = Plan {
        profile,
        models,
        steps,
        tiers,
        storage: options.storage,
        churning: if options.churn_only {
            Churning::Only
        } else if options.churn {
            Churning::Beside
        } else {
            Churning::None
        },
        touch: options.touch,
        snapshots: options.snapshots.into(),
        settle,
        seed: options.seed,
        workload: options.workload.clone(),
        publishing: match &options.publish {
            Some(path) => Publishing::At(path.clone()),
            None if options.no_publish => Publishing::Not,
            None => Publishing::Usual,
        },
    };
    let outcome = drive(&plan, recording, &output)?;
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
    } else if outcome.report.failed_loads > 0 || outcome.recording_failed.is_some() {
        FAILED
    } else {
        0
    }))
}

fn settle(seconds: f64) -> Result<Duration, String> {
    if (0.0..=LONGEST_SETTLE).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!(
            "--settle {seconds}: takes 0 to {LONGEST_SETTLE} seconds"
        ))
    }
}

/// Smaller than the set, so that something has to be evicted, and large enough for every model.
fn default_budget(models: &[plimsoll_cache::Model], storage: Storage) -> u64 {
    let charges = models.iter().map(|model| storage.charge(model));
    let total: u64 = charges.clone().sum();
    charges.max().unwrap_or(0).max(total / 10 * 6)
}
