//! The chunks of a stretch of a process's heap, one by one.

use std::ops::Range;

use super::{InspectError, ProcessMemory, Target, TargetError, allocator};
use crate::heap::{self, ChunksSeen, HeapError, Options};
use crate::metric::Metric;

/// Why there are no chunks to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunksError {
    /// Its `malloc` is none whose chunks are known.
    #[error("{reason}")]
    NotWalkable {
        /// Who serves it, or why that is not known.
        reason: String,
    },
    /// Its heap cannot be walked.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// It cannot be looked at, or changed meanwhile.
    #[error(transparent)]
    Inspect(#[from] InspectError),
}

impl From<TargetError> for ChunksError {
    fn from(error: TargetError) -> Self {
        Self::Inspect(error.into())
    }
}

/// The chunks of one arena that lie in `range`, at most `most` of them: [`heap::chunks`] of a
/// process, whose C libraries are recognised as [`inspect`](super::inspect()) does.
///
/// # Errors
///
/// Where the process may not be read, has no heap of glibc, or changed meanwhile.
pub fn chunks(
    target: &Target,
    arena: usize,
    range: Range<u64>,
    most: usize,
) -> Result<ChunksSeen, ChunksError> {
    target.readable()?;
    let found = read(target, arena, range, most);
    // Whatever was found then is of no process that is still there.
    if let Some(change) = target.changed() {
        let pid = target.pid();
        return Err(InspectError::Changed { pid, change }.into());
    }
    found
}

fn read(
    target: &Target,
    arena: usize,
    range: Range<u64>,
    most: usize,
) -> Result<ChunksSeen, ChunksError> {
    let unreadable = |error: std::io::Error| HeapError::Unreadable {
        reason: error.to_string(),
    };
    let mappings = target.mappings().map_err(unreadable)?;
    let detection = allocator::detect(target, &mappings, &|_| Metric::Unavailable);
    if !detection.detected.walkable {
        let why = detection.detected.reason.clone();
        let reason = why.unwrap_or_else(|| "malloc is not glibc's".to_owned());
        return Err(ChunksError::NotWalkable { reason });
    }
    let options = Options {
        libcs: detection.named(),
        ..Options::default()
    };
    let memory = ProcessMemory::open(target).map_err(unreadable)?;
    Ok(heap::chunks(&memory, &options, arena, range, most)?)
}
