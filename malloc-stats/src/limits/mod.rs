//! How near is the limit? Everything that bounds the memory of a process: its cgroup and all
//! ancestors of it, the host, and the resource limits.
//!
//! The parsers are pure functions over text. What is read from where is in [`Limits::under`],
//! which takes the root directory, so that a tree of files stands in for a machine.

mod bounds;
mod cgroup;
mod host;
mod location;
pub mod watch;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use bounds::{Bound, Room, Tightest};
pub use cgroup::{Cgroup, parse_limit, parse_stat};
pub use host::{Host, Pressure, PressureOf, Stall, parse_meminfo, parse_pressure, parse_rlimits};
pub use location::{
    CgroupMount, CgroupVersion, Location, Membership, locate, parse_memberships, parse_mount,
};

use crate::metric::Metric;

/// A limit, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Limit {
    /// At most this many bytes.
    Bytes(u64),
    /// No limit here.
    Unlimited,
    /// It could not be read.
    #[default]
    Unknown,
}

impl Limit {
    /// The bytes, where there is such a limit.
    #[must_use]
    pub const fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Unlimited | Self::Unknown => None,
        }
    }

    /// Whether it could not be read. By reference, as serde's `skip_serializing_if` wants it.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => crate::Size(*bytes).fmt(f),
            Self::Unlimited => f.pad("unlimited"),
            Self::Unknown => f.pad("n/a"),
        }
    }
}

/// In serde the bytes, or `"unlimited"`; null when unknown.
impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
            Self::Unlimited => serializer.serialize_str("unlimited"),
            Self::Unknown => serializer.serialize_unit(),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesOrWord;

        impl Visitor<'_> for BytesOrWord {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, \"unlimited\" or null")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Limit, E> {
                Ok(Limit::Bytes(bytes))
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Limit, E> {
                match word {
                    "unlimited" => Ok(Limit::Unlimited),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_unit<E: de::Error>(self) -> Result<Limit, E> {
                Ok(Limit::Unknown)
            }
        }

        deserializer.deserialize_any(BytesOrWord)
    }
}

/// The soft resource limits that concern memory (`getrlimit(2)`). They bound address space, not
/// RAM, so they have no part in [`Limits::headroom`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimits {
    /// `RLIMIT_AS`: the address space.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub address_space: Limit,
    /// `RLIMIT_DATA`: data segment, heap and (since Linux 4.7) private writable mappings.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub data: Limit,
    /// `RLIMIT_MEMLOCK`: memory locked in RAM.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub locked: Limit,
}

/// Everything that bounds the memory of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// The version of cgroups that controls its memory; `None` where none was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_version: Option<CgroupVersion>,
    /// Its cgroup and all ancestors that can be seen from here, its own first. In a container
    /// those above the container's root are out of sight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cgroups: Vec<Cgroup>,
    /// Soft resource limits.
    pub rlimits: Rlimits,
    /// `MemAvailable` of the host: what the kernel guesses can be had without swapping.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub host_available: Metric,
    /// `MemFree` of the host: in use for nothing, not even for page cache.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub host_free: Metric,
    /// `MemTotal` of the host.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub host_total: Metric,
    /// What could not be read, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Limits {
    /// The limits of this process. What cannot be read is unknown, with a note.
    #[must_use]
    pub fn of_self() -> Self {
        Self::under(Path::new("/"), "self")
    }

    /// The limits of another process, as far as they can be seen from here.
    #[must_use]
    pub fn of_process(pid: u32) -> Self {
        Self::under(Path::new("/"), &pid.to_string())
    }

    /// The limits of the process `proc/PROCESS` (a number, or `self`) where `root` stands for `/`:
    /// a host's files seen from a container, or files kept from another machine.
    #[must_use]
    pub fn under(root: &Path, process: &str) -> Self {
        let location = location::find(root, process);
        Self::at(root, process, location.as_ref().map_err(String::as_str))
    }

    /// The limits of a process whose cgroup has been found already, or not.
    pub(crate) fn at(root: &Path, process: &str, location: Result<&Location, &str>) -> Self {
        let mut limits = Self::default();
        let proc = root.join("proc");
        let meminfo = host::Meminfo::read(&proc.join("meminfo"));
        limits.host_available = meminfo.host.available;
        limits.host_free = meminfo.host.free;
        limits.host_total = meminfo.host.total;
        limits.notes.extend(meminfo.note);
        match std::fs::read_to_string(proc.join(process).join("limits")) {
            Ok(text) => limits.rlimits = parse_rlimits(&text),
            Err(error) => limits
                .notes
                .push(format!("/proc/{process}/limits: {error}")),
        }
        match location {
            Ok(location) => {
                limits.cgroup_version = Some(location.version);
                limits.notes.extend(location.note.clone());
                limits.cgroups = cgroup::read_all(root, location, &mut limits.notes);
            }
            Err(reason) => limits.notes.push(reason.to_owned()),
        }
        limits
    }
}

/// Where the memory cgroup of this process lies; or the reason, where it cannot be found.
pub(crate) fn own_location() -> Result<Location, String> {
    location_of("self")
}

/// The same for the process `/proc/PROCESS`.
pub(crate) fn location_of(process: &str) -> Result<Location, String> {
    location::find(Path::new("/"), process)
}

/// `root` with an absolute path below it.
fn below(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}
