//! Where it goes, from two looks.

use super::words::span;
use super::{Finding, Severity};
use crate::inspect::{Growth, Inspection, TimeTo};
use crate::limits::Bound;
use crate::metric::Metric;
use crate::size::Size;

/// Less than this between two looks is the coming and going of any program that works.
const FLOOR: u64 = 8 << 20;
/// A slope foretells no more than so many times the time it was watched for: 30 s an hour.
const FORETELLS: f64 = 120.0;
/// Less time than it takes to be called and to look.
const SOON: f64 = 900.0;

pub(super) fn limit_in_sight(inspection: &Inspection) -> Option<Finding> {
    let growth = inspection.growth.as_ref()?;
    let next = in_sight(growth)?;
    let kills = !matches!(next.bound, Bound::CgroupHigh(_));
    let rate = next.headroom.bytes()? as f64 / next.seconds.max(1.0);
    Some(Finding {
        severity: if kills && next.seconds < SOON {
            Severity::Bad
        } else {
            Severity::Warn
        },
        bytes: next.headroom,
        finding: format!(
            "{} is met in about {} if it goes on as in the last {} ({} left, {})",
            super::words::shown(&next.bound.to_string()),
            span(next.seconds),
            span(growth.seconds),
            next.headroom,
            per_minute(rate)
        ),
        remedy: if kills {
            "find what grows (see growing-live and its kin), and raise the limit or restart at a time \
             of your choice before the kernel does at its own"
        } else {
            "find what grows (see growing-live and its kin): beyond this the kernel throttles"
        }
        .to_owned(),
    })
}

/// The limit that is met first, near enough to be foretold.
fn in_sight(growth: &Growth) -> Option<&TimeTo> {
    let next = growth
        .time_to
        .iter()
        .min_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
    let seen = next.headroom.bytes()? as f64 / next.seconds.max(1.0) * growth.seconds;
    (next.seconds <= growth.seconds * FORETELLS && seen >= FLOOR as f64).then_some(next)
}

pub(super) fn growing_live(inspection: &Inspection) -> Option<Finding> {
    let growth = inspection.growth.as_ref()?;
    let live = grown(growth, "in_use")?;
    if live < grown(growth, "cached_resident").unwrap_or(0) {
        return None;
    }
    Some(found(
        growth,
        "in_use",
        live,
        "blocks in use",
        "it allocates and does not free",
        "if no load or growing batch explains it, it is a leak that no allocator setting helps \
         against: see who allocates (heaptrack --pid, memray attach, bpftrace)",
    ))
}

pub(super) fn growing_free(inspection: &Inspection) -> Option<Finding> {
    let growth = inspection.growth.as_ref()?;
    let free = grown(growth, "cached_resident")?;
    // Where use of it is not known, neither is whose fault it is.
    if change(growth, "in_use")? > free as i64 / 2 {
        return None;
    }
    Some(found(
        growth,
        "cached_resident",
        free,
        "free memory that stays resident",
        "it frees, and malloc keeps",
        "this is fragmentation and no leak: call malloc_trim(0) now and then, or start the program \
         with MALLOC_MMAP_THRESHOLD_=131072 (plimsoll profiles env glibc-mmap-128k)",
    ))
}

pub(super) fn growing_elsewhere(inspection: &Inspection) -> Option<Finding> {
    let growth = inspection.growth.as_ref()?;
    let anon = grown(growth, "anon")?;
    if change(growth, "heap_rss")? > anon as i64 / 2 {
        return None;
    }
    Some(found(
        growth,
        "anon",
        anon,
        "anonymous memory",
        "not malloc's",
        "see by class what grows (CPython's arenas, stacks, unattributed); no setting of malloc \
         changes it",
    ))
}

/// How far something went between the looks, in bytes.
fn change(growth: &Growth, of: &str) -> Option<i64> {
    let slope = growth.slopes.iter().find(|slope| slope.of == of)?;
    slope.after.since(slope.before)
}

/// The same, where it is growth and too much to be chance.
fn grown(growth: &Growth, of: &str) -> Option<u64> {
    let bytes = u64::try_from(change(growth, of)?).ok()?;
    (bytes >= FLOOR).then_some(bytes)
}

fn found(
    growth: &Growth,
    of: &str,
    bytes: u64,
    what: &str,
    meaning: &str,
    remedy: &str,
) -> Finding {
    let mut grades = growth.slopes.iter().filter(|slope| slope.of == of);
    let grade = grades.next().map_or(crate::Grade::Estimated, |s| {
        s.before.grade().max(s.after.grade())
    });
    let bytes = Metric::graded(bytes, grade);
    let rate = bytes.bytes().unwrap_or(0) as f64 / growth.seconds.max(0.001);
    Finding {
        // Growth with room to grow into may be a load.
        severity: if in_sight(growth).is_some() {
            Severity::Warn
        } else {
            Severity::Note
        },
        bytes,
        finding: format!(
            "{what} grew by {bytes} in {} ({}): {meaning}",
            span(growth.seconds),
            per_minute(rate)
        ),
        remedy: remedy.to_owned(),
    }
}

/// Bytes per second as a text such as `+38.0 MiB/min`.
fn per_minute(rate: f64) -> String {
    // Saturates, which no rate of memory reaches.
    format!("+{}/min", Size((rate * 60.0) as u64))
}
