//! One mapped file: whether it is still what was mapped, and what of it the page cache holds.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use malloc_stats::{Metric, page_cache};
use rustix::fs::{Advice, Stat, fadvise, fstat};

use super::Released;
use super::plan::Stretch;
use crate::device::{PageCacheSeen, PageCached};
use crate::error::{Error, LoadError};
use crate::model::ModelFile;
use crate::storage::guard::Guarded;

/// A file that is mapped.
#[derive(Debug)]
pub(super) struct Watched {
    /// Declared first: it must be gone before the range is.
    guard: Option<Guarded>,
    file: Arc<File>,
    path: Box<Path>,
    offset: u64,
    len: u64,
    was: State,
    /// Whether it was said that the inode has changed.
    said: AtomicBool,
}

/// What tells one content of an open file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    size: u64,
    modified: (i64, i64),
    /// When the inode changed: `chmod` and `ln` do that too, but nobody can set it back.
    changed: (i64, i64),
}

impl State {
    fn of(stat: &Stat) -> State {
        // The widths of these fields differ between architectures.
        #[allow(clippy::unnecessary_cast)]
        State {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

impl Watched {
    /// Watches a stretch of a file that is mapped at an address.
    pub(super) fn new(
        file: &Arc<File>,
        known: &ModelFile,
        stretch: &Stretch,
        at: usize,
        guard: bool,
    ) -> Result<Watched, LoadError> {
        let failed = |source: std::io::Error| LoadError::Read {
            path: known.path.to_path_buf(),
            offset: stretch.offset,
            source,
        };
        let stat = fstat(&**file).map_err(|errno| failed(errno.into()))?;
        let guarded = || Guarded::new(at, stretch.len as usize, file, stretch.offset);
        let guard = guard.then(guarded).transpose().map_err(failed)?;
        Ok(Watched {
            guard,
            file: Arc::clone(file),
            path: known.path.clone(),
            offset: stretch.offset,
            len: stretch.len,
            was: State::of(&stat),
            said: AtomicBool::new(false),
        })
    }

    /// Whether the file is still what was mapped.
    pub(super) fn check(&self, model: &str) -> Result<(), Error> {
        let poisoned = |what: String| Error::Poisoned {
            model: model.to_owned(),
            path: self.path.to_path_buf(),
            what,
        };
        let now = fstat(&*self.file);
        // After the file: a page may be missed until here.
        let missed = self.guard.as_ref().and_then(Guarded::poisoned);
        let missed = missed.map(|at| self.offset + at);
        let now = now.map_err(|errno| {
            let zeros = missed.map_or_else(String::new, |at| {
                format!("; bytes from {at} on have been read as zeros")
            });
            poisoned(format!("cannot be looked at: {errno}{zeros}"))
        })?;
        let is = State::of(&now);
        if is.size < self.was.size {
            // Not every page beyond the end raises a signal: the kernel may have mapped the rest of
            // a large folio, as zeros.
            let (from, have) = match missed {
                Some(at) => (at.min(is.size), "have"),
                None => (is.size, "may have"),
            };
            return Err(poisoned(format!(
                "was cut short from {} to {} bytes while it was mapped: bytes from {from} on {have} \
                 been read as zeros",
                self.was.size, is.size
            )));
        }
        if let Some(at) = missed {
            return Err(poisoned(format!(
                "could not be read at byte {at} while it was mapped (it was cut short, or its disk \
                 failed): zeros have been read there"
            )));
        }
        if is.size != self.was.size {
            return Err(poisoned(format!(
                "had {} bytes when it was mapped, and has {} now",
                self.was.size, is.size
            )));
        }
        if is.modified != self.was.modified {
            return Err(poisoned(
                "was overwritten in place while it was mapped".to_owned(),
            ));
        }
        if is.changed != self.was.changed && !self.said.swap(true, Ordering::Relaxed) {
            // Permissions, links, a name; or content, by somebody who has set its time back.
            tracing::warn!(
                path = %self.path.display().to_string().escape_debug(),
                "the inode of a mapped file has changed: if it was not its mode, owner or name, its \
                 content was overwritten and its time set back"
            );
        }
        Ok(())
    }
}

/// Looks what the page cache holds of some files.
#[derive(Debug)]
pub(in crate::storage) struct Looker {
    stretches: Vec<(Arc<File>, u64, u64)>,
    drops: bool,
}

impl Looker {
    pub(super) fn new(files: &[Watched], drops: bool) -> Looker {
        let stretch = |one: &Watched| {
            // The last page ends beyond the file.
            let len = one.len.min(one.was.size.saturating_sub(one.offset));
            (Arc::clone(&one.file), one.was.size, len)
        };
        Looker {
            stretches: files.iter().map(stretch).collect(),
            drops,
        }
    }

    pub(super) fn drops(&self) -> bool {
        self.drops
    }
}

impl PageCached for Looker {
    fn look(&self) -> PageCacheSeen {
        let resident = |(file, size, len): &(Arc<File>, u64, u64)| {
            // The header lies there too.
            match page_cache::cached(file, *size) {
                Ok(bytes) => Metric::Upper(bytes.min(*len)),
                Err(_) => Metric::Unavailable,
            }
        };
        let all = self.stretches.iter();
        PageCacheSeen {
            mapped_bytes: all.clone().map(|(_, _, len)| len).sum(),
            resident: all.map(resident).fold(Metric::Exact(0), Metric::plus),
            is_dropped: self.drops,
        }
    }
}

/// Drops a file's pages from the page cache, as far as nobody else has them mapped or dirty.
pub(super) fn forget(file: &File, path: &Path) {
    if let Err(error) = fadvise(file, 0, None, Advice::DontNeed) {
        let path = path.display().to_string();
        tracing::warn!(path = %path.escape_debug(), %error, "its pages cannot be dropped");
    }
}

/// Ends the watch, frees the memory, and drops the pages of the files where that is asked for.
pub(super) fn unmap<M>(mut files: Vec<Watched>, memory: M, drops: bool) {
    for file in &mut files {
        file.guard = None;
    }
    // Pages that are mapped cannot be dropped.
    drop(memory);
    if drops {
        files.iter().for_each(|file| forget(&file.file, &file.path));
    }
}

/// The same, with what is left.
pub(super) fn let_go<M>(
    files: Vec<Watched>,
    memory: M,
    looker: &Looker,
    before: PageCacheSeen,
) -> Released {
    unmap(files, memory, looker.drops);
    Released {
        before,
        after: Some(looker.look().resident),
        held: None,
    }
}
