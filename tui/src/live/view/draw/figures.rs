//! Ages, differences, scores in few columns.

use std::time::Duration;

use crate::decision;
use crate::inspect::prose::compact;
use crate::live::State;

/// How long ago something was, in one unit: `3s`, `22m`, `5h`, `9d`.
pub(in crate::live) fn age(now_us: u64, then_us: u64) -> String {
    lasted(now_us.saturating_sub(then_us))
}

/// A time in one unit, in at most five columns where it is below 274 years.
pub(in crate::live) fn lasted(microseconds: u64) -> String {
    let seconds = microseconds / 1_000_000;
    match seconds {
        0..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A difference with its sign: `+1.50G`, `-31.0M`, `+0`.
pub(in crate::live) fn change(bytes: i128) -> String {
    let size = compact(u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX));
    match bytes {
        0 => "+0".to_owned(),
        1.. => format!("+{size}"),
        _ => format!("-{size}"),
    }
}

/// A score, in nine columns at most.
pub(in crate::live) fn score(score: f64) -> String {
    let size = score.abs();
    if score.is_nan() {
        "nan".to_owned()
    } else if score.is_infinite() {
        if score > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else if size < 1e-3 && score != 0.0 {
        format!("{score:.1e}")
    } else if size < 10.0 {
        format!("{score:.2}")
    } else if size < 1e4 {
        format!("{score:.1}")
    } else if size < 1e7 {
        format!("{score:.0}")
    } else {
        format!("{score:.3e}")
    }
}

/// Bytes a second, in decimal units as vendors tell them.
pub(in crate::live) fn rate(bytes: u64, took_us: u64) -> Option<String> {
    (took_us > 0 && bytes > 0).then(|| format!("{:.2} GB/s", bytes as f64 / took_us as f64 / 1e3))
}

/// When something was: by the clock of the day (UTC) where the stream tells when it began, else
/// since its beginning.
pub(in crate::live) fn moment(state: &State, at_us: u64) -> String {
    match began_ms(state) {
        Some(began) => {
            let seconds = began.saturating_add(at_us / 1_000) / 1_000 % 86_400;
            let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
            format!("{hours:02}:{minutes:02}:{:02}", seconds % 60)
        }
        None => decision::clock(Duration::from_micros(at_us)),
    }
}

/// What [`moment`] is told by.
pub(in crate::live) fn clock_name(state: &State) -> &'static str {
    match began_ms(state) {
        Some(_) => "UTC",
        None => "TIME",
    }
}

fn began_ms(state: &State) -> Option<u64> {
    let opened = state.opened.as_ref()?;
    (opened.unix_ms > 0).then_some(opened.unix_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_of_any_kind_take_few_columns() {
        let all = [
            0.0,
            0.4,
            -3.0,
            1234.56,
            99_999.4,
            3.612e12,
            1e-9,
            f64::NAN,
            -1e308,
        ];
        let texts = all.map(score);
        assert_eq!(
            texts.join(" "),
            "0.00 0.40 -3.00 1234.6 99999 3.612e12 1.0e-9 nan -1.000e308"
        );
        assert_eq!(score(f64::NEG_INFINITY), "-inf");
    }

    #[test]
    fn ages_have_one_unit_and_never_go_back() {
        let all = [0, 99, 100, 5_999, 6_000, 172_800].map(|s: u64| age(s * 1_000_000, 0));
        assert_eq!(all.join(" "), "0s 99s 1m 99m 1h 2d");
        assert_eq!(age(0, u64::MAX), "0s");
        assert_eq!(age(u64::MAX, 0), "213503982d");
    }

    #[test]
    fn a_rate_needs_a_time() {
        assert_eq!(rate(2_000_000_000, 1_000_000).unwrap(), "2.00 GB/s");
        assert_eq!(rate(1, 0), None);
    }
}
