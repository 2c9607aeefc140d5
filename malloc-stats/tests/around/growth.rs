//! Two looks give slopes, and the time to each limit.

use std::time::Duration;

use malloc_stats::inspect::{Growth, Look};
use malloc_stats::limits::{Bound, Cgroup, Limit, Limits};
use malloc_stats::{Metric, Process};

const MIB: u64 = 1 << 20;

fn look(at: Duration, rss: u64, current: u64, parent: u64, available: u64) -> Look {
    let cgroup = |path: &str, current, max| Cgroup {
        path: path.to_owned(),
        max: Limit::Bytes(max),
        high: Limit::Unlimited,
        memsw_max: Limit::Unlimited,
        current: Metric::Exact(current),
        ..Cgroup::default()
    };
    Look {
        at,
        memory: Process {
            rss: Metric::Estimated(rss),
            ..Process::default()
        },
        limits: Limits {
            cgroups: vec![
                cgroup("/a/b", current, 1000 * MIB),
                cgroup("/a", parent, 2000 * MIB),
            ],
            host_total: Metric::Exact(8000 * MIB),
            host_available: Metric::Estimated(available),
            ..Limits::default()
        },
        heap: None,
    }
}

#[test]
fn each_limit_is_approached_by_what_is_charged_to_it() {
    let start = Duration::ZERO;
    let before = look(start, 100 * MIB, 300 * MIB, 1000 * MIB, 4000 * MIB);
    let then = start + Duration::from_secs(10);
    let after = look(then, 80 * MIB, 400 * MIB, 1500 * MIB, 3900 * MIB);
    let growth = Growth::between(&before, &after);
    assert_eq!(growth.seconds, 10.0);
    let slope = |of: &str| growth.slopes.iter().find(|slope| slope.of == of);
    assert_eq!(slope("rss").unwrap().bytes_per_second, -2.0 * MIB as f64);
    assert_eq!(slope("cgroup").unwrap().bytes_per_second, 10.0 * MIB as f64);
    assert_eq!(slope("anon"), None);
    assert_eq!(slope("in_use"), None);
    let times: Vec<_> = growth
        .time_to
        .iter()
        .map(|time| (time.bound.clone(), time.seconds))
        .collect();
    // The parent fills by others faster than the cgroup of the process itself.
    let expected = [
        (Bound::CgroupMax("/a".to_owned()), 10.0),
        (Bound::CgroupMax("/a/b".to_owned()), 60.0),
        (Bound::Host, 390.0),
    ];
    assert_eq!(times, expected);
    assert_eq!(growth.time_to[2].headroom, Metric::Estimated(3900 * MIB));
}

#[test]
fn what_shrinks_or_rests_meets_no_limit() {
    let start = Duration::ZERO;
    let before = look(start, MIB, 300 * MIB, 1000 * MIB, 4000 * MIB);
    let then = start + Duration::from_secs(1);
    let after = look(then, MIB, 300 * MIB, 900 * MIB, 4100 * MIB);
    let growth = Growth::between(&before, &after);
    assert!(growth.time_to.is_empty(), "{:?}", growth.time_to);
}

#[test]
fn a_limit_that_is_reached_is_met_now() {
    let start = Duration::ZERO;
    let before = look(start, MIB, 300 * MIB, 1000 * MIB, 4000 * MIB);
    let then = start + Duration::from_secs(1);
    let after = look(then, MIB, 1000 * MIB, 1000 * MIB, 4000 * MIB);
    let growth = Growth::between(&before, &after);
    assert_eq!(growth.time_to.len(), 1);
    assert_eq!(growth.time_to[0].seconds, 0.0);
}

#[test]
fn without_time_between_there_is_no_growth() {
    let start = Duration::ZERO;
    let one = look(start, MIB, MIB, MIB, MIB);
    assert_eq!(Growth::between(&one, &one), Growth::default());
}
