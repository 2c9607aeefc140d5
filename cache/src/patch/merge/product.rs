//! Products of matrices in double precision, each element of which is the same sum in the same order
//! wherever it lies. A library's may add in another order at the edges of what it is given.

use std::array::from_fn;

use super::MergeError;
use crate::patch::factors::Matrix;
use crate::patch::lanes::{Loop, widest};

/// Rows and columns come in strips of so many; what is missing to a whole strip is zeros.
pub(super) const STRIP: usize = 8;

/// Numbers in strips: all of the first strip, depth after depth, then those of the second.
#[derive(Default)]
pub(super) struct Strips {
    numbers: Vec<f64>,
    depth: usize,
}

impl Strips {
    /// Room for so many rows or columns, all zeros.
    pub(super) fn clear(&mut self, depth: usize, across: usize) -> Result<(), MergeError> {
        self.depth = depth;
        zeros(&mut self.numbers, depth * across.next_multiple_of(STRIP))
    }

    pub(super) fn set(&mut self, depth: usize, across: usize, number: f64) {
        let strip = across / STRIP * self.depth;
        self.numbers[(strip + depth) * STRIP + across % STRIP] = number;
    }

    /// Numbers side by side at one depth.
    pub(super) fn across(&mut self, depth: usize, numbers: &[f64]) {
        let (strips, _) = self.numbers.as_chunks_mut::<STRIP>();
        let mut places = strips.iter_mut().skip(depth).step_by(self.depth);
        let (whole, rest) = numbers.as_chunks::<STRIP>();
        for (numbers, place) in whole.iter().zip(&mut places) {
            *place = *numbers;
        }
        if let Some(place) = places.next() {
            place[..rest.len()].copy_from_slice(rest);
        }
    }

    /// Rows of a matrix as they lie: their columns are the depth.
    pub(super) fn down(
        &mut self,
        matrix: &Matrix<'_>,
        row: usize,
        rows: usize,
        from: usize,
        depth: usize,
    ) -> Result<(), MergeError> {
        self.clear(depth, rows)?;
        let mut numbers = vec![0.0; depth];
        for across in 0..rows {
            matrix.row(row + across, from, &mut numbers);
            for (depth, number) in numbers.iter().enumerate() {
                self.set(depth, across, *number);
            }
        }
        Ok(())
    }
}

/// So many zeros and nothing else.
pub(super) fn zeros(numbers: &mut Vec<f64>, count: usize) -> Result<(), MergeError> {
    numbers.clear();
    let memory = |_| MergeError::Memory {
        bytes: count as u64 * 8,
    };
    numbers.try_reserve_exact(count).map_err(memory)?;
    numbers.resize(count, 0.0);
    Ok(())
}

/// Adds a multiple of the product to rows that lie `apart` numbers from each other.
pub(super) fn add(rows: &Strips, columns: &Strips, by: f64, into: &mut [f64], apart: usize) {
    widest(Add {
        rows,
        columns,
        by,
        into,
        apart,
    });
}

/// How far apart rows of so many columns should lie: an odd number of strips, as a store holds up
/// loads that are a multiple of 4 KiB from it.
pub(super) fn apart(columns: usize) -> usize {
    (columns.div_ceil(STRIP) | 1) * STRIP
}

struct Add<'a> {
    rows: &'a Strips,
    columns: &'a Strips,
    by: f64,
    into: &'a mut [f64],
    apart: usize,
}

impl Loop for Add<'_> {
    type Gives = ();

    #[inline(always)]
    fn run<const LANES: usize>(self) {
        let strip = self.rows.depth * STRIP;
        if strip == 0 {
            return;
        }
        for (across, columns) in self.columns.numbers.chunks_exact(strip).enumerate() {
            let (columns, _) = columns.as_chunks::<STRIP>();
            for (down, rows) in self.rows.numbers.chunks_exact(strip).enumerate() {
                for part in (0..STRIP).step_by(LANES) {
                    let (rows, _) = rows.as_chunks::<STRIP>();
                    let sums = sums::<LANES>(rows, part, columns);
                    let first = down * STRIP + part;
                    for (row, sums) in sums.iter().enumerate() {
                        let place = (first + row) * self.apart + across * STRIP;
                        let (into, _) = self.into[place..].as_chunks_mut::<STRIP>();
                        for (into, sum) in into[0].iter_mut().zip(sums) {
                            *into += self.by * sum;
                        }
                    }
                }
            }
        }
    }
}

/// Of so many rows of a strip from `part` on, times a strip of columns. They stay in registers: of
/// `LANES` rows they fill eight.
#[inline(always)]
fn sums<const LANES: usize>(
    rows: &[[f64; STRIP]],
    part: usize,
    columns: &[[f64; STRIP]],
) -> [[f64; STRIP]; LANES] {
    let mut sums = [[0.0; STRIP]; LANES];
    for (row, column) in rows.iter().zip(columns) {
        let row = &row[part..part + LANES];
        sums = from_fn(|at| from_fn(|across| sums[at][across] + row[at] * column[across]));
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strips(depth: usize, across: usize, seed: u64) -> Strips {
        let mut strips = Strips::default();
        assert_eq!(strips.clear(depth, across), Ok(()));
        let mut state = seed | 1;
        for at in 0..depth * across {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5;
            strips.set(at % depth, at / depth, number);
        }
        strips
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn registers_of_all_widths_add_the_same_in_the_same_order(
            (depth, rows, columns) in (1..40_usize, 1..30_usize, 1..30_usize),
            seed: u64,
        ) {
            let (down, across) = (strips(depth, rows, seed), strips(depth, columns, !seed));
            let wide = apart(columns);
            let mut found = vec![1.0; rows.next_multiple_of(STRIP) * wide];
            let mut least = found.clone();
            add(&down, &across, 0.3, &mut found, wide);
            let plain = Add { rows: &down, columns: &across, by: 0.3, into: &mut least, apart: wide };
            plain.run::<2>();
            prop_assert_eq!(&found, &least);
            let get = |strips: &Strips, depth, across: usize| {
                strips.numbers[(across / STRIP * strips.depth + depth) * STRIP + across % STRIP]
            };
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |c| (row, c))) {
                let products = (0..depth).map(|at| get(&down, at, row) * get(&across, at, column));
                let sum = products.fold(0.0, |sum: f64, product| sum + product);
                prop_assert_eq!(found[row * wide + column], 1.0 + 0.3 * sum);
            }
        }
    }
}
