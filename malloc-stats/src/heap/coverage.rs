//! Where in an arena bytes are in use, free and resident, or free and gone.

use std::ops::Range;

use super::memory::Memory;

/// Pieces of all arenas together, at most: what bounds the memory a picture takes.
const MOST_GRANULES: u64 = 1 << 20;

/// The bytes of an arena by place, at a resolution of pages or, in large heaps, of several pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// A power of two; 0 where there are no extents.
    pub(super) granule: u64,
    /// In order of address, none overlapping another.
    pub(super) extents: Vec<Extent>,
}

/// One stretch of memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Extent {
    /// A multiple of the granule.
    pub(super) start: u64,
    granule: u64,
    pub(super) granules: Vec<Piece>,
}

/// [`Shares`] of one granule, together no more than its length; none counts beyond 2^32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Piece {
    pub(super) in_use: u32,
    pub(super) free_resident: u32,
    pub(super) free_released: u32,
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
    pub(super) fn new(extents: Vec<Extent>) -> Self {
        Self {
            granule: extents.first().map_or(0, |extent| extent.granule),
            extents: apart(extents),
        }
    }

    /// The bytes of the arena, in whole granules.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.granules() as u64).saturating_mul(self.granule)
    }

    /// How many granules it has.
    #[must_use]
    pub fn granules(&self) -> usize {
        self.extents
            .iter()
            .map(|extent| extent.granules.len())
            .sum()
    }

    /// The bytes it tells apart; 0 where it is empty.
    #[must_use]
    pub fn granule(&self) -> u64 {
        self.granule
    }

    /// Whether there is nothing on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// From its first address to the end of its last granule, with all the gaps between stretches;
    /// `None` where it is empty.
    #[must_use]
    pub fn span(&self) -> Option<Range<u64>> {
        Some(self.extents.first()?.start..self.extents.last()?.end())
    }

    /// The same picture with `most` granules at most, each as many times larger as is needed (a
    /// power of two). Stretches stay apart unless they come to share a granule. A share of more
    /// than 4 GiB in one granule reads as 4 GiB.
    #[must_use]
    pub fn coarser(&self, most: usize) -> Self {
        if most == 0 {
            return Self::default();
        }
        let mut coarse = self.clone();
        while coarse.granules() > most {
            // No granule is larger: then there is one on either side of the middle at most.
            let Some(granule) = coarse.granule.checked_mul(2) else {
                break;
            };
            let halves = coarse.extents.iter().map(|extent| extent.halved(granule));
            coarse = Self::new(halves.collect());
        }
        coarse
    }

    /// The arena as `cells` cells of (nearly) the same number of bytes, in order of address; fewer
    /// where it has fewer granules.
    #[must_use]
    pub fn cells(&self, cells: usize) -> Vec<Cell> {
        self.cells_in(0..u64::MAX, cells)
    }

    /// As [`cells`](Self::cells), of no more than the granules that lie in `range`, wholly or in
    /// part.
    #[must_use]
    pub fn cells_in(&self, range: Range<u64>, cells: usize) -> Vec<Cell> {
        let parts = self.extents.iter().map(|extent| {
            let within = extent.within(&range);
            let pieces = extent.granules.get(within.clone()).unwrap_or_default();
            (extent, within.start, pieces)
        });
        let granules: usize = parts.clone().map(|(.., pieces)| pieces.len()).sum();
        let cells = cells.min(granules);
        let mut made: Vec<Cell> = Vec::with_capacity(cells);
        if cells == 0 {
            return made;
        }
        let mut taken = 0;
        for (extent, first, pieces) in parts {
            let mut done = 0;
            while done < pieces.len() {
                // Granule `i` falls into cell `i * cells / granules`: this is where a cell ends.
                let cell = (taken as u128 * cells as u128 / granules as u128) as usize;
                let end = ((cell as u128 + 1) * granules as u128).div_ceil(cells as u128) as usize;
                let until = pieces.len().min(done + (end - taken));
                let range = extent.at(first + done)..extent.at(first + until);
                let shares = shared(&pieces[done..until]);
                match made.get_mut(cell) {
                    // It spans the gap to this extent.
                    Some(cell) => {
                        cell.range.end = range.end;
                        cell.shares.in_use += shares.in_use;
                        cell.shares.free_resident += shares.free_resident;
                        cell.shares.free_released += shares.free_released;
                    }
                    None => made.push(Cell { range, shares }),
                }
                taken += until - done;
                done = until;
            }
        }
        made
    }
}

/// What granules have together: a loop of nothing else, as there may be a million of them.
fn shared(pieces: &[Piece]) -> Shares {
    let mut shares = Shares::default();
    for piece in pieces {
        shares.in_use += u64::from(piece.in_use);
        shares.free_resident += u64::from(piece.free_resident);
        shares.free_released += u64::from(piece.free_released);
    }
    shares
}

/// Extents in order of address. Where two of them have a granule in common they become one.
fn apart(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.retain(|extent| !extent.granules.is_empty());
    extents.sort_by_key(|extent| extent.start);
    let mut apart: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match apart.last_mut() {
            Some(last) if extent.start < last.end() => last.absorb(&extent),
            _ => apart.push(extent),
        }
    }
    apart
}

/// The granule for so many bytes of heaps.
pub(super) fn granule_for(bytes: u64, page: u64) -> u64 {
    let pages = bytes.div_ceil(page).div_ceil(MOST_GRANULES);
    // A larger granule would overflow a `Piece`; no address space is that large.
    page * pages.max(1).next_power_of_two().min((1 << 31) / page)
}

impl Piece {
    /// Adds what lies in the same granule. Stretches that claim the same memory, as a hostile heap
    /// may, do not make it longer.
    fn add(&mut self, other: &Self, granule: u64) {
        let mut room = granule;
        for (mine, more) in [
            (&mut self.in_use, other.in_use),
            (&mut self.free_resident, other.free_resident),
            (&mut self.free_released, other.free_released),
        ] {
            let sum = u64::from(*mine) + u64::from(more);
            *mine = short(sum.min(room));
            room -= u64::from(*mine);
        }
    }
}

impl Extent {
    pub(super) fn new(start: u64, granule: u64) -> Self {
        Self {
            start: start / granule * granule,
            granule,
            granules: Vec::new(),
        }
    }

    fn at(&self, index: usize) -> u64 {
        let offset = (index as u64).saturating_mul(self.granule);
        self.start.saturating_add(offset)
    }

    fn end(&self) -> u64 {
        self.at(self.granules.len())
    }

    /// The granules that lie in `range`, wholly or in part.
    fn within(&self, range: &Range<u64>) -> Range<usize> {
        if range.start >= range.end {
            return 0..0;
        }
        let length = self.granules.len();
        let index = |offset: u64| usize::try_from(offset).map_or(length, |at| at.min(length));
        let first = index(range.start.saturating_sub(self.start) / self.granule);
        let end = index(range.end.saturating_sub(self.start).div_ceil(self.granule));
        first..end.max(first)
    }

    /// With granules of twice the length.
    fn halved(&self, granule: u64) -> Self {
        let mut halved = Self::new(self.start, granule);
        // The first granule may be the second half of the larger one.
        let odd = usize::from(halved.start != self.start);
        halved
            .granules
            .resize((self.granules.len() + odd).div_ceil(2), Piece::default());
        for (index, piece) in self.granules.iter().enumerate() {
            if let Some(into) = halved.granules.get_mut((index + odd) / 2) {
                into.add(piece, granule);
            }
        }
        halved
    }

    /// Takes over one that begins within this one.
    fn absorb(&mut self, other: &Self) {
        let offset = (other.start - self.start) / self.granule;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let length = offset + other.granules.len();
        if self.granules.len() < length {
            self.granules.resize(length, Piece::default());
        }
        let shared = self.granules.iter_mut().skip(offset);
        for (mine, theirs) in shared.zip(&other.granules) {
            mine.add(theirs, self.granule);
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
