//! What a walk found.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::coverage::Coverage;
use crate::glibc::Mallinfo;
use crate::metric::Metric;

/// An address in the other process. Prints and serialises as `0x7f2acff10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(pub u64);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.strip_prefix("0x")
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| {
                de::Error::invalid_value(de::Unexpected::Str(&text), &"an address such as 0x7f00")
            })
    }
}

/// What one glibc's malloc holds in a process, read from outside. All sizes in bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Heap {
    /// Which structures were read, and how they were recognised.
    pub layout: LayoutUsed,
    /// The sums over all arenas.
    #[serde(rename = "heap")]
    pub totals: Totals,
    /// The settings in force; `None` where `mp_` was not found, with a note.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub settings: Option<InForce>,
    /// The arenas, the main one first.
    pub arenas: Vec<Arena>,
    /// Chunks with mappings of their own.
    pub mmapped: Mmapped,
    /// What could be given back now.
    pub trim: Trim,
    /// What stands in the way of automatic shrinking, the greatest first.
    pub pins: Vec<Pin>,
    /// Chunks by size, from the smallest; sizes without chunks are left out.
    pub histogram: Vec<SizeClass>,
    /// How whole the walk is.
    pub torn: Torn,
    /// What could not be found out, and why. `heap_notes` in JSON, where it stands beside those of
    /// the whole inspection.
    #[serde(rename = "heap_notes", skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
    /// The memory that is malloc's, in order of address. Not in JSON.
    #[serde(skip)]
    pub owned: Vec<Owned>,
}

/// A stretch of memory that is malloc's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Its addresses; whole pages but for where the main arena begins.
    pub range: Range<u64>,
    /// How much of it is resident.
    pub resident: u64,
    /// How much of it is in swap.
    pub swapped: u64,
}

/// Which structures were read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayoutUsed {
    /// The versions of glibc that have them, such as `2.35–2.41`.
    pub versions: String,
    /// The object whose `main_arena` this is, such as `/usr/lib/x86_64-linux-gnu/libc.so.6`.
    pub object: String,
    /// Whether the version was known (`named`), or only the structures fit (`structure`).
    pub evidence: Evidence,
    /// Where `main_arena` lies.
    pub main_arena: Address,
}

/// How structures were recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// By the version that the C library names.
    Named,
    /// The version is unknown, or newer than the table; every structural check passed.
    #[default]
    Structure,
}

/// The heap in glibc's words and in those of [`AllocatorReading`](crate::AllocatorReading).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// What `mallinfo2(3)` would return inside the process.
    #[serde(flatten)]
    pub mallinfo: Mallinfo,
    /// In blocks handed out and not freed, with headers and what thread caches hold: `uordblks +
    /// hblkhd`.
    pub in_use: Metric,
    /// Held from the system, virtual: `arena + hblkhd`.
    pub held: Metric,
    /// Free inside malloc, virtual: `fordblks`.
    pub free_virtual: Metric,
    /// Free, and on resident pages.
    pub cached_resident: Metric,
    /// Free, and on pages that were given back, were never touched, or are in swap.
    pub returned_virtual: Metric,
    /// Resident pages of heaps and of mmapped chunks.
    pub heap_rss: Metric,
    /// Pages of heaps and mmapped chunks in swap.
    pub swapped: Metric,
}

/// The settings malloc works by at this moment, from its `mp_`. In bytes unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InForce {
    /// From this size on blocks get a mapping of their own, which goes back when they are freed.
    pub mmap_threshold: u64,
    /// The top of the main arena is given back when it is larger than this.
    pub trim_threshold: u64,
    /// What is asked of the system beyond what is needed, and left when the top is trimmed.
    pub top_pad: u64,
    /// Whether freeing an mmapped block still raises both thresholds.
    pub dynamic: bool,
    /// At most so many mmapped chunks at a time.
    pub mmap_max: u64,
    /// At most so many arenas; 0 where it follows from the number of cores.
    pub arena_max: u64,
    /// A thread's cache keeps at most so many blocks of each size; 0 where there is none.
    pub tcache_count: u64,
    /// Blocks larger than this go into no thread's cache.
    pub tcache_max: u64,
    /// Huge pages that arenas are aligned to (`glibc.malloc.hugetlb=1`); 0 without.
    pub thp_pagesize: u64,
    /// Huge pages that memory is taken in (`glibc.malloc.hugetlb=2`); 0 without.
    pub hp_pagesize: u64,
}

/// The threshold malloc starts with, `DEFAULT_MMAP_THRESHOLD_MIN`.
pub const DEFAULT_MMAP_THRESHOLD: u64 = 128 << 10;

impl InForce {
    /// Whether freeing a large block has raised the threshold already.
    #[must_use]
    pub const fn has_risen(&self) -> bool {
        self.dynamic && self.mmap_threshold > DEFAULT_MMAP_THRESHOLD
    }
}

/// One arena.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Arena {
    /// Its place in the ring; 0 is the main arena.
    pub index: usize,
    /// Where its `malloc_state` lies.
    pub address: Address,
    /// What it has from the system, virtual.
    pub system_mem: u64,
    /// The most it ever had.
    pub max_system_mem: u64,
    /// Threads that allocate from it.
    pub attached_threads: u64,
    /// In chunks in use, with headers and what thread caches hold.
    pub in_use: Metric,
    /// In free chunks, fastbins and the top.
    pub free: Metric,
    /// In the top chunk, virtual; part of `free`.
    pub top: u64,
    /// In chunks that thread caches hold; part of `in_use`.
    pub cached: Metric,
    /// Chunks in use.
    pub chunks_in_use: u64,
    /// Free chunks, without the top.
    pub chunks_free: u64,
    /// Its resident pages.
    pub rss: Metric,
    /// Free, and on resident pages.
    pub free_resident: Metric,
    /// What `malloc_trim(0)` would give back of it.
    pub releasable: Metric,
    /// Whether somebody held its lock at the time: in the middle of an operation.
    pub locked: bool,
    /// How many stretches of memory it has: heaps, or pieces of the main arena.
    pub segments: usize,
    /// Where in-use and free bytes lie. Not in JSON: drawn by [`Coverage::cells`].
    #[serde(skip)]
    pub coverage: Coverage,
}

impl Arena {
    /// `max(0, 1 − in_use / rss)`; `None` where either is unavailable or nothing is resident.
    #[must_use]
    pub fn waste(&self) -> Option<f64> {
        let (in_use, rss) = (self.in_use.bytes()?, self.rss.bytes()?);
        (rss > 0).then(|| (1.0 - in_use as f64 / rss as f64).max(0.0))
    }

    /// Whether it is the main arena.
    #[must_use]
    pub const fn is_main(&self) -> bool {
        self.index == 0
    }
}

/// Chunks with mappings of their own, by malloc's count and as they were found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mmapped {
    /// How many there are, as malloc counts (`hblks`).
    pub chunks: u64,
    /// Their bytes, as malloc counts (`hblkhd`).
    pub bytes: u64,
    /// How many were found among the mappings.
    pub found_chunks: u64,
    /// The bytes of those.
    pub found_bytes: u64,
    /// Their resident pages; an estimate where not all were found.
    pub resident: Metric,
}

/// What could be given back now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trim {
    /// Free, and on resident pages.
    pub free_resident: Metric,
    /// What `malloc_trim(0)` would return: resident whole pages inside free memory.
    pub releasable: Metric,
    /// Resident tops of arenas other than the main one, which no trim returns.
    pub secondary_tops: Metric,
    /// In threads' caches, which no trim empties.
    pub tcache: Metric,
}

/// The last chunk in use below an arena's top: automatic shrinking never reaches below it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pin {
    /// The arena's index.
    pub arena: usize,
    /// Where the block's content begins (what `malloc` returned).
    pub address: Address,
    /// The chunk, with its header.
    pub size: u64,
    /// Whether a thread's cache holds it: freed by the program already.
    pub cached: bool,
    /// Chunks in use side by side, of which this is the last.
    pub run_chunks: u64,
    /// The bytes of those.
    pub run_bytes: u64,
    /// Free memory right below that run: what would join the top if the run went.
    pub unlocks: u64,
    /// The resident part of that.
    pub unlocks_resident: Metric,
    /// All free memory of the arena below the pin.
    pub below_free: u64,
    /// The resident part of that: what this block keeps from automatic shrinking.
    pub below_free_resident: Metric,
    /// What the block seems to hold.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<Hint>,
}

/// A guess at what a block holds, from its first bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// A text; its beginning, control characters and all.
    Text(String),
    /// It begins with a pointer into this object, at this offset from where the object is mapped:
    /// often a table of C++ methods.
    PointsInto(String, Address),
    /// A Python object of this type.
    Python(String),
    /// Nothing but zeros.
    Zeros,
}

/// Chunks of sizes from `from` to less than `2 × from`, with headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SizeClass {
    /// A power of two, in bytes.
    pub from: u64,
    /// Chunks in use (mmapped ones and what thread caches hold among them), and their bytes.
    pub in_use: Chunks,
    /// Free chunks (fastbins among them; without tops), and their bytes.
    pub free: Chunks,
}

/// A number of chunks, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chunks {
    /// How many.
    pub count: u64,
    /// Their bytes, with headers.
    pub bytes: u64,
}

/// How whole a walk of a process that goes on running is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Torn {
    /// Stretches of memory walked.
    pub segments: u64,
    /// Of those, how many were whole only at a second or later try.
    pub retried: u64,
    /// Of those, how many were never whole; what is behind the fault is not counted.
    pub unresolved: u64,
    /// Bytes that are in no count for that reason.
    pub unresolved_bytes: u64,
    /// How often a few chunks were read again because a header made no sense. Harmless: each time
    /// they made sense then, or their stretch counts as unresolved.
    pub reread: u64,
    /// Chunks whose two records of their size disagreed for a moment, as happens while a chunk is
    /// split or joined. Harmless, and counted by the record in front.
    pub disagreed: u64,
    /// What was wrong where it stayed wrong.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub faults: Vec<Fault>,
}

/// Where a stretch of memory could not be followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The arena's index.
    pub arena: usize,
    /// The chunk.
    pub address: Address,
    /// What is wrong with it.
    pub reason: String,
    /// Whether every try met the same bytes there: then the heap is corrupt rather than in motion.
    pub stable: bool,
}
