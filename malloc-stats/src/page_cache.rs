//! How much of a file the page cache holds, without reading it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Access, AtFlags};
use rustix::io::Errno;

/// The bytes of `file`, a regular one of `size` bytes, that are in the page cache, whoever read
/// them.
///
/// By `cachestat(2)` (Linux 6.5), else by `mincore(2)`. Both tell only who owns the file or may
/// write to it. `mincore` does not refuse others, it calls every page resident; so they are not
/// let through to it.
///
/// # Errors
///
/// The reason as a text.
pub fn cached(file: &File, size: u64) -> Result<u64, String> {
    if size == 0 {
        return Ok(0);
    }
    let page = rustix::param::page_size() as u64;
    match kernel::cachestat(file.as_fd()) {
        Ok(pages) => Ok(pages.saturating_mul(page).min(size)),
        Err(_) if may_be_told(file) => kernel::mincore(file.as_fd(), size, page)
            .map(|pages| pages.saturating_mul(page).min(size))
            .map_err(|error| format!("neither cachestat(2) nor mincore(2) tells: {error}")),
        Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => Err(
            "the kernel tells what is cached of a file only to its owner or who may write to it"
                .to_owned(),
        ),
        Err(error) => Err(format!("cachestat(2): {error}")),
    }
}

/// `can_do_mincore` of mm/mincore.c, as far as it can be known from here.
fn may_be_told(file: &File) -> bool {
    let own = rustix::process::geteuid();
    let owned = file
        .metadata()
        .is_ok_and(|data| own.is_root() || data.uid() == own.as_raw());
    // Opening it again by its descriptor checks the file that is open, whatever its path shows.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    owned || rustix::fs::accessat(rustix::fs::CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

mod kernel {
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::ptr;

    use rustix::io::Errno;
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    /// The same number on every architecture (scripts/syscall.tbl).
    const CACHESTAT: libc::c_long = 451;

    /// `struct cachestat_range`; a length of 0 is until the end of the file.
    #[repr(C)]
    struct Range {
        offset: u64,
        length: u64,
    }

    /// `struct cachestat` (linux/mman.h), in pages.
    #[repr(C)]
    #[derive(Default)]
    struct Counts {
        cache: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }

    /// The pages of a file that are in the page cache.
    pub(super) fn cachestat(file: BorrowedFd<'_>) -> Result<u64, Errno> {
        let range = Range {
            offset: 0,
            length: 0,
        };
        let mut counts = Counts::default();
        // SAFETY: cachestat(2) reads one range and writes one struct of counts; both are laid out
        // as the kernel has them and live until it returns. Kernels without it do neither.
        let result = unsafe {
            libc::syscall(
                CACHESTAT,
                file.as_raw_fd(),
                ptr::from_ref(&range),
                ptr::from_mut(&mut counts),
                0_u32,
            )
        };
        if result == 0 {
            Ok(counts.cache)
        } else {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
    }

    /// As much is mapped at a time; a byte for each page of it is asked for.
    const WINDOW: u64 = 1 << 30;

    /// The same by a mapping that is never touched, so that a file cut short does no harm.
    pub(super) fn mincore(file: BorrowedFd<'_>, size: u64, page: u64) -> Result<u64, Errno> {
        let mut pages = 0;
        let mut offset = 0;
        while offset < size {
            let length =
                usize::try_from((size - offset).min(WINDOW)).map_err(|_| Errno::OVERFLOW)?;
            let count = length.div_ceil(usize::try_from(page).map_err(|_| Errno::OVERFLOW)?);
            let mut present = vec![0_u8; count];
            // SAFETY: the kernel chooses the address, so nothing is mapped over. mincore(2) writes
            // one byte for each page of the mapping, and there are as many. The mapping is no
            // longer known to anybody when it is unmapped.
            let result = unsafe {
                let mapping = mmap(
                    ptr::null_mut(),
                    length,
                    ProtFlags::empty(),
                    MapFlags::SHARED,
                    file,
                    offset,
                )?;
                let result = libc::mincore(mapping, length, present.as_mut_ptr());
                let error = std::io::Error::last_os_error();
                munmap(mapping, length)?;
                if result == 0 { Ok(()) } else { Err(error) }
            };
            if let Err(error) = result {
                return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
            }
            pages += present.iter().filter(|state| **state & 1 != 0).count() as u64;
            offset += length as u64;
        }
        Ok(pages)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn both_ways_count_the_pages_that_were_written() {
        let page = rustix::param::page_size();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 3 * page]).unwrap();
        file.write_all_at(&[1], (100 * page) as u64).unwrap();
        let size = file.metadata().unwrap().len();
        let counted = kernel::mincore(file.as_fd(), size, page as u64).unwrap();
        // Folios may be larger than a page.
        assert!((4..=64).contains(&counted), "{counted}");
        match kernel::cachestat(file.as_fd()) {
            Ok(pages) => assert_eq!(pages, counted),
            Err(error) => println!("no cachestat(2) here: {error}"),
        }
        let expected = (counted * page as u64).min(size);
        assert_eq!(cached(&file, size), Ok(expected));
    }
}
