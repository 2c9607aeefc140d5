//! Which pages of a process are in RAM, by its `/proc/PID/pagemap`: the bits that say so need no
//! privilege.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::heap::{PageState, Run};

/// How far `pagemap` is searched, entry by entry, where it cannot be scanned.
const FARTHEST: u64 = 1 << 40;
/// How much of that at a time.
const PIECE: u64 = 64 << 20;

/// An open `pagemap`.
#[derive(Debug)]
pub(crate) struct Pagemap {
    file: File,
    page: u64,
}

impl Pagemap {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            page: rustix::param::page_size() as u64,
        }
    }

    /// Bytes in a page.
    pub(crate) const fn page(&self) -> u64 {
        self.page
    }

    /// Adds the states of the pages of a range to `runs`, in order of address; absent ones are
    /// left out.
    pub(crate) fn states(&self, range: &Range<u64>, runs: &mut Vec<Run>) -> io::Result<()> {
        match scan(&self.file, range, runs) {
            // Before Linux 6.7.
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                entries(&self.file, self.page, range, runs)
            }
            done => done,
        }
    }

    /// The first page of a range that holds something. Before Linux 6.7 at most so far into the
    /// range as can be read in a second or so.
    pub(crate) fn first(&self, range: &Range<u64>) -> io::Result<Option<u64>> {
        match first(&self.file, range) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => {
                let mut start = range.start;
                let end = range.end.min(start.saturating_add(FARTHEST));
                let mut runs = Vec::new();
                while start < end && runs.is_empty() {
                    let piece = start..end.min(start + PIECE);
                    entries(&self.file, self.page, &piece, &mut runs)?;
                    start = piece.end;
                }
                Ok(runs.first().map(|run| run.range.start))
            }
            done => done,
        }
    }
}

/// The first page of a range that is present or in swap.
fn first(pagemap: &File, range: &Range<u64>) -> io::Result<Option<u64>> {
    let mut regions = [PageRegion::default(); 1];
    let mut argument = ScanArgument {
        max_pages: 1,
        ..ScanArgument::new(range.start, range.end, &mut regions)
    };
    let found = argument.scan(pagemap)?;
    Ok(regions.iter().take(found).map(|region| region.start).next())
}

/// `struct pm_scan_arg` of `PAGEMAP_SCAN` (Linux 6.7, include/uapi/linux/fs.h).
#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_length: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = (3 << 30)
    | ((size_of::<ScanArgument>() as libc::c_ulong) << 16)
    | ((b'f' as libc::c_ulong) << 8)
    | 16;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const IS_ZERO_PAGE: u64 = 1 << 5;

impl ScanArgument {
    fn new(start: u64, end: u64, regions: &mut [PageRegion]) -> Self {
        Self {
            size: size_of::<Self>() as u64,
            start,
            end,
            regions: regions.as_mut_ptr() as u64,
            regions_length: regions.len() as u64,
            category_anyof_mask: IS_PRESENT | IS_SWAPPED,
            return_mask: IS_PRESENT | IS_SWAPPED | IS_ZERO_PAGE,
            ..Self::default()
        }
    }

    /// How many regions were filled in. The regions it was made with must still be there.
    fn scan(&mut self, pagemap: &File) -> io::Result<usize> {
        // SAFETY: this is a pm_scan_arg with its own size in it, and names an array of page_region
        // of the length it says, which the two callers here hold on their stacks.
        let filled =
            unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, std::ptr::from_mut(self)) };
        usize::try_from(filled).map_err(|_| io::Error::last_os_error())
    }
}

/// The states of pages by `PAGEMAP_SCAN`, which knows the shared page of zeros from others.
fn scan(pagemap: &File, range: &Range<u64>, runs: &mut Vec<Run>) -> io::Result<()> {
    let mut regions = [PageRegion::default(); 256];
    let mut start = range.start;
    while start < range.end {
        let mut argument = ScanArgument::new(start, range.end, &mut regions);
        let filled = argument.scan(pagemap)?;
        for region in regions.iter().take(filled) {
            let state = if region.categories & IS_SWAPPED != 0 {
                PageState::Swapped
            } else if region.categories & IS_ZERO_PAGE != 0 {
                PageState::Zero
            } else {
                PageState::Resident
            };
            let range = region.start..region.end;
            runs.push(Run { range, state });
        }
        if argument.walk_end <= start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        start = argument.walk_end;
    }
    Ok(())
}

/// The states of pages by their entries in pagemap (`Documentation/admin-guide/mm/pagemap.rst`).
/// The shared page of zeros looks resident there.
fn entries(pagemap: &File, page: u64, range: &Range<u64>, runs: &mut Vec<Run>) -> io::Result<()> {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    let mut buffer = [0; 16 << 10];
    let (mut number, end) = (range.start / page, range.end / page);
    while number < end {
        let wanted = usize::try_from((end - number) * 8)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let window = buffer.get_mut(..wanted).unwrap_or_default();
        let read = pagemap.read_at(window, number * 8)? / 8 * 8;
        if read == 0 {
            // Beyond the end of user space.
            return Ok(());
        }
        for entry in buffer.get(..read).unwrap_or_default().chunks_exact(8) {
            let mut word = [0; 8];
            word.copy_from_slice(entry);
            let word = u64::from_ne_bytes(word);
            let state = match word & (PRESENT | SWAPPED) {
                0 => None,
                bits if bits & SWAPPED != 0 => Some(PageState::Swapped),
                _ => Some(PageState::Resident),
            };
            let this = number * page..(number + 1) * page;
            if let Some(state) = state {
                match runs.last_mut() {
                    Some(run) if run.state == state && run.range.end == this.start => {
                        run.range.end = this.end;
                    }
                    _ => runs.push(Run { range: this, state }),
                }
            }
            number += 1;
        }
    }
    Ok(())
}
