//! Chunks that are free but look in use: in fastbins, and in the caches of threads.
//!
//! Their links are mangled from glibc 2.32 on (`next ^ (address >> 12)`).

use std::ops::Range;

use super::discover::within;
use super::layout::{Layout, Tcache};
use super::memory::Memory;
use super::report::Chunks;
use super::state::State;

/// Blocks of all threads' caches together, at most: a bound for memory and work, since caches that
/// are made up may all lead to the same list.
pub(super) const MOST_CACHED: usize = 1 << 20;
/// Thread caches keep no chunk as large as this, whatever the settings.
const END_OF_CACHED: u64 = 4 << 20;
/// Fastbin chunks of one arena, at most: a bound for memory, far beyond what was ever seen.
const MOST_FAST: usize = 1 << 26;

/// The chunks in an arena's fastbins.
#[derive(Debug, Default)]
pub(super) struct Fast {
    /// Their addresses, in order.
    pub(super) chunks: Vec<u64>,
    pub(super) bytes: u64,
    /// A list that led nowhere: it was in motion, or is corrupt.
    pub(super) torn: bool,
}

impl Fast {
    /// Those in memory of the arena, given in order of address: else many arenas could share lists.
    pub(super) fn read(
        memory: &mut Memory<'_>,
        layout: &Layout,
        state: &State,
        own: &[Range<u64>],
    ) -> Self {
        let mut fast = Self::default();
        if layout.state.fastbins.is_none() {
            return fast;
        }
        for (index, head) in (0..).zip(state.fastbins) {
            let size = 32 + 16 * index;
            if fast.follow(memory, layout, head, size, own).is_none() {
                fast.torn = true;
            }
        }
        fast.chunks.sort_unstable();
        // A chunk on two lists is on one too many.
        let listed = fast.chunks.len();
        fast.chunks.dedup();
        fast.torn |= fast.chunks.len() != listed;
        fast
    }

    /// Follows a list to its end, which is null; a list that comes back to itself has none.
    fn follow(
        &mut self,
        memory: &mut Memory<'_>,
        layout: &Layout,
        head: u64,
        size: u64,
        own: &[Range<u64>],
    ) -> Option<()> {
        let mut loops = Turtle::default();
        let mut chunk = head;
        while chunk != 0 {
            if !chunk.is_multiple_of(16)
                || !within(own, chunk)
                || loops.is_back_at(chunk)
                || self.chunks.len() >= MOST_FAST
            {
                return None;
            }
            let head = memory.stray_word(chunk.checked_add(8)?).ok()?;
            if head & !7 != size {
                return None;
            }
            self.chunks.push(chunk);
            self.bytes += size;
            chunk = next(memory, layout, chunk.checked_add(16)?)?;
        }
        Some(())
    }
}

/// What one thread's cache holds.
#[derive(Debug, Default)]
pub(super) struct ThreadCache {
    /// Chunks with their sizes; headers included.
    pub(super) chunks: Vec<(u64, u64)>,
    /// Whether some list was in motion.
    pub(super) torn: bool,
}

/// Whether a chunk of the right size could be a thread's cache that holds something: cheap, since
/// it is asked of every chunk of that size.
pub(super) fn may_be_cache(
    memory: &mut Memory<'_>,
    tcache: &Tcache,
    most: u64,
    chunk: u64,
) -> bool {
    let mut holds = false;
    for offset in (0..tcache.entries()).step_by(8) {
        let Ok(word) = memory.stray_word(chunk + 16 + offset) else {
            return false;
        };
        let width = tcache.counter * 8;
        for counter in 0..8 / tcache.counter {
            let count = word >> (width * counter) & ((1 << width) - 1);
            if count > most {
                return false;
            }
            holds |= count != if tcache.counts_down { most } else { 0 };
        }
    }
    holds
}

/// Reads a thread's cache in this chunk; `None` where it is none. `most` is how many blocks of a
/// size it may keep.
pub(super) fn thread_cache(
    memory: &mut Memory<'_>,
    layout: &Layout,
    most: u64,
    chunk: u64,
    is_heap: &dyn Fn(u64) -> bool,
    room: usize,
) -> Option<ThreadCache> {
    let tcache = &layout.tcache;
    let content = chunk.checked_add(16)?;
    let mut heads = Vec::new();
    for bin in 0..tcache.bins {
        let at = content + bin * tcache.counter;
        let word = memory.stray_word(at & !7).ok()?;
        let width = tcache.counter * 8;
        let counter = word >> (8 * (at & 7)) & ((1 << width) - 1);
        let head = memory
            .stray_word(content + tcache.entries() + 8 * bin)
            .ok()?;
        if counter > most || (head != 0 && !(head.is_multiple_of(16) && is_heap(head))) {
            return None;
        }
        // Counting down, a cache that was never used says 0 free places or all of them.
        if !tcache.counts_down && (counter == 0) != (head == 0) {
            return None;
        }
        let counted = if tcache.counts_down {
            most - counter
        } else {
            counter
        };
        heads.push((bin, counted, head));
    }
    let mut cache = ThreadCache::default();
    for (bin, counted, head) in heads {
        // A list longer than its count is in motion, or made up.
        let longest = counted.min((room - cache.chunks.len()) as u64);
        let chunks = &mut cache.chunks;
        let listed = follow_cached(memory, layout, bin, head, is_heap, longest, chunks);
        cache.torn |= head != 0 && listed != Some(counted);
    }
    Some(cache)
}

/// Follows a list of a thread's cache, and gives back its length; `None` where it led nowhere.
fn follow_cached(
    memory: &mut Memory<'_>,
    layout: &Layout,
    bin: u64,
    head: u64,
    is_heap: &dyn Fn(u64) -> bool,
    longest: u64,
    chunks: &mut Vec<(u64, u64)>,
) -> Option<u64> {
    let mut content = head;
    let mut length = 0;
    while content != 0 {
        if !content.is_multiple_of(16) || !is_heap(content) || length == longest {
            return None;
        }
        let chunk = content.checked_sub(16)?;
        let size = memory.stray_word(chunk + 8).ok()? & !7;
        let expected = 32 + 16 * bin;
        let fits = if bin < Tcache::SMALL_BINS {
            size == expected
        } else {
            size.is_multiple_of(16) && (32 + 16 * Tcache::SMALL_BINS..END_OF_CACHED).contains(&size)
        };
        if !fits {
            return None;
        }
        chunks.push((chunk, size));
        length += 1;
        content = next(memory, layout, content)?;
    }
    Some(length)
}

/// The link that lies at `address`.
fn next(memory: &mut Memory<'_>, layout: &Layout, address: u64) -> Option<u64> {
    let link = memory.stray_word(address).ok()?;
    Some(if layout.safe_linking {
        link ^ (address >> 12)
    } else {
        link
    })
}

/// Tells when a list comes back to where it was, in constant memory (Brent's algorithm).
#[derive(Debug, Default)]
struct Turtle {
    stays: u64,
    steps: u64,
    leap: u64,
}

impl Turtle {
    fn is_back_at(&mut self, address: u64) -> bool {
        if self.leap != 0 && address == self.stays {
            return true;
        }
        if self.steps == self.leap {
            self.stays = address;
            self.leap = (2 * self.leap).max(1);
            self.steps = 0;
        }
        self.steps += 1;
        false
    }
}

/// The chunks of all thread caches.
#[derive(Debug, Default)]
pub(super) struct Caches {
    /// In order of address.
    chunks: Vec<(u64, u64)>,
    pub(super) torn: bool,
}

impl Caches {
    pub(super) fn new(caches: Vec<ThreadCache>) -> Self {
        let torn = caches.iter().any(|cache| cache.torn);
        let mut chunks: Vec<(u64, u64)> = caches.into_iter().flat_map(|c| c.chunks).collect();
        chunks.sort_unstable();
        chunks.dedup_by_key(|(chunk, _)| *chunk);
        Self { chunks, torn }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn hold(&self, chunk: u64) -> bool {
        self.chunks
            .binary_search_by_key(&chunk, |(chunk, _)| *chunk)
            .is_ok()
    }

    /// The chunks between two addresses.
    pub(super) fn between(&self, range: &std::ops::Range<u64>) -> Chunks {
        let from = self
            .chunks
            .partition_point(|(chunk, _)| *chunk < range.start);
        let to = self.chunks.partition_point(|(chunk, _)| *chunk < range.end);
        let held = self.chunks.get(from..to).unwrap_or_default();
        Chunks {
            count: held.len() as u64,
            bytes: held.iter().map(|(_, size)| size).sum(),
        }
    }
}
