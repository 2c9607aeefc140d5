//! What is added to weights, in the order in which it is.

use super::MergeError;
use super::product::{self, STRIP, Strips, zeros};
use crate::patch::factors::{Kind, Matrix};

/// Of long sums, so much at once.
pub(super) const DEPTH: usize = 128;
/// Of the sums over a core, so much at once.
const CORE_DEPTH: usize = 32;
/// So many points of a core at once.
const POINTS: usize = 16;

/// One addition to every element. Depends on the change alone, so that sums do not depend on how
/// weights are cut.
pub(super) enum Step<'a> {
    /// A part of a product.
    Product {
        down: &'a Matrix<'a>,
        up: &'a Matrix<'a>,
        mid: Option<&'a Matrix<'a>>,
        /// Where it begins in the rank.
        from: usize,
        depth: usize,
        by: f64,
    },
    Difference {
        matrix: &'a Matrix<'a>,
        by: f64,
    },
}

/// Columns of the weights.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) from: usize,
    pub(super) count: usize,
}

/// The steps of a change; none of rows.
pub(super) fn steps<'a>(kind: &'a Kind<'_>, by: f64) -> Vec<Step<'a>> {
    match kind {
        Kind::LowRank { down, up, mid, .. } => {
            let starts = (0..up.columns).step_by(DEPTH);
            let step = |from| Step::Product {
                down,
                up,
                mid: mid.as_ref(),
                from,
                depth: DEPTH.min(up.columns - from),
                by,
            };
            starts.map(step).collect()
        }
        Kind::Difference(matrix) => vec![Step::Difference { matrix, by }],
        Kind::Rows(_) => Vec::new(),
    }
}

impl Step<'_> {
    /// The length of its sums.
    pub(super) fn depth(&self) -> usize {
        match self {
            Step::Product { depth, .. } => *depth,
            Step::Difference { .. } => 0,
        }
    }

    /// The factor that takes the input, with a core multiplied into it.
    pub(super) fn columns(&self, columns: Columns, into: &mut Strips) -> Result<(), MergeError> {
        let &Step::Product {
            down,
            mid,
            from,
            depth,
            ..
        } = self
        else {
            return Ok(());
        };
        into.clear(depth, columns.count)?;
        if let Some(mid) = mid {
            return core(mid, down, from..from + depth, columns, into);
        }
        let mut numbers = vec![0.0; columns.count];
        for at in 0..depth {
            down.row(from + at, columns.from, &mut numbers);
            into.across(at, &numbers);
        }
        Ok(())
    }
}

/// Σ mid[p, q, k] · down[q, i] at column (i, k), as `lycoris/functional/general.py` has it
/// (`rebuild_tucker`): a product for each point k, whose columns lie apart in the weights.
fn core(
    mid: &Matrix<'_>,
    down: &Matrix<'_>,
    outer: std::ops::Range<usize>,
    columns: Columns,
    into: &mut Strips,
) -> Result<(), MergeError> {
    let rank = down.rows;
    let all = mid.columns / rank;
    let end = columns.from + columns.count;
    let input = columns.from / all;
    let inputs = end.div_ceil(all) - input;
    // Of one input, only the points that are asked for: there may be any number of others.
    let points = match inputs {
        1 => columns.from % all..columns.from % all + columns.count,
        _ => 0..all,
    };
    let wide = product::apart(inputs);
    let high = outer.len().next_multiple_of(STRIP);
    let mut planes = Vec::new();
    let mut rows: [Strips; POINTS] = Default::default();
    let mut across = Strips::default();
    let mut numbers = vec![0.0; inputs];
    let mut of_core = [0.0; CORE_DEPTH * POINTS];
    for point in points.clone().step_by(POINTS) {
        let count = POINTS.min(points.end - point);
        zeros(&mut planes, count * high * wide)?;
        for inner in (0..rank).step_by(CORE_DEPTH) {
            let depth = CORE_DEPTH.min(rank - inner);
            across.clear(depth, inputs)?;
            for at in 0..depth {
                down.row(inner + at, input, &mut numbers);
                across.across(at, &numbers);
            }
            for rows in &mut rows[..count] {
                rows.clear(depth, outer.len())?;
            }
            for (at, p) in outer.clone().enumerate() {
                let of_core = &mut of_core[..depth * count];
                if count == all {
                    mid.row(p, inner * all, of_core);
                } else {
                    for (q, numbers) in of_core.chunks_exact_mut(count).enumerate() {
                        mid.row(p, (inner + q) * all + point, numbers);
                    }
                }
                for (q, numbers) in of_core.chunks_exact(count).enumerate() {
                    for (rows, number) in rows.iter_mut().zip(numbers) {
                        rows.set(q, at, *number);
                    }
                }
            }
            for (rows, plane) in rows.iter().zip(planes.chunks_exact_mut(high * wide)) {
                product::add(rows, &across, 1.0, plane, wide);
            }
        }
        for (k, plane) in planes.chunks_exact(high * wide).enumerate() {
            let first = input * all + point + k;
            // The first and the last input may have this point outside.
            let skipped = columns.from.saturating_sub(first).div_ceil(all);
            let behind = end.saturating_sub(first).div_ceil(all).min(inputs);
            for (at, plane) in plane.chunks_exact(wide).take(outer.len()).enumerate() {
                for (i, number) in plane.iter().enumerate().take(behind).skip(skipped) {
                    into.set(at, first + i * all - columns.from, *number);
                }
            }
        }
    }
    Ok(())
}
