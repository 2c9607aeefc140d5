//! What the numbers of a measurement mean, in words.

use std::fmt;

use super::Fragmentation;
use crate::size::Size;

/// The smallest block of glibc: growth of less each cycle is no block.
const SMALLEST_BLOCK: f64 = 32.0;

/// Ends of arenas smaller than this are glibc's ordinary padding.
const LEAST_SAID: u64 = 1 << 20;

impl fmt::Display for Fragmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.cycles.len();
        let cycles = if count == 1 { "cycle" } else { "cycles" };
        write!(
            f,
            "{count} {cycles} under {}: resident {} at the baseline, {} at the peak, {} at the end",
            self.allocator,
            self.baseline.rss,
            self.peak,
            self.last().rss
        )?;
        if let Some(by) = &self.purged_by {
            write!(f, ", {} after {by}", self.after_purge)?;
        }
        write!(
            f,
            "; in use {} at the baseline, {} at the end, {} each cycle; resident {} each cycle. ",
            self.baseline.in_use,
            self.last().in_use,
            per_cycle(self.leak_per_cycle()),
            per_cycle(self.growth_per_cycle()),
        )?;
        self.say_leak(f)?;
        self.say_kept(f)?;
        if let Some(left) = self.left_by_warm_up() {
            write!(
                f,
                " The warm-up had left {left} that no purge gives back; warm_up(0) counts that too."
            )?;
        }
        for note in &self.notes {
            write!(f, " ({note})")?;
        }
        Ok(())
    }
}

impl Fragmentation {
    fn say_leak(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leak = self.leak_per_cycle();
        if leak >= SMALLEST_BLOCK {
            write!(
                f,
                "In use grows by {} each cycle: a leak, or something that is meant to grow. ",
                Size(leak as u64)
            )?;
        }
        Ok(())
    }

    fn say_kept(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(kept) = self.last().rss.minus_saturating(self.baseline.rss).bytes() else {
            return f.write_str("What was kept is not known.");
        };
        write!(f, "Kept {} of {}", Size(kept), self.took())?;
        if kept <= self.most_kept() {
            return f.write_str(": it gives back what it takes.");
        }
        let (Some(after), Some(by)) = (self.after_purge.bytes(), &self.purged_by) else {
            return f.write_str(".");
        };
        let end = self.last().rss.bytes().unwrap_or(0);
        let stays = after.saturating_sub(self.baseline.rss.bytes().unwrap_or(0));
        let gap = end.saturating_sub(after).min(kept);
        let ends = self.arena_ends.bytes().unwrap_or(0).min(stays);
        let risen = self.last().in_use.since(self.baseline.in_use);
        let risen = risen.map_or(0, |risen| u64::try_from(risen).unwrap_or(0));
        write!(f, ": {by} returns {} of it", Size(gap))?;
        if ends > LEAST_SAID {
            write!(
                f,
                ", but not the {} that lie unused at the ends of other threads' arenas",
                Size(ends)
            )?;
        }
        if gap.saturating_add(ends) >= kept / 2 {
            write!(
                f,
                ", so most is the allocator's retention, not a leak: {}.",
                self.remedy(ends > gap)
            )
        } else if risen >= stays / 2 {
            write!(f, "; {} more is in use than at the baseline.", Size(risen))
        } else {
            write!(
                f,
                ", and {} stays though only {} more is in use: blocks in use pin the pages around \
                 them (plimsoll inspect shows which), or it is not the allocator's. What outlives \
                 its model belongs in blocks made before it, or apart from it.",
                Size(stays),
                Size(risen)
            )
        }
    }

    fn remedy(&self, at_ends: bool) -> &'static str {
        if self.allocator.starts_with("jemalloc") {
            "a shorter dirty_decay_ms with background_thread:true, or a purge after unloading, \
             returns it sooner"
        } else if at_ends {
            "a fixed mmap threshold (GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072, or \
             mallopt) returns large blocks, and costs page faults"
        } else {
            "malloc_trim(0) after unloading returns it, or for large blocks a fixed mmap threshold \
             (GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072, or mallopt), which costs page \
             faults"
        }
    }

    /// What the warm-up left, where that would matter.
    fn left_by_warm_up(&self) -> Option<Size> {
        let left = self.baseline.rss.minus_saturating(self.start.rss).bytes()?;
        (self.warm_up > 0 && left > self.most_kept()).then_some(Size(left))
    }
}

fn per_cycle(slope: f64) -> String {
    if slope.is_nan() {
        return "n/a".to_owned();
    }
    let sign = if slope <= -0.5 { '-' } else { '+' };
    format!("{sign}{}", Size(slope.abs().round() as u64))
}
