//! The memory of another process, as the walker sees it.

use std::io;
use std::ops::Range;

use crate::mappings::Mapping;

/// Memory that can be read from outside. A process is one
/// ([`ProcessMemory`](crate::inspect::ProcessMemory)); a made-up one stands for a process in tests.
///
/// The walker asks what is resident *before* it reads, and never reads a page that is not: a read
/// from outside would map a zero page there, or bring one back from swap.
pub trait AddressSpace {
    /// The mappings, in order of address, none overlapping another.
    fn mappings(&self) -> &[Mapping];

    /// Bytes in a page; a power of two.
    fn page_size(&self) -> u64 {
        4096
    }

    /// Adds to `runs` the parts of `range` (whole pages) whose pages hold something, in order of
    /// address, with what they are; parts left out are absent: never touched, or given back.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell; then nothing there is read.
    fn residency(&self, range: Range<u64>, runs: &mut Vec<Run>) -> io::Result<()>;

    /// The first address of `range` (whole pages) whose page holds something, if any does: a way
    /// past address space that was reserved and never touched.
    ///
    /// # Errors
    ///
    /// As [`residency`](Self::residency).
    fn next_present(&self, range: Range<u64>) -> io::Result<Option<u64>> {
        const PIECE: u64 = 64 << 20;
        let mut runs = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let end = start.saturating_add(PIECE).min(range.end);
            self.residency(start..end, &mut runs)?;
            if let Some(run) = runs.first() {
                return Ok(Some(run.range.start.max(start)));
            }
            start = end;
        }
        Ok(None)
    }

    /// Reads exactly `into.len()` bytes at `address`.
    ///
    /// # Errors
    ///
    /// Where some of it is not mapped, or may not be read.
    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<()>;

    /// Reads exactly `each` bytes at every address, one after the other into `into`, which is
    /// `each × addresses.len()` bytes long. One call of the kernel for many, where it can.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); what was read before the error stays in `into`.
    fn read_each(&self, addresses: &[u64], each: usize, into: &mut [u8]) -> io::Result<()> {
        for (address, part) in addresses.iter().zip(into.chunks_exact_mut(each)) {
            self.read(*address, part)?;
        }
        Ok(())
    }
}

/// Neighbouring pages of one sort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Their addresses; whole pages.
    pub range: Range<u64>,
    /// Where they are.
    pub state: PageState,
}

/// Where a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageState {
    /// In RAM, and counted in RSS.
    Resident,
    /// The kernel's shared page of zeros: it can be read, and counts in no RSS.
    Zero,
    /// In swap.
    Swapped,
}
