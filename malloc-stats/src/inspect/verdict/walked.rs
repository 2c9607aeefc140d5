//! Whether the heap could be walked, and how whole it was.

use super::words::{arena, count, shown};
use super::{Finding, MUCH, Severity};
use crate::inspect::Inspection;
use crate::metric::Metric;
use crate::size::Size;

pub(super) fn not_walkable(inspection: &Inspection) -> Option<Finding> {
    if inspection.heap.is_some() {
        return None;
    }
    let allocator = &inspection.allocator;
    // A glibc that was never asked for memory has no heap, which is of no concern.
    let anon = inspection.process.memory.anon.bytes();
    if allocator.walkable && anon.is_some_and(|anon| anon < MUCH) {
        return None;
    }
    let reason = match &allocator.reason {
        // Behind that it says how its resident memory was found.
        Some(reason) => reason.split("; ").next()?,
        None => inspection.heap_absent.as_ref()?,
    };
    let held = match allocator.mappings_rss {
        Metric::Unavailable => String::new(),
        rss => format!("; its mappings have {rss} resident"),
    };
    let name = match allocator.name.as_str() {
        "" | "unknown" => "malloc",
        name => name,
    };
    let remedy = match name {
        "jemalloc" => {
            "ask it from inside: mallctl(\"stats.allocated\"), malloc_stats_print(), or \
             MALLOC_CONF=stats_print:true at the end; what is free goes back by \
             background_thread:true,dirty_decay_ms:1000 (profile jemalloc-background-1s)"
        }
        "mimalloc" => {
            "ask it from inside: mi_stats_print(), or MIMALLOC_SHOW_STATS=1 at the end; what is \
             free goes back by mi_collect(true) or MIMALLOC_PURGE_DELAY=0"
        }
        "tcmalloc" => {
            "ask it from inside: MallocExtension's GetStats, or MALLOCSTATS=1 at the end; what is \
             free goes back by ReleaseFreeMemory or TCMALLOC_RELEASE_RATE=10"
        }
        "musl" => {
            "musl keeps no counts: judge by the resident memory above, or run the program on glibc \
             or jemalloc"
        }
        "go" => {
            "ask it from inside: runtime/metrics, /debug/pprof/heap, or GODEBUG=gctrace=1; \
             GOMEMLIMIT bounds it, debug.FreeOSMemory() returns what is free"
        }
        // Then the reason ends with what would help, and there are no classes either.
        _ if inspection.classes.is_empty() => {
            "as the reason says; until then there are the limits, RSS and swap to go by"
        }
        _ => "see the reason; the memory by class and the limits hold all the same",
    };
    Some(Finding {
        severity: Severity::Note,
        bytes: allocator.mappings_rss,
        finding: format!(
            "the heap of {} cannot be walked from outside: {}{held}",
            shown(name),
            shown(reason.trim_end_matches('.'))
        ),
        remedy: remedy.to_owned(),
    })
}

pub(super) fn heap_corrupt(inspection: &Inspection) -> Option<Finding> {
    let torn = &inspection.heap.as_ref()?.torn;
    let mut faults = torn.faults.iter().filter(|fault| fault.stable);
    let fault = faults.next()?;
    let others = match faults.count() {
        0 => String::new(),
        others => format!(", and {} more", count(others, "such fault")),
    };
    let lost = match torn.unresolved_bytes {
        0 => String::new(),
        bytes => format!("; {} behind it is in no number", Size(bytes)),
    };
    Some(Finding {
        severity: Severity::Bad,
        bytes: Metric::Estimated(torn.unresolved_bytes),
        finding: format!(
            "{} cannot be followed at {}: {}, the same at every try{others}{lost}",
            arena(fault.arena),
            fault.address,
            shown(&fault.reason),
        ),
        remedy: "something wrote past the end of a block: run the program under valgrind or with \
                 -fsanitize=address, or with GLIBC_TUNABLES=glibc.malloc.check=3 and \
                 libc_malloc_debug.so preloaded"
            .to_owned(),
    })
}

pub(super) fn walk_torn(inspection: &Inspection) -> Option<Finding> {
    let torn = &inspection.heap.as_ref()?.torn;
    let stable = torn.faults.iter().any(|fault| fault.stable);
    if torn.unresolved == 0 || stable {
        return None;
    }
    let remedy = if inspection.paused_us.is_some() {
        "it was stopped in the middle of an operation: look again"
    } else {
        "look again, or with --pause, which stops the process for that time (its waits may end \
         with EINTR)"
    };
    Some(Finding {
        severity: Severity::Note,
        bytes: Metric::Estimated(torn.unresolved_bytes),
        finding: format!(
            "{} of {} stretches of the heap changed while they were read, so {} is in no number",
            torn.unresolved,
            torn.segments,
            Metric::Estimated(torn.unresolved_bytes)
        ),
        remedy: remedy.to_owned(),
    })
}
