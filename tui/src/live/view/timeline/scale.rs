//! Where a number of bytes lies in the chart.

use std::ops::RangeInclusive;

/// The least that a chart is high, bytes.
const LEAST: u64 = 1 << 20;

/// From how many bytes at the bottom to how many at the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    low: u64,
    high: u64,
    step: u64,
}

impl Scale {
    /// One that shows a range, with at most so many labels: from 0, except where it all lies
    /// within the highest 30 %. Its ends are round, so that it does not change with every reading.
    pub(super) fn of(shown: &RangeInclusive<u64>, labels: usize) -> Scale {
        let (least, most) = (*shown.start(), (*shown.end()).max(LEAST));
        let flat = u128::from(least) * 10 > u128::from(most) * 7;
        let (low, most) = if flat {
            // Small changes are not blown up beyond a twentieth.
            let span = (most - least).max(most / 20);
            let middle = least + (most - least) / 2;
            let low = least.min(middle.saturating_sub(span / 2));
            (low, most.max(low.saturating_add(span)))
        } else {
            (0, most)
        };
        let finer = (step(most - low, 4) / 4).max(1);
        let step = step(most - low, labels);
        let low = low / finer * finer;
        let high = (most / finer + 1).saturating_mul(finer).max(low + 1);
        Scale { low, high, step }
    }

    /// The dot of a number, from the bottom, of so many; what lies outside is at the edge.
    pub(super) fn dot(&self, bytes: u64, dots: usize) -> usize {
        let above = bytes.clamp(self.low, self.high) - self.low;
        let last = dots.saturating_sub(1) as u128;
        let whole = u128::from(self.high - self.low).max(1);
        let dot = (u128::from(above) * last + whole / 2) / whole;
        usize::try_from(dot).unwrap_or(0)
    }

    /// Whether it is in view.
    pub(super) fn shows(&self, bytes: u64) -> bool {
        (self.low..=self.high).contains(&bytes)
    }

    /// Round numbers in view, from the lowest.
    pub(super) fn labels(&self) -> impl Iterator<Item = u64> {
        let (step, high) = (self.step.max(1), self.high);
        let first = self.low.div_ceil(step);
        (first..)
            .map_while(move |nth| nth.checked_mul(step).filter(|bytes| *bytes <= high))
            .take(8)
    }
}

/// The least power of two that needs no more than so many labels.
fn step(span: u64, labels: usize) -> u64 {
    let most = u64::try_from(labels).unwrap_or(1).max(1);
    let mut steps = (0..64).map(|power| 1_u64 << power);
    steps.find(|step| span / step < most).unwrap_or(1 << 63)
}

/// A round number of bytes without what does not matter: `20G`, `1.5G`, `0`.
pub(super) fn round(bytes: u64) -> String {
    let power = bytes.checked_ilog2().unwrap_or(0) / 10;
    let unit = ["", "K", "M", "G", "T", "P", "E"][power as usize];
    let (whole, rest) = (bytes >> (10 * power), bytes & ((1 << (10 * power)) - 1));
    let hundredths = (u128::from(rest) * 100) >> (10 * power);
    match (hundredths, hundredths % 10) {
        (0, _) => format!("{whole}{unit}"),
        (_, 0) => format!("{whole}.{}{unit}", hundredths / 10),
        _ => format!("{whole}.{hundredths:02}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_chart_begins_at_zero_unless_everything_is_near_its_top() {
        let scale = Scale::of(&(8 * GIB..=21 * GIB), 4);
        assert_eq!((scale.low, scale.step), (0, 8 * GIB));
        assert!(scale.shows(21 * GIB) && scale.high < 25 * GIB);
        let names: Vec<_> = scale.labels().map(round).collect();
        assert_eq!(names, ["0", "8G", "16G"]);
        let near = Scale::of(&(20 * GIB..=21 * GIB), 4);
        assert!(near.low > 19 * GIB && near.low <= 20 * GIB, "{near:?}");
        let flat = Scale::of(&(20 * GIB..=20 * GIB), 4);
        assert!(flat.high - flat.low >= GIB, "{flat:?}");
    }

    #[test]
    fn labels_are_short() {
        let names = [0, 5 << 20, 3 << 29, 81 << 28, u64::MAX].map(round);
        assert_eq!(names, ["0", "5M", "1.5G", "20.25G", "15.99E"]);
    }

    #[test]
    fn any_range_has_a_scale_with_few_labels() {
        for (least, most) in [
            (0, 0),
            (u64::MAX, u64::MAX),
            (0, u64::MAX),
            (u64::MAX - 1, u64::MAX),
            (1, 1),
        ] {
            for labels in [0, 1, 4] {
                let scale = Scale::of(&(least..=most), labels);
                assert!(scale.low < scale.high, "{scale:?}");
                assert!(scale.labels().count() <= 8);
                assert!(scale.dot(most, 40) < 40 && scale.dot(0, 0) == 0);
            }
        }
    }
}
