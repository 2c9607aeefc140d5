//! Limits are read from trees of files that stand for machines.

#![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

use std::path::Path;

use malloc_stats::limits::{
    Bound, CgroupVersion, Limit, Limits, locate, parse_limit, parse_memberships, parse_meminfo,
    parse_mount, parse_pressure, parse_rlimits, parse_stat,
};
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

fn tightest(limits: &Limits) -> (Bound, Metric) {
    let tightest = limits.tightest().expect("some bound");
    (tightest.bound, tightest.headroom)
}

#[test]
fn v1_headroom_is_the_least_over_all_ancestors() {
    let limits = machine("v1");
    assert_eq!(limits.cgroup_version, Some(CgroupVersion::V1));
    let paths: Vec<&str> = limits
        .cgroups
        .iter()
        .map(|cgroup| cgroup.path.as_str())
        .collect();
    assert_eq!(paths, ["/system.slice/app.service", "/system.slice", "/"]);
    assert_eq!(limits.cgroups[0].soft, Limit::Bytes(2 * GIB));
    assert_eq!(limits.cgroups[0].memsw_max, Limit::Unlimited);
    let bound = Bound::CgroupMax("/system.slice".to_owned());
    assert_eq!(tightest(&limits), (bound, Metric::Exact(GIB)));
    assert!(limits.notes.is_empty(), "{:?}", limits.notes);
}

#[test]
fn v2_memory_high_of_an_ancestor_bounds_too() {
    let limits = machine("v2");
    assert_eq!(limits.cgroup_version, Some(CgroupVersion::V2));
    assert_eq!(limits.cgroups.len(), 3);
    assert_eq!(limits.cgroups[0].max, Limit::Bytes(4 * GIB));
    assert_eq!(limits.cgroups[0].swap_max, Limit::Bytes(GIB));
    assert_eq!(limits.cgroups[0].swap_current, Metric::Exact(64 * MIB));
    assert_eq!(limits.cgroups[2].max, Limit::Unlimited);
    let bound = Bound::CgroupHigh("/user.slice".to_owned());
    assert_eq!(tightest(&limits), (bound, Metric::Exact(512 * MIB)));
}

#[test]
fn shared_memory_is_taken_out_of_file_and_reclaimable_cache_is_not_added() {
    for name in ["v1", "v2"] {
        let own = machine(name).cgroups.swap_remove(0);
        assert_eq!(own.anon, Metric::Exact(1000 * MIB), "{name}");
        assert_eq!(own.file, Metric::Exact(480 * MIB), "{name}");
        assert_eq!(own.shmem, Metric::Exact(160 * MIB), "{name}");
        assert_eq!(own.inactive_file, Metric::Exact(300 * MIB), "{name}");
    }
    let container = machine("container_v2");
    assert_eq!(container.headroom(), Metric::Exact(1536 * MIB));
}

#[test]
fn on_a_hybrid_system_the_v1_memory_controller_counts() {
    let limits = machine("hybrid");
    assert_eq!(limits.cgroup_version, Some(CgroupVersion::V1));
    let bound = Bound::CgroupMax("/jobs".to_owned());
    assert_eq!(tightest(&limits), (bound, Metric::Exact(2 * GIB)));
}

#[test]
fn a_bind_mount_of_the_containers_own_cgroup_is_found() {
    let limits = machine("container_v1");
    assert_eq!(limits.cgroups.len(), 1);
    assert_eq!(limits.cgroups[0].path, "/");
    assert_eq!(limits.headroom(), Metric::Exact(1536 * MIB));
}

#[test]
fn a_path_that_the_mount_does_not_show_falls_back_to_the_nearest_visible_ancestor() {
    let limits = machine("container_hidden");
    assert_eq!(limits.cgroups.len(), 1);
    assert_eq!(limits.headroom(), Metric::Exact(GIB));
    assert!(
        limits.notes[0].contains("2 lowest cgroups"),
        "{:?}",
        limits.notes
    );
}

#[test]
fn a_mount_above_the_namespace_is_an_ancestor_of_unknown_distance() {
    let limits = machine("host_mount_in_namespace");
    assert_eq!(limits.headroom(), Metric::Exact(9 * GIB));
    assert!(
        limits.notes[0].contains("only the limits there are known"),
        "{:?}",
        limits.notes
    );
}

#[test]
fn a_cgroup_outside_of_every_mount_leaves_the_host_as_an_upper_bound() {
    let limits = machine("outside_namespace");
    assert!(limits.cgroups.is_empty());
    let (bound, headroom) = tightest(&limits);
    assert_eq!(bound, Bound::Host);
    assert_eq!(headroom.bytes(), Some(20 * GIB));
    assert_ne!(headroom.grade(), Grade::Exact);
    assert!(
        limits.notes[0].contains("in no mounted hierarchy"),
        "{:?}",
        limits.notes
    );
}

#[test]
fn a_limit_that_is_no_number_is_unknown_and_noted() {
    let limits = machine("garbled");
    assert_eq!(limits.cgroups[0].max, Limit::Unknown);
    assert!(limits.headroom().grade() >= Grade::Upper);
    assert!(
        limits.notes[0].contains("/sys/fs/cgroup/app/memory.max"),
        "{:?}",
        limits.notes
    );
}

#[test]
fn without_any_file_everything_is_unknown_with_a_reason() {
    let limits = Limits::under(Path::new("/nonexistent"), "self");
    assert_eq!(limits.headroom(), Metric::Unavailable);
    assert_eq!(limits.tightest(), None);
    assert_eq!(limits.rlimits.data, Limit::Unknown);
    assert_eq!(limits.notes.len(), 3);
}

#[test]
fn the_limits_of_this_process_can_be_read() {
    let limits = Limits::of_self();
    assert!(limits.host_total.bytes() > limits.host_available.bytes());
    assert!(limits.headroom().bytes() <= limits.host_available.bytes());
    assert!(!limits.rlimits.address_space.is_unknown());
}

#[test]
fn rlimits_and_host_are_read_from_their_files() {
    let limits = machine("v2");
    assert_eq!(limits.rlimits.address_space, Limit::Bytes(32 * GIB));
    assert_eq!(limits.rlimits.data, Limit::Unlimited);
    assert_eq!(limits.rlimits.locked, Limit::Bytes(8 * MIB));
    assert_eq!(limits.host_available, Metric::Estimated(20 * GIB));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v2/proc/meminfo");
    let host = parse_meminfo(&std::fs::read_to_string(path).expect("fixture"));
    assert_eq!(host.file, Metric::Exact(10_000_000 << 10));
    assert_eq!(host.swap_free, Metric::Exact(512 * MIB));
}

#[test]
fn the_unlimited_sentinel_of_v1_is_no_limit_for_any_page_size() {
    assert_eq!(parse_limit("9223372036854771712\n"), Limit::Unlimited);
    assert_eq!(parse_limit("9223372036854710272"), Limit::Unlimited);
    assert_eq!(parse_limit("max"), Limit::Unlimited);
    assert_eq!(parse_limit("1073741824"), Limit::Bytes(GIB));
    assert_eq!(parse_limit("0"), Limit::Bytes(0));
    assert_eq!(parse_limit("99999999999999999999999"), Limit::Unknown);
    assert_eq!(parse_limit(""), Limit::Unknown);
}

#[test]
fn pressure_is_read_and_nonsense_refused() {
    let text = "some avg10=1.25 avg60=0.12 avg300=0.00 total=391926\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=17\n";
    let (some, full) = parse_pressure(text).expect("well-formed");
    assert!((some.avg10 - 1.25).abs() < f64::EPSILON);
    assert_eq!((some.total_us, full.total_us), (391_926, 17));
    assert_eq!(
        parse_pressure("some avg10=NaN total=1\nfull avg10=0 total=1"),
        None
    );
    assert_eq!(parse_pressure("some avg10=1 total=1"), None);
}

#[test]
fn limits_survive_json() {
    for name in ["v1", "v2", "garbled", "outside_namespace"] {
        let limits = machine(name);
        let json = serde_json::to_string(&limits).expect("serialises");
        let back: Limits = serde_json::from_str(&json).expect(&json);
        assert_eq!(back, limits, "{json}");
    }
}

/// Text that looks a little like the files: their words and separators, shuffled.
fn scrambled() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just(" - ".to_owned()),
        Just("cgroup2".to_owned()),
        Just("4:memory:/../a".to_owned()),
        Just("0::/".to_owned()),
        Just("\\040".to_owned()),
        Just("\\9".to_owned()),
        Just("MemTotal:".to_owned()),
        Just("Max data size".to_owned()),
        Just("some avg10=".to_owned()),
        Just("\n".to_owned()),
        "[0-9]{1,25}",
        ".{0,6}",
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn parsers_never_panic(text in scrambled()) {
        let memberships = parse_memberships(&text);
        let mounts: Vec<_> = text.lines().filter_map(parse_mount).collect();
        if let Some(location) = locate(&memberships, &mounts) {
            let lowest = location.directories().next().expect("at least the mount point");
            prop_assert!(lowest.0.starts_with(&location.mount_point));
        }
        let _ = (parse_limit(&text), parse_meminfo(&text), parse_pressure(&text));
        let _ = (parse_rlimits(&text), parse_stat(&text, "anon"));
    }

    #[test]
    fn a_limit_that_is_written_is_read(bytes in 0..(1_u64 << 62)) {
        prop_assert_eq!(parse_limit(&format!("{bytes}\n")), Limit::Bytes(bytes));
    }
}
