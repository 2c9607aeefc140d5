//! Which stretch of time is shown.

use std::ops::Range;

use crate::live::state::Series;

const SECOND: u64 = 1_000_000;
/// The stretches to choose from, seconds; the last is all there is.
const SPANS: [u64; 9] = [10, 30, 60, 300, 600, 3_600, 21_600, 86_400, u64::MAX];
/// What is shown of the youngest, microseconds.
const LEAST: u64 = 5 * SECOND;
/// Steps between times at the axis, seconds; beyond the last by its multiples.
const STEPS: [u64; 18] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200,
    86_400,
];

/// A stretch of time: how long, and up to when.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    /// Which of the stretches; until one is chosen the least that holds everything.
    zoom: Option<usize>,
    /// Its right edge, where it does not follow the present.
    end: Option<u64>,
}

impl Window {
    /// Its name: `10 min`.
    pub(super) fn name(self, series: &Series, now_us: u64) -> &'static str {
        [
            "10 s", "30 s", "1 min", "5 min", "10 min", "1 h", "6 h", "24 h", "all",
        ][self.nth(series, now_us)]
    }

    /// Which of the stretches it is.
    fn nth(self, series: &Series, now_us: u64) -> usize {
        let last = SPANS.len() - 1;
        self.zoom.unwrap_or_else(|| {
            let first = series.span().map_or(now_us, |span| span.start);
            let all = now_us.saturating_sub(first);
            let holds = |span: &u64| span.saturating_mul(SECOND) >= all;
            SPANS.iter().position(holds).unwrap_or(last)
        })
    }

    /// Its right edge, where that stands still.
    pub(super) fn stands_at(self) -> Option<u64> {
        self.end
    }

    /// The time that it shows in so many dots. Its edges lie where dots begin, so that a curve
    /// keeps its form while time goes on.
    pub(super) fn range(self, series: &Series, now_us: u64, dots: usize) -> Range<u64> {
        let dots = u64::try_from(dots).unwrap_or(1).max(1);
        let end = self.end.unwrap_or(now_us);
        let span = SPANS[self.nth(series, now_us)].saturating_mul(SECOND);
        // Younger than that, it is shown from its beginning, with the dot that has the present.
        let first = series.span().map_or(end, |span| span.start);
        let young = end.saturating_sub(first).max(LEAST);
        let dot = if span < young {
            span.div_ceil(dots).max(1)
        } else {
            young.saturating_add(1).div_ceil((dots - 1).max(1))
        };
        let end = (end / dot).saturating_add(1).saturating_mul(dot);
        let end = end.max(dot.saturating_mul(dots));
        end.saturating_sub(dot.saturating_mul(dots))..end
    }

    /// Closer, or further away. What is in the middle of a window that stands stays there.
    pub(super) fn zoom(&mut self, closer: bool, series: &Series, shown: &Range<u64>, now_us: u64) {
        let before = self.nth(series, now_us);
        let after = if closer {
            before.saturating_sub(1)
        } else {
            (before + 1).min(SPANS.len() - 1)
        };
        self.zoom = Some(after);
        if self.end.is_some() && after != before {
            let middle = shown.start + (shown.end - shown.start) / 2;
            let half = SPANS[after].saturating_mul(SECOND) / 2;
            self.stand(middle.saturating_add(half), now_us);
        }
    }

    /// By so much to the left, or the right; there it follows again.
    pub(super) fn pan(&mut self, left: bool, by: u64, shown: &Range<u64>, now_us: u64) {
        // Everything is in view: there is nowhere to go.
        if self.zoom.is_none_or(|zoom| SPANS[zoom] == u64::MAX) {
            return;
        }
        let end = self.end.unwrap_or(now_us);
        let length = shown.end - shown.start;
        let end = if left {
            end.saturating_sub(by).max(length)
        } else {
            end.saturating_add(by)
        };
        self.stand(end, now_us);
    }

    /// To the beginning of what there is.
    pub(super) fn first(&mut self, series: &Series, shown: &Range<u64>, now_us: u64) {
        let first = series.span().map_or(0, |span| span.start);
        let length = shown.end - shown.start;
        // The dot of the right edge is in view.
        self.stand(first.saturating_add(length).saturating_sub(1), now_us);
    }

    /// Follows the present.
    pub(super) fn follow(&mut self) {
        self.end = None;
    }

    fn stand(&mut self, end: u64, now_us: u64) {
        self.end = (end < now_us).then_some(end);
    }
}

/// Times at the axis: how long before now, at most one in so many columns; the latest first.
pub(super) fn ticks(
    range: &Range<u64>,
    now_us: u64,
    columns: u16,
    apart: u16,
) -> impl Iterator<Item = (u64, u64)> {
    let most = u64::from((columns / apart.max(1)).max(1));
    let span = range.end - range.start;
    let fits = |step: &u64| span / (step * SECOND) <= most;
    let step = STEPS.iter().copied().find(fits).map_or_else(
        || {
            let step = (span / most).max(1);
            step.checked_next_multiple_of(86_400 * SECOND)
                .unwrap_or(u64::MAX)
        },
        |step| step * SECOND,
    );
    let nearest = now_us.saturating_sub(range.end).div_ceil(step);
    let start = range.start;
    (nearest..)
        .map_while(move |nth| {
            let ago = nth.checked_mul(step)?;
            let at = now_us.checked_sub(ago).filter(|at| *at >= start)?;
            Some((at, ago))
        })
        .take(usize::from(columns))
}

/// A time before now, short: `now`, `-45s`, `-5m`, `-1h30m`.
pub(super) fn ago(ago_us: u64) -> String {
    let seconds = ago_us / SECOND;
    let two = |large: u64, name: char, small: u64, of: char| match small {
        0 => format!("-{large}{name}"),
        _ => format!("-{large}{name}{small}{of}"),
    };
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("-{seconds}s"),
        60..3_600 => two(seconds / 60, 'm', seconds % 60, 's'),
        3_600..86_400 => two(seconds / 3_600, 'h', seconds / 60 % 60, 'm'),
        _ => two(seconds / 86_400, 'd', seconds / 3_600 % 24, 'h'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(from: u64, to: u64) -> Series {
        let mut series = Series::default();
        for at in [from, to] {
            let reading = crate::live::state::Reading {
                rss: Some(1),
                ..Default::default()
            };
            series.push(at, &reading);
        }
        series
    }

    #[test]
    fn a_window_follows_until_it_is_moved_and_again_at_the_end() {
        let (hour, series) = (3_600 * SECOND, series(0, 3_600 * SECOND));
        let mut window = Window {
            zoom: Some(4),
            end: None,
        };
        let shown = window.range(&series, hour, 100);
        // The present lies in the last dot, of six seconds.
        assert_eq!(shown, hour - 594 * SECOND..hour + 6 * SECOND);
        window.pan(true, 60 * SECOND, &shown, hour);
        assert_eq!(
            window.range(&series, hour + 5 * SECOND, 100).end,
            hour - 54 * SECOND
        );
        window.pan(false, 120 * SECOND, &shown, hour);
        assert_eq!(window.stands_at(), None);
        window.first(&series, &shown, hour);
        assert_eq!(window.range(&series, hour, 100).start, 0);
        window.follow();
        assert_eq!(window.range(&series, hour, 100), shown);
    }

    #[test]
    fn what_is_young_fills_the_width_and_edges_do_not_creep() {
        let window = Window::default();
        let late = series(600 * SECOND, 620 * SECOND);
        let shown = window.range(&late, 620 * SECOND, 101);
        assert!(shown.contains(&(600 * SECOND)) && shown.contains(&(620 * SECOND)));
        assert!(shown.end - shown.start < 21 * SECOND, "{shown:?}");
        assert_eq!(window.name(&late, 620 * SECOND), "30 s");
        assert_eq!(window.name(&Series::default(), u64::MAX), "10 s");
        let window = Window {
            zoom: Some(4),
            end: None,
        };
        let series = series(0, 20 * SECOND);
        let hour = 3_600 * SECOND;
        let (one, two) = (
            window.range(&series, hour + 1, 100),
            window.range(&series, hour + 2, 100),
        );
        assert_eq!(one, two);
        for (now, dots) in [(0, 0), (0, 1), (u64::MAX, 600), (1, 600)] {
            let range = window.range(&Series::default(), now, dots);
            assert!(range.start < range.end, "{now} {dots} {range:?}");
        }
    }

    #[test]
    fn times_at_the_axis_are_round_and_few() {
        let now = 7_200 * SECOND;
        let range = now - 600 * SECOND..now;
        let times = ticks(&range, now, 60, 14);
        let names: Vec<_> = times.map(|(_, before)| ago(before)).collect();
        assert_eq!(names, ["now", "-5m", "-10m"]);
        let all = 0..u64::MAX;
        let all = ticks(&all, u64::MAX, 100, 14);
        assert!((1..9).contains(&all.count()));
        assert_eq!(ago(5_400 * SECOND), "-1h30m");
    }
}
