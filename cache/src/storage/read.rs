//! Bringing bytes to where they belong: scattered reads of file ranges of at most 8 MiB, straight
//! into place by a few threads, or, of models that are computed, as much at a time computed in place.
//! Nothing is staged, so a load needs no memory besides the weights'.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::LoadError;
use crate::model::{Compute, FileIdentity, Model, ModelFile, OpenError};
use crate::observe::LoadObserver;

/// Larger reads gained nothing; smaller ones lose to system calls.
const CHUNK: usize = 8 << 20;

/// The most ranges one read may scatter to (`UIO_MAXIOV`).
const MOST_RANGES: usize = 1024;

/// Below this, a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 16 << 20;

/// Computing takes longer.
const WORTH_A_THREAD_COMPUTED: usize = 1 << 20;

/// How much is computed at a time: what is taken of patches is made ready anew each time.
const CHUNK_COMPUTED: usize = 4 << 20;

/// No element is wider, bytes.
pub(crate) const WIDEST: usize = 16;

/// More threads gained nothing, even from a warm page cache.
pub(crate) const MOST_THREADS: usize = 4;

/// Where one tensor's bytes go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Index of the file in the model.
    pub(crate) file: u32,
    /// Offset in the file.
    pub(crate) offset: u64,
    /// Address to read to.
    pub(crate) at: usize,
    /// Bytes.
    pub(crate) bytes: usize,
}

/// One scattered read: contiguous in the file, several ranges in memory.
#[derive(Debug)]
struct Chunk {
    file: u32,
    offset: u64,
    bytes: usize,
    ranges: Vec<(usize, usize)>,
}

/// Where a model's bytes come from, open.
pub(crate) enum Sources {
    Files(Vec<Arc<File>>),
    Computed(Box<dyn Compute>),
}

/// Opens what a model's bytes come from.
///
/// # Errors
/// A file that is gone, or changed since the model was opened.
pub(crate) fn open_sources(model: &Model) -> Result<Sources, LoadError> {
    match model.recipe() {
        None => Ok(Sources::Files(open_files(model)?)),
        Some(recipe) => Ok(Sources::Computed(Arc::clone(recipe).begin(model)?)),
    }
}

impl Sources {
    /// Looks whether all of it is still what it was, once it was read.
    ///
    /// # Errors
    /// The first file that changed, with both identities.
    pub(crate) fn still_the_same(&self, model: &Model) -> Result<(), LoadError> {
        match self {
            Sources::Files(files) => still_the_same(model.files(), files),
            Sources::Computed(compute) => compute.still_the_same(),
        }
    }

    /// How many threads bring it in fastest, where the caller would take one.
    pub(crate) fn threads(&self) -> usize {
        match self {
            Sources::Files(_) => 1,
            Sources::Computed(_) => MOST_THREADS,
        }
    }
}

/// Cuts targets, in file order, into reads.
fn chunks(targets: &[Target], most: usize) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for target in targets {
        let (mut offset, mut at, mut left) = (target.offset, target.at, target.bytes);
        while left > 0 {
            let joins = chunks.last().is_some_and(|chunk| {
                chunk.file == target.file
                    && chunk.offset + chunk.bytes as u64 == offset
                    && chunk.bytes < most
                    && chunk.ranges.len() < MOST_RANGES
            });
            if !joins {
                chunks.push(Chunk {
                    file: target.file,
                    offset,
                    bytes: 0,
                    ranges: Vec::new(),
                });
            }
            let Some(chunk) = chunks.last_mut() else {
                break;
            };
            let part = left.min(most - chunk.bytes);
            match chunk.ranges.last_mut() {
                Some((start, len)) if *start + *len == at => *len += part,
                _ => chunk.ranges.push((at, part)),
            }
            chunk.bytes += part;
            offset += part as u64;
            at += part;
            left -= part;
        }
    }
    chunks
}

/// Opens a model's files for reading.
///
/// # Errors
/// A file that is gone, or changed since the model was opened.
pub(crate) fn open_files(model: &Model) -> Result<Vec<Arc<File>>, LoadError> {
    (0..model.files().len())
        .map(|index| Ok(Arc::new(model.reopen_file(index)?)))
        .collect()
}

/// Looks whether files that were read are still what they were: a write meanwhile would have left a
/// mixture of old weights and new. By descriptor, since a file that was replaced or deleted is read
/// to its end as it was.
///
/// # Errors
/// The first file that changed, with both identities.
pub(crate) fn still_the_same(known: &[ModelFile], files: &[Arc<File>]) -> Result<(), LoadError> {
    for (was, file) in known.iter().zip(files) {
        let now = file.metadata().map_err(|source| LoadError::Read {
            path: was.path.to_path_buf(),
            offset: 0,
            source,
        })?;
        let is = FileIdentity {
            size: now.size(),
            mtime_ns: now
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(now.mtime_nsec()),
            ..was.identity
        };
        if is != was.identity {
            return Err(LoadError::Open(OpenError::Changed {
                path: was.path.clone(),
                was: was.identity,
                is: Some(is),
            }));
        }
    }
    Ok(())
}

/// Brings in all targets, which are in file order, with at most `threads` threads.
///
/// # Errors
/// A file that ends early, or the system's answer; what cannot be computed.
///
/// # Safety
/// Every target's range must be writable memory that nobody else reads or writes meanwhile, and,
/// where it is computed, initialised.
pub(crate) unsafe fn read_targets(
    model: &Model,
    sources: &Sources,
    targets: &[Target],
    threads: usize,
    observer: &dyn LoadObserver,
) -> Result<(), LoadError> {
    let bytes: usize = targets.iter().map(|target| target.bytes).sum();
    let worth_a_thread = match sources {
        Sources::Files(_) => WORTH_A_THREAD,
        Sources::Computed(_) => WORTH_A_THREAD_COMPUTED,
    };
    let threads = threads.min(bytes / worth_a_thread);
    let threads = if threads > 1 {
        // Reads the cgroup's files, so it is not asked for every tensor.
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(threads)
    } else {
        1
    };
    let most = match sources {
        Sources::Files(_) => CHUNK,
        // What is little is shared out too. No chunk ends within an element.
        Sources::Computed(_) => bytes
            .div_ceil(threads)
            .clamp(WORTH_A_THREAD_COMPUTED, CHUNK_COMPUTED)
            .next_multiple_of(WIDEST),
    };
    let chunks = chunks(targets, most);
    let work = Work {
        model,
        sources,
        chunks: &chunks,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Where no thread can be had, this one reads everything.
            let _ = std::thread::Builder::new()
                .name("plimsoll-read".into())
                .spawn_scoped(scope, || work.run(observer));
        }
        work.run(observer);
    });
    match work
        .failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Reads that several threads share.
struct Work<'a> {
    model: &'a Model,
    sources: &'a Sources,
    chunks: &'a [Chunk],
    next: AtomicUsize,
    stop: AtomicBool,
    failure: Mutex<Option<LoadError>>,
}

impl Work<'_> {
    fn run(&self, observer: &dyn LoadObserver) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(chunk) = self.chunks.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let brought = match self.sources {
                Sources::Files(files) => self.read(files, chunk, observer),
                Sources::Computed(compute) => Work::compute(&**compute, chunk, observer),
            };
            match brought {
                Ok(()) => observer.bytes_read(chunk.bytes as u64),
                Err(error) => {
                    self.stop.store(true, Ordering::Relaxed);
                    let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(error);
                }
            }
        }
    }

    fn compute(
        compute: &dyn Compute,
        chunk: &Chunk,
        observer: &dyn LoadObserver,
    ) -> Result<(), LoadError> {
        let mut offset = chunk.offset;
        for (at, len) in &chunk.ranges {
            // SAFETY: the range is writable and unused by others, as the caller of `read_targets`
            // promised, and initialised: mapped memory, or a block that was cleared.
            let into = unsafe { std::slice::from_raw_parts_mut(*at as *mut u8, *len) };
            compute.compute(offset, into, observer)?;
            offset += *len as u64;
        }
        Ok(())
    }

    fn read(
        &self,
        files: &[Arc<File>],
        chunk: &Chunk,
        observer: &dyn LoadObserver,
    ) -> Result<(), LoadError> {
        use std::os::fd::AsRawFd;

        let file = &files[chunk.file as usize];
        let path = || self.model.files()[chunk.file as usize].path.to_path_buf();
        observer
            .before_read(
                &self.model.files()[chunk.file as usize].path,
                chunk.offset,
                chunk.bytes as u64,
            )
            .map_err(|source| LoadError::Read {
                path: path(),
                offset: chunk.offset,
                source,
            })?;
        let mut ranges: Vec<libc::iovec> = chunk
            .ranges
            .iter()
            .map(|&(at, len)| libc::iovec {
                iov_base: at as *mut libc::c_void,
                iov_len: len,
            })
            .collect();
        let mut first = 0;
        let mut done = 0_usize;
        while done < chunk.bytes {
            let offset = chunk.offset + done as u64;
            let left = &ranges[first..];
            // SAFETY: the ranges are writable and unused by others, as the caller of
            // `read_targets` promised; their number is at most `MOST_RANGES`.
            let read = unsafe {
                libc::preadv(
                    file.as_raw_fd(),
                    left.as_ptr(),
                    left.len() as libc::c_int,
                    offset as libc::off_t,
                )
            };
            let mut read = match usize::try_from(read) {
                Ok(0) => {
                    return Err(LoadError::Truncated {
                        path: path(),
                        offset,
                        missing: (chunk.bytes - done) as u64,
                    });
                }
                Ok(read) => read,
                Err(_) => {
                    let source = std::io::Error::last_os_error();
                    if source.kind() == std::io::ErrorKind::Interrupted {
                        continue;
                    }
                    return Err(LoadError::Read {
                        path: path(),
                        offset,
                        source,
                    });
                }
            };
            done += read;
            // A read that came short ends somewhere in a range.
            while read > 0 && first < ranges.len() {
                let range = &mut ranges[first];
                let part = read.min(range.iov_len);
                range.iov_base = (range.iov_base as usize + part) as *mut libc::c_void;
                range.iov_len -= part;
                read -= part;
                if range.iov_len == 0 {
                    first += 1;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_cover_every_byte_once_and_in_order(
            sizes in proptest::collection::vec(0_usize..20_000_000, 1..40),
            gaps in proptest::collection::vec(0_u64..3, 40),
        ) {
            let mut offset = 100;
            let mut at = 1 << 40;
            let mut targets = Vec::new();
            for (size, gap) in sizes.iter().zip(&gaps) {
                targets.push(Target { file: 0, offset, at, bytes: *size });
                offset += *size as u64 + gap;
                at += size.next_multiple_of(64);
            }
            let mut pieces = Vec::new();
            for chunk in chunks(&targets, CHUNK) {
                prop_assert!(chunk.bytes <= CHUNK && chunk.ranges.len() <= MOST_RANGES);
                prop_assert_eq!(chunk.bytes, chunk.ranges.iter().map(|range| range.1).sum::<usize>());
                let mut offset = chunk.offset;
                for (at, len) in chunk.ranges {
                    pieces.push((offset, at, len));
                    offset += len as u64;
                }
            }
            for target in targets {
                let mut covered = 0;
                for (offset, at, len) in &pieces {
                    let start = (*offset).max(target.offset);
                    let end = (offset + *len as u64).min(target.offset + target.bytes as u64);
                    if start < end {
                        prop_assert_eq!(
                            at + (start - offset) as usize,
                            target.at + (start - target.offset) as usize
                        );
                        covered += (end - start) as usize;
                    }
                }
                prop_assert_eq!(covered, target.bytes);
            }
        }
    }
}
