//! How near the limits are, and what happened at them.

use super::heap::worth_a_trim;
use super::words::{percent, shown};
use super::{Finding, MUCH, Severity, is_share};
use crate::gpu::Vram;
use crate::inspect::Inspection;
use crate::limits::{Bound, Cgroup, CgroupVersion, Limit, Limits, PressureOf, Room};
use crate::metric::Metric;
use crate::size::Size;

/// With less than this left, in percent of the limit, one more batch is killed.
const BAD_PERCENT: u64 = 5;
/// With less than this left, in percent, the next peak may be.
const WARN_PERCENT: u64 = 15;
/// A share of a large machine is no shortage while this much is left.
const BAD_LEFT: u64 = 2 << 30;
const WARN_LEFT: u64 = 8 << 30;
/// Percent of the time in which some task waited for memory, from which programs feel it.
const STALL_PERCENT: f64 = 10.0;
/// A GPU with less than this free, in percent, refuses the next allocation of any size: contexts
/// and fragmentation take more.
const VRAM_PERCENT: u64 = 3;

pub(super) fn near_limit(inspection: &Inspection) -> Option<Finding> {
    let room = inspection.limits.room();
    // `memory.high` throttles. A hard limit further on may be as near, and kills.
    let mut hard = inspection.limits.clone();
    for cgroup in &mut hard.cgroups {
        cgroup.high = Limit::Unlimited;
    }
    let (severity, room) = [hard.room(), room]
        .into_iter()
        .flatten()
        .filter_map(|room| Some((nearness(&room)?, room)))
        .max_by_key(|(severity, _)| *severity)?;
    let left = Metric::graded(room.bytes()?, room.unused.grade());
    let total = room.total;
    let of = match &room.bound {
        Bound::Host => format!("the host's {total}"),
        bound => format!("the {total} under {}", shown(&bound.to_string())),
    };
    let share = percent(left.bytes()?, total.bytes()?);
    let dropped = match room.reclaimable.bytes() {
        Some(1..) => format!(
            " and another {} once page cache is dropped",
            room.reclaimable
        ),
        _ => String::new(),
    };
    let trim = worth_a_trim(inspection).map_or(String::new(), |releasable| {
        format!("call malloc_trim(0), which would give back {releasable}; ")
    });
    let rest = match room.bound {
        Bound::CgroupHigh(_) => "raise the limit or load less, as beyond it the kernel throttles",
        Bound::Host => "load less or move something away, as the kernel kills at the end of it",
        _ => "raise the limit or load less, as the kernel kills at the end of it",
    };
    Some(Finding {
        severity,
        bytes: left,
        finding: format!("{}{dropped} is left of {of}: {share}", room.unused),
        remedy: format!("{trim}{rest}"),
    })
}

/// How grave what a bound leaves is; `None` where there is enough.
fn nearness(room: &Room) -> Option<Severity> {
    let (left, total) = (room.bytes()?, room.total.bytes()?);
    let kills = !matches!(room.bound, Bound::CgroupHigh(_));
    if left < BAD_LEFT && !is_share(left, total, BAD_PERCENT) && kills {
        Some(Severity::Bad)
    } else if left < WARN_LEFT && !is_share(left, total, WARN_PERCENT) {
        Some(Severity::Warn)
    } else {
        None
    }
}

pub(super) fn oom_killed(inspection: &Inspection) -> Option<Finding> {
    let limits = &inspection.limits;
    let version = limits.cgroup_version?;
    let own = limits.cgroups.first()?;
    let is_own = kills(own) > 0 && !is_everybody(limits, own);
    let (cgroup, severity) = if is_own {
        // Without a limit of its own it was the host, or something above, that was short.
        let limited = own.max.bytes().is_some();
        (
            own,
            if limited {
                Severity::Bad
            } else {
                Severity::Warn
            },
        )
    } else {
        let above = limits.cgroups.iter().skip(1);
        let mut killed = above.filter(|cgroup| kills(cgroup) > 0 && !is_everybody(limits, cgroup));
        (killed.next()?, Severity::Note)
    };
    let number = kills(cgroup);
    let times = if number == 1 {
        "1 process was".to_owned()
    } else {
        format!("{number} processes were")
    };
    let above = if is_own { "" } else { " above it" };
    let place = format!("cgroup {}{above}", shown(&cgroup.path));
    let place = match version {
        CgroupVersion::V1 => format!("{place} (not counting cgroups below that)"),
        CgroupVersion::V2 => format!("{place}, or below that, since it was made"),
    };
    Some(Finding {
        severity,
        bytes: Metric::Unavailable,
        finding: format!("{times} killed for want of memory in {place}"),
        remedy: "see who and when in the kernel's log (journalctl -k -g 'Killed process'), then \
                 raise the limit of that cgroup or run less in it"
            .to_owned(),
    })
}

fn kills(cgroup: &Cgroup) -> u64 {
    cgroup.oom_kills.bytes().unwrap_or(0)
}

/// Whether it is the root of version 1, in which everything is that was put into no other: kills
/// there, since the machine was started, say nothing of this process. (The root of version 2 counts
/// none; a container shows its own cgroup as the root, but that has a limit.)
fn is_everybody(limits: &Limits, cgroup: &Cgroup) -> bool {
    limits.cgroup_version == Some(CgroupVersion::V1)
        && cgroup.path == "/"
        && cgroup.max == Limit::Unlimited
}

pub(super) fn cache_charged(inspection: &Inspection) -> Option<Finding> {
    let cgroups = inspection.limits.cgroups.iter();
    let (cgroup, limit, current, cache) = cgroups
        .filter_map(|cgroup| {
            let limit = cgroup.max.bytes()?;
            let current = cgroup.current.bytes()?;
            Some((cgroup, limit, current, cgroup.reclaimable.bytes()?))
        })
        .find(|(_, limit, current, cache)| {
            // Full to the eye, and not by what could not go.
            let left = limit.saturating_sub(*current);
            !is_share(left, *limit, WARN_PERCENT)
                && is_share(left.saturating_add(*cache), *limit, WARN_PERCENT)
                && *cache >= MUCH
        })?;
    Some(Finding {
        severity: Severity::Note,
        bytes: cgroup.reclaimable,
        finding: format!(
            "cgroup {} is at {} of its limit of {}, but {} of that is page cache, which the kernel \
             drops by itself ({} without it)",
            shown(&cgroup.path),
            percent(current, limit),
            Size(limit),
            cgroup.reclaimable,
            percent(current.saturating_sub(cache), limit)
        ),
        remedy: "this is no shortage: judge by anonymous memory rather than by the cgroup's use"
            .to_owned(),
    })
}

pub(super) fn address_limit(inspection: &Inspection) -> Option<Finding> {
    let limit = inspection.limits.rlimits.address_space.bytes()?;
    let mut sizes = inspection.classes.iter().map(|class| class.size);
    let mapped = sizes.try_fold(0_u64, u64::checked_add)?;
    let left = limit.saturating_sub(mapped);
    if mapped == 0 || is_share(left, limit, WARN_PERCENT) {
        return None;
    }
    let left = Metric::Exact(left);
    Some(Finding {
        severity: Severity::Warn,
        bytes: left,
        finding: format!(
            "{left} of address space is left of {} that RLIMIT_AS allows, where malloc and mmap \
             begin to fail however much RAM is free",
            Size(limit)
        ),
        remedy: "raise it (ulimit -v unlimited, or LimitAS= of the service) and bound memory by a \
                 cgroup instead"
            .to_owned(),
    })
}

pub(super) fn memory_stall(inspection: &Inspection) -> Option<Finding> {
    let pressure = inspection.pressure?;
    if pressure.some.avg10 < STALL_PERCENT {
        return None;
    }
    let whose = match pressure.of {
        PressureOf::Cgroup => "its cgroup",
        PressureOf::Host => "the host",
    };
    Some(Finding {
        severity: Severity::Warn,
        bytes: Metric::Unavailable,
        finding: format!(
            "in the last ten seconds tasks of {whose} waited for memory {:.0} % of the time, and \
             all at once {:.0} %",
            pressure.some.avg10, pressure.full.avg10
        ),
        remedy: "give it more memory or run less beside it: what waits is pages being read back \
                 that were dropped or swapped out a moment before"
            .to_owned(),
    })
}

pub(super) fn vram_full(inspection: &Inspection) -> Option<Finding> {
    let full = |gpu: &&Vram| {
        // Of no concern to a process that uses none of it, or none that is known of.
        let uses = gpu.process.bytes().is_some_and(|bytes| bytes > 0);
        let left = gpu.free.bytes().zip(gpu.total.bytes());
        uses && left.is_some_and(|(free, total)| !is_share(free, total, VRAM_PERCENT))
    };
    let gpu = inspection
        .vram
        .iter()
        .filter(full)
        .min_by_key(|gpu| gpu.free.bytes())?;
    let (process, used) = (gpu.process.bytes()?, gpu.used.bytes()?);
    // A pool that was taken on purpose looks like this.
    let alone = is_share(process, used, 90);
    let remedy = if alone {
        "if that is a pool taken on purpose (as vLLM and JAX do), nothing; else free what it caches \
         (torch.cuda.empty_cache()) or take a smaller model"
    } else {
        "see who has the rest (nvidia-smi), and give this process a GPU with room"
    };
    Some(Finding {
        severity: if alone {
            Severity::Note
        } else {
            Severity::Warn
        },
        bytes: gpu.free,
        finding: format!(
            "{} is free of the {} of GPU {} ({}), of which this process uses {}",
            gpu.free,
            gpu.total,
            gpu.index,
            shown(&gpu.name),
            gpu.process
        ),
        remedy: remedy.to_owned(),
    })
}
