//! The host's memory, the pressure on it, and resource limits.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::location::{CgroupVersion, Location};
use super::{Limit, Rlimits};
use crate::metric::Metric;
use crate::process::decimal;

/// The memory of the host, in bytes, from `/proc/meminfo`; which shows the host inside a container
/// too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// `MemTotal`.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub total: Metric,
    /// `MemAvailable`: what the kernel guesses can be had without swapping; so estimated.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub available: Metric,
    /// `MemFree`: in use for nothing.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub free: Metric,
    /// `Cached` without `Shmem`: page cache of files.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub file: Metric,
    /// `Shmem`: shared memory and tmpfs.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub shmem: Metric,
    /// `SwapTotal`.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub swap_total: Metric,
    /// `SwapFree`.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub swap_free: Metric,
}

impl Host {
    /// Reads `/proc/meminfo`; `None` where it cannot be read.
    #[must_use]
    pub fn read() -> Option<Self> {
        let meminfo = Meminfo::read(Path::new("/proc/meminfo"));
        meminfo.note.is_none().then_some(meminfo.host)
    }
}

pub(super) struct Meminfo {
    pub(super) host: Host,
    pub(super) note: Option<String>,
}

impl Meminfo {
    pub(super) fn read(path: &Path) -> Self {
        match std::fs::read_to_string(path) {
            Ok(text) => Self {
                host: parse_meminfo(&text),
                note: None,
            },
            Err(error) => Self {
                host: Host::default(),
                note: Some(format!("{}: {error}", path.display())),
            },
        }
    }
}

/// Takes the host's memory out of the text of `/proc/meminfo`.
#[must_use]
pub fn parse_meminfo(text: &str) -> Host {
    let field = |name: &str| -> Metric {
        text.lines()
            .find_map(|line| {
                let kibibytes = line
                    .strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .strip_suffix(" kB")?;
                decimal(kibibytes.as_bytes())?.checked_mul(1024)
            })
            .into()
    };
    Host {
        total: field("MemTotal"),
        available: field("MemAvailable").at_best(crate::Grade::Estimated),
        free: field("MemFree"),
        file: field("Cached").minus_saturating(field("Shmem")),
        shmem: field("Shmem"),
        swap_total: field("SwapTotal"),
        swap_free: field("SwapFree"),
    }
}

/// Whose pressure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PressureOf {
    /// Of the process's own cgroup (version 2).
    Cgroup,
    /// Of the whole host.
    Host,
}

/// Time lost waiting for memory (PSI, Linux 4.20).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Whose it is.
    pub of: PressureOf,
    /// While at least one task waited.
    pub some: Stall,
    /// While no task could run.
    pub full: Stall,
}

/// How much time was lost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Stall {
    /// Percent of the last ten seconds.
    pub avg10: f64,
    /// In all, in microseconds.
    pub total_us: u64,
}

impl Pressure {
    /// The pressure on this process's own cgroup where that is of version 2, else on the host;
    /// `None` where the kernel keeps no account (`psi=0`).
    #[must_use]
    pub fn of_self() -> Option<Self> {
        Self::at(super::own_location().ok().as_ref())
    }

    /// The same for another process.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<Self> {
        Self::at(super::location_of(&pid.to_string()).ok().as_ref())
    }

    /// The pressure on a cgroup, else on the host.
    pub(crate) fn at(location: Option<&Location>) -> Option<Self> {
        location
            .filter(|location| location.version == CgroupVersion::V2)
            .and_then(|location| location.directories().next())
            .and_then(|(directory, _)| read(&directory.join("memory.pressure"), PressureOf::Cgroup))
            .or_else(|| read(Path::new("/proc/pressure/memory"), PressureOf::Host))
    }
}

fn read(path: &Path, of: PressureOf) -> Option<Pressure> {
    let (some, full) = parse_pressure(&std::fs::read_to_string(path).ok()?)?;
    Some(Pressure { of, some, full })
}

/// `some` and `full` of the text of a pressure file; `None` where either is missing or malformed.
#[must_use]
pub fn parse_pressure(text: &str) -> Option<(Stall, Stall)> {
    let line = |name: &str| {
        let fields = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        let value = |key: &str| {
            fields
                .split_ascii_whitespace()
                .find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
        };
        let avg10: f64 = value("avg10")?.parse().ok()?;
        Some(Stall {
            avg10: (0.0..=100.0).contains(&avg10).then_some(avg10)?,
            total_us: decimal(value("total")?.as_bytes())?,
        })
    };
    Some((line("some")?, line("full")?))
}

/// Takes the soft limits that concern memory out of the text of `/proc/PID/limits`.
#[must_use]
pub fn parse_rlimits(text: &str) -> Rlimits {
    let soft = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next())
            .map_or(Limit::Unknown, |value| match value {
                "unlimited" => Limit::Unlimited,
                digits => decimal(digits.as_bytes()).map_or(Limit::Unknown, Limit::Bytes),
            })
    };
    Rlimits {
        address_space: soft("Max address space"),
        data: soft("Max data size"),
        locked: soft("Max locked memory"),
    }
}
