//! Where numbers lie along an axis, and its ticks.

use plimsoll_trials::Measure;
use plimsoll_trials::measure::Unit;

/// Beyond this a number is drawn as if it were this: the distance of two still is a number.
const LARGEST: f64 = 1e300;
/// Ticks that are aimed at.
const TICKS: f64 = 6.0;

const BYTES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// An axis.
pub(super) struct Axis {
    /// In units.
    low: f64,
    high: f64,
    step: f64,
    /// What one unit is.
    unit: f64,
    name: String,
}

impl Axis {
    /// One on which all of these lie. From zero, unless they are far from it.
    pub(super) fn over(measure: Measure, values: impl IntoIterator<Item = f64>) -> Axis {
        let values: Vec<f64> = values.into_iter().map(bounded).collect();
        let least = values.iter().copied().reduce(f64::min).unwrap_or(0.0);
        let most = values.iter().copied().reduce(f64::max).unwrap_or(0.0);
        let (unit, name) = unit_of(measure, least.abs().max(most.abs()));
        let (mut low, mut high) = (least / unit, most / unit);
        if low > 0.0 && low < 0.6 * high {
            low = 0.0;
        } else if high < 0.0 && high > 0.6 * low {
            high = 0.0;
        }
        let size = low.abs().max(high.abs());
        if size < 1e-6 {
            (low, high) = (0.0, 1.0);
        } else if high - low < size * 1e-6 {
            (low, high) = (low - size * 0.1, high + size * 0.1);
        }
        let step = nice((high - low) / TICKS);
        Axis {
            low: (low / step).floor() * step,
            high: (high / step).ceil() * step,
            step,
            unit,
            name: format!("{measure}, {name}"),
        }
    }

    /// What it shows, and in what unit.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where a number lies: 0 at the beginning of the axis, 1 at its end.
    pub(super) fn share(&self, value: f64) -> f64 {
        self.share_of_units(bounded(value) / self.unit)
    }

    fn share_of_units(&self, units: f64) -> f64 {
        ((units - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Where ticks are, with their numbers.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let count = ((self.high - self.low) / self.step).round().min(20.0) as u32;
        let ticks = (0..=count).map(|at| {
            let units = self.low + f64::from(at) * self.step;
            (self.share_of_units(units), self.number(units))
        });
        ticks.collect()
    }

    fn number(&self, units: f64) -> String {
        if units.abs() < self.step * 1e-6 {
            return "0".to_owned();
        }
        if units.abs() >= 1e6 {
            return format!("{units:.2e}");
        }
        let digits = (-self.step.log10().floor()).clamp(0.0, 9.0) as usize;
        format!("{units:.digits$}")
    }
}

fn bounded(value: f64) -> f64 {
    if value.is_nan() {
        return 0.0;
    }
    value.clamp(-LARGEST, LARGEST)
}

/// A unit in which the largest number has few digits.
fn unit_of(measure: Measure, most: f64) -> (f64, String) {
    match measure.unit() {
        Unit::Bytes | Unit::BytesPerCycle => {
            let mut power = 0;
            let mut unit = 1.0;
            while most >= unit * 1024.0 && power + 1 < BYTES.len() {
                unit *= 1024.0;
                power += 1;
            }
            let cycle = match measure.unit() {
                Unit::BytesPerCycle => " a cycle",
                _ => "",
            };
            (unit, format!("{}{cycle}", BYTES[power]))
        }
        Unit::Seconds if most >= 1.0 || most == 0.0 => (1.0, "s".to_owned()),
        Unit::Seconds if most >= 1e-3 => (1e-3, "ms".to_owned()),
        Unit::Seconds => (1e-6, "us".to_owned()),
        Unit::Count => (1.0, "number".to_owned()),
    }
}

/// The next of 1, 2, 5, 10, 20...
fn nice(step: f64) -> f64 {
    let power = 10.0_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, number)| number).collect()
    }

    #[test]
    fn ticks_are_round_in_the_unit_that_suits() {
        let mib = 1_048_576.0;
        let axis = Axis::over(Measure::Retained, [0.5 * mib, 982.0 * mib]);
        assert_eq!(axis.name(), "retained, MiB");
        assert_eq!(numbers(&axis), ["0", "200", "400", "600", "800", "1000"]);
        assert!((axis.share(500.0 * mib) - 0.5).abs() < 1e-12);
        let axis = Axis::over(Measure::Peak, [1.21 * 1024.0 * mib, 1.41 * 1024.0 * mib]);
        assert_eq!(
            numbers(&axis),
            ["1.20", "1.25", "1.30", "1.35", "1.40", "1.45"]
        );
        let axis = Axis::over(Measure::Cpu, [-0.25e-3, 2e-3]);
        assert_eq!(axis.name(), "cpu, ms");
        assert_eq!(numbers(&axis), ["-0.5", "0", "0.5", "1.0", "1.5", "2.0"]);
    }

    #[test]
    fn any_numbers_have_an_axis_on_which_they_lie() {
        let all = [
            0.0,
            -0.0,
            1e300,
            f64::MAX,
            f64::MIN,
            5e-324,
            -1e-12,
            3.0,
            1e17,
        ];
        for low in all {
            for high in all {
                for measure in Measure::ALL {
                    let axis = Axis::over(measure, [low, high]);
                    let ticks = axis.ticks();
                    assert!((2..=21).contains(&ticks.len()), "{low} {high}");
                    let places = ticks.iter().map(|(share, _)| *share);
                    assert!(places.is_sorted(), "{low} {high}");
                    for value in [low, high] {
                        assert!((0.0..=1.0).contains(&axis.share(value)), "{value}");
                    }
                    assert!(low > high || axis.share(low) <= axis.share(high));
                }
            }
        }
        assert_eq!(numbers(&Axis::over(Measure::Cpu, [])).len(), 6);
    }
}
