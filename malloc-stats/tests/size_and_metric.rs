//! Sizes and metrics, as people write them and as JSON holds them.

#![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

use malloc_stats::{Grade, Metric, Size};
use proptest::prelude::*;

fn parsed(text: &str) -> u64 {
    text.parse::<Size>()
        .unwrap_or_else(|error| panic!("{error}"))
        .0
}

#[test]
fn sizes_print_in_binary_units_with_more_decimals_from_a_gib_up() {
    for (bytes, text) in [
        (0, "0 B"),
        (512, "512 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 << 20, "1.50 GiB"),
        (83 << 20, "83.0 MiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (1023 << 30, "1023.00 GiB"),
        (u64::MAX, "16.00 EiB"),
    ] {
        assert_eq!(Size(bytes).to_string(), text);
    }
    assert_eq!(format!("{:>8}", Size(7)), "     7 B");
}

#[test]
fn sizes_parse_in_decimal_and_binary_units() {
    assert_eq!(parsed("4096"), 4096);
    assert_eq!(parsed(" 17 B "), 17);
    assert_eq!(parsed("1200MiB"), 1200 << 20);
    assert_eq!(parsed("1.2GB"), 1_200_000_000);
    assert_eq!(parsed("64kB"), 64_000);
    assert_eq!(parsed("64KB"), 64_000);
    assert_eq!(parsed("64KiB"), 65_536);
    assert_eq!(parsed("64kib"), 65_536);
    assert_eq!(parsed("64K"), 65_536);
    assert_eq!(parsed("2 g"), 2 << 30);
    assert_eq!(parsed("0.5TiB"), 512 << 30);
    assert_eq!(parsed("18446744073709551615"), u64::MAX);
}

#[test]
fn what_is_no_size_is_refused_with_its_reason() {
    for (text, reason) in [
        ("", "empty"),
        ("-1", "negative"),
        ("NaN", "does not begin with a number"),
        ("inf", "does not begin with a number"),
        ("64k", "1000 to some and 1024 to others"),
        ("1e9", "unit is unknown"),
        ("5 parsecs", "unit is unknown"),
        ("1.5", "part of a byte"),
        ("1.", "malformed"),
        (".5GiB", "malformed"),
        ("1.2.3GiB", "malformed"),
        ("18446744073709551616", "larger than 16 EiB"),
        ("16EiB", "larger than 16 EiB"),
        ("99999999999999999999999999GiB", "larger than 16 EiB"),
        ("1.1234567890123456789GiB", "18 decimal places"),
    ] {
        let error = text.parse::<Size>().expect_err(text).to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
}

#[test]
fn sizes_in_json_are_integers_and_are_read_from_texts_too() {
    let from = |json: &str| serde_json::from_str::<Size>(json);
    assert_eq!(
        serde_json::to_string(&Size(4096)).expect("serialises"),
        "4096"
    );
    assert_eq!(from("4096").expect("integer"), Size(4096));
    assert_eq!(from("\"4KiB\"").expect("text"), Size(4096));
    assert!(from("-4096").is_err());
    assert!(from("4096.5").is_err());
    assert!(from("\"64k\"").is_err());
}

#[test]
fn metrics_print_with_the_mark_of_their_grade() {
    assert_eq!(Metric::Exact(83 << 20).to_string(), "83.0 MiB");
    assert_eq!(Metric::Upper(83 << 20).to_string(), "≤ 83.0 MiB");
    assert_eq!(Metric::Estimated(83 << 20).to_string(), "~83.0 MiB");
    assert_eq!(Metric::Unavailable.to_string(), "n/a");
    assert_eq!(format!("[{:>6}]", Metric::default()), "[   n/a]");
}

#[test]
fn the_json_of_a_metric_is_its_bytes_and_its_grade() {
    let json = |metric: Metric| serde_json::to_string(&metric).expect("serialises");
    assert_eq!(json(Metric::Exact(7)), r#"{"bytes":7,"grade":"exact"}"#);
    assert_eq!(json(Metric::Upper(7)), r#"{"bytes":7,"grade":"upper"}"#);
    assert_eq!(json(Metric::Unavailable), r#"{"grade":"unavailable"}"#);
    assert!(serde_json::from_str::<Metric>(r#"{"grade":"exact"}"#).is_err());
    assert!(serde_json::from_str::<Metric>(r#"{"bytes":7,"grade":"unavailable"}"#).is_err());
}

#[test]
fn absent_is_not_zero() {
    assert_eq!(
        Metric::Exact(1).plus(Metric::Unavailable),
        Metric::Unavailable
    );
    assert_eq!(
        Metric::Unavailable.minus_saturating(Metric::Exact(1)),
        Metric::Unavailable
    );
    assert_eq!(Metric::Unavailable.since(Metric::Exact(1)), None);
    assert_eq!(
        Metric::Unavailable.at_best(Grade::Exact),
        Metric::Unavailable
    );
}

#[test]
fn a_result_takes_the_worse_grade() {
    assert_eq!(Metric::Exact(2).plus(Metric::Upper(3)), Metric::Upper(5));
    assert_eq!(
        Metric::Upper(2).plus(Metric::Estimated(3)),
        Metric::Estimated(5)
    );
    assert_eq!(
        Metric::Upper(5).minus_saturating(Metric::Exact(7)),
        Metric::Upper(0)
    );
    assert_eq!(
        Metric::Exact(u64::MAX).plus(Metric::Exact(1)),
        Metric::Exact(u64::MAX)
    );
}

#[test]
fn subtracting_an_upper_bound_leaves_no_upper_bound() {
    assert_eq!(
        Metric::Exact(5).minus_saturating(Metric::Upper(3)),
        Metric::Estimated(2)
    );
}

fn metric() -> impl Strategy<Value = Metric> {
    prop_oneof![
        any::<u64>().prop_map(Metric::Exact),
        any::<u64>().prop_map(Metric::Upper),
        any::<u64>().prop_map(Metric::Estimated),
        Just(Metric::Unavailable),
    ]
}

proptest! {
    #[test]
    fn a_printed_size_reads_back_within_its_rounding(bytes in any::<u64>()) {
        let text = Size(bytes).to_string();
        // The largest sizes print as 16.00 EiB, which is one more than fits.
        prop_assume!(text != "16.00 EiB");
        let back = text.parse::<Size>()?.0;
        prop_assert!(back.abs_diff(bytes) <= (bytes / 20).max(1), "{bytes} {text} {back}");
        prop_assert!(text.len() <= 11, "{}", text);
    }

    #[test]
    fn a_whole_number_of_any_unit_is_exact(number in 0..16_000_u64, power in 0..6_u32) {
        let letter = ["K", "M", "G", "T", "P"].get(power as usize);
        let (binary, decimal) = match letter {
            Some(letter) => (format!("{number}{letter}iB"), format!("{number}{letter}B")),
            None => (number.to_string(), format!("{number}B")),
        };
        let power = if letter.is_some() { power + 1 } else { 0 };
        let number = u128::from(number);
        let expected = |base: u128| u64::try_from(number * base.pow(power)).ok();
        prop_assert_eq!(binary.parse::<Size>().ok().map(|s| s.0), expected(1024));
        prop_assert_eq!(decimal.parse::<Size>().ok().map(|s| s.0), expected(1000));
    }

    #[test]
    fn parsing_a_size_never_panics(text in "\\PC{0,40}|[0-9.]{0,30} ?[kmgtpeiB]{0,3}") {
        let _ = text.parse::<Size>();
    }

    #[test]
    fn sizes_and_metrics_survive_json(bytes in any::<u64>(), metric in metric()) {
        let size: Size = serde_json::from_str(&serde_json::to_string(&Size(bytes))?)?;
        prop_assert_eq!(size, Size(bytes));
        let back: Metric = serde_json::from_str(&serde_json::to_string(&metric)?)?;
        prop_assert_eq!(back, metric);
    }

    #[test]
    fn a_combination_is_never_graded_better_than_its_parts(a in metric(), b in metric()) {
        for result in [a.plus(b), a.minus_saturating(b)] {
            prop_assert!(result.grade() >= a.grade().max(b.grade()));
        }
    }
}
