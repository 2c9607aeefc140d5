//! Resident memory that is no malloc's: files, copies of files, maps of nobody known, swap.

use super::words::{percent, shown};
use super::{Finding, MUCH, Severity, is_much, is_share};
use crate::inspect::{FilePages, Inspection};
use crate::metric::Metric;

/// Program and libraries alone come to less in most processes.
const FILES_FLOOR: u64 = 256 << 20;
/// A file with this much of it in the page cache, in percent, was read as a whole.
const WHOLE_PERCENT: u64 = 90;
/// Anonymous memory from 95 to 125 % of what was read is taken for a copy of it: an interpreter and
/// its libraries are on top.
const COPY_PERCENT: (u64, u64) = (95, 125);
/// With more than this in the page cache, in percent, a file counts as warm.
const WARM_PERCENT: u64 = 50;

pub(super) fn files_not_leak(inspection: &Inspection) -> Option<Finding> {
    let memory = &inspection.process.memory;
    let (file, rss) = (memory.file.bytes()?, memory.rss.bytes()?);
    if file < FILES_FLOOR || !is_share(file, rss, 50) {
        return None;
    }
    Some(Finding {
        severity: Severity::Note,
        bytes: memory.file,
        finding: format!(
            "{} of its {} of resident memory ({}) is pages of mapped files, which the kernel drops \
             when it needs the room",
            memory.file,
            memory.rss,
            percent(file, rss)
        ),
        remedy: format!(
            "do not take it for a leak: watch anonymous memory, {}, instead of RSS",
            memory.anon
        ),
    })
}

pub(super) fn copied_weights(inspection: &Inspection) -> Option<Finding> {
    let anon = inspection.process.memory.anon;
    let read: Vec<&FilePages> = inspection
        .files
        .iter()
        .filter(|file| {
            let pages = file.size.bytes().zip(file.cached.bytes());
            pages
                .is_some_and(|(size, cached)| size >= MUCH && is_share(cached, size, WHOLE_PERCENT))
        })
        .collect();
    let size = sum(&read, |file| file.size);
    let (least, most) = COPY_PERCENT;
    let about = is_share(anon.bytes()?, size.bytes()?, least)
        && !is_share(anon.bytes()?, size.bytes()?, most);
    if read.is_empty() || !about {
        return None;
    }
    Some(Finding {
        severity: Severity::Note,
        bytes: size,
        finding: format!(
            "{} of {} is in the page cache, and {anon} of anonymous memory is about as much: the \
             weights seem to be in RAM twice",
            sum(&read, |file| file.cached),
            names(&read)
        ),
        remedy: "use the weights where the file is mapped (Plimsoll's cache reads them once and \
                 copies nothing), or drop the file's pages after reading with \
                 posix_fadvise(POSIX_FADV_DONTNEED)"
            .to_owned(),
    })
}

pub(super) fn cold_file(inspection: &Inspection) -> Option<Finding> {
    let absent = |file: &FilePages| file.size.minus_saturating(file.cached);
    let cold: Vec<&FilePages> = inspection
        .files
        .iter()
        .filter(|file| {
            let pages = file.size.bytes().zip(absent(file).bytes());
            let cold = pages.is_some_and(|(size, absent)| {
                absent >= MUCH && is_share(absent, size, 100 - WARM_PERCENT)
            });
            file.mapped && cold
        })
        .collect();
    if cold.is_empty() {
        return None;
    }
    let bytes = sum(&cold, absent);
    Some(Finding {
        severity: Severity::Note,
        bytes,
        finding: format!(
            "{bytes} of {}, {} and mapped, is not in the page cache: the next touch waits for the \
             disk",
            names(&cold),
            sum(&cold, |file| file.size)
        ),
        remedy: "before it is needed read it once (cat FILE > /dev/null, or madvise with \
                 MADV_WILLNEED), where there is room for it to stay"
            .to_owned(),
    })
}

fn sum(files: &[&FilePages], of: impl Fn(&FilePages) -> Metric) -> Metric {
    files
        .iter()
        .map(|file| of(file))
        .fold(Metric::Exact(0), Metric::plus)
}

/// The largest file, and how many others.
fn names(files: &[&FilePages]) -> String {
    let largest = files.iter().max_by_key(|file| file.size.bytes());
    let path = largest.map_or("", |file| file.path.as_str());
    match files.len() {
        0 | 1 => shown(path),
        2 => format!("{} and another file", shown(path)),
        files => format!("{} and {} other files", shown(path), files - 1),
    }
}

pub(super) fn unattributed(inspection: &Inspection) -> Option<Finding> {
    // Where no heap was walked, the allocator's memory is among it, and may be all of it.
    let known = inspection.heap.is_some();
    let (bytes, anon) = (inspection.unattributed, inspection.process.memory.anon);
    if !known || !is_much(bytes, anon) {
        return None;
    }
    Some(Finding {
        severity: Severity::Note,
        bytes,
        finding: format!(
            "{bytes} of {anon} of anonymous memory belongs to no malloc, stack, interpreter or file \
             that is known here"
        ),
        remedy:
            "find its maker by its mappings (the largest anonymous ones in /proc/PID/smaps, and \
                 strace -e mmap at start-up): a runtime with a heap of its own, a GPU driver, a \
                 region of a cache"
                .to_owned(),
    })
}

pub(super) fn swapped(inspection: &Inspection) -> Option<Finding> {
    let memory = &inspection.process.memory;
    let all = memory.anon.plus(memory.swap);
    // A little that was never touched again is what swap is for.
    if !is_much(memory.swap, all) {
        return None;
    }
    Some(Finding {
        severity: Severity::Warn,
        bytes: memory.swap,
        finding: format!(
            "{} of {all} of its anonymous memory ({}) is in swap, and each page waits for the disk \
             when it is touched",
            memory.swap,
            percent(memory.swap.bytes()?, all.bytes()?)
        ),
        remedy: "make room and let it come back, or forbid swap where latency counts \
                 (memory.swap.max=0, mlockall)"
            .to_owned(),
    })
}
