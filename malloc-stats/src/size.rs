//! A number of bytes, as people write and read it.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use crate::Error;

/// A number of bytes.
///
/// Prints in binary units with one decimal place (`0 B`, `512 B`, `1.5 GiB`, `83.0 MiB`), which
/// rounds; parses from what people write in configuration files and on command lines. A bare
/// number is bytes, `kB MB GB TB PB EB` are powers of 1000, `KiB MiB GiB TiB PiB EiB` powers of
/// 1024, and so are the bare letters `K M G T P E`, as procps and Docker read them. Case does not
/// matter, with one exception: a lone `k` is refused, since it is 1000 in the SI and 1024 in
/// Docker.
///
/// In serde it is an integer when written, and an integer or such a text when read.
///
/// ```
/// use malloc_stats::size::Size;
///
/// assert_eq!("1200MiB".parse::<Size>()?, Size(1200 << 20));
/// assert_eq!("1.2GB".parse::<Size>()?, Size(1_200_000_000));
/// assert_eq!(Size(83 << 20).to_string(), "83.0 MiB");
/// assert!("64k".parse::<Size>().is_err());
/// # Ok::<(), malloc_stats::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut power = (63 - self.0.leading_zeros() as usize) / 10;
        let mut scaled = self.scaled(power);
        // 1023.96 KiB would round to 1024.0 KiB.
        if scaled >= 1024 * scale(power) && power + 1 < BINARY.len() {
            power += 1;
            scaled = self.scaled(power);
        }
        let unit = BINARY.get(power).copied().unwrap_or("EiB");
        let (whole, rest) = (scaled / scale(power), scaled % scale(power));
        let digits = if scale(power) == 100 { 2 } else { 1 };
        f.pad(&format!("{whole}.{rest:0digits$} {unit}"))
    }
}

impl Size {
    /// The bytes in tenths or hundredths of a unit, rounded.
    fn scaled(self, power: usize) -> u128 {
        let unit = 1_u128 << (10 * power);
        (u128::from(self.0) * scale(power) + unit / 2) / unit
    }
}

/// How finely a unit is shown: a tenth of a GiB is 100 MiB, too much to hide.
fn scale(power: usize) -> u128 {
    if power >= 3 { 100 } else { 10 }
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(input: &str) -> Result<Self, Error> {
        parse(input.trim()).map(Size).map_err(|reason| Error::Size {
            input: input.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<u64, &'static str> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if text.is_empty() {
        return Err("it is empty");
    }
    if number.is_empty() {
        return Err(if text.starts_with('-') {
            "it is negative"
        } else {
            "it does not begin with a number"
        });
    }
    let unit = unit.trim_start();
    if unit == "k" {
        return Err("a lone k is 1000 to some and 1024 to others");
    }
    let unit = multiplier(unit).ok_or("its unit is unknown")?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (fraction.is_empty() && number.contains('.')) || fraction.contains('.') {
        return Err("its number is malformed");
    }
    let too_large = "it is larger than 16 EiB";
    let whole: u64 = whole.parse().map_err(|_| too_large)?;
    let whole = u128::from(whole) * u128::from(unit);
    let part = fraction_of(fraction.trim_end_matches('0'), unit)?;
    u64::try_from(whole + part).map_err(|_| too_large)
}

/// `0.fraction × unit`, rounded to the nearest byte.
fn fraction_of(fraction: &str, unit: u64) -> Result<u128, &'static str> {
    if fraction.is_empty() {
        return Ok(0);
    }
    if unit == 1 {
        return Err("a part of a byte does not exist");
    }
    // 18 digits times the largest unit, 2^60, stays below 2^128.
    let digits = u32::try_from(fraction.len())
        .ok()
        .filter(|digits| *digits <= 18)
        .ok_or("it has more than 18 decimal places")?;
    let parts: u128 = fraction.parse().map_err(|_| "its number is malformed")?;
    let scale = 10_u128.pow(digits);
    Ok((parts * u128::from(unit) + scale / 2) / scale)
}

fn multiplier(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    let (prefix, base) = match unit.as_str() {
        "" | "b" => return Some(1),
        text => match (text.strip_suffix("ib"), text.strip_suffix('b')) {
            (Some(prefix), _) => (prefix, 1024_u64),
            (None, Some(prefix)) => (prefix, 1000),
            (None, None) => (text, 1024),
        },
    };
    let power = ["k", "m", "g", "t", "p", "e"]
        .iter()
        .position(|letter| *letter == prefix)?;
    base.checked_pow(u32::try_from(power).ok()? + 1)
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;

        impl Visitor<'_> for NumberOrText {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a text such as \"1200MiB\"")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(|_| {
                    E::invalid_value(
                        de::Unexpected::Signed(bytes),
                        &"a size that is not negative",
                    )
                })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(NumberOrText)
    }
}
