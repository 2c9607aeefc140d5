//! Numbers as people read them: one spelling for tables, sentences, pictures and reports.

use malloc_stats::Size;

use crate::measure::{Measure, Unit};

/// So many of a measure, in the unit that suits it: `982.0 MiB`, `-3.9 MiB`, `8.66 s`, `1896910`,
/// `2.0 KiB a cycle`.
#[must_use]
pub fn amount(measure: Measure, value: f64) -> String {
    let per = match measure.unit() {
        Unit::BytesPerCycle => " a cycle",
        _ => "",
    };
    format!("{}{per}", bare(measure.unit(), value))
}

/// The same without `a cycle`: for a column whose [heading](Measure::heading) says it.
#[must_use]
pub fn bare(unit: Unit, value: f64) -> String {
    if !value.is_finite() {
        return "n/a".to_owned();
    }
    let size = value.abs();
    let text = match unit {
        // What grows by some bytes in ten cycles grows.
        Unit::BytesPerCycle if size < 99.95 && size.fract() != 0.0 => format!("{size:.1} B"),
        // Casting saturates.
        Unit::Bytes | Unit::BytesPerCycle => Size(size.round() as u64).to_string(),
        Unit::Count if size >= 1e15 => format!("{size:.1e}"),
        Unit::Count if size < 99.95 && size.fract() != 0.0 => format!("{size:.1}"),
        Unit::Count => format!("{size:.0}"),
        Unit::Seconds => unsigned_seconds(size),
    };
    signed(value, text)
}

/// A time: `8.66 s`, `99.9 ms`, `12 us`.
#[must_use]
pub fn seconds(value: f64) -> String {
    bare(Unit::Seconds, value)
}

fn unsigned_seconds(size: f64) -> String {
    match size {
        size if size >= 1e7 => format!("{size:.1e} s"),
        size if size >= 0.9995 || size == 0.0 => format!("{size:.2} s"),
        size if size >= 999.5e-6 => format!("{:.1} ms", size * 1e3),
        size => format!("{:.0} us", size * 1e6),
    }
}

/// Nothing has no sign, and neither has what is rounded to nothing.
fn signed(value: f64, text: String) -> String {
    let is_nothing = !text.contains(|c| matches!(c, '1'..='9'));
    match value < 0.0 && !is_nothing {
        true => format!("-{text}"),
        false => text,
    }
}

/// The same with a plus where it is more than nothing: `+62.0 MiB`, `-1.5 s`, `0 B`.
#[must_use]
pub fn change(unit: Unit, by: f64) -> String {
    let text = bare(unit, by);
    match by > 0.0 && text.contains(|c| matches!(c, '1'..='9')) {
        true => format!("+{text}"),
        false => text,
    }
}

/// A ratio: `0.06 x`, `1.31 x`, `0.0005 x`, `<0.0001 x`.
#[must_use]
pub fn ratio(ratio: f64) -> String {
    let digits = match ratio.abs() {
        size if size >= 1e6 => return format!("{ratio:.1e} x"),
        size if size >= 99.95 => 0,
        size if size >= 0.01 || size == 0.0 => 2,
        size if size >= 0.001 => 3,
        size if size >= 0.0001 => 4,
        _ => return "<0.0001 x".to_owned(),
    };
    format!("{ratio:.digits$} x")
}

/// A part in percent: `31 %`, `3.1 %`, `<0.1 %`, `0 %`. Of next to nothing it says no more than
/// `>9999 %`.
#[must_use]
pub fn percent(part: f64) -> String {
    let percent = part * 100.0;
    let sign = if percent < 0.0 { "-" } else { "" };
    match percent.abs() {
        0.0 => "0 %".to_owned(),
        size if size < 0.05 => format!("<{sign}0.1 %"),
        size if size < 9.95 => format!("{sign}{size:.1} %"),
        size if size < 9999.5 => format!("{sign}{size:.0} %"),
        _ => format!("{sign}>9999 %"),
    }
}

/// Half of a range beside its median: in percent of it where that says something, else in the unit;
/// `None` where all are alike.
#[must_use]
pub fn spread(unit: Unit, median: f64, half_range: f64) -> Option<String> {
    let part = half_range / median.abs();
    match half_range {
        0.0 => None,
        _ if part < 1.0 => Some(percent(part)),
        _ => Some(bare(unit, half_range)),
    }
}

/// How much more or less a ratio is than one, without a sign: `31 %`, `3.1 %`, `0.2 %`.
#[must_use]
pub fn share(ratio: f64) -> String {
    percent((ratio - 1.0).abs())
}

/// A change in percent, with its sign: `+31 %`, `-3.1 %`, `0 %`.
#[must_use]
pub fn relative(part: f64) -> String {
    let plus = if part > 0.0 { "+" } else { "" };
    format!("{plus}{}", percent(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_have_the_unit_that_suits_them() {
        for (measure, value, text) in [
            (Measure::Peak, 982.0 * 1_048_576.0, "982.0 MiB"),
            (Measure::Retained, -3.9 * 1_048_576.0, "-3.9 MiB"),
            (Measure::Retained, -0.2, "0 B"),
            (Measure::Leak, 2048.0, "2.0 KiB a cycle"),
            (Measure::Leak, 0.5, "0.5 B a cycle"),
            (Measure::Leak, 7.0, "7 B a cycle"),
            (Measure::Cpu, 8.657, "8.66 s"),
            (Measure::Cpu, 0.9999, "1.00 s"),
            (Measure::Cpu, 0.0, "0.00 s"),
            (Measure::Wall, 0.0999, "99.9 ms"),
            (Measure::Wall, 1e300, "1.0e300 s"),
            (Measure::Faults, 1_896_910.0, "1896910"),
            (Measure::Faults, 2.5, "2.5"),
            (Measure::Faults, 1e300, "1.0e300"),
            (Measure::Faults, f64::NAN, "n/a"),
        ] {
            assert_eq!(amount(measure, value), text);
        }
    }

    #[test]
    fn small_ratios_keep_a_digit() {
        assert_eq!(ratio(0.0553), "0.06 x");
        assert_eq!(ratio(0.000_51), "0.0005 x");
        assert_eq!(ratio(1e-9), "<0.0001 x");
        assert_eq!(ratio(0.0), "0.00 x");
        assert_eq!(ratio(123.4), "123 x");
        assert_eq!(ratio(1e300), "1.0e300 x");
    }

    #[test]
    fn parts_are_told_from_nothing_and_from_everything() {
        assert_eq!(share(1.3149), "31 %");
        assert_eq!(share(0.969), "3.1 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.000_01), "<0.1 %");
        assert_eq!(percent(1e300), ">9999 %");
        assert_eq!(relative(0.274), "+27 %");
        assert_eq!(relative(-0.5), "-50 %");
        assert_eq!(relative(0.0), "0 %");
        assert_eq!(change(Unit::Bytes, 65.0 * 1024.0), "+65.0 KiB");
        assert_eq!(change(Unit::Bytes, 0.1), "0 B");
    }

    #[test]
    fn a_spread_is_a_part_of_what_it_is_around_if_that_is_something() {
        let of = |median, half| spread(Unit::Bytes, median, half);
        assert_eq!(of(0.0, 0.0), None);
        assert_eq!(of(4096.0, 0.0), None);
        assert_eq!(of(0.0, 4096.0).as_deref(), Some("4.0 KiB"));
        assert_eq!(of(-4096.0, 8192.0).as_deref(), Some("8.0 KiB"));
        assert_eq!(of(1e9, 4096.0).as_deref(), Some("<0.1 %"));
        assert_eq!(of(1e9, 3e7).as_deref(), Some("3.0 %"));
    }

    proptest! {
        #[test]
        fn any_number_is_short(value in any::<f64>()) {
            for measure in Measure::ALL {
                let unit = measure.unit();
                for text in [amount(measure, value), change(unit, value), bare(unit, value)] {
                    prop_assert!(text.len() < 26 && !text.contains("NaN"), "{}", text);
                }
            }
            prop_assume!(value.is_finite());
            for text in [ratio(value), percent(value), relative(value)] {
                prop_assert!(text.len() < 12, "{}", text);
            }
        }
    }
}
