//! What cannot be brought about on any machine: inspections made by hand.

use malloc_stats::heap::{Heap, Pin, Totals};
use malloc_stats::inspect::Severity::{Note, Warn};
use malloc_stats::inspect::{Detected, FilePages, Inspection, judge};
use malloc_stats::limits::{Cgroup, CgroupVersion, Limit, PressureOf, Stall};
use malloc_stats::{Limits, Metric, Pressure, Vram};

use super::holder::{must, must_not};

const GIB: u64 = 1 << 30;

fn swapped(swap: u64) -> Inspection {
    let mut inspection = Inspection::default();
    inspection.process.memory.anon = Metric::Estimated(3 * GIB);
    inspection.process.memory.swap = Metric::Estimated(swap);
    inspection
}

#[test]
fn by_hand_a_process_in_swap() {
    let verdicts = judge(&swapped(GIB));
    let found = must(&verdicts, "swapped", Warn);
    assert!(
        found.finding.starts_with("~1.00 GiB of ~4.00 GiB"),
        "{found:?}"
    );
    assert!(found.finding.contains("(25 %)"));
    must_not(&judge(&swapped(GIB / 8)), "swapped");
}

fn stalled(avg10: f64) -> Inspection {
    let stall = |avg10| Stall { avg10, total_us: 1 };
    Inspection {
        pressure: Some(Pressure {
            of: PressureOf::Cgroup,
            some: stall(avg10),
            full: stall(avg10 / 2.0),
        }),
        ..Inspection::default()
    }
}

#[test]
fn by_hand_a_cgroup_that_stalls() {
    let verdicts = judge(&stalled(24.0));
    let found = must(&verdicts, "memory-stall", Warn);
    assert!(
        found
            .finding
            .contains("its cgroup waited for memory 24 % of the time")
    );
    must_not(&judge(&stalled(2.0)), "memory-stall");
}

fn gpu(free: u64, process: Metric) -> Inspection {
    Inspection {
        vram: vec![Vram {
            index: 1,
            name: "NVIDIA H200".to_owned(),
            total: Metric::Exact(140 * GIB),
            used: Metric::Exact(140 * GIB - free),
            free: Metric::Exact(free),
            process,
            ..Vram::default()
        }],
        ..Inspection::default()
    }
}

#[test]
fn by_hand_a_full_gpu() {
    let shared = Metric::Exact(40 * GIB);
    let verdicts = judge(&gpu(GIB, shared));
    let found = must(&verdicts, "vram-full", Warn);
    assert!(
        found
            .finding
            .starts_with("1.00 GiB is free of the 140.00 GiB of GPU 1")
    );
    // It filled it by itself, which may be meant so.
    must(
        &judge(&gpu(GIB, Metric::Exact(138 * GIB))),
        "vram-full",
        Note,
    );
    must_not(&judge(&gpu(20 * GIB, shared)), "vram-full");
    must_not(&judge(&gpu(GIB, Metric::Exact(0))), "vram-full");
    must_not(&judge(&gpu(GIB, Metric::Unavailable)), "vram-full");
}

/// In a cgroup of version 2 with both limits, of 4 GiB and 3.5.
fn version_2(current: u64) -> Inspection {
    Inspection {
        limits: Limits {
            cgroup_version: Some(CgroupVersion::V2),
            cgroups: vec![Cgroup {
                path: "/a\x1b[31m".to_owned(),
                max: Limit::Bytes(4 * GIB),
                high: Limit::Bytes(7 * GIB / 2),
                current: Metric::Exact(current),
                reclaimable: Metric::Estimated(0),
                memsw_max: Limit::Unlimited,
                ..Cgroup::default()
            }],
            host_available: Metric::Estimated(64 * GIB),
            host_free: Metric::Exact(64 * GIB),
            host_total: Metric::Exact(64 * GIB),
            ..Limits::default()
        },
        ..Inspection::default()
    }
}

#[test]
fn by_hand_memory_high_throttles_and_the_hard_limit_kills() {
    use malloc_stats::inspect::Severity::Bad;

    let verdicts = judge(&version_2(7 * GIB / 2 - (64 << 20)));
    let found = must(&verdicts, "near-limit", Warn);
    assert!(
        found
            .finding
            .contains("memory.high of cgroup /a\\u{1b}[31m"),
        "{found:?}"
    );
    assert!(found.remedy.contains("throttles"));
    let verdicts = judge(&version_2(4 * GIB - (64 << 20)));
    let found = must(&verdicts, "near-limit", Bad);
    assert!(
        found.finding.contains("the hard limit of cgroup"),
        "{found:?}"
    );
    must_not(&judge(&version_2(2 * GIB)), "near-limit");
}

#[test]
fn by_hand_kills_above_count_those_below_in_version_2() {
    let mut inspection = version_2(GIB);
    inspection.limits.cgroups.push(Cgroup {
        path: "/".to_owned(),
        oom_kills: Metric::Exact(3),
        ..Cgroup::default()
    });
    let verdicts = judge(&inspection);
    let found = must(&verdicts, "oom-killed", Note);
    assert!(
        found.finding.contains("3 processes were killed"),
        "{found:?}"
    );
    assert!(
        found
            .finding
            .contains("in cgroup / above it, or below that")
    );
    // The root of version 1 is everybody's.
    inspection.limits.cgroup_version = Some(CgroupVersion::V1);
    inspection.limits.cgroups[1].max = Limit::Unlimited;
    must_not(&judge(&inspection), "oom-killed");
}

#[test]
fn by_hand_nothing_is_said_of_what_is_not_known() {
    assert_eq!(judge(&Inspection::default()), []);
    let unknown = Inspection {
        heap: Some(Heap {
            pins: vec![Pin::default()],
            ..Heap::default()
        }),
        files: vec![FilePages {
            path: "/model.gguf".to_owned(),
            mapped: true,
            open: true,
            ..FilePages::default()
        }],
        ..Inspection::default()
    };
    assert_eq!(judge(&unknown), []);
}

#[test]
fn by_hand_grades_are_in_the_sentence() {
    let mut heap = Heap {
        totals: Totals {
            heap_rss: Metric::Estimated(2 * GIB),
            ..Totals::default()
        },
        ..Heap::default()
    };
    heap.trim.free_resident = Metric::Estimated(GIB);
    let inspection = Inspection {
        heap: Some(heap),
        ..Inspection::default()
    };
    let verdicts = judge(&inspection);
    let found = must(&verdicts, "free-but-resident", Warn);
    assert_eq!(found.bytes, Metric::Estimated(GIB));
    // What a trim returns is not known, so it is not said.
    assert_eq!(
        found.finding,
        "~1.00 GiB of the ~2.00 GiB that malloc has resident is free"
    );
}

#[test]
fn by_hand_each_allocator_has_its_own_way_out() {
    for (name, way) in [
        ("jemalloc", "mallctl"),
        ("mimalloc", "mi_stats_print"),
        ("tcmalloc", "MallocExtension"),
        ("musl", "musl keeps no counts"),
        ("go", "GOMEMLIMIT"),
    ] {
        let inspection = Inspection {
            unattributed: Metric::Exact(GIB),
            allocator: Detected {
                name: name.to_owned(),
                reason: Some("its statistics are stripped.".to_owned()),
                mappings_rss: Metric::Upper(GIB),
                ..Detected::default()
            },
            ..Inspection::default()
        };
        let verdicts = judge(&inspection);
        let found = must(&verdicts, "not-walkable", Note);
        assert!(found.remedy.contains(way), "{found:?}");
        assert!(
            found
                .finding
                .ends_with("its mappings have ≤ 1.00 GiB resident")
        );
        // That memory has been spoken of.
        must_not(&verdicts, "unattributed");
    }
}

#[test]
fn by_hand_the_gravest_comes_first_and_then_the_largest() {
    let mut inspection = version_2(4 * GIB - (64 << 20));
    inspection.pressure = stalled(30.0).pressure;
    inspection.process.memory = swapped(GIB).process.memory;
    inspection.vram = gpu(GIB / 2, Metric::Exact(139 * GIB)).vram;
    let verdicts = judge(&inspection);
    let lints: Vec<&str> = verdicts.iter().map(|found| found.lint.as_str()).collect();
    assert_eq!(
        lints,
        ["near-limit", "swapped", "memory-stall", "vram-full"]
    );
}
