//! What a memory cgroup and its ancestors are allowed and use, version 1 or 2.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Limit;
use super::location::{CgroupVersion, Location};
use crate::metric::Metric;
use crate::process::decimal;

/// The memory of one cgroup, with that of all cgroups below it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// Its path below the mount point of the hierarchy, such as `/system.slice/app.service`.
    pub path: String,
    /// The hard limit: `memory.max`, or `memory.limit_in_bytes`.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub max: Limit,
    /// Beyond this it is throttled and reclaimed from: `memory.high`. Unlimited in version 1.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub high: Limit,
    /// Under host pressure it is reclaimed from down to this first: `memory.soft_limit_in_bytes`
    /// of version 1. Not enforced, so no bound.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub soft: Limit,
    /// What it is charged: `memory.current`, or `memory.usage_in_bytes`. Counts page cache.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub current: Metric,
    /// The limit of swap alone: `memory.swap.max` of version 2.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub swap_max: Limit,
    /// Swap in use: `memory.swap.current` of version 2.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub swap_current: Metric,
    /// The limit of memory and swap together: `memory.memsw.limit_in_bytes` of version 1;
    /// unlimited where swap is not accounted, and in version 2.
    #[serde(skip_serializing_if = "Limit::is_unknown")]
    pub memsw_max: Limit,
    /// Memory and swap in use: `memory.memsw.usage_in_bytes` of version 1.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub memsw_current: Metric,
    /// Anonymous memory: `anon`, or `total_rss`.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub anon: Metric,
    /// Page cache of files, *without* shared memory, which the kernel's `file` (and `total_cache`)
    /// includes.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub file: Metric,
    /// Shared memory and tmpfs: `shmem`, or `total_shmem`.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub shmem: Metric,
    /// Page cache the kernel can most easily drop. Part of `current`, shown apart, and never added
    /// to the headroom.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub inactive_file: Metric,
    /// Page cache of files that could be dropped without I/O: `inactive_file` + `active_file`,
    /// without what is dirty, under writeback, or mapped. Estimated, and on the cautious side: a
    /// page can be two of these, and what is mapped counts shared memory too.
    ///
    /// Part of `current`, so a process may take it *on top of* what the limit leaves
    /// ([`Limits::room`](super::Limits::room)). The host's `MemAvailable` includes such cache
    /// already, by the kernel's own guess.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub reclaimable: Metric,
    /// How many processes were killed for want of memory: `oom_kill` of `memory.events`, or of
    /// `memory.oom_control` (Linux 4.13). A count, not bytes. Version 1 counts only the processes
    /// of this very cgroup, version 2 also those of all cgroups below it.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub oom_kills: Metric,
}

/// Reads the cgroup and its ancestors.
pub(super) fn read_all(root: &Path, location: &Location, notes: &mut Vec<String>) -> Vec<Cgroup> {
    let mut cgroups = Vec::new();
    for (directory, path) in location.directories() {
        let own = cgroups.is_empty();
        if location.version == CgroupVersion::V1 && !own && !is_hierarchical(&directory) {
            break;
        }
        let files = Files {
            root,
            directory,
            notes,
        };
        cgroups.push(match location.version {
            CgroupVersion::V1 => files.version_1(path),
            CgroupVersion::V2 => files.version_2(path),
        });
    }
    cgroups
}

/// Whether a cgroup of version 1 counts its descendants; all do since Linux 5.11.
fn is_hierarchical(directory: &Path) -> bool {
    !std::fs::read_to_string(directory.join("memory.use_hierarchy"))
        .is_ok_and(|text| text.trim() == "0")
}

struct Files<'a> {
    root: &'a Path,
    directory: PathBuf,
    notes: &'a mut Vec<String>,
}

impl Files<'_> {
    fn version_2(mut self, path: String) -> Cgroup {
        let stat = self.keyed("memory.stat");
        Cgroup {
            path,
            // The root has no such files, nor has a cgroup whose controller is off: no limit there.
            max: self.limit("memory.max", Limit::Unlimited),
            high: self.limit("memory.high", Limit::Unlimited),
            soft: Limit::Unknown,
            current: self.counter("memory.current"),
            swap_max: self.limit("memory.swap.max", Limit::Unknown),
            swap_current: self.counter("memory.swap.current"),
            memsw_max: Limit::Unlimited,
            memsw_current: Metric::Unavailable,
            anon: stat("anon"),
            file: stat("file").minus_saturating(stat("shmem")),
            shmem: stat("shmem"),
            inactive_file: stat("inactive_file"),
            reclaimable: reclaimable(
                [stat("inactive_file"), stat("active_file")],
                [
                    stat("file_dirty"),
                    stat("file_writeback"),
                    stat("file_mapped"),
                ],
            ),
            oom_kills: self.keyed("memory.events")("oom_kill"),
        }
    }

    fn version_1(mut self, path: String) -> Cgroup {
        let stat = self.keyed("memory.stat");
        Cgroup {
            path,
            max: self.limit("memory.limit_in_bytes", Limit::Unlimited),
            high: Limit::Unlimited,
            soft: self.limit("memory.soft_limit_in_bytes", Limit::Unknown),
            current: self.counter("memory.usage_in_bytes"),
            swap_max: Limit::Unknown,
            swap_current: Metric::Unavailable,
            // Absent where the kernel does not account swap.
            memsw_max: self.limit("memory.memsw.limit_in_bytes", Limit::Unlimited),
            memsw_current: self.counter("memory.memsw.usage_in_bytes"),
            anon: stat("total_rss"),
            file: stat("total_cache").minus_saturating(stat("total_shmem")),
            shmem: stat("total_shmem"),
            inactive_file: stat("total_inactive_file"),
            reclaimable: reclaimable(
                [stat("total_inactive_file"), stat("total_active_file")],
                [
                    stat("total_dirty"),
                    stat("total_writeback"),
                    stat("total_mapped_file"),
                ],
            ),
            oom_kills: self.keyed("memory.oom_control")("oom_kill"),
        }
    }

    fn limit(&mut self, name: &str, if_absent: Limit) -> Limit {
        match self.read(name) {
            Some(text) => {
                let limit = parse_limit(&text);
                if limit.is_unknown() {
                    self.notes.push(format!(
                        "{}: {:?} is no limit",
                        self.shown(name),
                        text.trim()
                    ));
                }
                limit
            }
            None if self.directory.join(name).exists() => Limit::Unknown,
            None => if_absent,
        }
    }

    fn counter(&mut self, name: &str) -> Metric {
        self.read(name)
            .and_then(|text| decimal(text.trim().as_bytes()))
            .into()
    }

    /// The values of a file of lines of a key and a number.
    fn keyed(&mut self, name: &str) -> impl Fn(&str) -> Metric + use<> {
        let text = self.read(name).unwrap_or_default();
        move |key| parse_stat(&text, key).into()
    }

    fn read(&mut self, name: &str) -> Option<String> {
        match std::fs::read_to_string(self.directory.join(name)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.notes.push(format!("{}: {error}", self.shown(name)));
                None
            }
        }
    }

    fn shown(&self, name: &str) -> String {
        let directory = self
            .directory
            .strip_prefix(self.root)
            .unwrap_or(&self.directory);
        format!("/{}", directory.join(name).display())
    }
}

/// `cached` without what is `held`; unavailable where some of `cached` is. A kernel that does not
/// count some of what is held leaves the guess a little high.
fn reclaimable(cached: [Metric; 2], held: [Metric; 3]) -> Metric {
    let [inactive, active] = cached;
    let held = held.iter().filter_map(|metric| metric.bytes());
    inactive
        .plus(active)
        .minus_saturating(Metric::Estimated(held.fold(0, u64::saturating_add)))
}

/// A limit as a cgroup's file writes it: `max` or a number. Version 1 writes the largest multiple
/// of its page size below 2⁶³ for no limit: 9223372036854771712 with pages of 4 KiB.
#[must_use]
pub fn parse_limit(text: &str) -> Limit {
    // The largest page size of Linux is 256 KiB.
    const SENTINELS: u64 = (1 << 63) - (256 << 10);
    match text.trim() {
        "max" | "-1" => Limit::Unlimited,
        digits => match decimal(digits.as_bytes()) {
            Some(SENTINELS..) => Limit::Unlimited,
            Some(bytes) => Limit::Bytes(bytes),
            None => Limit::Unknown,
        },
    }
}

/// The number behind a key in the text of `memory.stat`, or of another file of such lines.
#[must_use]
pub fn parse_stat(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| decimal(value.trim().as_bytes()))?
    })
}
