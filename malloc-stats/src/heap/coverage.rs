//! Where in an arena bytes are in use, free and resident, or free and gone.

use std::ops::Range;

use super::memory::Memory;

/// Pieces of all arenas together, at most: what bounds the memory a picture takes.
const MOST_GRANULES: u64 = 1 << 20;

/// The bytes of an arena by place, at a resolution of pages or, in large heaps, of several pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    granule: u64,
    /// In order of address, none overlapping another.
    extents: Vec<Extent>,
}

/// One stretch of memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Extent {
    /// A multiple of the granule.
    start: u64,
    granule: u64,
    granules: Vec<Piece>,
}

/// [`Shares`] of one granule; none is larger than 2^32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Piece {
    in_use: u32,
    free_resident: u32,
    free_released: u32,
}

/// How the bytes of a stretch are shared out. What is in none of them belongs to nobody known:
/// the head of a heap, memory that somebody else took between two pieces of the main arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shares {
    /// In chunks in use.
    pub in_use: u64,
    /// Free, and on resident pages.
    pub free_resident: u64,
    /// Free, and on pages given back, never touched, or in swap.
    pub free_released: u64,
}

/// A cell of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The addresses it stands for; may span a gap between two stretches of the arena.
    pub range: Range<u64>,
    /// What is there.
    pub shares: Shares,
}

impl Coverage {
    pub(super) fn new(mut extents: Vec<Extent>) -> Self {
        extents.retain(|extent| !extent.granules.is_empty());
        extents.sort_by_key(|extent| extent.start);
        Self {
            granule: extents.first().map_or(0, |extent| extent.granule),
            extents,
        }
    }

    /// The bytes of the arena, in whole granules.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.granules() as u64 * self.granule
    }

    fn granules(&self) -> usize {
        self.extents
            .iter()
            .map(|extent| extent.granules.len())
            .sum()
    }

    /// The arena as `cells` cells of (nearly) the same number of bytes, in order of address; fewer
    /// where it has fewer granules.
    #[must_use]
    pub fn cells(&self, cells: usize) -> Vec<Cell> {
        let granules = self.granules();
        let cells = cells.min(granules);
        let mut made: Vec<Cell> = Vec::with_capacity(cells);
        let all = self.extents.iter().flat_map(|extent| {
            let at = |index: usize| extent.start + index as u64 * extent.granule;
            extent
                .granules
                .iter()
                .enumerate()
                .map(move |(index, piece)| (at(index), piece))
        });
        for (index, (address, piece)) in all.enumerate() {
            let end = address + self.granule;
            // Which cell this granule falls into, in whole numbers.
            let cell = (index as u128 * cells as u128 / granules as u128) as usize;
            if made.len() <= cell {
                made.push(Cell {
                    range: address..end,
                    shares: Shares::default(),
                });
            }
            if let Some(cell) = made.last_mut() {
                cell.range.end = end;
                cell.shares.in_use += u64::from(piece.in_use);
                cell.shares.free_resident += u64::from(piece.free_resident);
                cell.shares.free_released += u64::from(piece.free_released);
            }
        }
        made
    }
}

/// The granule for so many bytes of heaps.
pub(super) fn granule_for(bytes: u64, page: u64) -> u64 {
    let pages = bytes.div_ceil(page).div_ceil(MOST_GRANULES);
    // A larger granule would overflow a `Piece`; no address space is that large.
    page * pages.max(1).next_power_of_two().min((1 << 31) / page)
}

impl Extent {
    pub(super) fn new(start: u64, granule: u64) -> Self {
        Self {
            start: start / granule * granule,
            granule,
            granules: Vec::new(),
        }
    }

    /// Puts a chunk in use on the map.
    pub(super) fn add_in_use(&mut self, range: Range<u64>) {
        self.each(range, |piece, part| {
            piece.in_use = piece.in_use.saturating_add(short(part.end - part.start));
        });
    }

    /// Puts a free chunk on the map, and counts how much of it is resident.
    pub(super) fn add_free(&mut self, range: Range<u64>, memory: &mut Memory<'_>) -> u64 {
        let mut total = 0;
        self.each(range, |piece, part| {
            let resident = memory.resident(part.clone());
            total += resident;
            piece.free_resident = piece.free_resident.saturating_add(short(resident));
            let released = part.end - part.start - resident;
            piece.free_released = piece.free_released.saturating_add(short(released));
        });
        total
    }

    fn each(&mut self, range: Range<u64>, mut with: impl FnMut(&mut Piece, Range<u64>)) {
        let mut at = range.start;
        while at < range.end {
            let index = (at.saturating_sub(self.start) / self.granule) as usize;
            let end = (self.start + (index as u64 + 1) * self.granule).min(range.end);
            if self.granules.len() <= index {
                self.granules.resize(index + 1, Piece::default());
            }
            with(&mut self.granules[index], at..end);
            at = end;
        }
    }
}

fn short(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
