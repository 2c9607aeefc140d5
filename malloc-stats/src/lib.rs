//! What is memory doing? Snapshots of a process, of the allocator inside it, of the limits around
//! it and of the GPUs beside it, and the differences between snapshots. This crate reads and
//! changes nothing; it knows nothing of models or terminals.
//!
//! # Every number has a grade
//!
//! Most numbers about memory are not what they seem: some are upper bounds, some lag behind, some
//! are zero because they were asked of the wrong allocator. So a number of bytes is a [`Metric`]:
//! exact, an upper bound, estimated, or unavailable. Absent is not zero, and what is unavailable
//! has its reason beside it.
//!
//! # Two depths
//!
//! ```
//! use malloc_stats::{Allocator, Diff, Reader};
//!
//! let reader = Reader::new(Allocator::default())?;
//! let _ = reader.full();
//! let before = reader.bracket();
//! let weights = vec![1_u8; 8 << 20];
//! let after = reader.bracket();
//! println!("{}", Diff::between(&before, &after));
//! # drop(weights);
//! # Ok::<(), malloc_stats::Error>(())
//! ```
//!
//! A [bracket](Reader::bracket) reads `/proc/self/status`, the page faults and the cgroup's own
//! use: about ten microseconds, so it can stand before and after every load. A
//! [full](Reader::full) capture adds the allocator, limits, host, pressure and VRAM; on glibc its
//! cost grows with the number of free chunks, so callers pace it by
//! [`Reader::last_full_cost`]. Brackets carry the latest reading of the allocator, and its age.
//!
//! # Whose heap
//!
//! Which allocator serves Rust's heap is *told* ([`Allocator`]). Where that is `malloc`, the crate
//! resolves who implements it ([`provider`]): under a preloaded jemalloc, glibc's `mallinfo2` keeps
//! answering, with zeros.
//!
//! | metric of [`AllocatorReading`] | glibc | jemalloc |
//! |---|---|---|
//! | `in_use` | uordblks + hblkhd | allocated |
//! | `held` (virtual) | arena + hblkhd | active + dirty + muzzy + metadata |
//! | `free_virtual` | fordblks | (active − allocated) + dirty + muzzy |
//! | `internal_waste` | unavailable | active − allocated |
//! | `cached_resident` | resident pages of its heaps − uordblks, estimated | dirty, estimated |
//! | `returned_virtual` | free_virtual − cached_resident | retained |
//! | `metadata` | unavailable | metadata |
//! | `top_main` | keepcost | unavailable |
//! | `heap_rss` | resident pages of its heaps + hblkhd, upper | resident, upper |
//!
//! # Another process
//!
//! [`inspect`] looks into any live process from outside: who serves its `malloc`, what of its heap
//! is resident though free, what pins it, its other memory by class, and verdicts with a remedy.
//! [`heap`] is the walker underneath. Nothing of the process is changed; it is stopped only where
//! that is asked for ([`inspect::pause`]).
//!
//! # How near the limit
//!
//! [`limits`] reads the cgroup (version 1 or 2) with all its ancestors, the host and the resource
//! limits; [`Limits::headroom`](limits::Limits::headroom) is the least of what they leave, and
//! [`Limits::tightest`](limits::Limits::tightest) names it. [`Limits::room`](limits::Limits::room)
//! shows beside it the page cache that could be dropped, and [`limits::watch`] waits until the
//! kernel says that memory is short.
//!
//! # In tests, and from within
//!
//! [`testing`] asserts in a test that memory is given back, each measurement in a process of its
//! own; it is the one part that changes something, in that process: it probes what a purge returns.
//! [`mark`] is how a program tells moments to a watcher outside.
//!
//! # Features
//!
//! | feature | adds | costs |
//! |---|---|---|
//! | `jemalloc` (default) | statistics of the jemalloc linked into the program | building jemalloc |
//! | `nvml` (default) | VRAM, where a driver is found at run time | a few small crates |
//! | `testing` (default) | [`testing`]: assertions on memory in tests | serde_json |

pub mod allocator;
mod diff;
mod error;
pub mod glibc;
pub mod gpu;
pub mod heap;
mod heap_residency;
pub mod inspect;
pub mod jemalloc;
pub mod limits;
pub mod mappings;
pub mod mark;
pub mod metric;
pub mod page_cache;
mod pagemap;
pub mod peer;
pub mod process;
pub mod provider;
mod reader;
mod reading;
pub mod size;
mod snapshot;
#[cfg(feature = "testing")]
pub mod testing;

pub use allocator::{Allocator, AllocatorKind, Setting, SettingGrade, Settings};
pub use diff::{Change, Diff, VramChange};
pub use error::Error;
pub use glibc::Mallinfo;
pub use gpu::Vram;
pub use jemalloc::JemallocStats;
pub use limits::{Host, Limits, Pressure};
pub use metric::{Grade, Metric};
pub use process::Process;
pub use provider::Provider;
pub use reader::Reader;
pub use reading::{AllocatorReading, Waste};
pub use size::Size;
pub use snapshot::{Depth, Snapshot};
