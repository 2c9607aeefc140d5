//! The cache on a real GPU, beside PyTorch doing the same in the same run, and beside the bare
//! driver. It makes its data on the spot and removes it.
//!
//! `cargo bench --features cuda --bench cuda -- [OPTIONS]`, or the program that this builds, carried
//! to a machine that has a GPU; `--help` lists the options. Rounds of what is compared take turns,
//! after warm-up, and medians are printed, with least and most. Rates count 10⁹ bytes.

mod bare;
mod beside;
mod cycles;
mod files;
mod forward;
mod loads;
mod options;
mod ours;
mod reconciled;
mod report;
mod samples;
mod shapes;
mod torch;

use std::sync::Arc;

use malloc_stats::{Size, page_cache};
use plimsoll_cache::Model;
use plimsoll_cache::device::Cuda;
use serde_json::json;

use files::Scratch;
use options::{Options, USAGE};
use ours::Ours;
use report::Report;
use shapes::{Planned, Set};
use torch::Torch;

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

type Failure = Box<dyn std::error::Error>;

/// Cycles of the small set, and in quick runs.
const CYCLES: (usize, usize) = (1000, 100);

fn main() {
    if std::env::args().any(|argument| argument == "--help") {
        println!("{USAGE}");
        return;
    }
    let outcome = Options::parse(std::env::args().skip(1)).and_then(|options| run(&options));
    if let Err(error) = outcome {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let gpu = Arc::new(Cuda::new(options.device)?);
    for set in &options.sets {
        let planned = set.models(options.is_quick);
        let bytes = planned.iter().map(Planned::bytes).sum();
        files::require_room(&options.scratch, set.name(), bytes)?;
    }
    let scratch = Scratch::new(&options.scratch)?;
    scratch.heed_signals()?;
    let mut report = Report::new(options.out.clone());
    let mut torch = Torch::start(&options.python, options.device);
    about(&mut report, options, &gpu, &torch);
    let mut is_reconciled = false;
    for set in &options.sets {
        let done = &mut is_reconciled;
        measured(&mut report, options, &scratch, &gpu, *set, &mut torch, done)?;
        report.save()?;
    }
    // Its context goes too: what is free would change with it.
    drop(torch);

    let small = made(&scratch, "small", &Set::Sdxl.models(true))?;
    let cycles = if options.is_quick { CYCLES.1 } else { CYCLES.0 };
    cycles::measure(&mut report, &gpu, &small, cycles)?;
    gone(&scratch, "small")?;
    report.save()?;

    let (hidden, inner, layers) = match options.is_quick {
        true => (1024, 4096, 12),
        false => (4096, 14336, 8),
    };
    let mlp = made(&scratch, "mlp", &[Planned::mlp(hidden, inner, layers)])?;
    let trace = options.trace.as_deref();
    forward::measure(&mut report, &gpu, &mlp[0], options.rounds, trace)?;
    gone(&scratch, "mlp")?;

    report.conclude();
    report.save()
}

/// Prints on what this runs.
fn about(report: &mut Report, options: &Options, gpu: &Cuda, torch: &Result<Torch, String>) {
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let driver = driver.lines().next().unwrap_or("driver's version unknown");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let torch = match torch {
        Ok(torch) => {
            let about = &torch.about;
            let cuda = about.cuda.as_deref().unwrap_or("none");
            format!("torch {} for CUDA {cuda}, {}", about.torch, about.device)
        }
        Err(reason) => format!("no PyTorch: {reason}"),
    };
    let rounds = options.rounds;
    report.say(format!(
        "cuda:{}: {}, {} free; {driver}\nLinux {}, {cores} cores; {torch}\n{rounds} rounds{}",
        options.device,
        gpu.model_name(),
        ours::free(gpu).map_or_else(samples::n_a, |free| Size(free).to_string()),
        kernel.trim(),
        if options.is_quick {
            ", quick: models of a few layers"
        } else {
            ""
        },
    ));
    report.put(
        &["about"],
        json!({
            "device": gpu.model_name(),
            "driver": driver,
            "kernel": kernel.trim(),
            "cores": cores,
            "torch": torch,
            "rounds": rounds,
            "quick": options.is_quick,
            "version": env!("CARGO_PKG_VERSION"),
        }),
    );
}

/// Everything that is measured of one set.
fn measured(
    report: &mut Report,
    options: &Options,
    scratch: &Scratch,
    gpu: &Arc<Cuda>,
    set: Set,
    torch: &mut Result<Torch, String>,
    is_reconciled: &mut bool,
) -> Result<(), Failure> {
    let name = set.name();
    let planned = set.models(options.is_quick);
    let bytes: u64 = planned.iter().map(Planned::bytes).sum();
    if let Some(free) = ours::free(gpu).filter(|free| bytes.saturating_add(1 << 30) > *free) {
        let (needed, free) = (Size(bytes), Size(free));
        report.say(format!(
            "\n{name}: n/a: {needed} and a little more are needed on the device, {free} are free"
        ));
        return Ok(());
    }
    let models = made(scratch, name, &planned)?;
    let tensors: usize = models.iter().map(|model| model.tensors().len()).sum();
    report.say(format!(
        "\n{name}: {} in {} models, {tensors} tensors; {} of the files cached",
        Size(bytes),
        models.len(),
        cached(&models).map_or_else(samples::n_a, |bytes| Size(bytes).to_string()),
    ));
    loads::measure(report, name, gpu, &models, options.rounds)?;
    report.save()?;
    beside::measure(report, set, gpu, &models, torch, options.rounds)?;
    if !std::mem::replace(is_reconciled, true) {
        let best = ours::ways()
            .into_iter()
            .flatten()
            .next()
            .ok_or("no storage")?;
        let ours = Ours::new(gpu, &models, best)?;
        let (lease, _) = ours.load()?;
        reconciled::measure(report, gpu, &models)?;
        ours.unload(lease)?;
    }
    gone(scratch, name)
}

/// What of the files is in the page cache, bytes.
fn cached(models: &[Model]) -> Option<u64> {
    let of = |model: &Model| {
        let file = std::fs::File::open(model.path()).ok()?;
        page_cache::cached(&file, file.metadata().ok()?.len()).ok()
    };
    models.iter().map(of).sum()
}

/// Makes models in a folder of their own, and opens them.
fn made(scratch: &Scratch, name: &str, planned: &[Planned]) -> Result<Vec<Model>, Failure> {
    let folder = scratch.path().join(name);
    let bytes = planned.iter().map(Planned::bytes).sum();
    files::require_room(scratch.path(), name, bytes)?;
    std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let open = |model: &Planned| Ok(Model::open(files::write(&folder, model)?)?);
    planned.iter().map(open).collect()
}

fn gone(scratch: &Scratch, name: &str) -> Result<(), Failure> {
    let folder = scratch.path().join(name);
    std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(())
}
