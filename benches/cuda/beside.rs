//! Cycles of load and unload in turns with PyTorch's, over the same files.

use std::path::PathBuf;
use std::sync::Arc;

use malloc_stats::Size;
use plimsoll_cache::Model;
use plimsoll_cache::device::Cuda;
use plimsoll_tui::table::{Align, Table};
use serde_json::json;

use crate::Failure;
use crate::files::{ram_free, ram_needed_by_torch};
use crate::ours::{Ours, ways};
use crate::report::Report;
use crate::samples::{Samples, Threshold, n_a, ratio, shown, sums};
use crate::shapes::Set;
use crate::torch::{Scheme, Torch};

/// What a cycle of ours is to be faster by.
fn wanted(scheme: Scheme) -> f64 {
    match scheme {
        Scheme::To => 5.0,
        Scheme::Pageable => 1.3,
        Scheme::Pinned => 1.0,
    }
}

/// The rounds of both, in turns.
#[derive(Default)]
struct Turns {
    our_load: Samples,
    our_unload: Samples,
    load: Samples,
    unload: Samples,
}

/// Measures PyTorch's schemes, where PyTorch is.
///
/// # Errors
/// The cache's; PyTorch's words are printed in its place.
pub fn measure(
    report: &mut Report,
    set: Set,
    gpu: &Arc<Cuda>,
    models: &[Model],
    torch: &mut Result<Torch, String>,
    rounds: usize,
) -> Result<(), Failure> {
    let name = set.name();
    let best = ways().into_iter().flatten().next().ok_or("no storage")?;
    let files: Vec<PathBuf> = models.iter().map(|model| model.path().to_owned()).collect();
    let bytes: u64 = models.iter().map(Model::bytes).sum();
    report.say(format!(
        "{name}: cycles beside PyTorch, in turns, ms; ours from {best}"
    ));
    let mut table = Table::new([
        ("PyTorch", Align::Left),
        ("n", Align::Right),
        ("load", Align::Right),
        ("unload", Align::Right),
        ("cycle", Align::Right),
        ("min..max", Align::Right),
        ("our load", Align::Right),
        ("our unload", Align::Right),
        ("our cycle", Align::Right),
        ("min..max", Align::Right),
        ("theirs / ours", Align::Right),
    ]);
    let ours = Ours::new(gpu, models, best)?;
    ours.unload(ours.load()?.0)?;
    // PyTorch keeps what it freed for itself: that is how its users have it, and faster. Given back
    // to the driver, as here, is asked for where the thresholds are.
    let gives_back: &[bool] = match set {
        Set::Sdxl => &[false, true],
        Set::Flux | Set::Llama => &[false],
    };
    for scheme in Scheme::ALL {
        for gives_back in gives_back.iter().copied() {
            let title = match gives_back {
                true => format!("{}, given back", scheme.title()),
                false => scheme.title().to_owned(),
            };
            let turns = match torch {
                Ok(torch) => turns(&ours, torch, scheme, gives_back, &files, bytes, rounds)?,
                Err(reason) => Err(reason.clone()),
            };
            let done = turns.unwrap_or_else(|reason| {
                report.say(format!("{title}: n/a: {reason}"));
                Turns::default()
            });
            let theirs = sums(&done.load, &done.unload);
            let cycle = sums(&done.our_load, &done.our_unload);
            let faster = ratio(theirs.median(), cycle.median());
            let [their_median, their_range] = theirs.shown();
            let [our_median, our_range] = cycle.shown();
            table.row([
                title.clone(),
                theirs.0.len().to_string(),
                done.load.shown()[0].clone(),
                done.unload.shown()[0].clone(),
                their_median,
                their_range,
                done.our_load.shown()[0].clone(),
                done.our_unload.shown()[0].clone(),
                our_median,
                our_range,
                faster.map_or_else(n_a, |_| shown(faster, 2)),
            ]);
            report.put(
                &["sets", name, "beside", &title],
                json!({
                    "load": done.load.json(),
                    "unload": done.unload.json(),
                    "our_load": done.our_load.json(),
                    "our_unload": done.our_unload.json(),
                    "theirs_over_ours": faster,
                }),
            );
            if set == Set::Sdxl && !gives_back {
                report.threshold(Threshold::at_least(
                    format!("{name}, cycle, PyTorch's {} over ours", scheme.title()),
                    faster,
                    wanted(scheme),
                ));
            }
        }
    }
    if let Ok(torch) = torch
        && let Err(reason) = torch.release()
    {
        report.say(format!("PyTorch: {reason}"));
    }
    report.say(table.to_string());
    Ok(())
}

/// The inner error is PyTorch's.
fn turns(
    ours: &Ours,
    torch: &mut Torch,
    scheme: Scheme,
    gives_back: bool,
    files: &[PathBuf],
    bytes: u64,
    rounds: usize,
) -> Result<Result<Turns, String>, Failure> {
    if let Err(reason) = torch.release() {
        return Ok(Err(reason));
    }
    // Our copy is in RAM already.
    let needed = ram_needed_by_torch(bytes);
    if let Some(free) = ram_free().filter(|free| *free < needed) {
        let (needed, free) = (Size(needed), Size(free));
        return Ok(Err(format!(
            "it needs {needed} of RAM, and {free} can be had"
        )));
    }
    // What PyTorch freed and keeps is beside ours.
    let needed = bytes.saturating_mul(2).saturating_add(1 << 30);
    if let Some(free) = ours.free().filter(|free| *free < needed) {
        let (needed, free) = (Size(needed), Size(free));
        return Ok(Err(format!(
            "both need {needed} of the device, and {free} are free"
        )));
    }
    if let Err(reason) = torch.prepare(scheme, files).and_then(|()| {
        // Twice: its allocator has seen all sizes then.
        torch.round(gives_back)?;
        torch.round(gives_back)
    }) {
        return Ok(Err(reason));
    }
    let mut done = Turns::default();
    for _ in 0..rounds {
        let (lease, took) = ours.load()?;
        done.our_load.push(took);
        done.our_unload.push(ours.unload(lease)?);
        match torch.round(gives_back) {
            Ok(round) if round.allocated < bytes || round.left >= bytes => {
                return Ok(Err(format!(
                    "it had {} on the device and {} after, of {}",
                    Size(round.allocated),
                    Size(round.left),
                    Size(bytes)
                )));
            }
            Ok(round) => {
                done.load.push(round.load_s);
                done.unload.push(round.unload_s);
            }
            Err(reason) => return Ok(Err(reason)),
        }
    }
    Ok(Ok(done))
}
