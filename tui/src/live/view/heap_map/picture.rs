//! The cells of an arena, kept from frame to frame, and which of them changed since the mark.

use std::ops::Range;
use std::sync::{Arc, Weak};

use malloc_stats::heap::{Cell, Coverage, Shares};
use malloc_stats::inspect::Inspection;

/// Pieces of the mark's picture for a cell of this one: cells of both need not lie alike.
const FINER: usize = 8;

/// What a picture was made of. Looks are compared by where they lie: while one is kept here no
/// other can lie there.
#[derive(Debug, Clone)]
struct Key {
    look: Weak<Inspection>,
    mark: Option<Weak<Inspection>>,
    arena: usize,
    range: Option<Range<u64>>,
    cells: usize,
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        let marks = match (&self.mark, &other.mark) {
            (None, None) => true,
            (Some(a), Some(b)) => Weak::ptr_eq(a, b),
            _ => false,
        };
        marks
            && Weak::ptr_eq(&self.look, &other.look)
            && (self.arena, &self.range, self.cells) == (other.arena, &other.range, other.cells)
    }
}

/// What became of a cell since the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    /// More of it is in use.
    Used,
    /// Less of it is in use, and what went is still resident.
    Freed,
    /// It was given back.
    Returned,
    /// It costs memory again, and is free.
    Touched,
}

/// The cells of a part of an arena.
#[derive(Debug, Clone, Default)]
pub(super) struct Picture {
    key: Option<Key>,
    pub(super) cells: Vec<Cell>,
    /// As many as cells in diff; otherwise empty.
    pub(super) became: Vec<Option<Became>>,
}

/// What to draw.
pub(super) struct Wanted<'a> {
    pub(super) look: &'a Arc<Inspection>,
    /// The look at the mark, in diff.
    pub(super) mark: Option<&'a Arc<Inspection>>,
    /// The arena's index.
    pub(super) arena: usize,
    /// Part of it; all of it where none is said.
    pub(super) range: Option<Range<u64>>,
    /// Cells at most.
    pub(super) cells: usize,
}

impl Picture {
    /// Makes the cells anew where they are not those that are wanted.
    pub(super) fn update(&mut self, wanted: &Wanted<'_>) {
        let key = Key {
            look: Arc::downgrade(wanted.look),
            mark: wanted.mark.map(Arc::downgrade),
            arena: wanted.arena,
            range: wanted.range.clone(),
            cells: wanted.cells,
        };
        if self.key.as_ref() == Some(&key) {
            return;
        }
        let cells = |look: &Inspection, count: usize| {
            let coverage = coverage(look, wanted.arena)?;
            Some(match &wanted.range {
                None => coverage.cells(count),
                Some(range) => coverage.cells_in(range.clone(), count),
            })
        };
        self.cells = cells(wanted.look, wanted.cells).unwrap_or_default();
        let before = wanted.mark.map(|mark| {
            let finer = wanted.cells.saturating_mul(FINER);
            cells(mark, finer).unwrap_or_default()
        });
        self.became = before.map_or(Vec::new(), |before| changes(&self.cells, &before));
        self.key = Some(key);
    }

    /// The cell that an address lies in, or the one before it.
    pub(super) fn at(&self, address: u64) -> usize {
        let behind = self
            .cells
            .partition_point(|cell| cell.range.start <= address);
        behind.saturating_sub(1)
    }

    /// Bytes of all cells.
    pub(super) fn bytes(&self) -> u64 {
        let all = self.cells.iter().map(|cell| bytes(&cell.shares));
        all.fold(0, u64::saturating_add)
    }
}

fn coverage(look: &Inspection, arena: usize) -> Option<&Coverage> {
    let heap = look.heap.as_ref()?;
    let arena = heap.arenas.iter().find(|other| other.index == arena)?;
    Some(&arena.coverage)
}

/// All bytes of a cell that belong to the arena.
pub(super) fn bytes(shares: &Shares) -> u64 {
    let free = shares.free_resident.saturating_add(shares.free_released);
    shares.in_use.saturating_add(free)
}

fn sum(a: &Shares, b: &Shares) -> Shares {
    Shares {
        in_use: a.in_use.saturating_add(b.in_use),
        free_resident: a.free_resident.saturating_add(b.free_resident),
        free_released: a.free_released.saturating_add(b.free_released),
    }
}

/// What became of each cell. A piece of before counts where it begins.
pub(super) fn changes(cells: &[Cell], before: &[Cell]) -> Vec<Option<Became>> {
    let mut pieces = before.iter().peekable();
    let mut became = Vec::with_capacity(cells.len());
    for cell in cells {
        let mut then = Shares::default();
        while let Some(piece) = pieces.next_if(|piece| piece.range.start < cell.range.end) {
            if piece.range.end > cell.range.start {
                then = sum(&then, &piece.shares);
            }
        }
        became.push(change(&cell.shares, &then));
    }
    became
}

/// A change of at least a quarter of a cell: less is not seen in its mark either.
fn change(now: &Shares, then: &Shares) -> Option<Became> {
    let part = |share: u64, of: &Shares| share as f64 / bytes(of).max(1) as f64;
    let (used, was_used) = (part(now.in_use, now), part(then.in_use, then));
    let (costs, did_cost) = (part(now.free_resident, now), part(then.free_resident, then));
    if bytes(now) == 0 {
        return None;
    }
    if used - was_used >= 0.25 {
        Some(Became::Used)
    } else if was_used - used >= 0.25 {
        // What went may have been given back at once.
        match costs > did_cost {
            true => Some(Became::Freed),
            false => Some(Became::Returned),
        }
    } else if did_cost - costs >= 0.25 {
        Some(Became::Returned)
    } else if costs - did_cost >= 0.25 {
        Some(Became::Touched)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(from: u64, to: u64, shares: [u64; 3]) -> Cell {
        let [in_use, free_resident, free_released] = shares;
        Cell {
            range: from..to,
            shares: Shares {
                in_use,
                free_resident,
                free_released,
            },
        }
    }

    #[test]
    fn what_became_of_a_cell_is_told_from_pieces_that_lie_otherwise() {
        let before: Vec<Cell> = [
            cell(0, 10, [10, 0, 0]),
            cell(10, 20, [10, 0, 0]),
            cell(20, 30, [0, 10, 0]),
            cell(30, 40, [0, 0, 10]),
            cell(40, 50, [0, 0, 10]),
            cell(50, 60, [5, 5, 0]),
        ]
        .into();
        let now = [
            cell(0, 10, [0, 10, 0]),
            cell(10, 20, [0, 0, 10]),
            cell(20, 30, [0, 0, 10]),
            cell(30, 40, [0, 10, 0]),
            cell(40, 50, [10, 0, 0]),
            cell(50, 60, [6, 4, 0]),
            cell(60, 70, [7, 0, 0]),
        ];
        let expected = [
            Some(Became::Freed),
            Some(Became::Returned),
            Some(Became::Returned),
            Some(Became::Touched),
            Some(Became::Used),
            None,
            Some(Became::Used),
        ];
        assert_eq!(changes(&now, &before), expected);
        let coarse = [cell(0, 20, [0, 20, 0]), cell(40, 70, [0, 0, 0])];
        assert_eq!(changes(&coarse, &before), [Some(Became::Freed), None]);
    }

    #[test]
    fn lying_cells_neither_overflow_nor_divide_by_nothing() {
        let lying = [cell(9, 3, [u64::MAX; 3]), cell(0, u64::MAX, [0; 3])];
        assert_eq!(changes(&lying, &lying).len(), 2);
        assert_eq!(bytes(&lying[0].shares), u64::MAX);
    }
}
