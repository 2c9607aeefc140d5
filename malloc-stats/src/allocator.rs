//! The allocator that serves, as whoever installed it tells.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Which allocator serves the Rust heap. It is *told*, not guessed: only whoever set the global
/// allocator knows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum AllocatorKind {
    /// `malloc` of the process: the C library's, or whatever was put before it. Which one that is
    /// gets resolved, see [`Provider`](crate::provider::Provider).
    #[default]
    Libc,
    /// The jemalloc linked into the program under prefixed names (`tikv-jemallocator`).
    Jemalloc,
}

impl fmt::Display for AllocatorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Libc => "libc",
            Self::Jemalloc => "jemalloc",
        })
    }
}

/// The allocator that serves, and how it was tuned.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allocator {
    /// Who serves.
    pub kind: AllocatorKind,
    /// The knobs that were set. Knobs that were left alone are absent.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
}

/// How well a setting is known to be in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingGrade {
    /// Read back from the allocator.
    Verified,
    /// The allocator behaves as if it were in force.
    Probed,
    /// Asked for; the allocator has no way to read it back.
    Requested,
    /// Asked for, and not in force.
    Refused,
}

/// The value of one knob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As the allocator writes it, such as `1048576` or `false`.
    pub value: String,
    /// How well it is known to be in force.
    pub grade: SettingGrade,
}

/// Knobs and their values, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, Setting>);

impl Settings {
    /// Sets a knob; gives back what was there.
    pub fn insert(&mut self, knob: impl Into<String>, setting: Setting) -> Option<Setting> {
        self.0.insert(knob.into(), setting)
    }

    /// The value of a knob.
    #[must_use]
    pub fn get(&self, knob: &str) -> Option<&Setting> {
        self.0.get(knob)
    }

    /// Whether no knob is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many knobs are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The knobs, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0
            .iter()
            .map(|(knob, setting)| (knob.as_str(), setting))
    }
}

impl FromIterator<(String, Setting)> for Settings {
    fn from_iter<T: IntoIterator<Item = (String, Setting)>>(knobs: T) -> Self {
        Self(knobs.into_iter().collect())
    }
}
