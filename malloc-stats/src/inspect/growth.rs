//! How fast a process grows, from two looks, and when it meets a limit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Inspection;
use crate::heap::Totals;
use crate::limits::{Bound, Limits};
use crate::metric::Metric;
use crate::process::Process;

/// What growth is measured by, at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    /// When, since any moment that both looks count from.
    pub at: Duration,
    /// The resident memory of the process.
    pub memory: Process,
    /// What bounds it.
    pub limits: Limits,
    /// What its malloc holds, where that was read.
    pub heap: Option<Totals>,
}

impl Look {
    /// What growth is measured by, of a look that was taken at this moment.
    #[must_use]
    pub fn of(inspection: &Inspection, at: Duration) -> Self {
        Self {
            at,
            memory: inspection.process.memory,
            limits: inspection.limits.clone(),
            heap: inspection.heap.as_ref().map(|heap| heap.totals.clone()),
        }
    }
}

/// The difference of two looks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Growth {
    /// How far they are apart, in seconds.
    pub seconds: f64,
    /// What changed how fast.
    pub slopes: Vec<Slope>,
    /// When each limit is met, if it goes on so; the soonest first. Limits that the growth does
    /// not approach are left out.
    pub time_to: Vec<TimeTo>,
}

/// How fast one thing grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// `rss`, `anon`, `file`, `shmem`, `swap`, `in_use`, `heap_rss`, `cached_resident`, `cgroup`.
    pub of: String,
    /// At the first look.
    pub before: Metric,
    /// At the second.
    pub after: Metric,
    /// In bytes per second; negative where it shrinks.
    pub bytes_per_second: f64,
}

/// When a limit is met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimeTo {
    /// Which.
    pub bound: Bound,
    /// What it leaves now.
    pub headroom: Metric,
    /// In seconds from the second look.
    pub seconds: f64,
}

impl Growth {
    /// What happened between two looks at one process. Empty where no time passed. What was not
    /// known at either look is left out.
    ///
    /// Each limit is approached by what is charged to *it*, which other processes grow too; page
    /// cache that could be dropped counts, so times are on the early side where files are read.
    #[must_use]
    pub fn between(before: &Look, after: &Look) -> Self {
        let seconds = after.at.saturating_sub(before.at).as_secs_f64();
        if seconds <= 0.0 {
            return Self::default();
        }
        let slopes = readings(before)
            .into_iter()
            .zip(readings(after))
            .filter_map(|((of, before), (_, after))| {
                Some(Slope {
                    of: of.to_owned(),
                    before,
                    after,
                    bytes_per_second: after.since(before)? as f64 / seconds,
                })
            })
            .collect();
        let mut time_to = times(&before.limits, &after.limits, seconds);
        time_to.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        Self {
            seconds,
            slopes,
            time_to,
        }
    }
}

fn readings(look: &Look) -> [(&'static str, Metric); 9] {
    let heap = look.heap.as_ref();
    let of_heap = |read: fn(&Totals) -> Metric| heap.map_or(Metric::Unavailable, read);
    let cgroup = look.limits.cgroups.first();
    [
        ("rss", look.memory.rss),
        ("anon", look.memory.anon),
        ("file", look.memory.file),
        ("shmem", look.memory.shmem),
        ("swap", look.memory.swap),
        ("in_use", of_heap(|heap| heap.in_use)),
        ("heap_rss", of_heap(|heap| heap.heap_rss)),
        ("cached_resident", of_heap(|heap| heap.cached_resident)),
        ("cgroup", cgroup.map_or(Metric::Unavailable, |c| c.current)),
    ]
}

fn times(before: &Limits, after: &Limits, seconds: f64) -> Vec<TimeTo> {
    let earlier = before.all_bounds();
    after
        .all_bounds()
        .into_iter()
        .filter_map(|now| {
            let then = earlier.iter().find(|then| then.bound == now.bound)?;
            let grown = now.taken.since(then.taken).filter(|grown| *grown > 0)?;
            let left = now.headroom.bytes()?;
            Some(TimeTo {
                bound: now.bound,
                headroom: now.headroom,
                seconds: left as f64 * seconds / grown as f64,
            })
        })
        .collect()
}
