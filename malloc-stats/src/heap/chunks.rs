//! The chunks of a stretch of an arena, one by one.

use std::ops::Range;

use super::memory::Memory;
use super::report::Address;
use super::segment::Segment;
use super::space::AddressSpace;
use super::walk::{self, Walk};
use super::{HeapError, Options};

/// A chunk, as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins, with its header; what `malloc` returned is 16 bytes further on.
    pub address: u64,
    /// Its bytes, with the header.
    pub size: u64,
    /// What it is.
    pub state: ChunkState,
    /// How much of it is on resident pages, bytes.
    pub resident: u64,
}

/// What a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkState {
    /// In use.
    InUse,
    /// Freed by the program, and held by a thread's cache.
    Cached,
    /// Free.
    Free,
    /// The top of its arena.
    Top,
}

/// The chunks of a stretch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunks {
    /// The arena's index.
    pub arena: usize,
    /// The stretch that was asked for.
    pub range: Range<u64>,
    /// Those that lie in it, wholly or in part, in order of address.
    pub chunks: Vec<Chunk>,
    /// How many more there are.
    pub beyond: u64,
    /// What could not be followed, and why.
    pub notes: Vec<String>,
}

/// The chunks of arena `arena` (its place in the ring, as [`Arena::index`](super::Arena::index))
/// that lie in `range`, wholly or in part: the first `most` of them, and how many more there are.
/// Where a process has several glibc heaps, it is the one that has most there.
///
/// It takes as long as [`walk`](super::walk()): which chunks threads' caches hold is known only
/// when all arenas were followed, since a thread keeps its cache in any of them.
///
/// # Errors
///
/// [`HeapError`] where there is no heap that can be read, or none with such an arena.
pub fn chunks(
    space: &dyn AddressSpace,
    options: &Options,
    arena: usize,
    range: Range<u64>,
    most: usize,
) -> Result<Chunks, HeapError> {
    let wanted = Wanted { arena, range, most };
    let (heaps, _) = walk::each(space, options, Some(&wanted), |_, walk| {
        let arenas = walk.survey.states.len();
        let sizes = walk.seen.chunks.iter().map(|chunk| chunk.size);
        let bytes = sizes.fold(0, u64::saturating_add);
        (arenas, bytes, walk.seen.beyond, wanted.found(walk))
    })?;
    let arenas = heaps.iter().map(|heap| heap.0).max().unwrap_or(0);
    let with_arena = heaps.into_iter().filter(|heap| arena < heap.0);
    with_arena
        .max_by_key(|(_, bytes, beyond, _)| (*bytes, *beyond))
        .map(|(.., found)| found)
        .ok_or(HeapError::NoSuchArena { arena, arenas })
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) arena: usize,
    pub(super) range: Range<u64>,
    pub(super) most: usize,
}

impl Wanted {
    fn meets(&self, range: &Range<u64>) -> bool {
        range.start < self.range.end && self.range.start < range.end
    }

    fn found(&self, walk: Walk) -> Chunks {
        let mut notes = Vec::new();
        let segments = walk.done.iter().map(|done| &done.segment);
        let own: Vec<&Segment> = segments.filter(|s| s.arena == self.arena).collect();
        if !own.iter().any(|segment| self.meets(&segment.range)) {
            notes.push(format!(
                "arena {} has no memory between {} and {}: it may have given it back",
                self.arena,
                Address(self.range.start),
                Address(self.range.end)
            ));
        }
        // Of no concern are faults in stretches that were not asked for, and behind what was.
        let elsewhere = |at: u64| {
            let mut own = own.iter();
            own.any(|s| s.range.contains(&at) && !self.meets(&s.range)) || at >= self.range.end
        };
        let faults = walk.faults.iter().filter(|f| f.arena == self.arena);
        let faults = faults.filter(|fault| !elsewhere(fault.address.0));
        notes.extend(faults.map(|fault| format!("at {}: {}", fault.address, fault.reason)));
        if walk.caches.torn {
            notes.push(
                "a list of a thread's cache led nowhere: what else it holds reads as in use"
                    .to_owned(),
            );
        }
        let Seen { mut chunks, beyond } = walk.seen;
        for chunk in &mut chunks {
            if chunk.state == ChunkState::InUse && walk.caches.hold(chunk.address) {
                chunk.state = ChunkState::Cached;
            }
        }
        Chunks {
            arena: self.arena,
            range: self.range.clone(),
            chunks,
            beyond,
            notes,
        }
    }
}

/// The chunks of one stretch of memory, while they go by.
#[derive(Debug, Clone)]
pub(super) struct Recording {
    range: Range<u64>,
    most: usize,
    seen: Seen,
}

/// Chunks, the first ones by address, and how many more there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    chunks: Vec<Chunk>,
    beyond: u64,
}

impl Recording {
    pub(super) fn new(wanted: &Wanted) -> Self {
        Self {
            range: wanted.range.clone(),
            most: wanted.most,
            seen: Seen::default(),
        }
    }

    /// Chunks come in order of address.
    pub(super) fn add(&mut self, range: Range<u64>, state: ChunkState, memory: &mut Memory<'_>) {
        if range.start >= self.range.end || range.end <= self.range.start {
            return;
        }
        if self.seen.chunks.len() >= self.most {
            self.seen.beyond += 1;
            return;
        }
        self.seen.chunks.push(Chunk {
            address: range.start,
            size: range.end - range.start,
            state,
            resident: memory.resident(range),
        });
    }
}

impl Seen {
    /// Stretches come in any order; what comes first by address stays.
    pub(super) fn add(&mut self, recording: Recording, most: usize) {
        let Self { chunks, beyond } = recording.seen;
        self.beyond += beyond;
        self.chunks.extend(chunks);
        self.chunks.sort_by_key(|chunk| chunk.address);
        self.beyond += self.chunks.len().saturating_sub(most) as u64;
        self.chunks.truncate(most);
    }
}
