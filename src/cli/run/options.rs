//! What a run does, as `run`, `compare` and `check` are asked for it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use malloc_stats::Size;
use malloc_stats::limits::Limits;
use plimsoll_cache::storage::{Advice, Mapping, PageCache};
use plimsoll_cache::{Model, Snapshots, Storage};
use plimsoll_profiles::Profile;

use crate::output::Output;
use crate::run::models::{self, Source};
use crate::run::place;
use crate::run::terms::{As, Asked, Named, Opened, Share, Terms};
use crate::run::tiers::{Inject, KeepAlive, Limit, Tiers};
use crate::run::{Churning, Plan, Publishing, Touch, workload};
use crate::synthetic;

/// What a run does.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
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
    /// Take all steps so often, with everything dropped after each time: what grows from one
    /// cycle to the next leaks
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    cycles: u32,
    /// What random choices start from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The RAM budget, such as 1200MiB, or auto: what the machine and its cgroups leave, as that
    /// changes [default: 60 % of the set, at least its largest; auto where the machine has less]
    #[arg(long, value_name = "auto|SIZE")]
    ram: Option<Limit>,
    /// Where models are leased: cpu, cuda:N, simulated:SIZE or simulated:SIZE,GBPS
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: place::Named,
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
    /// Change the models that it fits by a patch, such as a LoRA; may be given more than once. 1 is as
    /// it was trained
    #[arg(long, value_name = "FILE[:STRENGTH]")]
    patch: Vec<Named>,
    /// How patches come to models: merged, beside, or auto: merged where there is room for that
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "auto|merged|beside",
        hide_possible_values = true
    )]
    patch_as: As,
    /// Take of patches what fits, instead of refusing those that do not fit wholly
    #[arg(long)]
    patch_lenient: bool,
    /// Lease models in part, and stream the rest: at most so much of each is on its device, such as
    /// 2GiB or 50%, or as much as there is room for
    #[arg(long, value_name = "SIZE|SHARE|auto", num_args = 0..=1, default_missing_value = "auto", require_equals = true)]
    partial: Option<Share>,
    /// Tensors that must be there, with --partial; may be given more than once, and end in *
    #[arg(long, value_name = "TENSOR")]
    at_least: Vec<String>,
    /// The order in which tensors are used, with --partial: their names, one a line [default: the
    /// file's, or by name where they are hashed]
    #[arg(long, value_name = "FILE")]
    order: Option<PathBuf>,
    /// Evict what nobody leased for so long, such as 500ms, 30s or 5m; 0 keeps it for ever
    #[arg(long, value_name = "DURATION", default_value = "0")]
    keep_alive: KeepAlive,
    /// Have things go wrong (see below); may be given more than once
    #[arg(long, value_name = "FAULT[:N]")]
    inject: Vec<Inject>,
    /// How weights are kept in RAM: heap, anonymous, pinned or mapped
    #[arg(long, value_name = "STORAGE", default_value_t)]
    storage: Storage,
    /// Lock no more of RAM than that, under storage pinned [default: half of it, or of the cgroup's
    /// limit]
    #[arg(long, value_name = "SIZE")]
    pinned_at_most: Option<Size>,
    /// What the kernel is told of mapped files: none, sequential, willneed or populate
    #[arg(long, value_name = "ADVICE", default_value_t)]
    advise: Advice,
    /// What becomes of a mapped file's pages in the page cache at unload: keep or drop
    #[arg(long, value_name = "keep|drop", default_value_t)]
    page_cache: PageCache,
    /// Map files on network file systems too
    #[arg(long)]
    mapped_anywhere: bool,
    /// Keep weights in huge pages, under storage anonymous
    #[arg(long)]
    huge_pages: bool,
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

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A run that makes sense; its models may not be made yet.
pub(crate) struct Job<'a> {
    options: &'a RunOptions,
    source: Source,
    steps: Vec<workload::Step>,
    tiers: Tiers,
    terms: Opened,
    settle: Duration,
}

impl RunOptions {
    /// Whether these options go together, and what they name is there.
    pub(crate) fn job(&self) -> Result<Job<'_>, Failure> {
        let settle = settle(self.settle)?;
        if let Some((option, wanted)) = self.of_another_storage() {
            let storage = self.storage;
            return Err(format!(
                "{option} says nothing for --storage {storage}: it is for --storage {wanted}"
            )
            .into());
        }
        let tiers = Tiers {
            ram: self.ram.unwrap_or(Limit::Fixed(0)),
            place: self.device.open()?,
            vram: self.vram,
            working: self.working_memory.map_or(0, |size| size.0),
            keep_ram_copy: self.keep_ram_copy == Keep::Yes,
            keep_alive: self.keep_alive.0,
            inject: self.inject.clone(),
        };
        let terms = Asked {
            patches: self.patch.clone(),
            patch_as: self.patch_as,
            lenient: self.patch_lenient,
            partial: self.partial,
            required: self.at_least.clone(),
            order: self.order.clone(),
        };
        if let Some(fault) = tiers.fault().or_else(|| terms.fault()) {
            return Err(fault.into());
        }
        if self.partial.is_some() && tiers.sticks() {
            let why = "whoever uses a model that is leased in part waits for its transfers, and for \
                       one that stands still for ever";
            return Err(format!("--inject stuck does not go with --partial: {why}").into());
        }
        let terms = terms.open()?;
        let source = match &self.models {
            Some(path) => Source::Found(models::open(path)?),
            None => {
                let set = self.synthetic.unwrap_or(synthetic::Set::Mixed);
                Source::Planned(synthetic::plan(set, self.scale)?)
            }
        };
        // Models are made only for a run that makes sense.
        let steps = workload::read(&self.workload, &source.names(), self.steps, self.seed)?;
        Ok(Job {
            options: self,
            source,
            steps,
            tiers,
            terms,
            settle,
        })
    }
}

impl RunOptions {
    /// An option that was given and is about another storage, with that.
    fn of_another_storage(&self) -> Option<(&'static str, Storage)> {
        let given = [
            ("--advise", self.advise != Advice::default()),
            ("--page-cache", self.page_cache != PageCache::default()),
            ("--mapped-anywhere", self.mapped_anywhere),
        ];
        let of_mapped = given.map(|(option, is_given)| (option, is_given, Storage::Mapped));
        let huge = ("--huge-pages", self.huge_pages, Storage::Anonymous);
        let pinned = self.pinned_at_most.is_some();
        let pinned = ("--pinned-at-most", pinned, Storage::Pinned);
        let mut all = of_mapped.into_iter().chain([huge, pinned]);
        all.find(|(_, is_given, storage)| *is_given && *storage != self.storage)
            .map(|(option, _, storage)| (option, storage))
    }

    fn mapping(&self) -> Mapping {
        Mapping {
            advice: self.advise,
            page_cache: self.page_cache,
            anywhere: self.mapped_anywhere,
            // The process is ours, and so are its handlers.
            guard: true,
        }
    }
}

impl Job<'_> {
    /// The run, with its models made.
    pub(crate) fn plan(
        self,
        profile: Profile,
        publishing: Publishing,
        output: &Output,
    ) -> Result<Plan, Failure> {
        let options = self.options;
        let models = self.source.models(output)?;
        let terms = self.terms.of(&models, options.touch)?;
        let mut tiers = self.tiers;
        if options.ram.is_none() {
            tiers.ram = default_budget(&models, options.storage, &terms);
        }
        Ok(Plan {
            profile,
            models,
            steps: self.steps,
            cycles: options.cycles,
            tiers,
            terms,
            storage: options.storage,
            mapping: options.mapping(),
            huge_pages: options.huge_pages,
            pinned_at_most: options.pinned_at_most.map(|size| size.0),
            churning: if options.churn_only {
                Churning::Only
            } else if options.churn {
                Churning::Beside
            } else {
                Churning::None
            },
            touch: options.touch,
            snapshots: options.snapshots.into(),
            settle: self.settle,
            seed: options.seed,
            workload: options.workload.clone(),
            publishing,
        })
    }
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

/// Smaller than the set, so that something has to be evicted, and large enough for every model with
/// its patches; but no larger than what can be had, unless the kernel can take it back.
fn default_budget(models: &[Model], storage: Storage, terms: &Terms) -> Limit {
    let charges = models.iter().enumerate().map(|(at, model)| {
        let patched = terms.patched_bytes(models, at);
        storage.charge(model).saturating_add(patched)
    });
    let total = charges.clone().fold(0, u64::saturating_add);
    let budget = charges.max().unwrap_or(0).max(total / 10 * 6);
    let room = Limits::of_self().room().and_then(|room| room.bytes());
    match room {
        Some(room) if room < budget && storage != Storage::Mapped => Limit::Auto,
        _ => Limit::Fixed(budget),
    }
}
