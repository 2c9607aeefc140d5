//! What targets tell of themselves (`tests/targets/`).

use malloc_stats::Mallinfo;
use malloc_stats::heap::Address;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::glibcs::minor;

/// A line that a target tells.
pub trait Told: DeserializeOwned {
    /// Of the process that tells it; `None` where that is going to end.
    fn pid(&self) -> Option<u32>;
}

/// What `heap.c` tells.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Truth {
    pub pid: u32,
    pub version: String,
    pub sequence: u32,
    /// Whether `mallinfo2` said the same twice.
    pub stable: bool,
    pub mallinfo: Mallinfo,
    /// Of a second C library in the process.
    pub second: Option<Mallinfo>,
    pub malloc_info: String,
    /// Whether `blocks` tells all that is in threads' caches.
    pub cached_all: bool,
    /// Whether `blocks` tells all that other threads than the first hold.
    pub recorded_all: bool,
    pub settings: Settings,
    pub blocks: Vec<Block>,
    /// Those of `blocks` that lie right below a top.
    pub pins: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Settings {
    /// This and the next three: `None` where huge pages may have changed them.
    pub mmap_threshold: Option<u64>,
    pub trim_threshold: Option<u64>,
    pub top_pad: Option<u64>,
    pub dynamic: Option<bool>,
    pub mmap_max: u64,
    pub arena_max: u64,
    pub tcache_count: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Block {
    pub address: Address,
    pub usable: u64,
    /// With its header.
    pub chunk: u64,
    pub arena: Address,
    pub kind: String,
    /// 0 is the first; −1 for those that are gone.
    pub thread: i32,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Live,
    Cached,
    Freed,
}

/// What the targets stand for arenas with that have no address of their own.
pub const MAIN_ARENA: Address = Address(0);
pub const MMAPPED: Address = Address(1);

impl Told for Truth {
    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }
}

impl Truth {
    /// 41 of 2.41.
    pub fn minor(&self) -> u32 {
        minor(&self.version).unwrap()
    }

    /// Its known blocks in arenas, that malloc counts as in use.
    pub fn in_use(&self) -> impl Iterator<Item = &Block> {
        self.blocks
            .iter()
            .filter(|block| block.state != State::Freed && block.arena != MMAPPED)
    }

    pub fn cached(&self) -> impl Iterator<Item = &Block> {
        self.in_use().filter(|block| block.state == State::Cached)
    }

    /// The arenas of threads other than the first, as far as known.
    pub fn other_arenas(&self) -> Vec<Address> {
        let mut arenas: Vec<_> = self.in_use().map(|block| block.arena).collect();
        arenas.retain(|arena| *arena != MAIN_ARENA);
        arenas.sort();
        arenas.dedup();
        arenas
    }

    /// The caches' own blocks in an arena: one of each thread. From 2.43 on a cache that keeps
    /// nothing has none.
    pub fn caches_in(&self, arena: Address) -> u64 {
        let mut threads: Vec<_> = self
            .in_use()
            .filter(|block| block.arena == arena && block.thread >= 0)
            .map(|block| block.thread)
            .collect();
        threads.sort_unstable();
        threads.dedup();
        if self.minor() >= 43 && self.settings.tcache_count == 0 {
            0
        } else {
            threads.len() as u64
        }
    }
}

/// What `truth.py` tells.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum PythonTruth {
    Told {
        pid: u32,
        version: String,
        numpy: Option<String>,
        mallinfo: Mallinfo,
    },
    Skipped {
        skipped: String,
    },
}

impl Told for PythonTruth {
    fn pid(&self) -> Option<u32> {
        match self {
            Self::Told { pid, .. } => Some(*pid),
            Self::Skipped { .. } => None,
        }
    }
}

/// What a target saw of its own `malloc_trim(0)`.
#[derive(Debug, Clone, Deserialize)]
pub struct Trimmed {
    pub anonymous_before: u64,
    pub anonymous_after: u64,
}
