//! Sharing mappings out among those who own parts of them: the kernel joins neighbouring anonymous
//! mappings, and counts what is resident only for each as a whole.

use super::classes::{ClassKind, OwnedRange};
use super::smaps::SmapsEntry;
use crate::metric::Grade;

/// What there is of a mapping, or of a part of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    pub(super) size: u64,
    pub(super) rss: u64,
    pub(super) anonymous: u64,
    pub(super) swap: u64,
    pub(super) hugetlb: u64,
    pub(super) of_device: bool,
}

impl Part {
    pub(super) fn whole(entry: &SmapsEntry) -> Self {
        Self {
            size: entry.mapping.len(),
            rss: entry.rss,
            anonymous: entry.anonymous,
            swap: entry.swap,
            hugetlb: entry.hugetlb,
            of_device: entry.of_device,
        }
    }

    /// This and another part together.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            size: self.size.saturating_add(other.size),
            rss: self.rss.saturating_add(other.rss),
            anonymous: self.anonymous.saturating_add(other.anonymous),
            swap: self.swap.saturating_add(other.swap),
            hugetlb: self.hugetlb.saturating_add(other.hugetlb),
            of_device: self.of_device || other.of_device,
        }
    }

    /// Takes `wanted` out of this, as far as there is as much.
    pub(super) fn take(&mut self, wanted: Self) -> Self {
        let take = |from: &mut u64, wanted: u64| {
            let taken = wanted.min(*from);
            *from -= taken;
            taken
        };
        Self {
            size: take(&mut self.size, wanted.size),
            rss: take(&mut self.rss, wanted.rss),
            anonymous: take(&mut self.anonymous, wanted.anonymous),
            swap: take(&mut self.swap, wanted.swap),
            hugetlb: take(&mut self.hugetlb, wanted.hugetlb),
            of_device: self.of_device,
        }
    }
}

/// Shares mappings out among the stretches that have an owner.
pub(super) struct Overlay {
    /// In order of address, none overlapping another. What is resident and swapped of each is what
    /// is left of it beside the mappings it covers as a whole.
    ranges: Vec<OwnedRange>,
    next: usize,
}

impl Overlay {
    pub(super) fn new(entries: &[SmapsEntry], ranges: &[OwnedRange]) -> Self {
        let mut sorted = ranges.to_vec();
        sorted.sort_by_key(|owned| (owned.range.start, owned.kind));
        let mut end = 0;
        for owned in &mut sorted {
            owned.range.start = owned.range.start.max(end);
            end = end.max(owned.range.end);
        }
        sorted.retain(|owned| owned.range.start < owned.range.end);
        for entry in entries.iter().filter(|entry| entry.is_private_anonymous()) {
            let mapping = &entry.mapping.range;
            let at = sorted.partition_point(|owned| owned.range.end < mapping.end);
            if let Some(owned) = sorted.get_mut(at)
                && owned.range.start <= mapping.start
            {
                owned.resident = owned.resident.saturating_sub(entry.rss);
                owned.swapped = owned.swapped.saturating_sub(entry.swap);
            }
        }
        Self {
            ranges: sorted,
            next: 0,
        }
    }

    /// The parts of a mapping that have an owner. Mappings come in order of address.
    pub(super) fn parts(&mut self, entry: &SmapsEntry) -> Vec<(ClassKind, Part, Grade)> {
        let mapping = &entry.mapping.range;
        let mut parts = Vec::new();
        while let Some(owned) = self.ranges.get_mut(self.next) {
            if owned.range.end <= mapping.start {
                self.next += 1;
                continue;
            }
            let shared = owned.range.start.max(mapping.start)..owned.range.end.min(mapping.end);
            if shared.start >= shared.end {
                break;
            }
            if shared == *mapping {
                parts.push((owned.kind, Part::whole(entry), Grade::Exact));
                break;
            }
            let size = shared.end - shared.start;
            let rss = owned.resident.min(size).min(entry.rss);
            let swap = owned.swapped.min(size).min(entry.swap);
            owned.resident -= rss;
            owned.swapped -= swap;
            let part = Part {
                size,
                rss,
                anonymous: rss,
                swap,
                ..Part::default()
            };
            parts.push((owned.kind, part, Grade::Estimated));
            if owned.range.end > mapping.end {
                break;
            }
            self.next += 1;
        }
        parts
    }
}
