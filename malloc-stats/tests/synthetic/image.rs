//! What was laid out where: from this the truth is told, and not from the bytes.

use std::ops::Range;

use crate::layout::Layout;
use crate::plan::{Fate, Plan};
use crate::space::Forged;

/// A made-up process, and where everything in it lies.
pub struct Image {
    pub plan: Plan,
    pub space: Forged,
    /// In the order of the ring: the main one first.
    pub arenas: Vec<ArenaImage>,
    pub mmapped: Vec<MmappedImage>,
    pub parameters: Settings,
    /// Where `mp_` lies.
    pub parameters_at: u64,
    /// Where `brk(2)` stands.
    pub brk: u64,
}

pub struct ArenaImage {
    /// Its `malloc_state`.
    pub state: u64,
    /// In the order in which it got them; the last one ends in the top.
    pub segments: Vec<Segment>,
    pub system_mem: u64,
    pub max_system_mem: u64,
    pub attached_threads: u64,
    pub locked: bool,
}

pub struct Segment {
    /// All of it, with what is before its first chunk.
    pub range: Range<u64>,
    /// By address, without the top and without fences.
    pub chunks: Vec<Chunk>,
    /// The top, in the last segment.
    pub top: Option<Range<u64>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    pub at: u64,
    pub size: u64,
    pub fate: Fate,
}

pub struct MmappedImage {
    /// From where it was mapped to the end of its mapping.
    pub range: Range<u64>,
    pub header: u64,
}

/// What `mp_` says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    pub trim_threshold: u64,
    pub top_pad: u64,
    pub mmap_threshold: u64,
    pub arena_max: u64,
    pub thp_pagesize: u64,
    pub hp_pagesize: u64,
    pub n_mmaps_max: u64,
    pub no_dyn_threshold: bool,
    pub tcache_max_bytes: u64,
    pub tcache_count: u64,
}

impl Image {
    pub fn layout(&self) -> &'static Layout {
        self.plan.layout
    }

    /// Chunks of all arenas, without tops.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        let segments = self.arenas.iter().flat_map(|arena| &arena.segments);
        segments.flat_map(|segment| &segment.chunks)
    }
}

impl ArenaImage {
    pub fn top(&self) -> Range<u64> {
        let top = self.segments.last().and_then(|last| last.top.clone());
        top.unwrap_or(0..0)
    }
}

impl Chunk {
    pub fn range(&self) -> Range<u64> {
        self.at..self.at + self.size
    }

    pub fn is_free(&self) -> bool {
        matches!(self.fate, Fate::Free | Fate::Fast)
    }
}
