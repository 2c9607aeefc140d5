//! Differences: how they read, and that recordings of them come back whole.

#![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

use malloc_stats::limits::{Bound, Cgroup, CgroupVersion, Limit, PressureOf, Stall};
use malloc_stats::{
    AllocatorReading, Depth, Diff, Host, JemallocStats, Limits, Mallinfo, Metric, Pressure,
    Process, Setting, SettingGrade, Settings, Snapshot, Vram,
};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn loaded(mib: u64) -> Snapshot {
    Snapshot {
        depth: Depth::Full,
        at_us: mib * 1000,
        process: Process {
            rss: Metric::Exact((20 + mib) * MIB),
            anon: Metric::Exact((4 + mib) * MIB),
            file: Metric::Exact(16 * MIB),
            shmem: Metric::Exact(0),
            hwm: Metric::Estimated((20 + mib) * MIB),
            swap: Metric::Unavailable,
            minor_faults: 100 + mib * 256,
            major_faults: 0,
        },
        allocator: Some(AllocatorReading {
            name: "glibc 2.36".to_owned(),
            in_use: Metric::Exact(mib * MIB),
            held: Metric::Exact((1 + mib) * MIB),
            heap_rss: Metric::Upper((1 + mib) * MIB),
            glibc: Some(Mallinfo {
                arena: MIB,
                uordblks: 1000,
                fordblks: MIB - 1000,
                hblkhd: mib * MIB,
                ..Mallinfo::default()
            }),
            ..AllocatorReading::default()
        }),
        ..Snapshot::default()
    }
}

#[test]
fn a_diff_prints_one_aligned_line_per_metric() {
    let diff = Diff::between(&loaded(0), &loaded(1536));
    let text = diff.to_string();
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(
        rows,
        [
            "process RAM     ( +1.50 GiB): 20.0 MiB -> 1.52 GiB",
            "anonymous       ( +1.50 GiB): 4.0 MiB -> 1.50 GiB",
            "file            (      ±0 B): 16.0 MiB -> 16.0 MiB",
            "shared          (      ±0 B): 0 B -> 0 B",
            "peak RAM        (~+1.50 GiB): ~20.0 MiB -> ~1.52 GiB",
            "swap            (       n/a): n/a -> n/a",
            "cgroup          (       n/a): n/a -> n/a",
            "mmap allocated  ( +1.50 GiB): 0 B -> 1.50 GiB",
            "arena used      (      ±0 B): 1000 B -> 1000 B",
            "arena free      (      ±0 B): 1023.0 KiB -> 1023.0 KiB",
            "total allocated ( +1.50 GiB): 1.0 MiB -> 1.50 GiB",
            "total used      ( +1.50 GiB): 0 B -> 1.50 GiB",
            "heap RAM        (~+1.50 GiB): ≤ 1.0 MiB -> ≤ 1.50 GiB",
            "VRAM            (       n/a): n/a -> n/a",
        ]
    );
}

#[test]
fn what_fell_has_a_minus() {
    let diff = Diff::between(&loaded(100), &loaded(0));
    assert_eq!(diff.rss_delta(), Some(-(100 << 20)));
    assert!(
        diff.to_string()
            .starts_with("process RAM     ( -100.0 MiB): 120.0 MiB -> 20.0 MiB")
    );
}

#[test]
fn one_and_the_same_reading_of_the_allocator_is_no_difference_of_zero() {
    let full = loaded(5);
    let bracket = |at_us| Snapshot {
        depth: Depth::Bracket,
        at_us,
        allocator_age_us: at_us - full.at_us,
        ..full.clone()
    };
    let diff = Diff::between(&bracket(10_000), &bracket(20_000));
    assert_eq!(diff.total_used.delta(), None);
    assert_eq!(diff.allocator_age_us, Some((5_000, 15_000)));
    assert!(
        diff.to_string()
            .contains("total used      (  n/a): n/a -> n/a"),
        "{diff}"
    );
}

#[test]
fn each_gpu_has_its_lines() {
    let with_gpu = |used: u64| Snapshot {
        vram: vec![Vram {
            index: 1,
            name: "GPU".to_owned(),
            used: Metric::Exact(used * MIB),
            ..Vram::default()
        }],
        ..Snapshot::default()
    };
    let text = Diff::between(&with_gpu(10), &with_gpu(30)).to_string();
    assert!(
        text.contains("VRAM 1 used       (+20.0 MiB): 10.0 MiB -> 30.0 MiB"),
        "{text}"
    );
    assert!(
        text.contains("VRAM 1 by process (      n/a): n/a -> n/a"),
        "{text}"
    );
    let text = Diff::between(&Snapshot::default(), &with_gpu(30)).to_string();
    assert!(text.contains("n/a -> 30.0 MiB"), "{text}");
}

fn metric() -> impl Strategy<Value = Metric> {
    prop_oneof![
        any::<u64>().prop_map(Metric::Exact),
        any::<u64>().prop_map(Metric::Upper),
        any::<u64>().prop_map(Metric::Estimated),
        Just(Metric::Unavailable),
    ]
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        any::<u64>().prop_map(Limit::Bytes),
        Just(Limit::Unlimited),
        Just(Limit::Unknown)
    ]
}

fn reading() -> impl Strategy<Value = AllocatorReading> {
    let raw = prop::array::uniform10(any::<u64>());
    let metrics = prop::array::uniform9(metric());
    let notes = prop::collection::vec(".{0,20}", 0..3);
    (metrics, raw, any::<bool>(), ".{0,20}", notes).prop_map(|(m, raw, jemalloc, name, notes)| {
        AllocatorReading {
            name,
            in_use: m[0],
            held: m[1],
            free_virtual: m[2],
            internal_waste: m[3],
            cached_resident: m[4],
            returned_virtual: m[5],
            metadata: m[6],
            top_main: m[7],
            heap_rss: m[8],
            glibc: (!jemalloc).then_some(Mallinfo {
                arena: raw[0],
                ordblks: raw[1],
                smblks: raw[2],
                hblks: raw[3],
                hblkhd: raw[4],
                usmblks: raw[5],
                fsmblks: raw[6],
                uordblks: raw[7],
                fordblks: raw[8],
                keepcost: raw[9],
            }),
            jemalloc: jemalloc.then_some(JemallocStats {
                allocated: raw[0],
                active: raw[1],
                metadata: raw[2],
                resident: raw[3],
                mapped: raw[4],
                retained: raw[5],
                dirty: raw[6],
                muzzy: raw[7],
            }),
            notes,
        }
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let cgroup = ("(/[a-z]{1,5}){1,3}", limit(), limit(), metric(), metric()).prop_map(
        |(path, max, memsw_max, current, file)| Cgroup {
            path,
            max,
            memsw_max,
            current,
            file,
            ..Cgroup::default()
        },
    );
    let version = prop::option::of(prop_oneof![
        Just(CgroupVersion::V1),
        Just(CgroupVersion::V2)
    ]);
    (
        version,
        prop::collection::vec(cgroup, 0..3),
        limit(),
        metric(),
    )
        .prop_map(|(cgroup_version, cgroups, data, host_available)| {
            let mut limits = Limits {
                cgroup_version,
                cgroups,
                host_available,
                ..Limits::default()
            };
            limits.rlimits.data = data;
            limits
        })
}

fn snapshot() -> BoxedStrategy<Snapshot> {
    let process = (prop::array::uniform6(metric()), any::<u64>(), any::<u64>()).prop_map(
        |(m, minor_faults, major_faults)| Process {
            rss: m[0],
            anon: m[1],
            file: m[2],
            shmem: m[3],
            hwm: m[4],
            swap: m[5],
            minor_faults,
            major_faults,
        },
    );
    let vram =
        (0..4_u32, ".{0,12}", metric(), metric()).prop_map(|(index, name, used, process)| Vram {
            index,
            name,
            used,
            process,
            ..Vram::default()
        });
    let host = (metric(), metric()).prop_map(|(total, available)| Host {
        total,
        available,
        ..Host::default()
    });
    // The kernel writes two decimal places.
    let stall = (0..=10_000_u32, any::<u64>()).prop_map(|(avg10, total_us)| Stall {
        avg10: f64::from(avg10) / 100.0,
        total_us,
    });
    let pressure = (stall.clone(), stall).prop_map(|(some, full)| Pressure {
        of: PressureOf::Cgroup,
        some,
        full,
    });
    let setting = (".{0,8}", prop::bool::ANY).prop_map(|(value, verified)| Setting {
        value,
        grade: if verified {
            SettingGrade::Verified
        } else {
            SettingGrade::Refused
        },
    });
    let settings = prop::collection::btree_map("[a-z_]{1,8}", setting, 0..3)
        .prop_map(|knobs| knobs.into_iter().collect::<Settings>());
    let times = (any::<bool>(), any::<u64>(), any::<u64>(), any::<u64>());
    let full = (
        prop::option::of(limits().boxed()).boxed(),
        prop::option::of(host),
        prop::option::of(pressure),
        prop::collection::vec(vram, 0..3).boxed(),
        prop::option::of(".{0,20}"),
    );
    (
        times,
        process,
        metric(),
        prop::option::of(reading().boxed()).boxed(),
        settings,
        full,
    )
        .prop_map(
            |(times, process, cgroup_current, allocator, settings, full)| Snapshot {
                depth: if times.0 { Depth::Full } else { Depth::Bracket },
                at_us: times.1,
                cost_us: times.2,
                allocator_age_us: times.3,
                process,
                cgroup_current,
                allocator,
                settings,
                limits: full.0,
                host: full.1,
                pressure: full.2,
                vram: full.3,
                vram_absent: full.4,
            },
        )
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn snapshots_and_diffs_survive_json(before in snapshot(), after in snapshot()) {
        let json = serde_json::to_string(&before)?;
        prop_assert_eq!(&serde_json::from_str::<Snapshot>(&json)?, &before);
        let diff = Diff::between(&before, &after);
        let json = serde_json::to_string(&diff)?;
        prop_assert_eq!(&serde_json::from_str::<Diff>(&json)?, &diff);
    }

    #[test]
    fn the_columns_of_any_diff_are_aligned(before in snapshot(), after in snapshot()) {
        let text = Diff::between(&before, &after).to_string();
        let column = |line: &str, of: &str| line.find(of).map(|at| line[..at].chars().count());
        let first = text.lines().next().expect("never empty");
        for line in text.lines() {
            prop_assert_eq!(column(line, "("), column(first, "("));
            prop_assert_eq!(column(line, "): "), column(first, "): "));
        }
    }

    #[test]
    fn the_tightest_bound_is_never_looser_than_the_host(limits in limits()) {
        if let (Some(headroom), Some(host)) = (limits.headroom().bytes(), limits.host_available.bytes()) {
            prop_assert!(headroom <= host);
        }
        let json = serde_json::to_string(&limits.tightest())?;
        let back: Option<malloc_stats::limits::Tightest> = serde_json::from_str(&json)?;
        prop_assert_eq!(back, limits.tightest());
    }
}

#[test]
fn bounds_read_as_sentences() {
    assert_eq!(
        Bound::CgroupMax("/app".to_owned()).to_string(),
        "the hard limit of cgroup /app"
    );
    assert_eq!(Bound::Host.to_string(), "the host's available memory");
}
