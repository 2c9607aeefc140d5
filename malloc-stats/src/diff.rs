//! What changed between two snapshots.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::glibc::Mallinfo;
use crate::gpu::Vram;
use crate::jemalloc::JemallocStats;
use crate::metric::{Grade, Metric};
use crate::reading::AllocatorReading;
use crate::size::Size;
use crate::snapshot::Snapshot;

/// One metric before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Before.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub before: Metric,
    /// After.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub after: Metric,
}

impl Change {
    /// After less before, in bytes; `None` where either is unavailable.
    #[must_use]
    pub fn delta(&self) -> Option<i64> {
        self.after.since(self.before)
    }

    fn is_absent(&self) -> bool {
        self.before.is_unavailable() && self.after.is_unavailable()
    }

    /// The delta in words. The difference of anything but exact numbers is an estimate: that of
    /// two upper bounds is no bound.
    fn signed(&self) -> String {
        let Some(delta) = self.delta() else {
            return "n/a".to_owned();
        };
        let exact = self.before.grade().max(self.after.grade()) == Grade::Exact;
        let mark = if exact { "" } else { Grade::Estimated.mark() };
        let sign = match delta {
            0 => "±",
            1.. => "+",
            _ => "-",
        };
        format!("{mark}{sign}{}", Size(delta.unsigned_abs()))
    }
}

/// The memory of one GPU before and after.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VramChange {
    /// The index NVML gives it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What all processes use.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub used: Change,
    /// What this process uses.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub process: Change,
}

/// What changed between two snapshots of one process.
///
/// Prints one aligned line per metric, `name (±delta): before -> after`.
///
/// The lines of the allocator need a reading for each side: between two brackets that carry one
/// and the same reading nothing was measured, so they are unavailable rather than ±0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Diff {
    /// From the beginning of the first to that of the second, in microseconds.
    pub elapsed_us: u64,
    /// All that is resident.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub rss: Change,
    /// Resident anonymous memory.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub anon: Change,
    /// Resident pages of mapped files.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub file: Change,
    /// Resident shared memory.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub shmem: Change,
    /// The peak of resident memory.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub hwm: Change,
    /// Anonymous memory in swap.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub swap: Change,
    /// What the process's own cgroup is charged.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub cgroup_current: Change,
    /// Page faults without I/O in between.
    pub minor_faults: u64,
    /// Page faults with I/O in between.
    pub major_faults: u64,
    /// Who serves, where both snapshots agree on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocator_name: Option<String>,
    /// How old the reading of the allocator was in the first and in the second, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocator_age_us: Option<(u64, u64)>,
    /// In glibc's mmapped chunks (`hblkhd`).
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub mmap_allocated: Change,
    /// In use in glibc's arenas (`uordblks`).
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub arena_used: Change,
    /// Free in glibc's arenas (`fordblks`); virtual.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub arena_free: Change,
    /// Held from the system by the allocator that serves; virtual.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub total_allocated: Change,
    /// In use in the allocator that serves.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub total_used: Change,
    /// Resident because of the allocator that serves.
    #[serde(skip_serializing_if = "Change::is_absent")]
    pub heap_rss: Change,
    /// jemalloc's own numbers, by their names, where it serves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub jemalloc: Vec<(String, Change)>,
    /// Each GPU that either snapshot shows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vram: Vec<VramChange>,
}

impl Diff {
    /// What changed from `before` to `after`, which should be of one process.
    #[must_use]
    pub fn between(before: &Snapshot, after: &Snapshot) -> Self {
        let change = |of: fn(&Snapshot) -> Metric| Change {
            before: of(before),
            after: of(after),
        };
        let mut diff = Self {
            elapsed_us: after.at_us.saturating_sub(before.at_us),
            rss: change(|s| s.process.rss),
            anon: change(|s| s.process.anon),
            file: change(|s| s.process.file),
            shmem: change(|s| s.process.shmem),
            hwm: change(|s| s.process.hwm),
            swap: change(|s| s.process.swap),
            cgroup_current: change(|s| s.cgroup_current),
            minor_faults: after
                .process
                .minor_faults
                .saturating_sub(before.process.minor_faults),
            major_faults: after
                .process
                .major_faults
                .saturating_sub(before.process.major_faults),
            vram: vram(&before.vram, &after.vram),
            ..Self::default()
        };
        if let (Some(first), Some(second)) = (&before.allocator, &after.allocator) {
            diff.allocator_age_us = Some((before.allocator_age_us, after.allocator_age_us));
            diff.allocator_name = (first.name == second.name).then(|| first.name.clone());
            if before.allocator_read_at_us() != after.allocator_read_at_us() {
                diff.compare_allocators(first, second);
            }
        }
        diff
    }

    fn compare_allocators(&mut self, before: &AllocatorReading, after: &AllocatorReading) {
        let change = |of: fn(&AllocatorReading) -> Metric| Change {
            before: of(before),
            after: of(after),
        };
        self.mmap_allocated = change(|a| raw(a, |glibc| glibc.hblkhd));
        self.arena_used = change(|a| raw(a, |glibc| glibc.uordblks));
        self.arena_free = change(|a| raw(a, |glibc| glibc.fordblks));
        self.total_allocated = change(|a| a.held);
        self.total_used = change(|a| a.in_use);
        self.heap_rss = change(|a| a.heap_rss);
        if let (Some(before), Some(after)) = (&before.jemalloc, &after.jemalloc) {
            self.jemalloc = JEMALLOC
                .iter()
                .map(|(name, of)| {
                    let change = Change {
                        before: Metric::Exact(of(before)),
                        after: Metric::Exact(of(after)),
                    };
                    ((*name).to_owned(), change)
                })
                .collect();
        }
    }

    /// How far the resident memory went, in bytes.
    #[must_use]
    pub fn rss_delta(&self) -> Option<i64> {
        self.rss.delta()
    }

    /// The lines it prints: names and changes.
    #[must_use]
    pub fn lines(&self) -> Vec<(String, Change)> {
        let mut lines: Vec<(String, Change)> = [
            ("process RAM", self.rss),
            ("anonymous", self.anon),
            ("file", self.file),
            ("shared", self.shmem),
            ("peak RAM", self.hwm),
            ("swap", self.swap),
            ("cgroup", self.cgroup_current),
            ("mmap allocated", self.mmap_allocated),
            ("arena used", self.arena_used),
            ("arena free", self.arena_free),
            ("total allocated", self.total_allocated),
            ("total used", self.total_used),
            ("heap RAM", self.heap_rss),
        ]
        .map(|(name, change)| (name.to_owned(), change))
        .into();
        lines.extend(
            self.jemalloc
                .iter()
                .map(|(name, change)| (format!("jemalloc {name}"), *change)),
        );
        if self.vram.is_empty() {
            lines.push(("VRAM".to_owned(), Change::default()));
        }
        for device in &self.vram {
            lines.push((format!("VRAM {} used", device.index), device.used));
            lines.push((format!("VRAM {} by process", device.index), device.process));
        }
        lines
    }
}

type Counter = fn(&JemallocStats) -> u64;

const JEMALLOC: [(&str, Counter); 8] = [
    ("allocated", |stats| stats.allocated),
    ("active", |stats| stats.active),
    ("dirty", |stats| stats.dirty),
    ("muzzy", |stats| stats.muzzy),
    ("metadata", |stats| stats.metadata),
    ("resident", |stats| stats.resident),
    ("mapped", |stats| stats.mapped),
    ("retained", |stats| stats.retained),
];

fn raw(reading: &AllocatorReading, of: fn(&Mallinfo) -> u64) -> Metric {
    reading.glibc.as_ref().map(of).into()
}

fn vram(before: &[Vram], after: &[Vram]) -> Vec<VramChange> {
    let absent = Vram::default();
    let mut devices: Vec<&Vram> = before.iter().chain(after).collect();
    devices.sort_by_key(|device| device.index);
    devices.dedup_by_key(|device| device.index);
    devices
        .into_iter()
        .map(|device| {
            let of = |side: &[Vram]| side.iter().find(|d| d.index == device.index).cloned();
            let before = of(before).unwrap_or_else(|| absent.clone());
            let after = of(after).unwrap_or_else(|| absent.clone());
            VramChange {
                index: device.index,
                name: device.name.clone(),
                used: Change {
                    before: before.used,
                    after: after.used,
                },
                process: Change {
                    before: before.process,
                    after: after.process,
                },
            }
        })
        .collect()
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self
            .lines()
            .into_iter()
            .map(|(name, change)| (name, change.signed(), change))
            .collect();
        let width = |of: fn(&(String, String, Change)) -> &String| {
            lines
                .iter()
                .map(|line| of(line).chars().count())
                .max()
                .unwrap_or(0)
        };
        let (names, deltas) = (width(|line| &line.0), width(|line| &line.1));
        for (index, (name, delta, change)) in lines.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(
                f,
                "{name:names$} ({delta:>deltas$}): {} -> {}",
                change.before, change.after
            )?;
        }
        Ok(())
    }
}
