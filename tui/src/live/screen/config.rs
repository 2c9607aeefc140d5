//! The config file: commented, and every line of it may be left out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::keys::{Keys, TABLE};
use super::theme::{self, Depth, Theme};

/// How the screen behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Between two readings of a process.
    pub interval: Duration,
    /// The colours, by name.
    pub theme: &'static str,
    /// How many colours to use; what the terminal has where this is absent.
    pub colours: Option<Depth>,
    /// Whether to use characters beyond ASCII; what the locale says where this is absent.
    pub unicode: Option<bool>,
    /// Whether to take clicks, which takes selecting text from the terminal.
    pub mouse: bool,
    /// Whether nothing may be changed.
    pub readonly: bool,
    /// Which key does what.
    pub keys: Keys,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            interval: Duration::from_secs(1),
            theme: theme::NAMES[0],
            colours: None,
            unicode: None,
            mouse: true,
            readonly: false,
            keys: Keys::default(),
        }
    }
}

/// Why a config file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// What it says makes no sense.
    #[error("{}: {reason}\nplimsoll top --print-config prints one that works", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    interval: Option<String>,
    theme: Option<String>,
    colours: Option<String>,
    characters: Option<String>,
    mouse: Option<bool>,
    readonly: Option<bool>,
    keys: BTreeMap<String, Vec<String>>,
}

/// The least and the most between two readings, milliseconds.
const INTERVAL: std::ops::RangeInclusive<u128> = 100..=60_000;
/// A longer file is none.
const LONGEST: u64 = 1 << 20;

impl Config {
    /// `$XDG_CONFIG_HOME/plimsoll/top.toml`, else `~/.config/plimsoll/top.toml`.
    #[must_use]
    pub fn default_path() -> Option<PathBuf> {
        let folder = |name| std::env::var_os(name).map(PathBuf::from);
        let config = folder("XDG_CONFIG_HOME")
            .filter(|folder| folder.is_absolute())
            .or_else(|| Some(folder("HOME")?.join(".config")))?;
        Some(config.join("plimsoll/top.toml"))
    }

    /// Reads a file; one that is not there is an empty one, where it was not asked for by name.
    ///
    /// # Errors
    /// [`ConfigError`], with the file and what is wrong.
    pub fn read(path: &Path, must_be: bool) -> Result<Config, ConfigError> {
        use std::io::Read;

        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_be => {
                return Ok(Config::default());
            }
            Err(error) => return Err(read(error)),
        };
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(read)?;
        Config::parse(&text).map_err(|reason| ConfigError::Wrong {
            path: path.to_owned(),
            reason,
        })
    }

    /// What a config file says.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Config, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut config = Config {
            keys: Keys::with(&file.keys)?,
            ..Config::default()
        };
        if let Some(text) = &file.interval {
            config.interval = interval(text)?;
        }
        if let Some(name) = &file.theme {
            config.theme = theme::named(name)?;
        }
        if let Some(text) = &file.colours {
            config.colours = match text.as_str() {
                "auto" => None,
                "none" => Some(Depth::None),
                "16" => Some(Depth::Sixteen),
                "256" => Some(Depth::TwoHundred),
                "true" => Some(Depth::True),
                other => return Err(wrong("colours", other, "auto, none, 16, 256, true")),
            };
        }
        if let Some(text) = &file.characters {
            config.unicode = match text.as_str() {
                "auto" => None,
                "unicode" => Some(true),
                "ascii" => Some(false),
                other => return Err(wrong("characters", other, "auto, unicode, ascii")),
            };
        }
        config.mouse = file.mouse.unwrap_or(config.mouse);
        config.readonly = file.readonly.unwrap_or(config.readonly);
        Ok(config)
    }

    /// The theme on this terminal.
    #[must_use]
    pub fn theme(&self, is_terminal: bool) -> Theme {
        let seen = Theme::detect(self.theme, is_terminal);
        Theme {
            depth: self.colours.unwrap_or(seen.depth),
            unicode: self.unicode.unwrap_or(seen.unicode),
            ..seen
        }
    }

    /// A config file with everything in it, commented, as it is where no file says otherwise.
    #[must_use]
    pub fn printed() -> String {
        let mut out = String::from(
            "# plimsoll top. Every line may be left out; what stands here is what holds without it.\n\
             \n\
             # Between two readings of a process: 100ms to 60s.\n\
             interval = \"1s\"\n\
             \n",
        );
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "# Colours: {}.", theme::NAMES.join(", "));
        let _ = writeln!(out, "theme = \"{}\"\n", theme::NAMES[0]);
        out.push_str(
            "# How many colours: auto (by NO_COLOR, COLORTERM, TERM), none, 16, 256, true.\n\
             colours = \"auto\"\n\
             \n\
             # Characters: auto (by the locale), unicode, ascii.\n\
             characters = \"auto\"\n\
             \n\
             # Take clicks. Selecting text then needs Shift in most terminals.\n\
             mouse = true\n\
             \n\
             # Change nothing: no trim, no evict, no drop, no budget.\n\
             readonly = false\n\
             \n\
             # Keys: a character, f1 to f12, space, tab, enter, esc, up, pgdn and so on, with\n\
             # ctrl- or alt- before them. A name that is left out keeps its keys.\n\
             [keys]\n",
        );
        for entry in TABLE {
            let keys: Vec<String> = entry.keys.iter().map(|key| format!("{key:?}")).collect();
            let line = format!("{} = [{}]", entry.name, keys.join(", "));
            let _ = writeln!(out, "{line:<36} # {}", entry.help);
        }
        out
    }
}

fn wrong(what: &str, is: &str, may_be: &str) -> String {
    format!("{what} = \"{}\": one of {may_be}", is.escape_debug())
}

/// A time between two readings.
///
/// # Errors
/// What it should have been.
pub fn interval(text: &str) -> Result<Duration, String> {
    let number = |unit: &str| text.strip_suffix(unit)?.parse::<u64>().ok();
    let time = number("ms")
        .map(Duration::from_millis)
        .or_else(|| number("s").map(Duration::from_secs));
    time.filter(|time| INTERVAL.contains(&time.as_millis()))
        .ok_or_else(|| {
            wrong(
                "interval",
                text,
                "100ms to 60s, a whole number with ms or s",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_holds_without_it() {
        let printed = Config::parse(&Config::printed()).unwrap();
        assert_eq!(format!("{printed:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (text, says) in [
            ("interval = \"5\"", "100ms to 60s"),
            ("interval = \"99999999999999999999s\"", "100ms to 60s"),
            ("interval = \"61s\"", "100ms to 60s"),
            ("theme = \"pink\"", "dark"),
            ("colours = \"8\"", "256"),
            ("characters = \"latin\"", "ascii"),
            ("colors = \"16\"", "colours"),
            ("mouse = 1", "boolean"),
            ("[keys]\nquit = [\"\\u001b\"]", "no key"),
            ("= 3", "line 1"),
        ] {
            let said = Config::parse(text).unwrap_err();
            assert!(
                said.contains(says) && !said.contains('\u{1b}'),
                "{text}: {said}"
            );
        }
    }

    #[test]
    fn a_file_that_was_asked_for_must_be_there() {
        let nowhere = Path::new("/nonexistent/top.toml");
        assert!(Config::read(nowhere, false).is_ok());
        let said = Config::read(nowhere, true).unwrap_err().to_string();
        assert!(said.contains("/nonexistent/top.toml"), "{said}");
    }
}
