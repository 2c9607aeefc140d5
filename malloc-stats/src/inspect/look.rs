//! One look at a process, and all that is found out by it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::allocator::{self, Detection};
use super::claims::{Python, find_claims};
use super::classes::{self, ClassKind, Owned, OwnedRange};
use super::files::model_files;
use super::pause::{PauseError, Paused};
use super::report::{Inspection, SCHEMA};
use super::smaps::SmapsEntry;
use super::status::Status;
use super::target::field;
use super::verdict::judge;
use super::{Change, ProcessMemory, Target, TargetError};
use crate::gpu;
use crate::heap::{self, Fault, Heap, HeapError, Options};
use crate::limits::{Host, Limits, Pressure};
use crate::metric::{Grade, Metric};

/// How often a process is stopped that stood in the middle of an operation of malloc.
const STOPS: u32 = 5;
/// How long it runs in between.
const BETWEEN_STOPS: Duration = Duration::from_millis(2);
/// How long it runs before what made no sense is looked at again: it must have got a processor.
const BEFORE_DOUBTED: Duration = Duration::from_millis(100);

/// What to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Stop the process while its heap is walked: see [`Paused`] for what it may notice.
    pub pause: bool,
    /// Walk its heap.
    pub heap: bool,
    /// Sort all its memory into classes, and look up its files in the page cache: as costly as
    /// reading `/proc/PID/smaps`.
    pub surroundings: bool,
    /// The most of its memory that is read at a time, in bytes ([`Options::window`]).
    pub window: usize,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            pause: false,
            heap: true,
            surroundings: true,
            window: Options::default().window,
        }
    }
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The process went away, or became another program, while it was looked at.
    #[error("process {pid} {}", match change {
        Change::Exited => "ended while it was looked at",
        Change::Executed => "executed another program while it was looked at: look again",
    })]
    Changed {
        /// The process.
        pid: u32,
        /// What happened.
        change: Change,
    },
    /// It could not be stopped.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// It cannot be looked at.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Looks at a process. What cannot be read is unavailable, with the reason.
///
/// # Errors
///
/// Where the process changed meanwhile, or could not be stopped though that was asked for.
pub fn inspect(target: &Target, ask: &Ask) -> Result<Inspection, InspectError> {
    let begun = Instant::now();
    let pid = target.pid();
    let mut inspection = Inspection {
        schema: SCHEMA,
        taken_unix_ms: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0)),
        pid,
        limits: Limits::of_process(pid),
        host: Host::read(),
        pressure: Pressure::of_process(pid),
        ..Inspection::default()
    };
    match Status::read(target) {
        Ok(status) => inspection.process = status,
        Err(error) => inspection
            .notes
            .push(format!("/proc/{pid}/status: {error}")),
    }
    match gpu::read_for(pid) {
        Ok((vram, note)) => {
            inspection.vram = vram;
            inspection.notes.extend(note);
        }
        Err(reason) => inspection.vram_absent = Some(reason),
    }
    match target.readable() {
        Ok(()) => look_inside(target, ask, &mut inspection)?,
        Err(denied) => inspection.heap_absent = Some(denied.to_string()),
    }
    if let Some(change) = target.changed() {
        return Err(InspectError::Changed { pid, change });
    }
    inspection.cost_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    inspection.verdicts = judge(&inspection);
    Ok(inspection)
}

/// What takes the permission to trace it.
fn look_inside(
    target: &Target,
    ask: &Ask,
    inspection: &mut Inspection,
) -> Result<(), InspectError> {
    let notes = &mut inspection.notes;
    let entries = if ask.surroundings {
        target.smaps().unwrap_or_else(|error| {
            notes.push(format!("/proc/{}/smaps: {error}", target.pid()));
            Vec::new()
        })
    } else {
        Vec::new()
    };
    let mappings = match target.mappings() {
        Ok(mappings) => mappings,
        Err(error) => {
            inspection.heap_absent = Some(format!("/proc/{}/maps: {error}", target.pid()));
            return Ok(());
        }
    };
    let rss_of = |mapping: &crate::mappings::Mapping| {
        let at = entries.partition_point(|entry| entry.mapping.range.start < mapping.range.start);
        let entry = entries
            .get(at)
            .filter(|entry| entry.mapping.range == mapping.range);
        entry.map_or(Metric::Unavailable, |entry| Metric::Exact(entry.rss))
    };
    let detection = allocator::detect(target, &mappings, &rss_of);
    notes.extend(detection.notes.iter().cloned());
    inspection.allocator = detection.detected.clone();
    if ask.heap {
        match heaps(target, ask, &detection, inspection)? {
            Ok(mut heaps) => {
                let main = serving(&heaps, &detection);
                inspection.heap = Some(heaps.remove(main));
                inspection.other_heaps = heaps;
                mark_locked(target, inspection);
            }
            Err(reason) => inspection.heap_absent = Some(reason),
        }
    }
    if ask.surroundings {
        surroundings(target, &entries, inspection);
    }
    Ok(())
}

/// `malloc_trim` gives back by `madvise(2)`, which refuses memory that is locked (`mlock(2)`).
fn mark_locked(target: &Target, inspection: &mut Inspection) {
    let status = target.text("status").unwrap_or_default();
    if field(&status, "VmLck").is_none_or(|locked| locked == "0 kB") {
        return;
    }
    for heap in inspection
        .heap
        .iter_mut()
        .chain(&mut inspection.other_heaps)
    {
        let releasable = heap.arenas.iter_mut().map(|arena| &mut arena.releasable);
        for releasable in releasable.chain([&mut heap.trim.releasable]) {
            *releasable = releasable.at_best(Grade::Upper);
        }
    }
    inspection.notes.push(
        "some of its memory is locked (mlock(2)): of what is releasable, malloc_trim returns \
         nothing that is locked"
            .to_owned(),
    );
}

/// Which of the heaps is that of the libc that serves; they are sorted by size, and there is one
/// at least.
fn serving(heaps: &[Heap], detection: &Detection) -> usize {
    let object = detection.detected.object.as_deref();
    heaps
        .iter()
        .position(|heap| Some(heap.layout.object.as_str()) == object)
        .unwrap_or(0)
}

/// The heaps, or why there are none to report.
fn heaps(
    target: &Target,
    ask: &Ask,
    detection: &Detection,
    inspection: &mut Inspection,
) -> Result<Result<Vec<Heap>, String>, InspectError> {
    if !detection.detected.walkable {
        let why = detection.detected.reason.clone();
        return Ok(Err(
            why.unwrap_or_else(|| "malloc is not glibc's".to_owned())
        ));
    }
    let options = Options {
        libcs: detection.named(),
        window: ask.window,
        ..Options::default()
    };
    if !ask.pause {
        return Ok(walk(target, &options).map_err(|error| error.to_string()));
    }
    // Nothing moves, so there is nothing to wait for between tries.
    let options = Options {
        retries: 0,
        retry_pause: Duration::ZERO,
        stopped: true,
        ..options
    };
    let mut stopped = Duration::ZERO;
    let mut stops = 0;
    let mut before: Option<Doubt> = None;
    loop {
        stops += 1;
        let options = Options {
            unless_locked: stops < STOPS,
            ..options.clone()
        };
        let paused = Paused::stop(target.pid())?;
        let mut heaps = walk(target, &options);
        stopped += paused.release()?;
        let doubt = Doubt::of(&heaps, before.as_ref());
        let locked = matches!(heaps, Err(HeapError::MidOperation { .. }));
        if stops < STOPS && (locked || doubt.goes_on(before.as_ref())) {
            if locked {
                // Nothing was walked.
                std::thread::sleep(BETWEEN_STOPS);
            } else {
                std::thread::sleep(BEFORE_DOUBTED);
                before = Some(doubt);
            }
            continue;
        }
        inspection.paused_us = u64::try_from(stopped.as_micros()).ok();
        doubt.judge(&mut heaps);
        let busy = |heap: &Heap| heap.arenas.iter().any(|arena| arena.locked);
        let moved = |heap: &Heap| heap.torn.faults.iter().any(|fault| !fault.stable);
        let midway = |heap: &Heap| busy(heap) || moved(heap);
        if heaps.as_ref().is_ok_and(|heaps| heaps.iter().any(midway)) {
            inspection.notes.push(format!(
                "stopped {STOPS} times, and each time a thread was in the middle of an operation \
                 of malloc: what it was changing may not come out even"
            ));
        }
        return Ok(heaps.map_err(|error| error.to_string()));
    }
}

/// What makes no sense in a process that stands still. It may stand in the middle of an operation:
/// malloc takes no lock while there is one thread. Only what is the same at every stop is corrupt.
#[derive(Debug, Default)]
struct Doubt {
    /// Whether this stop showed any fault.
    any: bool,
    /// Those that every stop showed until now.
    common: Vec<Fault>,
    error: Option<HeapError>,
}

impl Doubt {
    fn of(heaps: &Result<Vec<Heap>, HeapError>, before: Option<&Self>) -> Self {
        let faults = heaps.iter().flatten().flat_map(|heap| &heap.torn.faults);
        let faults: Vec<&Fault> = faults.collect();
        let met = |fault: &Fault| before.is_none_or(|before| before.common.contains(fault));
        let lasting = faults.iter().filter(|fault| fault.stable && met(fault));
        Self {
            any: !faults.is_empty(),
            common: lasting.map(|fault| (*fault).clone()).collect(),
            error: heaps.as_ref().err().cloned(),
        }
    }

    /// Whether another stop may show more.
    fn goes_on(&self, before: Option<&Self>) -> bool {
        let unknown = matches!(self.error, Some(HeapError::UnknownLayout { .. }));
        self.any || unknown && before.is_none_or(|before| before.error != self.error)
    }

    /// Takes back that a fault stays, where some stop did not show it.
    fn judge(&self, heaps: &mut Result<Vec<Heap>, HeapError>) {
        for heap in heaps.iter_mut().flatten() {
            for fault in &mut heap.torn.faults {
                fault.stable &= self.common.contains(fault);
            }
        }
    }
}

fn walk(target: &Target, options: &Options) -> Result<Vec<Heap>, HeapError> {
    let memory = ProcessMemory::open(target).map_err(|error| HeapError::Unreadable {
        reason: error.to_string(),
    })?;
    heap::walk(&memory, options)
}

/// The memory outside of malloc.
fn surroundings(target: &Target, entries: &[SmapsEntry], inspection: &mut Inspection) {
    let heaps = inspection.heap.iter().chain(&inspection.other_heaps);
    let malloc: Vec<OwnedRange> = heaps
        .flat_map(|heap| &heap.owned)
        .map(|owned| OwnedRange {
            range: owned.range.clone(),
            kind: ClassKind::Malloc,
            resident: owned.resident,
            swapped: owned.swapped,
        })
        .collect();
    let python = Python::find(entries.iter().map(|entry| &entry.mapping));
    let memory = ProcessMemory::open(target).ok();
    let claims = memory
        .as_ref()
        .map(|memory| find_claims(memory, entries, &malloc, python));
    // The stacks of goroutines are pieces of Go's heap.
    let allocator = &inspection.allocator;
    let mut names = allocator.others.iter().map(|other| &other.name);
    let goes = allocator.name == "go" || names.any(|name| name == "go");
    let owned = Owned {
        python_arena: python.filter(|_| claims.is_none()).map(Python::arena),
        ranges: malloc
            .into_iter()
            .chain(claims.unwrap_or_default())
            .collect(),
        stack_pointers: if goes {
            Vec::new()
        } else {
            target.stack_pointers()
        },
    };
    let (sorted, unattributed) = classes::classify(entries, &owned);
    inspection.classes = sorted;
    inspection.unattributed = unattributed;
    let (files, notes) = model_files(target, entries);
    inspection.files = files;
    inspection.notes.extend(notes);
}
