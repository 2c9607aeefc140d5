//! From what was counted to what is reported.

use std::path::Path;

use super::coverage::{Coverage, Extent};
use super::hint;
use super::memory::Memory;
use super::report::{
    Address, Arena, Evidence, Heap, LayoutUsed, Mmapped, Owned, Pin, Torn, Totals, Trim,
};
use super::segment::Kind;
use super::state::State;
use super::tally::{Histogram, LiveRun, Tally};
use super::walk::{Done, Walk};
use crate::glibc::Mallinfo;
use crate::mappings::Mapping;
use crate::metric::{Grade, Metric};
use crate::size::Size;

/// The sums over one arena.
#[derive(Default)]
struct Sums {
    in_use_chunks: u64,
    free_chunks: u64,
    free: u64,
    fast_chunks: u64,
    fast: u64,
    free_resident: u64,
    releasable: u64,
    top: u64,
    top_resident: u64,
    above: (u64, u64),
    lost: u64,
    segments: usize,
    /// Every stretch was found, and whole.
    whole: bool,
    live: Option<LiveRun>,
    extents: Vec<Extent>,
}

impl Sums {
    fn add(&mut self, tally: &mut Tally, broken: bool) {
        self.in_use_chunks += tally.in_use.count;
        self.free_chunks += tally.free.count + tally.fast.count;
        self.free = self.free.saturating_add(tally.free.bytes);
        self.fast_chunks += tally.fast.count;
        self.fast = self.fast.saturating_add(tally.fast.bytes);
        self.free_resident = self.free_resident.saturating_add(tally.free_resident);
        self.releasable = self.releasable.saturating_add(tally.releasable);
        self.lost = self.lost.saturating_add(tally.lost);
        self.segments += 1;
        self.whole &= !broken;
        if let Some((_, size)) = tally.top {
            self.top = size;
            self.top_resident = tally.top_resident;
            self.above = tally.above;
            self.live = tally.live;
        }
        self.extents.push(std::mem::take(&mut tally.extent));
    }
}

/// Builds the report of a walk.
pub(super) fn heap(memory: &mut Memory<'_>, mut walk: Walk) -> Heap {
    let owned = owned(memory, &walk);
    let mut histogram = Histogram::default();
    let mut sums: Vec<Sums> = walk.survey.states.iter().map(|_| Sums::default()).collect();
    sums.iter_mut().for_each(|sums| sums.whole = true);
    for done in &mut walk.done {
        histogram.absorb(&done.walked.tally.histogram);
        let broken = done.walked.broken.is_some();
        if let Some(sums) = sums.get_mut(done.segment.arena) {
            sums.add(&mut done.walked.tally, broken);
        }
    }
    for (index, sums) in sums.iter_mut().enumerate() {
        let uses_memory = walk.survey.states[index].system_mem > 0;
        sums.whole &= !walk.faults.iter().any(|fault| fault.arena == index)
            && unfound(&walk, index).is_none()
            && (sums.top > 0 || !uses_memory);
    }
    let every_arena = sums.iter().all(|sums| sums.whole) && all(&walk.fast_agrees);
    for chunk in &walk.survey.mmapped.chunks {
        histogram.add(chunk.end - chunk.start, false);
    }
    let mut arenas = Vec::with_capacity(sums.len());
    let mut pins = Vec::new();
    let mut info = Mallinfo::default();
    let mut tops = 0;
    for (index, mut sums) in sums.into_iter().enumerate() {
        add_to_mallinfo(&mut info, index, &walk.survey.states[index], &sums);
        if index > 0 {
            tops += sums.top_resident;
        }
        pins.extend(pin(memory, &walk, index, &sums));
        let extents = std::mem::take(&mut sums.extents);
        arenas.push(Arena {
            coverage: Coverage::new(extents),
            ..arena(memory, &walk, index, &sums)
        });
    }
    pins.sort_by_key(|pin| std::cmp::Reverse(pin.below_free_resident.bytes()));
    let mmapped = mmapped(memory, &walk);
    info.hblks = mmapped.chunks;
    info.hblkhd = mmapped.bytes;
    info.uordblks = info.arena.saturating_sub(info.fordblks);
    let whole = grade(every_arena && walk.faults.is_empty() && all(&walk.quiet));
    let cached = walk.caches.between(&(0..u64::MAX)).bytes;
    let cached_grade = whole.max(grade(!walk.caches.torn));
    let sum =
        |of: &dyn Fn(&Arena) -> Metric| arenas.iter().map(of).fold(Metric::Exact(0), Metric::plus);
    let free_resident = sum(&|arena| arena.free_resident);
    let swapped = owned.iter().map(|owned| owned.swapped).sum();
    let heap_rss = owned.iter().map(|owned| owned.resident).sum();
    let found_all = mmapped.found_chunks == mmapped.chunks;
    let free = Metric::graded(info.fordblks, whole);
    let hugetlb = on_huge_pages(memory.space().mappings(), &owned);
    Heap {
        layout: LayoutUsed {
            versions: walk.candidate.layout.name(),
            object: walk.candidate.object.clone(),
            evidence: walk.candidate.evidence,
            main_arena: Address(walk.candidate.main_arena()),
        },
        totals: Totals {
            mallinfo: info,
            in_use: Metric::graded(info.uordblks.saturating_add(info.hblkhd), whole),
            held: Metric::graded(info.arena.saturating_add(info.hblkhd), whole),
            free_virtual: free,
            cached_resident: free_resident,
            returned_virtual: free.minus_saturating(free_resident),
            heap_rss: Metric::graded(heap_rss, whole.max(grade(found_all))),
            swapped: Metric::graded(swapped, whole.max(grade(found_all))),
        },
        settings: walk
            .counters
            .as_ref()
            .map(|counters| counters.settings.clone()),
        trim: Trim {
            free_resident,
            releasable: if hugetlb {
                sum(&|arena| arena.releasable).at_best(Grade::Upper)
            } else {
                sum(&|arena| arena.releasable)
            },
            secondary_tops: Metric::graded(tops, whole),
            tcache: Metric::graded(cached, cached_grade),
        },
        torn: torn(&walk),
        notes: notes(&walk, &mmapped, hugetlb),
        arenas,
        mmapped,
        pins,
        histogram: histogram.classes(),
        owned,
    }
}

fn all(of_arenas: &[bool]) -> bool {
    of_arenas.iter().all(|holds| *holds)
}

/// Whether some of it lies on huge pages from a pool, which the kernel shows as a file.
fn on_huge_pages(mappings: &[Mapping], owned: &[Owned]) -> bool {
    let mut huge = mappings
        .iter()
        .filter(|mapping| mapping.path() == Some(Path::new("/anon_hugepage")));
    huge.any(|mapping| {
        let from = owned.partition_point(|owned| owned.range.end <= mapping.range.start);
        owned
            .get(from)
            .is_some_and(|owned| owned.range.start < mapping.range.end)
    })
}

const fn grade(exact: bool) -> Grade {
    if exact {
        Grade::Exact
    } else {
        Grade::Estimated
    }
}

fn owned(memory: &mut Memory<'_>, walk: &Walk) -> Vec<Owned> {
    let ranges = walk.survey.owned.iter();
    ranges
        .map(|range| Owned {
            range: range.clone(),
            resident: memory.resident(range.clone()),
            swapped: memory.swapped(range.clone()),
        })
        .collect()
}

/// As `int_mallinfo` counts; what is in use is what is not free.
fn add_to_mallinfo(info: &mut Mallinfo, index: usize, state: &State, sums: &Sums) {
    let free = sums.free.saturating_add(sums.fast).saturating_add(sums.top);
    info.arena = info.arena.saturating_add(state.system_mem);
    info.ordblks += sums.free_chunks - sums.fast_chunks + 1;
    info.smblks += sums.fast_chunks;
    info.fsmblks = info.fsmblks.saturating_add(sums.fast);
    info.fordblks = info.fordblks.saturating_add(free);
    if index == 0 {
        info.keepcost = sums.top;
    }
}

fn arena(memory: &mut Memory<'_>, walk: &Walk, index: usize, sums: &Sums) -> Arena {
    let state = &walk.survey.states[index];
    let quiet = walk.quiet.get(index) == Some(&true);
    let agrees = walk.fast_agrees.get(index) == Some(&true);
    let grade = grade(quiet && agrees && sums.whole);
    let free = sums.free.saturating_add(sums.fast).saturating_add(sums.top);
    let (mut rss, mut cached) = (0, 0);
    for Done { segment, .. } in walk.done.iter().filter(|done| done.segment.arena == index) {
        // The head of a heap lies before its first chunk, on the same page or the one before.
        let start = match segment.kind {
            Kind::Main => segment.range.start,
            Kind::Heap => segment.range.start / memory.page() * memory.page(),
        };
        rss += memory.resident(start..segment.range.end);
        cached += walk.caches.between(&segment.range).bytes;
    }
    Arena {
        index,
        address: Address(state.address),
        system_mem: state.system_mem,
        max_system_mem: state.max_system_mem,
        attached_threads: state.attached_threads,
        in_use: Metric::graded(state.system_mem.saturating_sub(free), grade),
        free: Metric::graded(free, grade),
        top: sums.top,
        cached: Metric::graded(cached, grade.max(self::grade(!walk.caches.torn))),
        chunks_in_use: sums.in_use_chunks,
        chunks_free: sums.free_chunks,
        rss: Metric::graded(rss, grade),
        free_resident: Metric::graded(sums.free_resident, grade),
        releasable: Metric::graded(sums.releasable, grade),
        locked: state.locked,
        segments: sums.segments,
        coverage: Coverage::default(),
    }
}

/// The last chunks in use below the top, where free memory lies below them.
fn pin(memory: &mut Memory<'_>, walk: &Walk, index: usize, sums: &Sums) -> Option<Pin> {
    let live = sums.live?;
    // What lies between it and the top is not below it.
    let (above, above_resident) = sums.above;
    let below = sums.free.saturating_add(sums.fast).saturating_sub(above);
    if below == 0 {
        return None;
    }
    let grade = grade(walk.quiet.get(index) == Some(&true) && sums.whole);
    let resident = sums
        .free_resident
        .saturating_sub(sums.top_resident + above_resident);
    let content = live.last + 16;
    Some(Pin {
        arena: index,
        address: Address(content),
        size: live.last_size,
        cached: walk.caches.hold(live.last),
        run_chunks: live.chunks,
        run_bytes: live.bytes,
        unlocks: live.below,
        unlocks_resident: Metric::graded(live.below_resident, grade),
        below_free: below,
        below_free_resident: Metric::graded(resident, grade),
        hint: hint::of(memory, content, live.last_size.saturating_sub(8)),
    })
}

fn mmapped(memory: &mut Memory<'_>, walk: &Walk) -> Mmapped {
    let found = &walk.survey.mmapped;
    let found_bytes = found.bytes();
    let chunks = found.chunks.iter();
    let resident = chunks.map(|chunk| memory.resident(chunk.clone())).sum();
    let (chunks, bytes) = match &walk.counters {
        Some(counters) => (counters.mmapped_chunks, counters.mmapped_bytes),
        None => (found.chunks.len() as u64, found_bytes),
    };
    let exact = chunks == found.chunks.len() as u64 && walk.counters_quiet;
    Mmapped {
        chunks,
        bytes,
        found_chunks: found.chunks.len() as u64,
        found_bytes,
        resident: Metric::graded(resident, grade(exact)),
    }
}

fn torn(walk: &Walk) -> Torn {
    let count =
        |of: &dyn Fn(&Done) -> bool| walk.done.iter().filter(|done| of(done)).count() as u64;
    let lost = walk.done.iter().map(|done| done.walked.tally.lost);
    Torn {
        segments: (walk.done.len() + walk.lost.len()) as u64,
        retried: count(&|done| done.tries > 1 && done.walked.broken.is_none()),
        unresolved: count(&|done| done.walked.broken.is_some()) + walk.lost.len() as u64,
        unresolved_bytes: lost.chain(walk.lost.iter().copied()).sum(),
        reread: walk.reread,
        disagreed: walk.disagreed,
        faults: walk.faults.clone(),
    }
}

fn notes(walk: &Walk, mmapped: &Mmapped, hugetlb: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if hugetlb {
        notes.push(
            "some of it lies on huge pages of a pool (MAP_HUGETLB), which are in no RSS, and of \
             which a trim gives back only whole ones"
                .to_owned(),
        );
    }
    if walk.counters.is_none() {
        notes.push(
            "malloc's parameters (mp_) were not found, as where the main arena was never used: \
             settings are unknown, and mmapped chunks are those that were found"
                .to_owned(),
        );
    }
    if walk.candidate.evidence == Evidence::Structure {
        let version = match walk.candidate.version {
            Some((major, minor)) => format!("glibc {major}.{minor} is not in the table"),
            None => "the version of the C library is not known".to_owned(),
        };
        notes.push(format!(
            "{version}; its structures are those of glibc {}",
            walk.candidate.layout.name()
        ));
    }
    if mmapped.found_chunks != mmapped.chunks {
        notes.push(format!(
            "of {} mmapped chunks {} were found: what is resident of the others is in no number",
            mmapped.chunks, mmapped.found_chunks
        ));
    }
    if walk.caches.torn {
        notes.push(
            "a list of a thread's cache led nowhere: it was in motion, or is corrupt".to_owned(),
        );
    }
    notes.extend(uneven(walk));
    for (index, agrees) in walk.fast_agrees.iter().enumerate() {
        if !agrees && walk.quiet.get(index) == Some(&true) {
            notes.push(format!(
                "the fastbins of arena {index} do not come out even, and nothing moves: the heap may be corrupt"
            ));
        }
    }
    notes
}

/// What was found of an arena and what it counts, where some of it was not found. The main one may
/// count what others took between its pieces, or not.
fn unfound(walk: &Walk, arena: usize) -> Option<(u64, u64)> {
    let counted = walk.survey.states.get(arena)?.system_mem;
    let segments = walk.done.iter().map(|done| &done.segment);
    let own = segments.filter(|segment| segment.arena == arena);
    let found: u64 = own.map(|segment| segment.range.end - segment.base).sum();
    let differs = if arena == 0 {
        found < counted
    } else {
        found != counted
    };
    differs.then_some((found, counted))
}

/// An arena some of whose memory was not found, though nothing moves.
fn uneven(walk: &Walk) -> Option<String> {
    let quiet = |arena: &usize| walk.quiet.get(*arena) == Some(&true);
    let (arena, (found, counted)) = (0..walk.survey.states.len())
        .filter(quiet)
        .find_map(|arena| Some((arena, unfound(walk, arena)?)))?;
    Some(format!(
        "arena {arena} has {} by its own count, and {} were found",
        Size(counted),
        Size(found)
    ))
}
