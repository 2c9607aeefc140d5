//! Medians, spreads, slopes, and whether a difference is more than noise.
//!
//! Measures of memory and time are neither normal nor alike in their spread, and there are few of
//! them, so everything here goes by ranks: no variance is ever estimated from five numbers.

/// Beyond so many steps of counting the rank sum is taken as normal: at some 35 numbers against 35, or
/// 5 against 400. The error is a few percent of the probability there.
const MOST_STEPS: usize = 2_000_000;

/// A slope is taken of no more values than that, which makes half a million pairs.
const MOST_OF_A_SLOPE: usize = 1000;

/// The middle one; the mean of the two in the middle where there is an even number. `None` of
/// nothing. The values have to be finite.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// A median, and the least and the greatest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of some values; `None` of nothing.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Spread> {
        Some(Spread {
            median: median(values)?,
            min: values.iter().copied().min_by(f64::total_cmp)?,
            max: values.iter().copied().max_by(f64::total_cmp)?,
        })
    }

    /// Half of the range.
    #[must_use]
    pub fn half_range(&self) -> f64 {
        // Halved first: the range of two large numbers need not be finite.
        self.max / 2.0 - self.min / 2.0
    }
}

/// How probable it is that `b` ranks as high above `a` as it does, or higher, if both came from the
/// same source: the one-sided Wilcoxon–Mann–Whitney test, equal values sharing their ranks, exact for
/// up to 60 values together, and for more where there are few on one side or the sides hardly overlap.
/// `None` where either is empty.
#[must_use]
pub fn probability_of_greater(a: &[f64], b: &[f64]) -> Option<f64> {
    Some(tails(a, b)?.greater)
}

/// How probable it is that `a` and `b` rank as far apart as they do, or farther, to either side.
#[must_use]
pub fn probability_of_difference(a: &[f64], b: &[f64]) -> Option<f64> {
    Some(tails(a, b)?.either())
}

/// How probable ranks like those of `b` among `a` are by chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tails {
    /// As high, or higher.
    pub(crate) greater: f64,
    /// As low, or lower.
    pub(crate) less: f64,
}

impl Tails {
    /// As far to either side, or farther.
    pub(crate) fn either(self) -> f64 {
        (2.0 * self.greater.min(self.less)).min(1.0)
    }
}

/// Both tails of [`probability_of_greater`], for the price of one.
pub(crate) fn tails(a: &[f64], b: &[f64]) -> Option<Tails> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let ranks = doubled_ranks(a, b);
    let mut sorted = ranks.clone();
    sorted.sort_unstable();
    // Subsets of the smaller side are fewer; where that one ranks low, the other ranks high.
    let few = a.len().min(b.len());
    let few_is_b = b.len() == few;
    let side = match few_is_b {
        true => &ranks[a.len()..],
        false => &ranks[..a.len()],
    };
    let observed: usize = side.iter().sum();
    let above_least = observed - sorted[..few].iter().sum::<usize>();
    let below_most = sorted[sorted.len() - few..].iter().sum::<usize>() - observed;
    // The nearer end is counted: where a difference is clear, that is next to nothing.
    let is_low = above_least <= below_most;
    if !is_low {
        let top = sorted.last().copied().unwrap_or(0);
        sorted = sorted.iter().rev().map(|rank| top - rank).collect();
    }
    let Some((near, equal)) = lower_tail(&sorted, few, above_least.min(below_most)) else {
        return Some(normal_tails(&ranks, b.len()));
    };
    let far = (1.0 - near + equal).clamp(0.0, 1.0);
    Some(match is_low == few_is_b {
        true => Tails {
            greater: far,
            less: near,
        },
        false => Tails {
            greater: near,
            less: far,
        },
    })
}

/// The part of all subsets of `few` of these ranks, the least first, whose sum is at most so far
/// above the least there is; and the part that is as far. `None` where that takes too long to count.
fn lower_tail(ranks: &[usize], few: usize, distance: usize) -> Option<(f64, f64)> {
    // Shared ranks alone are odd when doubled.
    let is_even = ranks.iter().all(|rank| (rank - ranks[0]).is_multiple_of(2));
    let unit = if is_even { 2 } else { 1 };
    let most = distance / unit;
    if few.saturating_mul(ranks.len()).saturating_mul(most + 1) > MOST_STEPS {
        return None;
    }
    // ways[k][s]: subsets of k whose sum is s above that of the k least ranks. Whoever is taken as
    // the k-th stands in the place of the k-th least.
    let mut ways = vec![vec![0.0_f64; most + 1]; few + 1];
    ways[0][0] = 1.0;
    for (at, rank) in ranks.iter().enumerate() {
        for taken in (0..few.min(at + 1)).rev() {
            let step = (rank - ranks[taken]) / unit;
            let (fewer, more) = ways.split_at_mut(taken + 1);
            if step <= most {
                let sums = more[0][step..].iter_mut();
                for (sum, of_fewer) in sums.zip(&fewer[taken]) {
                    *sum += of_fewer;
                }
            }
        }
    }
    let all = (1..=few).fold(1.0, |all, at| {
        all * (ranks.len() - few + at) as f64 / at as f64
    });
    let part = |ways: f64| (ways / all).clamp(0.0, 1.0);
    Some((part(ways[few].iter().sum()), part(ways[few][most])))
}

/// The least probability that [`probability_of_greater`] can come to with so many values: below
/// that no difference can be shown, however large.
#[must_use]
pub fn least_probability(a: usize, b: usize) -> f64 {
    // 1 / (a + b over b), without the overflow.
    (1..=b).fold(1.0, |p, at| p * at as f64 / (a + at) as f64)
}

/// By how much the values grow from one to the next: the median of the slopes between all pairs
/// (Theil–Sen), which a few outliers do not move. The first quarter is left out: caches fill, and
/// arenas grow to their size. Of more than 1000 values every second is taken, or every third, and so
/// on. `None` with fewer than three left.
#[must_use]
pub fn slope(values: &[f64]) -> Option<f64> {
    let steady = &values[values.len().div_ceil(4)..];
    if steady.len() < 3 {
        return None;
    }
    let apart = steady.len().div_ceil(MOST_OF_A_SLOPE);
    let steady: Vec<f64> = steady.iter().copied().step_by(apart).collect();
    let mut slopes = Vec::with_capacity(steady.len() * (steady.len() - 1) / 2);
    for (at, from) in steady.iter().enumerate() {
        for (steps, to) in (1_usize..).zip(&steady[at + 1..]) {
            slopes.push((to - from) / (steps * apart) as f64);
        }
    }
    median(&slopes)
}

/// The ranks of `a` and then of `b` among all, doubled, so that shared ranks are whole.
fn doubled_ranks(a: &[f64], b: &[f64]) -> Vec<usize> {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_unstable_by(|x, y| all[*x].total_cmp(&all[*y]));
    let mut ranks = vec![0; all.len()];
    let mut from = 0;
    while from < order.len() {
        let mut to = from;
        while to < order.len() && all[order[to]] == all[order[from]] {
            to += 1;
        }
        for at in &order[from..to] {
            // The mean of the ranks from + 1 to `to`, times two.
            ranks[*at] = from + 1 + to;
        }
        from = to;
    }
    ranks
}

/// The tails of the normal distribution with the mean and variance that these ranks have, the last
/// `taken` of which are those of one side.
fn normal_tails(ranks: &[usize], taken: usize) -> Tails {
    let of_side: usize = ranks[ranks.len() - taken..].iter().sum();
    let count = ranks.len() as f64;
    let taken = taken as f64;
    let mean = ranks.iter().sum::<usize>() as f64 / count;
    let squares: f64 = ranks.iter().map(|rank| (*rank as f64 - mean).powi(2)).sum();
    let variance = taken * (count - taken) / (count * (count - 1.0)) * squares;
    if variance <= 0.0 {
        return Tails {
            greater: 1.0,
            less: 1.0,
        };
    }
    let above = of_side as f64 - taken * mean;
    // Half a step towards the middle, as the sums are whole numbers two apart.
    let tail = |above: f64| upper_tail((above - 1.0) / variance.sqrt());
    Tails {
        greater: tail(above),
        less: tail(-above),
    }
}

/// The probability of more than `z` under the standard normal distribution (Abramowitz and Stegun
/// 26.2.17, off by less than 7.5e-8).
fn upper_tail(z: f64) -> f64 {
    const B: [f64; 5] = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    let tail = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if z < 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn five_against_five_that_do_not_overlap_are_one_in_252() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]);
        let p = probability_of_greater(&a, &b).unwrap();
        assert!((p - 1.0 / 252.0).abs() < 1e-12);
        assert!((least_probability(5, 5) - 1.0 / 252.0).abs() < 1e-12);
        assert_eq!(probability_of_greater(&b, &a), Some(1.0));
        let both = probability_of_difference(&a, &b).unwrap();
        assert!((both - 2.0 / 252.0).abs() < 1e-12);
    }

    #[test]
    fn one_crossing_is_two_in_252() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 6.0], [5.0, 7.0, 8.0, 9.0, 10.0]);
        let p = probability_of_greater(&a, &b).unwrap();
        assert!((p - 2.0 / 252.0).abs() < 1e-12);
    }

    #[test]
    fn one_against_many_is_counted_and_not_taken_as_normal() {
        let many: Vec<f64> = (1..=99).map(f64::from).collect();
        let p = probability_of_greater(&[0.0], &many).unwrap();
        assert!((p - 0.01).abs() < 1e-12, "{p}");
        let p = probability_of_greater(&many, &[100.0]).unwrap();
        assert!((p - 0.01).abs() < 1e-12, "{p}");
    }

    #[test]
    fn equal_values_show_nothing() {
        let same = [4.0; 5];
        assert_eq!(probability_of_greater(&same, &same), Some(1.0));
        assert_eq!(probability_of_difference(&same, &same), Some(1.0));
        let many = [4.0; 50];
        assert_eq!(probability_of_greater(&many, &many), Some(1.0));
    }

    #[test]
    fn the_normal_tail_continues_the_exact_one() {
        let a: Vec<f64> = (0..30).map(f64::from).collect();
        let b: Vec<f64> = (0..30).map(|n| f64::from(n) + 4.5).collect();
        let exact = probability_of_greater(&a, &b).unwrap();
        let normal = normal_tails(&doubled_ranks(&a, &b), b.len());
        assert!((exact / normal.greater - 1.0).abs() < 0.02, "{exact}");
        let other = probability_of_greater(&b, &a).unwrap();
        assert!((other - normal.less).abs() < 0.002, "{other}");
    }

    /// Twenty against twenty, of which `wins` pairs of the 400 are won by the second side.
    fn twenty(wins: usize) -> (Vec<f64>, Vec<f64>) {
        let moved = |at: usize| 20.min(wins.saturating_sub(20 * (19 - at)));
        let places: Vec<usize> = (0..20).map(|at| at + moved(at)).collect();
        let (b, a): (Vec<usize>, Vec<usize>) = (0..40).partition(|at| places.contains(at));
        let numbers = |places: Vec<usize>| places.into_iter().map(|at| at as f64).collect();
        (numbers(a), numbers(b))
    }

    #[test]
    fn the_critical_values_of_printed_tables_come_out() {
        // One-sided, 20 against 20: Milton, "An extended table of critical values for the
        // Mann-Whitney statistic", 1964.
        for (level, critical) in [(0.05, 138), (0.025, 127), (0.01, 114), (0.005, 105)] {
            let p = |wins| {
                let (a, b) = twenty(wins);
                probability_of_greater(&b, &a).unwrap()
            };
            assert!(p(critical) <= level && level < p(critical + 1), "{level}");
        }
    }

    /// All subsets, one by one.
    fn by_enumeration(a: &[f64], b: &[f64]) -> f64 {
        let ranks = doubled_ranks(a, b);
        let observed: usize = ranks[a.len()..].iter().sum();
        let (mut all, mut as_high) = (0.0, 0.0);
        for subset in 0_u32..1 << ranks.len() {
            if subset.count_ones() as usize == b.len() {
                let taken = (0..ranks.len()).filter(|at| subset >> at & 1 == 1);
                let sum: usize = taken.map(|at| ranks[at]).sum();
                all += 1.0;
                as_high += if sum >= observed { 1.0 } else { 0.0 };
            }
        }
        as_high / all
    }

    fn with_ties(most: usize) -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((0_i32..9).prop_map(f64::from), 1..most)
    }

    proptest! {
        #[test]
        fn counting_is_enumerating(a in with_ties(7), b in with_ties(7)) {
            let p = probability_of_greater(&a, &b).unwrap();
            prop_assert!((p - by_enumeration(&a, &b)).abs() < 1e-12, "{}", p);
        }

        #[test]
        fn tails_overlap_and_mirror_each_other(a in with_ties(90), b in with_ties(90)) {
            let (one, other) = (tails(&a, &b).unwrap(), tails(&b, &a).unwrap());
            // At the limit of counting the one side may be counted and the other not.
            prop_assert!((one.greater - other.less).abs() < 1e-9, "{:?} {:?}", one, other);
            prop_assert!(one.greater + one.less > 1.0 - 1e-9, "{:?}", one);
        }
    }

    #[test]
    fn a_slope_forgets_the_warming_up_and_an_outlier() {
        let mut values: Vec<f64> = (0..12).map(|at| 1000.0 + 3.0 * f64::from(at)).collect();
        values[0] = 0.0;
        values[7] = 90_000.0;
        assert_eq!(slope(&values), Some(3.0));
        assert_eq!(slope(&values[..3]), None);
    }

    #[test]
    fn a_slope_of_a_hundred_thousand_values_is_taken_of_some() {
        let values: Vec<f64> = (0..100_000).map(|at| 5.0 * f64::from(at)).collect();
        assert_eq!(slope(&values), Some(5.0));
        let leak = |at: u32| f64::from(at / 7 * 700 + at % 7);
        let values: Vec<f64> = (0..50_000).map(leak).collect();
        assert!(slope(&values).is_some_and(|slope| (slope - 100.0).abs() < 1.0));
    }

    #[test]
    fn medians_of_even_numbers_lie_between() {
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::MAX, f64::MAX]), Some(f64::MAX));
        assert_eq!(median(&[f64::MAX, -f64::MAX]), Some(0.0));
        let spread = Spread::of(&[f64::MAX, -f64::MAX]);
        assert_eq!(spread.map(|spread| spread.half_range()), Some(f64::MAX));
    }
}
