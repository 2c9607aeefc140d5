//! Names from files, made safe to print.
//!
//! Tensor names and paths come from whoever made the file. A name may hold a line break, a
//! terminal's control sequence, or a mark that turns the reading direction: printed raw, it can
//! forge a line of a log or repaint a screen. Everything that prints such a name goes through here.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// How many characters of a name are printed before it is cut. Longer than any name in a public
/// model, shorter than a screen; paths are never cut.
pub const LONGEST: usize = 200;

/// A text that prints on one line: control and other unprintable characters, and backslashes, as
/// Rust escapes (`\n`, `\u{1b}`, `\\`), everything else as it is.
///
/// Made by [`escape`] and [`escape_path`].
#[derive(Debug, Clone)]
pub struct Escaped<'a> {
    text: Cow<'a, str>,
    longest: usize,
}

/// Makes `text` safe to print, cut after [`LONGEST`] characters with its length in bytes behind.
///
/// ```
/// # use plimsoll_cache::model::escape;
/// assert_eq!(escape("a\nb").to_string(), r"a\nb");
/// assert_eq!(escape("\u{1b}[2J").to_string(), r"\u{1b}[2J");
/// assert_eq!(escape("größe.weight").to_string(), "größe.weight");
/// ```
pub fn escape(text: &str) -> Escaped<'_> {
    Escaped {
        text: Cow::Borrowed(text),
        longest: LONGEST,
    }
}

/// Makes a path safe to print, whole. Bytes that are not UTF-8 become U+FFFD.
pub fn escape_path(path: &Path) -> Escaped<'_> {
    Escaped {
        text: path.to_string_lossy(),
        longest: usize::MAX,
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for (printed, c) in self.text.chars().enumerate() {
            if printed >= self.longest {
                return write!(f, "… ({} bytes)", self.text.len());
            }
            match c {
                // `escape_debug` would escape quotes too, which no terminal minds.
                '\'' | '"' => f.write_char(c)?,
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_turn_the_reading_direction_are_escaped() {
        assert_eq!(escape("a\u{202e}b").to_string(), r"a\u{202e}b");
        assert_eq!(
            escape("a\u{2028}b\u{9b}c").to_string(),
            r"a\u{2028}b\u{9b}c"
        );
    }

    #[test]
    fn a_long_name_is_cut_and_a_long_path_is_not() {
        let long = "x".repeat(5000);
        let shown = escape(&long).to_string();
        assert!(shown.ends_with("… (5000 bytes)") && shown.len() < 250);
        assert_eq!(escape_path(Path::new(&long)).to_string(), long);
    }

    #[test]
    fn two_different_names_never_print_alike() {
        assert_ne!(escape("a\nb").to_string(), escape("a\\nb").to_string());
    }
}
