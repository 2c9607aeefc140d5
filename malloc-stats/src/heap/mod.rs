//! Another process's glibc heap, read from outside: no restart, no preload, no debug symbols.

mod assemble;
mod cached;
mod chunks;
mod coverage;
mod discover;
mod follow;
mod hint;
mod layout;
mod memory;
mod mmapped;
mod report;
mod segment;
mod space;
mod state;
mod stretches;
mod survey;
mod tally;
mod walk;

use std::time::Duration;

pub use chunks::{Chunk, ChunkState, Chunks as ChunksSeen, chunks};
pub use coverage::{Cell, Coverage, Shares};
pub use report::{
    Address, Arena, Chunks, DEFAULT_MMAP_THRESHOLD, Evidence, Fault, Heap, Hint, InForce,
    LayoutUsed, Mmapped, Owned, Pin, SizeClass, Torn, Totals, Trim,
};
pub use space::{AddressSpace, PageState, Run};
pub use stretches::{Alike, CoverageError, Stretch};

/// How to walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The C libraries in the process whose versions are known.
    pub libcs: Vec<NamedLibc>,
    /// How often a stretch of memory is tried again that was torn.
    pub retries: u32,
    /// How long to wait before that.
    pub retry_pause: Duration,
    /// Whether the process is stopped: then nothing is gained by reading again.
    pub stopped: bool,
    /// Whether to walk nothing while somebody holds the lock of an arena
    /// ([`HeapError::MidOperation`]).
    pub unless_locked: bool,
    /// The most that is read at a time, in bytes. While it is read the process may have to wait to
    /// map or unmap memory, so 16–64 KiB.
    pub window: usize,
}

/// A C library that names its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NamedLibc {
    /// The device of its file: major and minor number.
    pub device: (u32, u32),
    /// The inode of its file.
    pub inode: u64,
    /// Such as `(2, 36)`.
    pub version: (u32, u32),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            libcs: Vec::new(),
            retries: 5,
            retry_pause: Duration::from_millis(1),
            stopped: false,
            unless_locked: false,
            window: 64 << 10,
        }
    }
}

/// Why there is no heap to report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeapError {
    /// No `main_arena` was found: malloc is not glibc's, or was never used.
    #[error("no heap of glibc found: its malloc was never used, or another one serves")]
    NoArena,
    /// Something that looks like one was found, and does not hold up.
    #[error(
        "the structures of malloc in {object} fit no known glibc (known: {known}): {reason}; its numbers would be guesses"
    )]
    UnknownLayout {
        /// The object with the arena.
        object: String,
        /// The versions that are known.
        known: String,
        /// What does not fit.
        reason: String,
    },
    /// The version is not known, and the heap was in motion where its structures were to be told.
    #[error(
        "{object} does not name a version that is known, and its heap was in motion while it was to be told by its structures ({reason}): look again, or with a pause"
    )]
    InMotion {
        /// The object with the arena.
        object: String,
        /// What did not come out even.
        reason: String,
    },
    /// A thread is in the middle of an operation, and a walk was asked for only where none is.
    #[error("a thread is in the middle of an operation of malloc, in arena {arena}")]
    MidOperation {
        /// The arena's index.
        arena: usize,
    },
    /// An arena was asked for that there is not.
    #[error("there is no arena {arena}: the process has {arenas}, counted from 0")]
    NoSuchArena {
        /// Its index.
        arena: usize,
        /// How many there are.
        arenas: usize,
    },
    /// The memory of the process cannot be read.
    #[error("the memory of the process cannot be read: {reason}")]
    Unreadable {
        /// What the kernel said.
        reason: String,
    },
}

/// Walks every glibc heap in `space`, the one that holds most first. There are several where a
/// process has several C libraries (`dlmopen(3)`, a static program that loads another).
///
/// The work and memory are bounded by what is resident, whatever the heap says: it belongs to
/// somebody else.
///
/// # Errors
///
/// [`HeapError`] where there is none that can be read.
pub fn walk(space: &dyn AddressSpace, options: &Options) -> Result<Vec<Heap>, HeapError> {
    walk::heaps(space, options)
}
