//! Who serves `malloc` in another process.
//!
//! Told from the files that the process has mapped: which of them define `malloc`, which of those
//! the loader finds first, and what else that one defines. Nothing of the process is run, and its
//! memory is not read, so this needs no more than reading `/proc/PID/maps` does.

mod choose;
mod elf;
mod kind;
mod names;
mod objects;
mod owned;
mod scope;
mod strings;

use serde::{Deserialize, Serialize};

pub use choose::detect;

use crate::heap::NamedLibc;
use crate::metric::Metric;

/// An allocator found in a process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Detected {
    /// `glibc`, `musl`, `jemalloc`, `mimalloc`, `tcmalloc`, `go` (its runtime; such a program has
    /// no `malloc`), or `unknown`.
    pub name: String,
    /// Its version, such as `2.36`, where it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How it came into the process: `library`, `preloaded`, or `static` (part of the program).
    pub placement: String,
    /// The object it is in, as the process names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Whether its heap can be walked from outside.
    pub walkable: bool,
    /// Why it cannot; for one of `others`, why it was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For one that cannot be walked: the resident memory of the mappings it seems to own.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub mappings_rss: Metric,
    /// Other allocators in the process, each with why it was not taken: a C library whose `malloc`
    /// is shadowed, a second C library.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Detected>,
}

/// A copy of glibc in a process, with a heap of its own whether or not that serves `malloc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibcObject {
    /// The object it is in, as the process names it; a static program is its own.
    pub path: String,
    /// Major and minor number of its device, as the mappings have them.
    pub device: (u32, u32),
    /// Its inode.
    pub inode: u64,
    /// Where its first page is mapped. Copies of one file differ in this alone.
    pub base: u64,
    /// Such as `(2, 36)`, where it says.
    pub version: Option<(u32, u32)>,
}

/// Who serves `malloc`, and what bears on walking its heap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Detection {
    /// Who serves.
    pub detected: Detected,
    /// Every glibc in the process; the one that serves, where one does, comes first.
    pub libcs: Vec<LibcObject>,
    /// What could not be read, and what was assumed in its stead.
    pub notes: Vec<String>,
}

impl Detection {
    /// The glibcs that name their versions, as a walk wants them
    /// ([`Options::libcs`](crate::heap::Options::libcs)).
    #[must_use]
    pub fn named(&self) -> Vec<NamedLibc> {
        let named = self.libcs.iter().filter_map(|libc| {
            Some(NamedLibc {
                device: libc.device,
                inode: libc.inode,
                version: libc.version?,
            })
        });
        named.collect()
    }
}
