//! Patches and shares of models, as the command line says them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use malloc_stats::Size;
use plimsoll_cache::model::escape_path;

/// A patch, as the command line says it: a file, and how strongly.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    pub(super) path: PathBuf,
    pub(super) strength: f64,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Named, String> {
        let whole = || Named {
            path: text.into(),
            strength: 1.0,
        };
        let Some((path, strength)) = text.rsplit_once(':') else {
            return Ok(whole());
        };
        match strength.parse::<f64>() {
            // A file may be named so.
            _ if Path::new(text).exists() => Ok(whole()),
            Ok(strength) if strength.is_finite() && !path.is_empty() => Ok(Named {
                path: path.into(),
                strength,
            }),
            Ok(_) => Err(format!(
                "`{}` is no strength; give a number, such as 0.8",
                strength.escape_debug()
            )),
            Err(_) => Ok(whole()),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", escape_path(&self.path), self.strength)
    }
}

/// How patches come to models, as the command line says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum As {
    /// Merged where there is room for that, else beside
    #[default]
    Auto,
    /// Merged: new tensors for those that they change
    Merged,
    /// Beside: their factors, and the model's own tensors
    Beside,
}

/// How much of a model is to be there, as the command line says it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Share {
    /// As much as the budget has room for.
    Auto,
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the model.
    Percent(f64),
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        if text == "auto" {
            return Ok(Share::Auto);
        }
        if let Some(number) = text.strip_suffix('%') {
            let percent = number.trim().parse::<f64>().ok();
            let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
            return percent
                .map(Share::Percent)
                .ok_or_else(|| format!("`{}` is no share: 0% to 100%", text.escape_debug()));
        }
        let size = text.parse().map(|Size(bytes)| Share::Bytes(bytes));
        size.map_err(|error| format!("{error}; or a share such as 50%, or auto"))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Auto => f.write_str("auto"),
            Share::Bytes(bytes) => Size(*bytes).fmt(f),
            Share::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_files_with_a_strength_after_the_last_colon() {
        let parse = |text: &str| text.parse::<Named>().map(|one| one.to_string());
        assert_eq!(parse("a.safetensors"), Ok("a.safetensors:1".to_owned()));
        assert_eq!(
            parse("a:b.safetensors:0.8"),
            Ok("a:b.safetensors:0.8".to_owned())
        );
        assert_eq!(parse("a:-1"), Ok("a:-1".to_owned()));
        assert_eq!(parse("a:b"), Ok("a:b:1".to_owned()));
        for wrong in ["a:nan", "a:inf", "a:1e999"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_are_sizes_or_hundredths() {
        assert_eq!("auto".parse(), Ok(Share::Auto));
        assert_eq!("50%".parse(), Ok(Share::Percent(50.0)));
        assert_eq!("1MiB".parse(), Ok(Share::Bytes(1 << 20)));
        for wrong in ["101%", "-1%", "nan%", "%", "half"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }
}
