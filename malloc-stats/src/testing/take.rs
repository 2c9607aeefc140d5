//! Takes a measurement, in the process made for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Signal, set_parent_process_death_signal};

use super::paper::{self, Written};
use super::{CycleMemory, Fragmentation, Measure, probe};
use crate::Allocator;
use crate::metric::{Grade, Metric};
use crate::process::Status;
use crate::reading::name_of;

static MEASURING: AtomicBool = AtomicBool::new(false);

/// The exit status of a measurement that failed: that of a test that panicked.
const FAILED: i32 = 101;

pub(super) fn is_measuring() -> bool {
    MEASURING.load(Ordering::Relaxed)
}

/// Measures, writes down the result and ends the process.
pub(super) fn and_leave<R>(measure: &Measure, closure: impl FnMut() -> R) -> ! {
    MEASURING.store(true, Ordering::Relaxed);
    // Where the test is killed, nobody waits for this any more.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let written = paper::own().and_then(|paper| {
        paper.write(&Written::Begun)?;
        let outcome = match catch_unwind(AssertUnwindSafe(|| take(measure, closure))) {
            Ok(Ok(seen)) => Written::Measured(seen),
            Ok(Err(reason)) => Written::Failed(reason),
            Err(panic) => Written::Failed(format!("it panicked: {}", words_of(&*panic))),
        };
        paper.write(&outcome)?;
        Ok(matches!(outcome, Written::Measured(_)))
    });
    match written {
        Ok(true) => std::process::exit(0),
        Ok(false) => std::process::exit(FAILED),
        Err(error) => {
            eprintln!("the result of a measurement could not be written: {error}");
            std::process::exit(FAILED)
        }
    }
}

fn take<R>(measure: &Measure, mut closure: impl FnMut() -> R) -> Result<Fragmentation, String> {
    let Measure {
        cycles,
        warm_up,
        allocator,
        ..
    } = measure;
    let status = Status::open().map_err(|error| error.to_string())?;
    let read = |status: &Status| CycleMemory {
        // The allocator first: reading the rest may take memory from it.
        in_use: probe::in_use(allocator),
        rss: status.read().anon,
    };
    // Written now, so that its pages are not the cycles'.
    let mut seen = Fragmentation {
        allocator: name_of(allocator.kind),
        warm_up: *warm_up,
        cycles: vec![CycleMemory::default(); *cycles],
        notes: notes_of(allocator),
        ..Fragmentation::default()
    };
    seen.start = read(&status);
    for _ in 0..*warm_up {
        closure();
    }
    let purged = probe::purge(allocator);
    let peak_kept = probe::forget_peak();
    let resident = status.read();
    seen.baseline = read(&status);
    for cycle in &mut seen.cycles {
        closure();
        *cycle = read(&status);
    }
    let hwm = status.read().hwm;
    match peak_kept {
        Ok(()) => {
            let rise = hwm.minus_saturating(resident.rss);
            seen.peak = seen.baseline.rss.plus(rise).at_best(Grade::Estimated);
        }
        Err(reason) => seen.notes.push(reason),
    }
    match purged.and_then(|_| probe::purge(allocator)) {
        Ok(by) => {
            seen.purged_by = Some(by.to_owned());
            seen.after_purge = status.read().anon;
            seen.arena_ends = probe::arena_ends(allocator);
        }
        Err(reason) => seen.notes.push(reason),
    }
    if seen.baseline.rss == Metric::Unavailable {
        let reason = "anonymous memory is not told: /proc/self/status has no RssAnon (Linux 4.5)";
        seen.notes.push(reason.to_owned());
    }
    Ok(seen)
}

fn notes_of(allocator: &Allocator) -> Vec<String> {
    probe::why_not_in_use(allocator).into_iter().collect()
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        _ => "with something that is no text",
    }
}
