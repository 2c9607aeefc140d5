//! A guard of mapped files: one that is cut short while it is mapped does not kill the process.
//!
//! Reading a page of a mapping that its file no longer has raises `SIGBUS`, whose default kills the
//! process (`mmap(2)`, NOTES). The handler here maps zeros over the missing pages of ranges that are
//! [`Guarded`], notes where, and lets the access be tried again.
//!
//! | file | what |
//! |---|---|
//! | `slots` | the guarded ranges, as the handler can read them at any moment |
//! | `handler` | the handler, and its place among those of others |
//!
//! # What holds
//!
//! - What was read of a guarded range is what the file held, or [`Guarded::poisoned`] says from
//!   where on it may not be, provided that it is asked *after* reading. It is noted before the zeros
//!   can be read. Bytes before that place are sound. Size and times have to be asked for too: the
//!   rest of the last page, and of a large folio, reads as zeros without a signal.
//! - A page beyond the end of the file costs one signal for the whole range, not one for each page:
//!   all that is missing becomes zeros at once. A page that the disk fails to give becomes zeros by
//!   itself.
//! - Everything else goes where it would go without the guard: faults elsewhere, broken memory
//!   (`BUS_MCEERR_*`), signals that somebody sent.
//! - A forked child has the handler and the ranges too, and may drop its copies of the guards.
//!
//! # What does not
//!
//! - A file that was cut and has grown again reads as zeros, or as whatever was written, without a
//!   signal; so does one that is overwritten in place. Size and times tell of those.
//! - Pages of a private mapping that the process had written to go with the file's end as well.
//! - A system call that is given such memory (`write(2)`, `read(2)`) fails with `EFAULT` or comes
//!   short: it raises no signal, and nothing is noted.
//! - A thread that blocks `SIGBUS` dies of it, as the kernel does not let it go on.
//! - Where the zeros cannot be mapped, as at the limit of mappings (`vm.max_map_count`), the fault
//!   goes where it would go without the guard.
//! - What is written to zeros while other threads meet them may become zeros again.
//! - A `SIGBUS` that somebody sends to a process whose handler was Rust's has that restore the
//!   default; until this one is in place again, a moment later, a missing page kills.
//! - Whoever replaces the handler without calling it disarms all guards, until the next is made; the
//!   fourth to do so has the last word.

mod handler;
mod slots;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, getpid};

use self::slots::Slot;

/// A range of addresses where a file is mapped, guarded for as long as this lives. Drop it before
/// the range is unmapped: that waits for handlers under way.
#[derive(Debug)]
pub(crate) struct Guarded {
    slot: &'static Slot,
    /// The handler asks it for its size.
    _file: Arc<File>,
    /// Who made it: handlers that were under way at a fork are not there in the child.
    process: Pid,
}

impl Guarded {
    /// Guards `len` bytes at `at`, where `file` is mapped privately from `offset` on. Installs the
    /// handler where it is not installed.
    ///
    /// # Errors
    /// The range does not begin on a page, or the handler cannot be installed.
    pub(crate) fn new(at: usize, len: usize, file: &Arc<File>, offset: u64) -> io::Result<Guarded> {
        let page = rustix::param::page_size();
        let end = len
            .checked_next_multiple_of(page)
            .and_then(|len| at.checked_add(len));
        let whole = at.is_multiple_of(page) && offset.is_multiple_of(page as u64);
        let Some(end) = end.filter(|_| whole) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{len} bytes at {at:#x}, mapped from byte {offset} on, are no whole pages"),
            ));
        };
        slots::begin(page);
        handler::install()?;
        let slot = slots::take();
        slot.guard(at, end, file.as_raw_fd(), offset);
        Ok(Guarded {
            slot,
            _file: Arc::clone(file),
            process: getpid(),
        })
    }

    /// Where the first page is that has become zeros, bytes from the beginning of the range; `None`
    /// where none has. What was read before this is asked is sound if it answers `None`.
    pub(crate) fn poisoned(&self) -> Option<u64> {
        self.slot.poisoned()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.slot.clear();
        let mut waited = 0_u32;
        while self.slot.is_in_use() {
            if getpid() != self.process {
                // Whoever used it stayed with the parent, so the slot is lost to this process.
                return;
            }
            waited = waited.saturating_add(1);
            if waited < 100 {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        self.slot.give_back();
    }
}
