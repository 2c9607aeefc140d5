//! Which columns there is room for.

use std::borrow::Cow;

use crate::table::Align;

/// A column. Its width does not follow from what is in it: rows that come and go, or are scrolled,
/// move nothing.
#[derive(Debug, Clone)]
pub(in crate::live) struct Column<'a> {
    pub(in crate::live) name: Cow<'a, str>,
    pub(in crate::live) align: Align,
    /// Columns that it takes at least, and at most where there is room.
    pub(in crate::live) width: (u16, u16),
    /// Left out where there is no room, the greatest first; never where it is 0.
    pub(in crate::live) rank: u8,
    /// Whether rows can be sorted by it.
    pub(in crate::live) sorts: bool,
}

impl<'a> Column<'a> {
    pub(in crate::live) fn left(name: impl Into<Cow<'a, str>>, width: u16) -> Column<'a> {
        Column {
            name: name.into(),
            align: Align::Left,
            width: (width, width),
            rank: 0,
            sorts: false,
        }
    }

    pub(in crate::live) fn right(name: impl Into<Cow<'a, str>>, width: u16) -> Column<'a> {
        Column {
            align: Align::Right,
            ..Column::left(name, width)
        }
    }

    /// As wide as that, where there is room.
    pub(in crate::live) fn up_to(self, most: u16) -> Column<'a> {
        Column {
            width: (self.width.0, most.max(self.width.0)),
            ..self
        }
    }

    pub(in crate::live) fn rank(self, rank: u8) -> Column<'a> {
        Column { rank, ..self }
    }

    pub(in crate::live) fn sorts(self) -> Column<'a> {
        Column {
            sorts: true,
            ..self
        }
    }
}

/// Where columns are: the first cell and the width of each, `None` for one that is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::live) struct Fit(Vec<Option<(u16, u16)>>);

impl Fit {
    /// Those that are shown, by their index.
    pub(in crate::live) fn shown(&self) -> impl Iterator<Item = (usize, (u16, u16))> + '_ {
        let places = self.0.iter().enumerate();
        places.filter_map(|(at, place)| Some((at, (*place)?)))
    }
}

/// Columns in a width, from a place on. Those of the greatest rank go until the rest fits at its
/// least; then the first grow, and what is left goes into the gaps.
pub(in crate::live) fn fit(columns: &[Column<'_>], width: u16, from: u16) -> Fit {
    let width = usize::from(width);
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let least = |at: usize| usize::from(columns[at].width.0);
    let total = |shown: &[usize]| {
        shown.iter().map(|at| least(*at)).sum::<usize>() + shown.len().saturating_sub(1)
    };
    while total(&shown) > width {
        let dispensable = shown.iter().filter(|at| columns[**at].rank > 0);
        let Some(last) = dispensable.max_by_key(|at| columns[**at].rank).copied() else {
            break;
        };
        shown.retain(|at| *at != last);
    }
    let mut room = width.saturating_sub(total(&shown));
    let gaps = shown.len().saturating_sub(1);
    let gap = 1 + usize::from(gaps > 0 && room >= gaps);
    room -= gaps * (gap - 1);
    let mut places = vec![None; columns.len()];
    let mut widths: Vec<usize> = shown.iter().map(|at| least(*at)).collect();
    for (at, taken) in shown.iter().zip(&mut widths) {
        let more = usize::from(columns[*at].width.1).saturating_sub(*taken);
        let more = more.min(room);
        *taken += more;
        room -= more;
    }
    let mut x = 0;
    for (at, taken) in shown.into_iter().zip(widths) {
        let taken = taken.min(width.saturating_sub(x));
        if taken > 0 {
            // Both are below the width, which is a u16.
            places[at] = Some((from.saturating_add(x as u16), taken as u16));
        }
        x += taken + gap;
    }
    Fit(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> [Column<'static>; 3] {
        [
            Column::left("name", 4).up_to(10),
            Column::right("bytes", 5),
            Column::right("score", 6).rank(1),
        ]
    }

    #[test]
    fn the_least_important_goes_first_and_the_first_grows() {
        let places = |width| fit(&columns(), width, 1).0;
        assert_eq!(places(17), [Some((1, 4)), Some((6, 5)), Some((12, 6))]);
        assert_eq!(places(16), [Some((1, 9)), Some((12, 5)), None]);
        assert_eq!(places(40), [Some((1, 10)), Some((13, 5)), Some((20, 6))]);
    }

    #[test]
    fn what_must_stay_is_cut_at_the_edge() {
        assert_eq!(fit(&columns(), 7, 0).0, [Some((0, 4)), Some((5, 2)), None]);
        assert_eq!(fit(&columns(), 0, 0).0, [None, None, None]);
        assert_eq!(fit(&[], 9, 0), Fit::default());
    }
}
