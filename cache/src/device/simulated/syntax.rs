//! A simulated device as a command line says it.

use std::str::FromStr;

use malloc_stats::Size;

use super::{FASTEST, Link, SLOWEST, Simulated};

/// Why a text is no simulated device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is no simulated device: simulated:SIZE[,GBPS], such as simulated:8GiB or \
     simulated:8GiB,25", text.escape_debug()
)]
pub struct SimulatedSyntax {
    /// The text.
    pub text: String,
}

impl FromStr for Simulated {
    type Err = SimulatedSyntax;

    fn from_str(text: &str) -> Result<Simulated, SimulatedSyntax> {
        let syntax = || SimulatedSyntax {
            text: text.to_owned(),
        };
        let spec = text.strip_prefix("simulated:").ok_or_else(syntax)?;
        let (size, rate) = match spec.split_once(',') {
            Some((size, rate)) => (size, Some(rate)),
            None => (spec, None),
        };
        let Size(bytes) = size.parse().map_err(|_| syntax())?;
        if bytes == 0 {
            return Err(syntax());
        }
        let bytes_per_second = match rate {
            None => None,
            Some(rate) => {
                let rate: f64 = rate.parse().map_err(|_| syntax())?;
                let rate = rate * 1e9;
                if !(SLOWEST..=FASTEST).contains(&rate) {
                    return Err(syntax());
                }
                Some(rate)
            }
        };
        Ok(Simulated::new(bytes).link(Link {
            bytes_per_second,
            ..Link::default()
        }))
    }
}
