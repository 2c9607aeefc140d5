//! The allocator: what it holds in all, by which settings, what a trim would return, and how whole
//! the walk is.

use std::fmt::{Result, Write};

use malloc_stats::heap::{DEFAULT_MMAP_THRESHOLD, Evidence, Heap, InForce, Torn, Totals};
use malloc_stats::inspect::{Detected, Inspection};
use malloc_stats::{Mallinfo, Metric, Size, Waste};

use super::grid::{Column, Cut, Grid, Text};
use super::prose::{compact, counted, metric, percent, spoken, wrapped};
use super::{absent, line, title};
use crate::paint::{Paint, Tone};

/// Faults shown in full.
const FAULTS: usize = 5;

/// `max(0, 1 − in_use / heap_rss)` with its bytes, as for every allocator; `None` where either is
/// unavailable or nothing is resident.
#[must_use]
pub fn waste(totals: &Totals) -> Option<Waste> {
    let (in_use, heap_rss) = (totals.in_use.bytes()?, totals.heap_rss.bytes()?);
    (heap_rss > 0).then(|| Waste {
        fraction: (1.0 - in_use as f64 / heap_rss as f64).max(0.0),
        bytes: totals.heap_rss.minus_saturating(totals.in_use),
    })
}

/// An allocator's name, with its version where it says: `glibc 2.36`.
pub(crate) fn name(allocator: &Detected) -> String {
    match (&allocator.version, allocator.name.as_str()) {
        (_, "" | "unknown") => "unknown allocator".to_owned(),
        (Some(version), name) => format!("{name} {version}"),
        (None, name) => name.to_owned(),
    }
}

fn placed(allocator: &Detected) -> String {
    let mut words = name(allocator);
    if !allocator.placement.is_empty() {
        words.push_str(&format!(", {}", allocator.placement));
    }
    if let Some(object) = &allocator.object {
        words.push_str(&format!(", {object}"));
    }
    words
}

/// A name, a number flush right, and what there is to say of it.
fn facts(out: &mut String, paint: &Paint, rows: Vec<(&str, String, String)>) -> Result {
    let columns = [Column::left(""), Column::right(""), Column::left("")];
    let [name, value, remark] = columns;
    let mut grid = Grid::new([name, value, remark.cut(Cut::End)]);
    for (name, value, remark) in rows {
        let remark = Text::toned(Tone::Faint, spoken(paint, &remark));
        grid.row([name.into(), value.into(), remark]);
    }
    grid.write(out, paint)
}

pub(super) fn write(out: &mut String, paint: &Paint, inspection: &Inspection) -> Result {
    let allocator = &inspection.allocator;
    title(out, paint, "allocator")?;
    line(out, paint, &placed(allocator))?;
    match &inspection.heap {
        Some(heap) => write_heap(out, paint, heap)?,
        None => {
            let reason = inspection
                .heap_absent
                .as_ref()
                .or(allocator.reason.as_ref());
            absent(
                out,
                paint,
                reason.map_or("its heap was not looked into", |r| r),
            )?;
            if !allocator.mappings_rss.is_unavailable() {
                let rss = metric(paint, allocator.mappings_rss);
                line(
                    out,
                    paint,
                    &format!("mappings it seems to own: {rss} resident"),
                )?;
            }
        }
    }
    for heap in &inspection.other_heaps {
        let what = format!(
            "another heap, of {}: {} in use, {} free and resident, {} resident in all",
            heap.layout.object,
            metric(paint, heap.totals.in_use),
            metric(paint, heap.totals.cached_resident),
            metric(paint, heap.totals.heap_rss)
        );
        line(out, paint, &what)?;
    }
    for other in &allocator.others {
        let reason = other.reason.as_ref();
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        line(out, paint, &format!("beside it {}{reason}", placed(other)))?;
    }
    Ok(())
}

fn write_heap(out: &mut String, paint: &Paint, heap: &Heap) -> Result {
    let known = match heap.layout.evidence {
        Evidence::Named => "by its version",
        Evidence::Structure => "by its structures alone",
    };
    let (versions, at) = (&heap.layout.versions, heap.layout.main_arena);
    let what = format!("read as glibc {versions}, {known}; main_arena at {at}");
    line(out, paint, &what)?;
    let totals = &heap.totals;
    let waste = waste(totals);
    let row = |name, value: Metric, remark: &str| (name, metric(paint, value), remark.to_owned());
    let mapped = &heap.mmapped;
    let found = if mapped.found_chunks == mapped.chunks && mapped.found_bytes == mapped.bytes {
        String::new()
    } else {
        let found = counted(mapped.found_chunks, "chunk");
        format!(" ({found}, {} found)", Size(mapped.found_bytes))
    };
    facts(
        out,
        paint,
        vec![
            row("in use", totals.in_use, "with headers and thread caches"),
            row("held (virtual)", totals.held, "from the system"),
            row("free (virtual)", totals.free_virtual, ""),
            row("free, resident", totals.cached_resident, "costs RAM"),
            row(
                "returned (virtual)",
                totals.returned_virtual,
                "free, costs none",
            ),
            row("heap, resident", totals.heap_rss, ""),
            row("heap, swapped", totals.swapped, ""),
            (
                "waste",
                waste.map_or("n/a".to_owned(), |waste| percent(waste.fraction)),
                waste.map_or(String::new(), |waste| {
                    format!("{} resident beyond what is in use", waste.bytes)
                }),
            ),
            (
                "mmapped",
                Size(mapped.bytes).to_string(),
                format!(
                    "{}{found}, {} resident",
                    counted(mapped.chunks, "chunk"),
                    mapped.resident
                ),
            ),
        ],
    )?;
    let raw = raw(&totals.mallinfo);
    writeln!(out, "  mallinfo2  {}", wrapped(&raw, 13, paint.width))?;
    match &heap.settings {
        Some(settings) => write_settings(out, paint, settings),
        None => line(out, paint, "settings in force: n/a"),
    }
}

fn raw(info: &Mallinfo) -> String {
    let bytes = [
        ("arena", info.arena),
        ("hblkhd", info.hblkhd),
        ("uordblks", info.uordblks),
        ("fordblks", info.fordblks),
        ("fsmblks", info.fsmblks),
        ("keepcost", info.keepcost),
    ];
    let bytes = bytes.map(|(name, bytes)| format!("{name}={}", compact(bytes)));
    let counts = [
        ("ordblks", info.ordblks),
        ("smblks", info.smblks),
        ("hblks", info.hblks),
    ];
    let counts = counts.map(|(name, count)| format!("{name}={count}"));
    [bytes.join(" "), counts.join(" ")].join(" ")
}

fn write_settings(out: &mut String, paint: &Paint, settings: &InForce) -> Result {
    title(out, paint, "settings in force")?;
    let moves = if settings.dynamic {
        "still moves"
    } else {
        "fixed"
    };
    let mmap = if settings.has_risen() {
        format!("risen from {}, {moves}", Size(DEFAULT_MMAP_THRESHOLD))
    } else {
        moves.to_owned()
    };
    // M_TRIM_THRESHOLD of -1 turns trimming off (mallopt(3)).
    let trim = match settings.trim_threshold {
        bytes if bytes > u64::MAX / 2 => "never".to_owned(),
        bytes => Size(bytes).to_string(),
    };
    let arenas = match settings.arena_max {
        0 => ("any".to_owned(), "by the number of cores"),
        most => (most.to_string(), "at most"),
    };
    let cache = match settings.tcache_count {
        0 => ("none".to_owned(), String::new()),
        count => (
            count.to_string(),
            format!("blocks of each size, up to {}", Size(settings.tcache_max)),
        ),
    };
    let huge = match (settings.thp_pagesize, settings.hp_pagesize) {
        (0, 0) => ("none".to_owned(), ""),
        (transparent, 0) => (Size(transparent).to_string(), "transparent (hugetlb=1)"),
        (_, pages) => (Size(pages).to_string(), "of hugetlbfs (hugetlb=2)"),
    };
    let row = |name, value: String, remark: &str| (name, value, remark.to_owned());
    let pad = Size(settings.top_pad).to_string();
    let most = settings.mmap_max.to_string();
    facts(
        out,
        paint,
        vec![
            (
                "mmap threshold",
                Size(settings.mmap_threshold).to_string(),
                mmap,
            ),
            row("trim threshold", trim, moves),
            row("top pad", pad, ""),
            row("mmapped chunks", most, "at most"),
            row("arenas", arenas.0, arenas.1),
            row("thread cache", cache.0, &cache.1),
            row("huge pages", huge.0, huge.1),
        ],
    )
}

pub(super) fn write_trim(out: &mut String, paint: &Paint, heap: &Heap) -> Result {
    let trim = &heap.trim;
    title(out, paint, "what could be given back now")?;
    let share = trim.releasable.bytes().zip(trim.free_resident.bytes());
    let share = share.filter(|(_, free)| *free > 0);
    let share = share.map_or(String::new(), |(back, free)| {
        format!("{} of it", percent(back as f64 / free as f64))
    });
    let row = |name, value: Metric, remark: String| (name, metric(paint, value), remark);
    let no_trim = || "no trim returns these".to_owned();
    facts(
        out,
        paint,
        vec![
            row("free, resident", trim.free_resident, String::new()),
            row("by malloc_trim(0)", trim.releasable, share),
            row("tops of other arenas", trim.secondary_tops, no_trim()),
            row("in thread caches", trim.tcache, no_trim()),
        ],
    )
}

pub(super) fn write_torn(out: &mut String, paint: &Paint, heap: &Heap) -> Result {
    let torn = &heap.torn;
    title(out, paint, "walk")?;
    line(out, paint, &wholeness(torn))?;
    for fault in torn.faults.iter().take(FAULTS) {
        let sort = if fault.stable {
            "the same at every try, so the heap is corrupt"
        } else {
            "not the same at every try: in motion, or not to be read just now"
        };
        let reason = &fault.reason;
        let (arena, address) = (fault.arena, fault.address);
        let what = format!("arena {arena}, chunk {address}: {reason} ({sort})");
        line(out, paint, &what)?;
    }
    match torn.faults.len().saturating_sub(FAULTS) {
        0 => Ok(()),
        more => line(out, paint, &format!("and {more} more")),
    }
}

/// How whole a walk was, in a sentence.
pub(crate) fn wholeness(torn: &Torn) -> String {
    let segments = counted(torn.segments, "segment");
    let retried = match torn.retried {
        0 => String::new(),
        count => format!(", {count} of them only at a later try"),
    };
    let disagreed = match torn.disagreed {
        0 => String::new(),
        count => format!("; {} met while split or joined", counted(count, "chunk")),
    };
    if torn.unresolved == 0 {
        return format!("whole: {segments}{retried}{disagreed}");
    }
    // What is corrupt stays so.
    let remedy = match torn.faults.iter().all(|fault| fault.stable) {
        true => "",
        false => "; --pause stops the process for it",
    };
    format!(
        "NOT whole: {} of {segments} could not be followed to the end, {} are in no count{retried}{disagreed}{remedy}",
        torn.unresolved,
        Size(torn.unresolved_bytes)
    )
}
