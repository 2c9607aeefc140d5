//! What a process may still take, with page cache that could be dropped shown apart.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use malloc_stats::limits::{Bound, Cgroup, CgroupVersion, Limit, Limits, Room};
use malloc_stats::{Grade, Metric};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn machine(name: &str) -> Limits {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    assert!(root.is_dir(), "{} is missing", root.display());
    Limits::under(&root, "self")
}

/// A host of 64 GiB, 8 of them free and 20 available, with one cgroup.
fn with(cgroup: Cgroup) -> Limits {
    Limits {
        cgroup_version: Some(CgroupVersion::V1),
        cgroups: vec![cgroup],
        host_available: Metric::Estimated(20 * GIB),
        host_free: Metric::Exact(8 * GIB),
        host_total: Metric::Exact(64 * GIB),
        ..Limits::default()
    }
}

/// A cgroup without limits that uses `current`.
fn using(current: u64) -> Cgroup {
    Cgroup {
        path: "/app".to_owned(),
        max: Limit::Unlimited,
        high: Limit::Unlimited,
        memsw_max: Limit::Unlimited,
        current: Metric::Exact(current),
        ..Cgroup::default()
    }
}

#[test]
fn reclaimable_is_file_cache_that_is_neither_dirty_nor_written_nor_mapped() {
    for name in ["v1", "v2"] {
        let own = machine(name).cgroups.swap_remove(0);
        let expected = (300 + 180 - 10 - 5 - 30) * MIB;
        assert_eq!(own.reclaimable, Metric::Estimated(expected), "{name}");
    }
    // Its memory.stat has no active_file.
    let own = machine("container_v2").cgroups.swap_remove(0);
    assert!(!own.inactive_file.is_unavailable());
    assert_eq!(own.reclaimable, Metric::Unavailable);
}

#[test]
fn kills_for_want_of_memory_are_counted() {
    for name in ["v1", "v2"] {
        let limits = machine(name);
        assert_eq!(limits.cgroups[0].oom_kills, Metric::Exact(3), "{name}");
        assert_eq!(limits.cgroups[1].oom_kills, Metric::Unavailable, "{name}");
    }
}

#[test]
fn the_bound_with_least_room_need_not_be_the_tightest() {
    let limits = machine("v2");
    // Only 512 MiB, but 2 GiB of page cache beside them.
    let high = Bound::CgroupHigh("/user.slice".to_owned());
    assert_eq!(limits.tightest().unwrap().bound, high);
    let room = limits.room().unwrap();
    let expected = Room {
        bound: Bound::CgroupMax("/user.slice/app.scope".to_owned()),
        unused: Metric::Exact(2 * GIB),
        reclaimable: Metric::Estimated(435 * MIB),
        total: Metric::Exact(4 * GIB),
    };
    assert_eq!(room, expected);
    assert_eq!(room.bytes(), Some(2 * GIB + 435 * MIB));
}

#[test]
fn page_cache_that_is_not_known_is_not_counted_on() {
    let room = machine("v1").room().unwrap();
    assert_eq!(room.bound, Bound::CgroupMax("/system.slice".to_owned()));
    assert_eq!(room.reclaimable, Metric::Unavailable);
    assert_eq!(room.total, Metric::Exact(4 * GIB));
    assert_eq!(room.bytes(), Some(GIB));
}

#[test]
fn cache_that_must_go_to_come_back_to_an_exceeded_limit_is_no_room() {
    let room = with(Cgroup {
        high: Limit::Bytes(4 * GIB),
        reclaimable: Metric::Estimated(3 * GIB),
        ..using(5 * GIB)
    })
    .room()
    .unwrap();
    assert_eq!(room.bound, Bound::CgroupHigh("/app".to_owned()));
    assert_eq!(room.unused, Metric::Exact(0));
    assert_eq!(room.reclaimable, Metric::Estimated(2 * GIB));
}

#[test]
fn page_cache_counts_under_the_limit_of_memory_and_swap_too() {
    let room = with(Cgroup {
        memsw_max: Limit::Bytes(6 * GIB),
        memsw_current: Metric::Exact(4 * GIB),
        reclaimable: Metric::Estimated(GIB),
        ..using(3 * GIB)
    })
    .room()
    .unwrap();
    assert_eq!(room.bound, Bound::CgroupMemorySwap("/app".to_owned()));
    assert_eq!(room.total, Metric::Exact(6 * GIB));
    assert_eq!(room.bytes(), Some(3 * GIB));
}

#[test]
fn the_host_leaves_what_is_available() {
    let limits = with(using(GIB));
    let host = limits.room().unwrap();
    let expected = Room {
        bound: Bound::Host,
        unused: Metric::Exact(8 * GIB),
        reclaimable: Metric::Estimated(12 * GIB),
        total: Metric::Exact(64 * GIB),
    };
    assert_eq!(host, expected);

    // Free memory that the kernel keeps for itself.
    let reserved = Limits {
        host_available: Metric::Estimated(7 * GIB),
        ..limits.clone()
    };
    let host = reserved.room().unwrap();
    assert_eq!(host.unused, Metric::Estimated(7 * GIB));
    assert_eq!(host.bytes(), Some(7 * GIB));

    let without = Limits {
        host_available: Metric::Unavailable,
        ..limits
    };
    let host = without.room().unwrap();
    assert_eq!(host.reclaimable, Metric::Unavailable);
    assert_eq!(host.bytes(), Some(8 * GIB));
}

#[test]
fn beside_a_limit_that_is_not_known_it_is_an_upper_bound() {
    let room = with(Cgroup {
        max: Limit::Bytes(2 * GIB),
        high: Limit::Unknown,
        ..using(GIB)
    })
    .room()
    .unwrap();
    assert_eq!(room.unused, Metric::Upper(GIB));
    assert!(machine("garbled").room().unwrap().unused.grade() >= Grade::Upper);
    assert_eq!(
        Limits::under(Path::new("/nonexistent"), "self").room(),
        None
    );
}

#[test]
fn this_process_has_room_within_the_total() {
    let limits = Limits::of_self();
    let room = limits.room().unwrap();
    assert!(
        room.bytes().unwrap() <= room.total.bytes().unwrap(),
        "{room:?}"
    );
    assert!(limits.host_free.bytes().unwrap() < limits.host_total.bytes().unwrap());
}

fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![0..64 * GIB, any::<u64>()]
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        2 => bytes().prop_map(Limit::Bytes),
        1 => Just(Limit::Unlimited),
        1 => Just(Limit::Unknown),
    ]
}

fn metric() -> impl Strategy<Value = Metric> {
    prop_oneof![
        2 => bytes().prop_map(Metric::Exact),
        1 => bytes().prop_map(Metric::Estimated),
        1 => Just(Metric::Unavailable),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let cgroup = (limit(), limit(), limit(), metric(), metric(), metric()).prop_map(
        |(max, high, memsw_max, current, memsw_current, reclaimable)| Cgroup {
            path: "/app".to_owned(),
            max,
            high,
            memsw_max,
            current,
            memsw_current,
            reclaimable,
            ..Cgroup::default()
        },
    );
    let cgroups = prop::collection::vec(cgroup, 0..4);
    (cgroups, metric(), metric(), metric()).prop_map(
        |(cgroups, host_available, host_free, host_total)| Limits {
            cgroup_version: Some(CgroupVersion::V2),
            cgroups,
            host_available,
            host_free,
            host_total,
            ..Limits::default()
        },
    )
}

proptest! {
    #[test]
    fn room_is_never_less_than_the_headroom_nor_more_than_the_host_has(limits in limits()) {
        let Some(room) = limits.room() else {
            prop_assert!(limits.host_free.is_unavailable());
            return Ok(());
        };
        let bytes = room.bytes().unwrap();
        if let (Some(available), Some(_)) = (limits.host_available.bytes(), limits.host_free.bytes()) {
            prop_assert!(bytes <= available);
            prop_assert!(bytes >= limits.headroom().bytes().unwrap());
        }
        let json = serde_json::to_string(&room)?;
        prop_assert_eq!(serde_json::from_str::<Room>(&json)?, room);
    }
}
