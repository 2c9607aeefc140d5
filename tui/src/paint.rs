//! Colours that mean something and can be turned off, and text from files made safe to print.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What a piece of text means. The colour follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// A heading.
    Strong,
    /// Less important than what is around it.
    Faint,
}

/// How to show things on this terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    /// Whether to use colours.
    pub colour: bool,
    /// Whether to use characters beyond ASCII.
    pub unicode: bool,
    /// Columns to fill.
    pub width: usize,
}

impl Paint {
    /// Plain ASCII, 100 columns: for files and tests.
    #[must_use]
    pub fn plain() -> Paint {
        Paint {
            colour: false,
            unicode: false,
            width: 100,
        }
    }

    /// What the environment asks for: no colours where `NO_COLOR` is set, `TERM` is `dumb`, or the
    /// output is no terminal; no Unicode where the locale has none.
    #[must_use]
    pub fn detect(is_terminal: bool) -> Paint {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .map(variable)
            .into_iter()
            .find(|value| !value.is_empty())
            .unwrap_or_default()
            .to_ascii_lowercase();
        let dumb = variable("TERM") == "dumb";
        Paint {
            colour: is_terminal && variable("NO_COLOR").is_empty() && !dumb,
            unicode: !dumb && (locale.contains("utf-8") || locale.contains("utf8")),
            width: variable("COLUMNS").parse().unwrap_or(100).clamp(60, 300),
        }
    }

    /// The text, in the colour of what it means.
    #[must_use]
    pub fn tone(&self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Strong => "1",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Text that came from a file, with control characters escaped, so that a name cannot move the
/// cursor or change colours.
#[must_use]
pub fn safe(text: &str) -> Cow<'_, str> {
    // Bidirectional overrides reorder what surrounds them, which is as good as a control character.
    let is_unsafe =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// The same for a message of several lines, which stay lines.
#[must_use]
pub fn safe_lines(text: &str) -> String {
    text.split('\n').map(safe).collect::<Vec<_>>().join("\n")
}

/// Text cut to so many columns, with a mark where something is missing.
#[must_use]
pub fn shortened(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let mut kept = String::new();
    let mut taken = 0;
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken + 2 > columns {
            break;
        }
        kept.push(c);
    }
    Cow::Owned(kept + "..")
}

/// Text followed by spaces up to so many columns.
#[must_use]
pub fn padded(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_a_file_cannot_move_the_cursor() {
        assert_eq!(safe("a\x1b[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert!(matches!(safe("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn columns_are_counted_and_not_characters() {
        assert_eq!(padded("模型", 6), "模型  ");
        assert_eq!(shortened("模型模型", 7), "模型..");
        assert_eq!(shortened("four", 4), "four");
    }
}
