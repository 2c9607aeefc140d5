//! Settings of malloc that keep freed memory.

use super::{Finding, MUCH, Severity, is_much, is_share};
use crate::heap::{DEFAULT_MMAP_THRESHOLD, Heap};
use crate::inspect::Inspection;
use crate::metric::Metric;
use crate::size::Size;

/// A threshold that rose to less keeps no block out of its own mapping that anybody would call
/// large, and any program raises it a little.
const RISEN_FAR: u64 = 1 << 20;
/// A threshold set from here on keeps the tensors of most models in arenas. glibc takes up to
/// 32 MiB.
const SET_HIGH: u64 = 16 << 20;
/// A trim threshold set from here on is beyond what glibc itself ever raises it to.
const TRIM_SET_HIGH: u64 = (64 << 20) + 1;

pub(super) fn risen_threshold(inspection: &Inspection) -> Option<Finding> {
    let heap = inspection.heap.as_ref()?;
    let settings = heap.settings.as_ref()?;
    let rss = heap.totals.heap_rss;
    // In a small heap it has done no harm, and it has risen in nearly every process.
    let small = rss.bytes().is_none_or(|rss| rss < MUCH);
    if !settings.has_risen() || settings.mmap_threshold < RISEN_FAR || small {
        return None;
    }
    let free = heap.trim.free_resident;
    let harms = is_much(free, rss) && is_of_large_blocks(heap);
    let mut finding = format!(
        "freeing a large block has raised the mmap threshold from {} to {}, so smaller ones lie in \
         arenas and stay when freed",
        Size(DEFAULT_MMAP_THRESHOLD),
        Size(settings.mmap_threshold)
    );
    if harms {
        finding.push_str(&format!(": {free} of {rss} is free and resident"));
    }
    Some(Finding {
        severity: if harms {
            Severity::Warn
        } else {
            Severity::Note
        },
        bytes: if harms { free } else { Metric::Unavailable },
        finding,
        remedy: "start the program with MALLOC_MMAP_THRESHOLD_=131072 (plimsoll profiles env \
                 glibc-mmap-128k), which also stops the threshold from rising, at the price of \
                 page faults; glibc-mmap-1m costs fewer"
            .to_owned(),
    })
}

pub(super) fn thresholds_set_high(inspection: &Inspection) -> Option<Finding> {
    let heap = inspection.heap.as_ref()?;
    let settings = heap.settings.as_ref()?;
    let free = heap.trim.free_resident;
    let kept = is_much(free, heap.totals.heap_rss) && is_of_large_blocks(heap);
    if settings.dynamic || !kept {
        return None;
    }
    let mut set = Vec::new();
    if settings.mmap_max == 0 {
        set.push("mmapped blocks are turned off (M_MMAP_MAX is 0)".to_owned());
    } else if settings.mmap_threshold >= SET_HIGH {
        let threshold = Size(settings.mmap_threshold);
        set.push(format!("the mmap threshold is set to {threshold}"));
    }
    if settings.trim_threshold >= TRIM_SET_HIGH {
        let threshold = Size(settings.trim_threshold);
        set.push(format!("the trim threshold is set to {threshold}"));
    }
    if set.is_empty() {
        return None;
    }
    Some(Finding {
        severity: Severity::Warn,
        bytes: free,
        finding: format!(
            "{}, and {free} of {} is free and resident",
            set.join(" and "),
            heap.totals.heap_rss
        ),
        remedy: "take that out of MALLOC_*_, GLIBC_TUNABLES or the program's calls of mallopt, or \
                 set the mmap threshold to 1 MiB (plimsoll profiles env glibc-mmap-1m)"
            .to_owned(),
    })
}

/// Whether most of what is free is in pieces so large that a lower threshold could have kept them
/// out of arenas. What is left between small blocks is no matter of thresholds.
fn is_of_large_blocks(heap: &Heap) -> bool {
    let classes = heap.histogram.iter();
    let large = classes.filter(|class| class.from >= DEFAULT_MMAP_THRESHOLD);
    let chunks = large.map(|class| class.free.bytes);
    let tops = heap.arenas.iter().map(|arena| arena.top);
    let pieces = chunks.chain(tops).fold(0, u64::saturating_add);
    let free = heap.totals.free_virtual.bytes();
    free.is_some_and(|free| is_share(pieces, free, 50))
}
