//! Curves in a line of text.

use crate::paint::Paint;

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 9] = [' ', '_', '.', '-', '=', '+', '*', '%', '#'];

/// A curve of `values` in one line, from zero to `top`, at most `width` wide. Where there are more
/// values than columns, each column shows the largest of its values: a peak is never lost.
#[must_use]
pub fn sparkline(paint: &Paint, values: &[u64], top: u64, width: usize) -> String {
    let marks = if paint.unicode { BLOCKS } else { ASCII };
    let columns = values.len().min(width.max(1));
    (0..columns)
        .map(|column| {
            let from = column * values.len() / columns;
            let to = ((column + 1) * values.len() / columns).max(from + 1);
            let value = values[from..to].iter().copied().max().unwrap_or(0);
            let level = (u128::from(value) * 8).div_ceil(u128::from(top.max(1)));
            marks[level.min(8) as usize]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_between_columns_is_shown() {
        let mut values = vec![1; 100];
        values[37] = 80;
        let line = sparkline(&Paint::plain(), &values, 80, 10);
        assert_eq!(line, "___#______");
    }

    #[test]
    fn no_values_make_no_line() {
        assert_eq!(sparkline(&Paint::plain(), &[], 1, 10), "");
    }
}
