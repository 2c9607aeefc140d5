//! Words and numbers that fit: paragraphs, paths cut in the middle, sizes for narrow columns.

use std::borrow::Cow;

use malloc_stats::{Grade, Metric, Size};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::paint::{Paint, safe};

/// A sentence of ours that may quote the process: control characters escaped, and in ASCII where
/// the terminal has no more.
pub(crate) fn spoken(paint: &Paint, text: &str) -> String {
    let text = safe(text);
    if paint.unicode {
        return text.into_owned();
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '≤' => plain.push_str("<="),
            '≥' => plain.push_str(">="),
            '–' | '—' | '−' => plain.push('-'),
            '×' => plain.push('x'),
            '…' => plain.push_str(".."),
            '’' => plain.push('\''),
            '\u{a0}' | '\u{202f}' => plain.push(' '),
            other => plain.push(other),
        }
    }
    plain
}

/// A metric in full, with its mark: `~2.60 GiB`, `n/a`.
pub(crate) fn metric(paint: &Paint, metric: Metric) -> String {
    spoken(paint, &metric.to_string())
}

/// A size in the fewest columns that keep its digits: `2.60G`, `512B`. The letters are powers of
/// 1024, as elsewhere.
pub(crate) fn compact(bytes: u64) -> String {
    let mut text = Size(bytes).to_string().replace("iB", "");
    text.retain(|c| c != ' ');
    text
}

/// A metric in the fewest columns, with its mark: `~2.60G`, `≤2.60G`, `n/a`.
pub(crate) fn compact_metric(paint: &Paint, metric: Metric) -> String {
    let Some(bytes) = metric.bytes() else {
        return "n/a".to_owned();
    };
    let mark = match metric.grade() {
        Grade::Upper if paint.unicode => "≤",
        Grade::Upper => "<=",
        Grade::Estimated => "~",
        Grade::Exact | Grade::Unavailable => "",
    };
    format!("{mark}{}", compact(bytes))
}

/// A part of a whole in percent: `73 %`; finer below ten.
pub(crate) fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    if percent >= 9.95 || percent == 0.0 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}

/// A time in the two units that suit it: `3 h 12 min`, `57 min`, `12 s`.
pub(crate) fn lasting(seconds: f64) -> String {
    // Casting saturates, and turns what is no number into 0.
    let whole = seconds.round() as u64;
    let two = |large: u64, name: &str, small: u64, of: &str| match small {
        0 => format!("{large} {name}"),
        _ => format!("{large} {name} {small} {of}"),
    };
    match whole {
        0..60 => format!("{whole} s"),
        60..3_600 => two(whole / 60, "min", whole % 60, "s"),
        3_600..86_400 => two(whole / 3_600, "h", whole / 60 % 60, "min"),
        _ => two(whole / 86_400, "d", whole / 3_600 % 24, "h"),
    }
}

/// One of something, or several: `1 thread`, `12 threads`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// The columns at the beginning, or the end, of a text.
fn columns_of<'a>(chars: impl Iterator<Item = char> + 'a, columns: usize) -> Vec<char> {
    let mut left = columns;
    chars
        .map_while(|c| {
            left = left.checked_sub(c.width().unwrap_or(0))?;
            Some(c)
        })
        .collect()
}

/// Text cut to so many columns in its middle: the beginning of a path says where, its end what.
pub(crate) fn middle(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let room = columns.saturating_sub(2);
    let head = columns_of(text.chars(), room / 3);
    let head: String = head.into_iter().collect();
    let tail = columns_of(text.chars().rev(), room - head.width());
    let tail = tail.into_iter().rev().collect::<String>();
    Cow::Owned(format!("{head}..{tail}"))
}

/// A paragraph in lines of at most `width` columns, all but the first indented by `indent`; the
/// first is expected to follow something of that many columns. Words that fit on no line are cut
/// into several.
pub(crate) fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let room = width.saturating_sub(indent).max(16);
    let mut lines = vec![String::new()];
    let mut column = 0;
    for word in text.split_whitespace() {
        let mut rest = word;
        if column > 0 && column + 1 + rest.width() <= room {
            column += 1;
            if let Some(line) = lines.last_mut() {
                line.push(' ');
            }
        } else if column > 0 {
            lines.push(String::new());
            column = 0;
        }
        while !rest.is_empty() {
            let part: String = columns_of(rest.chars(), room - column)
                .into_iter()
                .collect();
            if part.is_empty() {
                lines.push(String::new());
                column = 0;
                continue;
            }
            column += part.width();
            rest = &rest[part.len()..];
            if let Some(line) = lines.last_mut() {
                line.push_str(&part);
            }
        }
    }
    lines.join(&format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_their_digits_and_grades_in_few_columns() {
        let paint = Paint::plain();
        assert_eq!(compact(512), "512B");
        assert_eq!(compact(31 << 20), "31.0M");
        assert_eq!(compact_metric(&paint, Metric::Upper(4 << 30)), "<=4.00G");
        assert_eq!(compact_metric(&paint, Metric::Estimated(5 << 10)), "~5.0K");
        assert_eq!(compact_metric(&paint, Metric::Unavailable), "n/a");
        assert_eq!(metric(&paint, Metric::Upper(1)), "<= 1 B");
    }

    #[test]
    fn a_path_keeps_both_its_ends() {
        assert_eq!(
            middle("/models/llava/model.safetensors", 20),
            "/model...safetensors"
        );
        assert_eq!(middle("/short", 20), "/short");
        assert_eq!(middle("模型模型模型", 8), "模..模型");
        assert_eq!(middle("abc", 0), "..");
    }

    #[test]
    fn paragraphs_stay_within_their_columns() {
        let text = wrapped("one two three four five six seven", 4, 20);
        assert_eq!(text, "one two three\n    four five six\n    seven");
        let long = wrapped(&format!("see {} there", "x".repeat(40)), 4, 20);
        assert!(long.lines().all(|line| line.width() <= 20), "{long}");
        assert_eq!(long.matches('x').count(), 40);
        assert_eq!(wrapped("", 4, 20), "");
    }

    #[test]
    fn times_have_two_units() {
        assert_eq!(lasting(0.4), "0 s");
        assert_eq!(lasting(59.7), "1 min");
        assert_eq!(lasting(11_520.0), "3 h 12 min");
        assert_eq!(lasting(1e300).len(), "213503982334601 d 7 h".len());
        assert_eq!(lasting(f64::NAN), "0 s");
    }
}
