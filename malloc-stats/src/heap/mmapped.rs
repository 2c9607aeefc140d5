//! Chunks with mappings of their own, and pieces of the main arena that lie off the brk.
//!
//! Nothing lists them. An mmapped chunk begins a mapping (the kernel may have joined it with its
//! neighbours), and says so in its flags: its size, and how far into the mapping it begins, add up
//! to whole pages.

use std::ops::Range;

use super::memory::Memory;
use super::segment::{FENCE, Kind, begins_chunks};
use crate::mappings::without;

const FLAGS: u64 = 7;
const IS_MMAPPED: u64 = 2;
const PREV_INUSE: u64 = 1;
/// The bit of an mmapped chunk's `prev_size` that says it has huge pages (2.43).
const HUGE: u64 = 1;
/// Chunks that are listed, at most: `vm.max_map_count` is 65530 by default.
const MOST_CHUNKS: usize = 1 << 18;

/// Pieces of a main arena, at most: it takes each in a megabyte or more.
const MOST_PIECES: usize = 1 << 10;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The mappings of chunks, in order of address.
    pub(super) chunks: Vec<Range<u64>>,
    /// Where pieces of the main arena begin and memory ends.
    pub(super) pieces: Vec<Range<u64>>,
    bytes: u64,
}

/// Where to look, and what to expect.
pub(super) struct Search<'a> {
    /// Private anonymous memory, neighbours joined, in order of address.
    pub(super) regions: &'a [Range<u64>],
    /// What is known to be something else: the brk, heaps of other arenas. In order of address.
    pub(super) taken: &'a [Range<u64>],
    /// How many chunks, and at most how many bytes, malloc says there are, where it does.
    pub(super) expected: Option<(u64, u64)>,
    /// A main arena that has pieces off the brk.
    pub(super) main: Option<Main>,
    /// Bytes behind a chunk that its size does not count.
    pub(super) trailer: u64,
}

/// What is known of the main arena.
#[derive(Debug, Clone, Copy)]
pub(super) struct Main {
    pub(super) top: u64,
    /// How many bytes of it lie off the brk, at most.
    pub(super) bytes: u64,
}

/// Looks at the beginning of each region and behind each thing found; and where that does not
/// account for everything, at every page.
pub(super) fn find(memory: &mut Memory<'_>, search: &Search<'_>) -> Found {
    let mut found = Found::default();
    let free: Vec<Range<u64>> = search
        .regions
        .iter()
        .flat_map(|region| without(region, search.taken))
        .collect();
    for region in &free {
        scan(memory, search, region, Step::Region, &mut found);
    }
    if found.lacks(search) {
        found.sort();
        let mut known: Vec<Range<u64>> = found.chunks.clone();
        known.extend(found.pieces.iter().cloned());
        known.sort_by_key(|range| range.start);
        let rest: Vec<Range<u64>> = free.iter().flat_map(|r| without(r, &known)).collect();
        for region in &rest {
            scan(memory, search, region, Step::Page, &mut found);
        }
    }
    found.sort();
    found
}

impl Found {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether something must be there that was not found.
    fn lacks(&self, search: &Search<'_>) -> bool {
        let fewer = |(chunks, _)| (self.chunks.len() as u64) < chunks;
        let short = |main: Main| {
            let pieces = self.pieces.iter();
            let bytes: u64 = pieces.clone().map(|piece| piece.end - piece.start).sum();
            bytes < main.bytes || !pieces.clone().any(|piece| piece.contains(&main.top))
        };
        search.expected.is_some_and(fewer) || search.main.is_some_and(short)
    }

    fn sort(&mut self) {
        self.chunks.sort_by_key(|chunk| chunk.start);
        self.pieces.sort_by_key(|piece| piece.start);
    }
}

/// Where to go on behind a page that begins nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// At the next region.
    Region,
    /// At the next page.
    Page,
}

fn scan(
    memory: &mut Memory<'_>,
    search: &Search<'_>,
    region: &Range<u64>,
    step: Step,
    found: &mut Found,
) {
    let mut at = region.start;
    while at < region.end && found.chunks.len() < MOST_CHUNKS && found.pieces.len() < MOST_PIECES {
        // What was never touched begins with no header.
        let Some(address) = memory.next_readable(at, region.end) else {
            return;
        };
        if address != at {
            if step == Step::Region {
                return;
            }
            at = address;
        }
        if step == Step::Page && !found.lacks(search) {
            return;
        }
        let left = search
            .expected
            .map(|(_, bytes)| bytes.saturating_sub(found.bytes()));
        if let Some(length) = mmapped(memory, at, region.end, search.trailer)
            .filter(|length| left.is_none_or(|left| *length <= left))
        {
            found.chunks.push(at..at + length);
            found.bytes += length;
            at += length;
        } else if let Some(end) = piece(memory, search, at, region.end) {
            found.pieces.push(at..end);
            at = end.next_multiple_of(memory.page());
        } else if step == Step::Page {
            at += memory.page();
        } else {
            return;
        }
    }
}

/// The length of the mapping that a chunk begins at `base`, if one does.
fn mmapped(memory: &mut Memory<'_>, base: u64, end: u64, trailer: u64) -> Option<u64> {
    let length = chunk_at(memory, base, base, end, trailer)?;
    // An aligned block leaves the header it was cut from at the base, which a later `realloc`
    // does not correct: the header that counts lies before an aligned address.
    let shifted = (5..40).find_map(|power| {
        let aligned = (base + 48).next_multiple_of(1 << power);
        chunk_at(memory, base, aligned - 16, end, trailer)
    });
    Some(shifted.unwrap_or(length))
}

/// The length of the mapping at `base`, by a chunk whose header lies at `chunk`.
fn chunk_at(memory: &mut Memory<'_>, base: u64, chunk: u64, end: u64, trailer: u64) -> Option<u64> {
    if chunk >= end {
        return None;
    }
    let offset = memory.stray_word(chunk).ok()? & !HUGE;
    let head = memory.stray_word(chunk + 8).ok()?;
    let length = offset.checked_add(head & !FLAGS)?.checked_add(trailer)?;
    let sound = head & FLAGS == IS_MMAPPED
        && offset == chunk - base
        && length > 0
        && length.is_multiple_of(memory.page())
        && length <= end - base;
    sound.then_some(length)
}

/// Where a piece of the main arena ends that begins here, if one does.
fn piece(memory: &mut Memory<'_>, search: &Search<'_>, base: u64, end: u64) -> Option<u64> {
    let top = search.main?.top;
    let head = memory.stray_word(base + 8).ok()?;
    let is_first = head & FLAGS == PREV_INUSE;
    if !is_first || !begins_chunks(memory, Kind::Main, base, head, &(base..end), top) {
        return None;
    }
    Some(piece_end(memory, base, end, top).unwrap_or(end))
}

/// Behind the top or behind two fences; `None` where chunks do not lead there.
fn piece_end(memory: &mut Memory<'_>, base: u64, end: u64, top: u64) -> Option<u64> {
    let mut chunk = base;
    let mut fences = 0;
    while chunk < end {
        let size = memory.word(chunk + 8).ok()? & !FLAGS;
        chunk = chunk.checked_add(size).filter(|next| *next <= end)?;
        if chunk - size == top {
            return Some(chunk);
        }
        fences = if size == FENCE { fences + 1 } else { 0 };
        if size == 0 || fences == 2 {
            return Some(chunk);
        }
    }
    None
}
