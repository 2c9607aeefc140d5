//! A stretch of weights, changed in place.

use super::MergeError;
use super::product::{self, STRIP, Strips, zeros};
use super::steps::{Columns, Step};
use crate::model::Dtype;
use crate::patch::element::{self, narrow, widen};

/// Columns of a tile.
const TILE_COLUMNS: usize = 512;
/// The same if sums are long.
const LEAST_COLUMNS: usize = 128;
/// Elements of a tile: 256 KiB widened.
const TILE: usize = 1 << 15;
/// Rows of a tile, however narrow it is.
const MOST_ROWS: usize = 512;
/// What is kept of the factors that take the input, for all rows of the same columns: 2 MiB.
const KEPT: usize = 1 << 18;

/// Weights that lie one after the other.
pub(super) struct Stretch<'a> {
    pub(super) dtype: Dtype,
    /// Columns of the whole weights; not 0.
    pub(super) columns: usize,
    /// Its first element, in the whole weights.
    pub(super) from: usize,
    pub(super) bytes: &'a mut [u8],
}

/// What work needs room for.
#[derive(Default)]
struct Room {
    kept: Vec<Strips>,
    again: Strips,
    rows: Strips,
    numbers: Vec<f64>,
    change: Vec<f64>,
}

/// A part of the weights.
#[derive(Clone, Copy)]
struct Tile {
    row: usize,
    rows: usize,
    columns: Columns,
    /// How far apart its rows lie.
    apart: usize,
}

impl Stretch<'_> {
    /// Gives how many numbers are not finite that were.
    pub(super) fn change(mut self, steps: &[Step<'_>]) -> Result<u64, MergeError> {
        let count = self.elements();
        if count == 0 || steps.is_empty() {
            return Ok(0);
        }
        let last = self.from + count - 1;
        let (first_row, last_row) = (self.from / self.columns, last / self.columns);
        let columns = match first_row == last_row {
            true => self.from % self.columns..last % self.columns + 1,
            false => 0..self.columns,
        };
        let depth = steps.iter().map(Step::depth).fold(0, usize::saturating_add);
        let wide = match KEPT.checked_div(depth) {
            // Nothing is multiplied, so that rows mean nothing.
            None => TILE,
            Some(wide) => (wide / STRIP * STRIP).clamp(LEAST_COLUMNS, TILE_COLUMNS),
        };
        let is_kept = depth.saturating_mul(wide) <= KEPT;
        let wide = wide.min(columns.len().next_multiple_of(STRIP));
        let high = (TILE / wide).clamp(1, MOST_ROWS);
        let mut room = Room::default();
        let mut non_finite = 0;
        for column in columns.clone().step_by(wide) {
            let block = Columns {
                from: column,
                count: wide.min(columns.end - column),
            };
            // The first and the last row may not reach there.
            let first = first_row + usize::from(self.part(first_row, block).is_empty());
            let end = last_row + usize::from(!self.part(last_row, block).is_empty());
            if first >= end {
                continue;
            }
            if is_kept {
                room.kept.resize_with(steps.len(), Strips::default);
                for (step, strips) in steps.iter().zip(&mut room.kept) {
                    step.columns(block, strips)?;
                }
            }
            for row in (first..end).step_by(high) {
                let tile = Tile {
                    row,
                    rows: high.min(end - row),
                    columns: block,
                    apart: product::apart(block.count),
                };
                non_finite += self.tile(tile, steps, &mut room)?;
            }
        }
        Ok(non_finite)
    }

    fn elements(&self) -> usize {
        self.bytes.len() / self.width()
    }

    fn width(&self) -> usize {
        element::width(self.dtype).unwrap_or(1)
    }

    /// Those elements of a row's columns that it has, counted from its own first.
    fn part(&self, row: usize, columns: Columns) -> std::ops::Range<usize> {
        let start = row * self.columns + columns.from;
        let end = (start + columns.count).min(self.from + self.elements());
        let start = start.max(self.from).min(end.max(self.from));
        start - self.from..end.max(start) - self.from
    }

    /// The same as a place in a tile's numbers, and in bytes.
    fn places(&self, tile: Tile, row: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let part = self.part(tile.row + row, tile.columns);
        let skipped = match part.is_empty() {
            true => 0,
            false => {
                let first = (tile.row + row) * self.columns + tile.columns.from;
                self.from + part.start - first
            }
        };
        let start = row * tile.apart + skipped;
        let width = self.width();
        (
            start..start + part.len(),
            part.start * width..part.end * width,
        )
    }

    fn tile(&mut self, tile: Tile, steps: &[Step<'_>], room: &mut Room) -> Result<u64, MergeError> {
        let numbers = &mut room.numbers;
        zeros(numbers, tile.rows.next_multiple_of(STRIP) * tile.apart)?;
        let mut before = 0;
        for row in 0..tile.rows {
            let (place, bytes) = self.places(tile, row);
            let numbers = &mut numbers[place];
            widen(self.dtype, &self.bytes[bytes], numbers);
            before += numbers.iter().filter(|number| !number.is_finite()).count();
        }
        for (at, step) in steps.iter().enumerate() {
            match step {
                &Step::Product {
                    up,
                    from,
                    depth,
                    by,
                    ..
                } => {
                    let columns = match room.kept.get(at) {
                        Some(columns) => columns,
                        None => {
                            step.columns(tile.columns, &mut room.again)?;
                            &room.again
                        }
                    };
                    room.rows.down(up, tile.row, tile.rows, from, depth)?;
                    product::add(&room.rows, columns, by, numbers, tile.apart);
                }
                Step::Difference { matrix, by } => {
                    let change = &mut room.change;
                    zeros(change, tile.columns.count)?;
                    for (row, numbers) in numbers.chunks_mut(tile.apart).take(tile.rows).enumerate()
                    {
                        matrix.row(tile.row + row, tile.columns.from, change);
                        for (number, change) in numbers.iter_mut().zip(&*change) {
                            *number += by * change;
                        }
                    }
                }
            }
        }
        let mut after = 0;
        for row in 0..tile.rows {
            let (place, bytes) = self.places(tile, row);
            after += narrow(self.dtype, &numbers[place], &mut self.bytes[bytes]);
        }
        Ok(after.saturating_sub(before as u64))
    }
}
