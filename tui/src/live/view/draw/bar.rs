//! How many cells the parts of a whole get, and how they look.

/// How a cell of a bar looks, beside its colour: what tells it from its neighbours where there are
/// no colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::live) enum Mark {
    Full,
    Dense,
    Half,
    Light,
    /// Nothing is there.
    Absent,
}

impl Mark {
    pub(in crate::live) const fn symbol(self, unicode: bool) -> char {
        match (self, unicode) {
            (Mark::Full, true) => '█',
            (Mark::Full, false) => '#',
            (Mark::Dense, true) => '▓',
            (Mark::Dense, false) => '=',
            (Mark::Half, true) => '▒',
            (Mark::Half, false) => '+',
            (Mark::Light, true) => '░',
            (Mark::Light, false) => '~',
            (Mark::Absent, true) => '·',
            (Mark::Absent, false) => '.',
        }
    }
}

/// The cells of each part of a whole, one after the other. What there is at all has one, and what
/// is not the whole does not fill all.
pub(in crate::live) fn cells(
    parts: impl Iterator<Item = u64>,
    whole: u64,
    columns: u16,
) -> impl Iterator<Item = u16> {
    let whole = u128::from(whole.max(1));
    let (mut sum, mut drawn) = (0_u128, 0_u16);
    parts.map(move |bytes| {
        if bytes == 0 {
            return 0;
        }
        sum += u128::from(bytes);
        let scaled = sum.min(whole) * u128::from(columns);
        let mut end = ((scaled + whole / 2) / whole) as u16;
        if end <= drawn {
            end = (drawn + 1).min(columns);
        }
        if sum < whole && end == columns && columns - drawn > 1 {
            end = columns - 1;
        }
        let cells = end.saturating_sub(drawn);
        drawn = drawn.max(end);
        cells
    })
}

/// Where a part of a whole lies, from one value to another: `(from, how many)`. What is not nothing
/// has one cell at least, where there is one left.
pub(in crate::live) fn stretch(from: u64, to: u64, total: u64, columns: u16) -> (u16, u16) {
    let at = |value: u64| {
        let total = u128::from(total.max(1));
        let place = (u128::from(value.min(total as u64)) * u128::from(columns) + total / 2) / total;
        place.min(u128::from(columns)) as u16
    };
    let (begin, end) = (at(from), at(to.max(from)));
    if to > from && begin == end && columns > 0 {
        return (begin.min(columns - 1), 1);
    }
    (begin, end - begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[u64], whole: u64, columns: u16) -> Vec<u16> {
        cells(parts.iter().copied(), whole, columns).collect()
    }

    #[test]
    fn parts_add_up_and_the_little_that_is_there_or_left_shows() {
        assert_eq!(of(&[50, 10, 20], 100, 10), [5, 1, 2]);
        assert_eq!(of(&[1], 1_000_000, 10), [1]);
        assert_eq!(of(&[999], 1_000, 10), [9]);
        assert_eq!(of(&[2_000], 1_000, 10), [10]);
        assert_eq!(of(&[0, 0], 0, 10), [0, 0]);
        assert_eq!(of(&[u64::MAX, u64::MAX], u64::MAX, 2), [2, 0]);
        assert_eq!(of(&[1, 2], 3, 0), [0, 0]);
    }

    #[test]
    fn parts_of_a_bar_meet_and_none_vanishes() {
        assert_eq!(stretch(0, 50, 100, 10), (0, 5));
        assert_eq!(stretch(50, 100, 100, 10), (5, 5));
        assert_eq!(stretch(99, 100, 100, 10), (9, 1));
        assert_eq!(stretch(0, 1, u64::MAX, 10), (0, 1));
        assert_eq!(stretch(0, u64::MAX, 1, 10), (0, 10));
        assert_eq!(stretch(9, 3, 10, 10), (9, 0));
        assert_eq!(stretch(0, 1, 1, 0), (0, 0));
    }
}
