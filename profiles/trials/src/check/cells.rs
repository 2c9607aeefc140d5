//! The cells of a row in words.

use super::{Row, Side};
use crate::gate::Gate;
use crate::measure::Measure;
use crate::number::{self, amount, bare, relative, spread};

/// From the baseline to the runs: `+62.0 MiB (+12 %)`; `n/a` where there is nothing to compare.
pub(super) fn change(row: &Row) -> String {
    let Some(by) = row.change else {
        return "n/a".to_owned();
    };
    let by = number::change(row.measure.unit(), by);
    match row.relative {
        Some(part) => format!("{by} ({})", relative(part)),
        None => by,
    }
}

/// The median of a side and half of its range, with the mark of its grade: `~83.0 MiB ± 2.0 %`.
pub(super) fn side(measure: Measure, side: Option<&Side>) -> String {
    let Some(side) = side else {
        return "n/a".to_owned();
    };
    let mark = side.grade.mark();
    let median = bare(measure.unit(), side.median);
    match spread(measure.unit(), side.median, side.half_range()) {
        Some(spread) => format!("{mark}{median} ± {spread}"),
        None => format!("{mark}{median}"),
    }
}

/// Both floors in words: `10 % and 4.0 MiB`.
pub(super) fn limit(measure: Measure, gate: &Gate) -> String {
    let absolute = amount(measure, gate.absolute().value());
    format!("{} % and {absolute}", gate.percent())
}
