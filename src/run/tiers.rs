//! Where models are leased, how much may be there, and what is to go wrong.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use malloc_stats::Size;
use plimsoll_cache::Budget;
use plimsoll_cache::device::{Device, Fault, FaultSyntax, Injection, Simulated};
use plimsoll_events::DeviceSeen;

use super::place::{Chosen, Place};

/// A budget, as the command line says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Whatever the machine has.
    Auto,
    /// So many bytes.
    Fixed(u64),
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        if text == "auto" {
            return Ok(Limit::Auto);
        }
        let size = text.parse().map(|Size(bytes)| Limit::Fixed(bytes));
        size.map_err(|error| format!("{error}; or auto"))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Auto => f.write_str("auto"),
            Limit::Fixed(bytes) => Size(*bytes).fmt(f),
        }
    }
}

/// Something that is to go wrong, as the command line says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inject {
    /// On the device.
    Device(Injection),
    /// Every so many reads of a file.
    Read(u64),
}

impl FromStr for Inject {
    type Err = String;

    fn from_str(text: &str) -> Result<Inject, String> {
        let (name, every) = text.split_once(':').unwrap_or((text, "1"));
        if name != "read" {
            let injection = text.parse().map(Inject::Device);
            return injection.map_err(|error: FaultSyntax| {
                format!("{error}; or read, with `:N` for every Nth read of a file")
            });
        }
        match every.parse() {
            Ok(every) if every > 0 => Ok(Inject::Read(every)),
            _ => Err(format!(
                "`{}` is no fault: read:N fails every Nth read, from 1",
                text.escape_debug()
            )),
        }
    }
}

impl fmt::Display for Inject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inject::Device(injection) => injection.fmt(f),
            Inject::Read(every) => write!(f, "read:{every}"),
        }
    }
}

/// A time for which models that nobody leases are kept; zero for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeepAlive(pub(crate) Duration);

/// A day: whoever wants longer wants no limit.
const LONGEST_KEEP_ALIVE_MS: u64 = 86_400_000;

impl FromStr for KeepAlive {
    type Err = String;

    fn from_str(text: &str) -> Result<KeepAlive, String> {
        let wrong = || {
            format!(
                "`{}` is no time to keep models: a whole number with ms, s, m or h, such as 500ms, \
                 30s or 5m, at most 24h; or 0 for ever",
                text.escape_debug()
            )
        };
        if text == "0" {
            return Ok(KeepAlive::default());
        }
        let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let unit_ms = match &text[end..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let number: u64 = text[..end].parse().map_err(|_| wrong())?;
        let milliseconds = number.checked_mul(unit_ms);
        let milliseconds = milliseconds.filter(|ms| *ms <= LONGEST_KEEP_ALIVE_MS);
        let milliseconds = milliseconds.ok_or_else(wrong)?;
        Ok(KeepAlive(Duration::from_millis(milliseconds)))
    }
}

/// The tiers of a run.
#[derive(Debug)]
pub(crate) struct Tiers {
    pub(crate) ram: Limit,
    pub(crate) place: Place,
    /// The device's budget; all of its memory less `working` where nothing is said.
    pub(crate) vram: Option<Limit>,
    /// Working memory that comes with each lease, bytes.
    pub(crate) working: u64,
    pub(crate) keep_ram_copy: bool,
    pub(crate) keep_alive: Duration,
    pub(crate) inject: Vec<Inject>,
}

impl Tiers {
    /// The device, where that is not the CPU.
    pub(crate) fn device(&self) -> Option<&Arc<dyn Device>> {
        match &self.place {
            Place::Cpu => None,
            Place::Device(chosen) => Some(&chosen.device),
        }
    }

    /// The device, where it only pretends to be one.
    pub(crate) fn simulated(&self) -> Option<&Arc<Simulated>> {
        match &self.place {
            Place::Cpu => None,
            Place::Device(chosen) => chosen.simulated.as_ref(),
        }
    }

    fn injected(&self) -> impl Iterator<Item = &Injection> {
        self.inject.iter().filter_map(|inject| match inject {
            Inject::Device(injection) => Some(injection),
            Inject::Read(_) => None,
        })
    }

    /// The budget of RAM.
    pub(crate) fn ram_budget(&self) -> Budget {
        match self.ram {
            Limit::Auto => Budget::auto(),
            Limit::Fixed(bytes) => Budget::fixed(bytes),
        }
    }

    /// What is wrong with the device's options, if anything is.
    pub(crate) fn fault(&self) -> Option<String> {
        if let Some(injection) = self.injected().next()
            && self.simulated().is_none()
        {
            return Some(format!(
                "--inject {injection}: only a simulated device can have that; name one with \
                 --device simulated:SIZE, or inject read:N"
            ));
        }
        let Place::Device(chosen) = &self.place else {
            return self.vram.map(|vram| {
                format!(
                    "--vram {vram}: the CPU has none; name a device with --device cuda:N or \
                     simulated:SIZE, or give the budget of RAM with --ram"
                )
            });
        };
        (self.working > chosen.total()).then(|| {
            format!(
                "--working-memory {}: {} has no more than {}",
                Size(self.working),
                chosen.text,
                Size(chosen.total())
            )
        })
    }

    /// The device's budget. A simulated one has no other users, so that nothing is left to them: the
    /// reserve is the working memory of one lease. A real one has, and its budget follows what is
    /// free, less that, or less what is usual where none is declared.
    fn device_budget(&self, chosen: &Chosen) -> Budget {
        match self.vram {
            None | Some(Limit::Auto) if chosen.simulated.is_none() => match self.working {
                0 => Budget::auto(),
                working => Budget::auto().reserve(working),
            },
            None => Budget::fixed(chosen.total()).reserve(self.working),
            Some(Limit::Auto) => Budget::auto().reserve(self.working),
            Some(Limit::Fixed(bytes)) => Budget::fixed(bytes),
        }
    }

    /// Adds the device to a cache in the making, and has its faults come.
    pub(crate) fn build_on(&self, builder: plimsoll_cache::Builder) -> plimsoll_cache::Builder {
        let builder = builder
            .ram(self.ram_budget())
            .keep_ram_copy(self.keep_ram_copy)
            .keep_alive(self.keep_alive);
        let Place::Device(chosen) = &self.place else {
            return builder;
        };
        if let Some(device) = &chosen.simulated {
            for injection in self.injected() {
                device.inject_every(*injection);
            }
        }
        builder.device(Arc::clone(&chosen.device), self.device_budget(chosen))
    }

    /// The device as a stream names it, with the budget that it begins with.
    pub(crate) fn devices_seen(&self) -> Vec<DeviceSeen> {
        let Place::Device(chosen) = &self.place else {
            return Vec::new();
        };
        let budget_bytes = match self.vram {
            Some(Limit::Fixed(bytes)) => bytes,
            Some(Limit::Auto) | None if chosen.simulated.is_some() => {
                chosen.total().saturating_sub(self.working)
            }
            Some(Limit::Auto) | None => {
                let reserve = match self.working {
                    0 => plimsoll_cache::budget::DEVICE_RESERVE,
                    working => working,
                };
                let free = chosen.device.memory().free.bytes().unwrap_or(0);
                free.saturating_sub(reserve)
            }
        };
        vec![DeviceSeen {
            tier: chosen.device.name().to_owned(),
            budget_bytes,
            simulated: chosen.device.is_simulated(),
        }]
    }

    /// Whether any of the faults has transfers stand still.
    pub(crate) fn sticks(&self) -> bool {
        self.injected()
            .any(|injection| injection.fault == Fault::Stuck)
    }

    /// How often a read of a file is to fail, as divisors of its number.
    pub(crate) fn failing_reads(&self) -> Vec<u64> {
        let reads = self.inject.iter().filter_map(|inject| match inject {
            Inject::Read(every) => Some(*every),
            Inject::Device(_) => None,
        });
        reads.collect()
    }

    /// What was asked for, by the names of the options; what was not is left out.
    pub(crate) fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        if self.ram == Limit::Auto {
            options.push(("ram", self.ram.to_string()));
        }
        match &self.place {
            Place::Cpu => options.push(("device", "cpu".to_owned())),
            Place::Device(chosen) => {
                let keep = if self.keep_ram_copy { "yes" } else { "no" };
                options.push(("device", chosen.text.clone()));
                options.push(("keep-ram-copy", keep.to_owned()));
            }
        }
        if let Some(vram) = self.vram {
            options.push(("vram", vram.to_string()));
        }
        if self.working > 0 {
            options.push(("working-memory", Size(self.working).to_string()));
        }
        if !self.keep_alive.is_zero() {
            options.push(("keep-alive", format!("{} s", self.keep_alive.as_secs_f64())));
        }
        if !self.inject.is_empty() {
            let all: Vec<String> = self.inject.iter().map(ToString::to_string).collect();
            options.push(("inject", all.join(" ")));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_keep_models_are_whole_numbers_with_a_unit_or_zero() {
        let parse = |text: &str| {
            text.parse::<KeepAlive>()
                .map(|time| time.0.as_millis())
                .ok()
        };
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("500ms"), Some(500));
        assert_eq!(parse("30s"), Some(30_000));
        assert_eq!(parse("5m"), Some(300_000));
        assert_eq!(parse("24h"), Some(86_400_000));
        for wrong in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "1d",
            "25h",
            "1 s",
            "18446744073709551615h",
            "٣s",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_injected_prints_as_it_is_written() {
        for text in ["oom:1", "transfer:3", "slow:2", "stuck:9", "read:5"] {
            assert_eq!(
                text.parse::<Inject>().map(|one| one.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!("read".parse(), Ok(Inject::Read(1)));
        for wrong in ["read:0", "read:", "read:x", "oom:0", "fire"] {
            assert!(wrong.parse::<Inject>().is_err(), "{wrong}");
        }
    }
}
