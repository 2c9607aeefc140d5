//! Finding `main_arena` and `mp_` without symbols.
//!
//! An empty bin is a pair of pointers to 16 bytes before itself, and a process has more than a
//! hundred of them in a row: the bin table of `main_arena`, in the data of the C library or of a
//! static program. It is accepted only if the ring of arenas that begins behind it comes back.

use std::collections::HashSet;
use std::ops::Range;

use super::NamedLibc;
use super::layout::{BINS, LAYOUTS, Layout};
use super::memory::Memory;
use super::report::Evidence;
use super::state::{Counters, State};
use crate::mappings::Mapping;

/// Arenas of all mallocs together, at most. glibc makes eight for each core.
const MOST_ARENAS: usize = 1 << 14;
/// How much of an object's data is searched, in bytes; the C library has 8 KiB.
const MOST_DATA: u64 = 256 << 20;
/// How much of it is searched for `mp_` at a time, in bytes.
const PIECE_OF_DATA: u64 = 1 << 20;
/// Mallocs in a process, at most: `dlmopen(3)` makes 16 of them.
const MOST_MALLOCS: usize = 32;
/// Bin tables in the data of an object whose rings are followed, at most.
const MOST_TABLES: usize = 1 << 5;

/// A malloc that was found, with a layout its `main_arena` agrees with.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) layout: &'static Layout,
    pub(super) evidence: Evidence,
    pub(super) object: String,
    /// The `malloc_state`s, the main one first.
    pub(super) ring: Vec<u64>,
    /// What the last of them has for the next, where that is none and not the main one.
    pub(super) cut: Option<u64>,
    /// The version the object names, known to the table or not.
    pub(super) version: Option<(u32, u32)>,
    pub(super) counters: Option<Counters>,
}

impl Candidate {
    pub(super) fn main_arena(&self) -> u64 {
        self.ring.first().copied().unwrap_or(0)
    }
}

/// Every `main_arena` in the process, each with the layouts that fit it, the likeliest first.
pub(super) fn find(memory: &mut Memory<'_>, named: &[NamedLibc]) -> Vec<Vec<Candidate>> {
    let mappings = memory.space().mappings();
    let heaps = merged(mappings.iter().filter(|m| m.is_private_anonymous()));
    let mut found = Vec::new();
    let mut room = MOST_ARENAS;
    for mapping in mappings.iter().filter(|m| is_data(m, mappings)) {
        let version = named
            .iter()
            .find(|libc| (libc.device, libc.inode) == (mapping.device, mapping.inode))
            .map(|libc| libc.version);
        let (evidence, layouts) = match version.and_then(Layout::of) {
            Some(layout) => (Evidence::Named, vec![layout]),
            None => (Evidence::Structure, LAYOUTS.iter().collect()),
        };
        let mut behind = 0;
        for table in bin_tables(memory, &mapping.range) {
            if table < behind || found.len() == MOST_MALLOCS {
                continue;
            }
            let fitting: Vec<Candidate> = layouts
                .iter()
                .filter_map(|layout| {
                    let arena = table.checked_sub(layout.state.bins)?;
                    let Ring { arenas, cut } = ring(memory, layout, arena, room);
                    // A ring that is broken, or leads into a page that is in swap, will do where
                    // the layout is no guess: then there are the heaps.
                    let named = evidence == Evidence::Named;
                    if cut.is_some() && !(named && counts_hold(memory, layout, arena, &heaps)) {
                        return None;
                    }
                    Some(Candidate {
                        layout,
                        evidence,
                        object: mapping.path()?.to_string_lossy().into_owned(),
                        counters: counters(memory, layout, mapping, &heaps, arena),
                        ring: arenas,
                        cut,
                        version,
                    })
                })
                .collect();
            if let Some(first) = fitting.first() {
                room -= fitting.iter().map(|c| c.ring.len()).max().unwrap_or(0);
                behind = first.main_arena() + first.layout.state.size();
                // Where some agree about `mp_` too, the others are mistaken.
                let whole = fitting.iter().any(|c| c.counters.is_some());
                let agreeing = fitting.into_iter();
                found.push(
                    agreeing
                        .filter(|c| !whole || c.counters.is_some())
                        .collect(),
                );
            }
        }
    }
    found
}

/// Mappings without the borders between neighbours, which advice and names draw.
pub(super) fn merged<'a>(mappings: impl Iterator<Item = &'a Mapping>) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for mapping in mappings {
        match merged.last_mut() {
            Some(last) if last.end == mapping.range.start => last.end = mapping.range.end,
            _ => merged.push(mapping.range.clone()),
        }
    }
    merged
}

/// Whether a mapping is the data of a program or library: private, writable, of a file that is
/// executed elsewhere. Models are mapped so as well, but not executed.
fn is_data(mapping: &Mapping, all: &[Mapping]) -> bool {
    let same = |other: &Mapping| (other.device, other.inode) == (mapping.device, mapping.inode);
    mapping.inode != 0
        && mapping.readable
        && mapping.writable
        && !mapping.shared
        && mapping.len() <= MOST_DATA
        && all.iter().any(|other| other.executable && same(other))
}

/// Where 127 pairs of pointers in a row begin that can be bins: each is empty, a pair of pointers to
/// 16 bytes before itself, or leads elsewhere; at least one is empty. One pass, whatever is there.
fn bin_tables(memory: &mut Memory<'_>, range: &Range<u64>) -> Vec<u64> {
    let mut tables = Vec::new();
    // Pairs at multiples of 16, and those between: where a row of sound ones began, and the last
    // empty one.
    let mut rows = [(0, 0); 2];
    let (mut before_at, mut before) = (0, 0);
    words(memory, range, |address, word| {
        let pair = address.wrapping_sub(8);
        let itself = pair.wrapping_sub(16);
        let (start, empty) = &mut rows[(pair / 8 % 2) as usize];
        let whole = before_at == pair && before != 0 && word != 0;
        let sound =
            whole && (before | word).is_multiple_of(8) && (before == itself) == (word == itself);
        if !sound {
            *start = 0;
        } else {
            if *start == 0 {
                *start = pair;
            }
            if word == itself {
                *empty = pair;
            }
            let first = pair.saturating_sub(16 * (BINS - 1));
            if *start <= first && *empty >= first && tables.len() < MOST_TABLES {
                tables.push(first);
            }
        }
        (before_at, before) = (address, word);
    });
    tables
}

/// Calls with every word of a range that can be read.
fn words(memory: &mut Memory<'_>, range: &Range<u64>, mut with: impl FnMut(u64, u64)) {
    let mut at = range.start;
    while let Some(address) = memory.next_readable(at, range.end) {
        match memory.word(address) {
            Ok(word) => {
                with(address, word);
                at = address + 8;
            }
            Err(_) => at = (address / memory.page() + 1) * memory.page(),
        }
    }
}

/// Whether the fields around the bins are those of a main arena that was used.
fn counts_hold(memory: &mut Memory<'_>, layout: &Layout, arena: u64, heaps: &[Range<u64>]) -> bool {
    State::read(memory, layout, arena).is_ok_and(|state| {
        state.system_mem > 0
            && state.system_mem <= state.max_system_mem
            && (state.system_mem | state.max_system_mem).is_multiple_of(memory.page())
            && within(heaps, state.top)
    })
}

/// Arenas that lead to each other.
#[derive(Debug)]
struct Ring {
    arenas: Vec<u64>,
    /// The link that leads to no arena.
    cut: Option<u64>,
}

/// Follows `next` until it comes back, within `room` arenas.
fn ring(memory: &mut Memory<'_>, layout: &Layout, arena: u64, room: usize) -> Ring {
    let mut arenas = vec![arena];
    let mut seen = HashSet::from([arena]);
    let mut next_of = |arena: u64| {
        let link = arena.checked_add(layout.state.next())?;
        memory.stray_word(link).ok()
    };
    let mut next = next_of(arena).unwrap_or(0);
    while next != arena {
        // One that cannot be read is none, and neither is one that was met before.
        let after = Some(next).filter(|next| next.is_multiple_of(16) && *next != 0);
        let after = after.and_then(&mut next_of);
        match after {
            Some(after) if arenas.len() < room && seen.insert(next) => {
                arenas.push(next);
                next = after;
            }
            _ => {
                return Ring {
                    arenas,
                    cut: Some(next),
                };
            }
        }
    }
    Ring { arenas, cut: None }
}

/// `mp_`, found by its `sbrk_base`: the address where the main arena begins, with fields around it
/// that make sense together.
fn counters(
    memory: &mut Memory<'_>,
    layout: &Layout,
    data: &Mapping,
    heaps: &[Range<u64>],
    arena: u64,
) -> Option<Counters> {
    let mut start = data.range.start;
    while start < data.range.end {
        let end = (start + PIECE_OF_DATA).min(data.range.end);
        let mut fields = Vec::new();
        words(memory, &(start..end), |address, word| {
            if within(heaps, word) {
                fields.push((address, word));
            }
        });
        let found = fields
            .into_iter()
            .find_map(|field| counters_by(memory, layout, field, arena));
        if found.is_some() {
            return found;
        }
        start = end;
    }
    None
}

/// `mp_` by what may be its `sbrk_base`: where that lies, and what it says.
fn counters_by(
    memory: &mut Memory<'_>,
    layout: &Layout,
    (field, sbrk_base): (u64, u64),
    arena: u64,
) -> Option<Counters> {
    let address = field.checked_sub(layout.parameters.sbrk_base)?;
    // The arena itself is full of pointers to chunks.
    if address < arena + layout.state.size() && arena < address + layout.parameters.size() {
        return None;
    }
    let counters = Counters::read(memory, layout, address)?;
    // The first chunk has nothing in front of it, so its predecessor counts as in use.
    let first = sbrk_base.next_multiple_of(16);
    let head = memory.stray_word(first + 8).ok()?;
    let size = head & !7;
    (head & 7 == 1 && size >= 32 && size.is_multiple_of(16)).then_some(counters)
}

/// Whether an address lies in one of these ranges, which are in order.
pub(super) fn within(ranges: &[Range<u64>], address: u64) -> bool {
    let at = ranges.partition_point(|range| range.end <= address);
    ranges.get(at).is_some_and(|range| range.contains(&address))
}
