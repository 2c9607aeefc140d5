//! The fragmentation trace: six models of fixed sizes, cut into tensors of very unequal ones.
//!
//! Sizes are spread evenly over their logarithm, so that an allocator sees every size class between
//! a page and far above any mmap threshold; they are drawn from a fixed seed, so that every run on
//! every machine sees the same ones.

use super::fill::Sequence;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The bytes of the six models at scale 1.
pub const TOTALS: [u64; 6] = [
    64 * MIB,
    128 * MIB,
    256 * MIB,
    384 * MIB,
    512 * MIB,
    512 * MIB,
];

/// The smallest tensor, and the unit of all sizes: a page.
const SMALLEST: u64 = 4 * KIB;

/// The largest tensor.
const LARGEST: u64 = 48 * MIB;

/// Elements of a row: one [`SMALLEST`] of f16.
const ROW: usize = 2048;

/// The names and shapes of model `number` at `scale`: f16, of exactly [`TOTALS`] at scale 1, to the
/// nearest page elsewhere.
pub fn tensors(number: usize, scale: f64) -> Vec<(String, Vec<usize>)> {
    let pages = ((TOTALS[number] as f64 * scale) / SMALLEST as f64)
        .round()
        .max(1.0) as u64;
    let most = (LARGEST / SMALLEST) as f64;
    let mut sequence = Sequence(0x504c_494d_534f_4c4c ^ number as u64);
    let mut left = pages;
    let mut tensors = Vec::new();
    while left > 0 {
        // A model scaled down keeps several tensors: none takes more than an eighth of it.
        let most = most.min((pages as f64 / 8.0).max(1.0));
        let drawn = most.powf(sequence.fraction()).round() as u64;
        let rows = drawn.clamp(1, left);
        tensors.push((
            format!("blocks.{}.weight", tensors.len()),
            vec![rows as usize, ROW],
        ));
        left -= rows;
    }
    tensors
}
