//! Free memory of malloc that stays resident, and what keeps it.

use super::words::{arena, block, count, percent};
use super::{Finding, MUCH, Severity, is_much, is_share};
use crate::heap::{Arena, Pin};
use crate::inspect::Inspection;
use crate::metric::Metric;

/// So many arenas are more than the few threads of a server that allocate at a time.
const MANY_ARENAS: usize = 8;

pub(super) fn free_but_resident(inspection: &Inspection) -> Option<Finding> {
    let heap = inspection.heap.as_ref()?;
    let (free, rss) = (heap.trim.free_resident, heap.totals.heap_rss);
    if !is_much(free, rss) {
        return None;
    }
    let mut finding = format!("{free} of the {rss} that malloc has resident is free");
    let releasable = heap.trim.releasable.bytes().zip(free.bytes());
    if let Some((releasable, free)) = releasable {
        let share = if is_share(releasable, free, 1) {
            percent(releasable, free)
        } else {
            "none".to_owned()
        };
        finding.push_str(&format!(
            ", {share} of which would go back by malloc_trim(0)"
        ));
    }
    let trims = releasable.is_none_or(|(releasable, free)| is_share(releasable, free, 50));
    let tops = heap.trim.secondary_tops.bytes().zip(free.bytes());
    let remedy = if trims {
        "call malloc_trim(0) after large frees (from Python \
         ctypes.CDLL(\"libc.so.6\").malloc_trim(0); Plimsoll's own loads: profile glibc-trim)"
    } else if tops.is_some_and(|(tops, free)| is_share(tops, free, 50)) {
        "a trim leaves the tops of arenas: start the program with MALLOC_TRIM_THRESHOLD_=131072"
    } else {
        "a trim returns little of it: keep long-lived small objects apart from short-lived ones"
    };
    Some(Finding {
        severity: Severity::Warn,
        bytes: free,
        finding,
        remedy: remedy.to_owned(),
    })
}

pub(super) fn pinned_top(inspection: &Inspection) -> Option<Finding> {
    let heap = inspection.heap.as_ref()?;
    let pins: Vec<&Pin> = heap
        .pins
        .iter()
        .filter(|pin| is_much(pin.below_free_resident, heap.totals.heap_rss))
        .collect();
    let pin = *pins
        .iter()
        .max_by_key(|pin| pin.below_free_resident.bytes())?;
    let pinned = pin.below_free_resident;
    let freed = if pin.cached {
        "which the program has freed already but a thread's cache holds, "
    } else {
        ""
    };
    let comma = if freed.is_empty() || pin.run_chunks > 1 {
        " "
    } else {
        ", "
    };
    let mut finding = format!(
        "{}{comma}{freed}pins {pinned} of {} from automatic shrinking",
        block(pin),
        arena(pin.arena)
    );
    let unlocks = pin.unlocks_resident.bytes().zip(pinned.bytes());
    if unlocks.is_some_and(|(unlocks, pinned)| !is_share(unlocks, pinned, 50)) {
        finding.push_str(&format!(
            ", and so do others below it: freeing this one alone unlocks {}",
            pin.unlocks_resident
        ));
    }
    if pins.len() > 1 {
        let others = count(pins.len() - 1, "other arena");
        finding.push_str(&format!("; so it is in {others}"));
    }
    let remedy = if pin.cached {
        "malloc_trim(0) reaches below it; GLIBC_TUNABLES=glibc.malloc.tcache_count=0 turns such \
         caches off, and the end of its thread empties this one"
    } else {
        "malloc_trim(0) reaches below it; started with MALLOC_MMAP_THRESHOLD_=131072 (plimsoll \
         profiles env glibc-mmap-128k) the program has no large blocks below small ones"
    };
    Some(Finding {
        severity: Severity::Warn,
        bytes: pinned,
        finding,
        remedy: remedy.to_owned(),
    })
}

pub(super) fn secondary_tops(inspection: &Inspection) -> Option<Finding> {
    let heap = inspection.heap.as_ref()?;
    let tops = heap.trim.secondary_tops;
    if !is_much(tops, heap.totals.heap_rss) {
        return None;
    }
    let arenas = heap.arenas.iter().filter(|arena| !arena.is_main()).count();
    let arenas = match arenas {
        1 => "the top of an arena".to_owned(),
        arenas => format!("the tops of {arenas} arenas"),
    };
    let mut finding =
        format!("{tops} is free at {arenas} beside the main one, where malloc_trim(0) never goes");
    if let Some(settings) = &heap.settings {
        let threshold = Metric::Exact(settings.trim_threshold);
        finding.push_str(&format!(
            ", and a top goes back by itself only beyond the trim threshold of {threshold}"
        ));
    }
    Some(Finding {
        severity: Severity::Warn,
        bytes: tops,
        finding,
        remedy: "start the program with MALLOC_TRIM_THRESHOLD_=131072, so that tops larger than \
                 that go back at the next free, or with MALLOC_MMAP_THRESHOLD_=131072 (plimsoll \
                 profiles env glibc-mmap-128k), which also keeps large blocks out of arenas"
            .to_owned(),
    })
}

pub(super) fn scattered(inspection: &Inspection) -> Option<Finding> {
    let heap = inspection.heap.as_ref()?;
    let free = heap.trim.free_resident;
    let returned = heap.trim.releasable.plus(heap.trim.secondary_tops);
    let rest = free.minus_saturating(returned);
    if !is_much(rest, heap.totals.heap_rss) {
        return None;
    }
    Some(Finding {
        severity: Severity::Warn,
        bytes: rest,
        finding: format!(
            "{rest} is free in pieces that leave no page whole between blocks in use, so nothing \
             can return it"
        ),
        remedy: "allocate long-lived small objects apart from short-lived ones (first, or from a \
                 thread of their own), or try jemalloc, which keeps each size on pages of its own \
                 (plimsoll profiles env jemalloc-background-1s)"
            .to_owned(),
    })
}

pub(super) fn many_arenas(inspection: &Inspection) -> Option<Finding> {
    let heap = inspection.heap.as_ref()?;
    let free = |arena: &Arena| arena.free_resident.bytes().unwrap_or(0);
    let secondary = heap.arenas.iter().filter(|arena| !arena.is_main());
    // An arena with less is one that serves a thread and wastes nothing.
    let wasting: Vec<&Arena> = secondary.filter(|arena| free(arena) >= 1 << 20).collect();
    let spread = wasting
        .iter()
        .map(|arena| arena.free_resident)
        .fold(Metric::Exact(0), Metric::plus);
    let largest = wasting.iter().map(|arena| free(arena)).max()?;
    // Where one arena has most of it, their number is not the matter.
    let even = !is_share(largest, spread.bytes()?, 50);
    if wasting.len() < MANY_ARENAS || !even || !is_much(spread, heap.totals.heap_rss) {
        return None;
    }
    let all = heap.arenas.len();
    Some(Finding {
        severity: Severity::Note,
        bytes: spread,
        finding: format!(
            "{spread} that is free and resident is spread over {} of {all} arenas, at most {} in \
             one",
            wasting.len(),
            percent(largest, spread.bytes()?)
        ),
        remedy: "MALLOC_ARENA_MAX=2 lets threads share what others freed, at the price of waiting \
                 for each other, and helps against no pin: try the mmap threshold first \
                 (plimsoll profiles env glibc-mmap-128k)"
            .to_owned(),
    })
}

pub(super) fn tcache_hoard(inspection: &Inspection) -> Option<Finding> {
    let heap = inspection.heap.as_ref()?;
    let cached = heap.trim.tcache;
    if !is_much(cached, heap.totals.heap_rss) {
        return None;
    }
    let mut finding =
        format!("{cached} that the program has freed lies in threads' caches, counted as in use");
    if let Some(settings) = &heap.settings {
        finding.push_str(&format!(
            ", as each may keep {} blocks of a size",
            settings.tcache_count
        ));
    }
    Some(Finding {
        severity: Severity::Warn,
        bytes: cached,
        finding,
        remedy: "no trim empties a thread's cache: take glibc.malloc.tcache_count out of \
                 GLIBC_TUNABLES or lower it, or let threads that are done end"
            .to_owned(),
    })
}

/// What `malloc_trim(0)` would return, where that is worth the call.
pub(super) fn worth_a_trim(inspection: &Inspection) -> Option<Metric> {
    let releasable = inspection.heap.as_ref()?.trim.releasable;
    releasable
        .bytes()
        .is_some_and(|bytes| bytes >= MUCH)
        .then_some(releasable)
}
