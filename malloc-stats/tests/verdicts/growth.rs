//! What grows between two looks at a process that takes a step. The clock says when they were;
//! steps are put half a minute apart, so that no test waits for it.

use std::time::Duration;

use malloc_stats::inspect::Severity::{Bad, Note, Warn};
use malloc_stats::inspect::{Growth, Inspection, Look, Verdict, judge};
use malloc_stats::limits::Bound;

use super::holder::{Holder, MIB, find, must, must_not, near};
use super::limits::limited;

const GROWING: [&str; 3] = ["growing-live", "growing-free", "growing-elsewhere"];
/// What one step takes.
const STEP: u64 = (300 * 100) << 10;

fn look(inspection: &Inspection, at: Duration) -> Look {
    Look {
        at,
        memory: inspection.process.memory,
        limits: inspection.limits.clone(),
        heap: inspection.heap.as_ref().map(|heap| heap.totals.clone()),
    }
}

/// What is said of a process after it took a step within `seconds`.
fn after_a_step(holder: &mut Holder, seconds: u64) -> Vec<Verdict> {
    let begin = Duration::ZERO;
    let before = holder.inspect();
    holder.step();
    let mut after = holder.inspect();
    after.growth = Some(Growth::between(
        &look(&before, begin),
        &look(&after, begin + Duration::from_secs(seconds)),
    ));
    judge(&after)
}

#[test]
fn growth_is_told_apart_by_what_grows() {
    for (mode, lint) in [
        ("grow", "growing-live"),
        ("grow-free", "growing-free"),
        ("grow-elsewhere", "growing-elsewhere"),
    ] {
        let Some(mut holder) = Holder::new(&[mode], &[]) else {
            return;
        };
        let verdicts = after_a_step(&mut holder, 30);
        let severity = find(&verdicts, lint).unwrap().severity;
        let found = must(&verdicts, lint, severity);
        near(found.bytes, STEP, MIB);
        assert!(found.finding.contains("in 30 s (+58."), "{}", found.finding);
        for other in GROWING.iter().filter(|other| **other != lint) {
            must_not(&verdicts, other);
        }
    }
}

#[test]
fn a_process_that_holds_still_does_not_grow() {
    let Some(mut holder) = Holder::new(&["idle"], &[]) else {
        return;
    };
    let verdicts = after_a_step(&mut holder, 30);
    GROWING.iter().for_each(|lint| must_not(&verdicts, lint));
}

/// What is said of a limit of this cgroup.
fn in_sight<'a>(verdicts: &'a [Verdict], path: &str) -> Option<&'a Verdict> {
    find(verdicts, "limit-in-sight").filter(|found| found.finding.contains(path))
}

#[test]
fn a_limit_is_in_sight_where_growth_meets_it_soon() {
    let Some((group, mut holder)) = limited("in-sight", 512 * MIB, &["grow"]) else {
        return;
    };
    let path = group.directory.file_name().unwrap().to_str().unwrap();
    let verdicts = after_a_step(&mut holder, 30);
    let found = in_sight(&verdicts, path).unwrap();
    // 480 MiB at a MiB a second.
    assert_eq!(found.severity, Bad, "{found:#?}");
    must(&verdicts, "limit-in-sight", Bad);
    must(&verdicts, "growing-live", Warn);
}

#[test]
fn a_limit_is_not_foretold_from_a_slope_that_would_take_a_day() {
    let Some((group, mut holder)) = limited("out-of-sight", 64 << 30, &["grow"]) else {
        return;
    };
    let path = group.directory.file_name().unwrap().to_str().unwrap();
    let before = holder.inspect();
    let begin = Duration::ZERO;
    holder.step();
    let mut after = holder.inspect();
    let mut growth = Growth::between(
        &look(&before, begin),
        &look(&after, begin + Duration::from_secs(1)),
    );
    // Other processes bring other limits into sight.
    growth.time_to.retain(|next| match &next.bound {
        Bound::CgroupMax(of) => of.contains(path),
        _ => false,
    });
    assert_eq!(growth.time_to.len(), 1, "{growth:?}");
    after.growth = Some(growth);
    let verdicts = judge(&after);
    must_not(&verdicts, "limit-in-sight");
    must(&verdicts, "growing-live", Note);
}
