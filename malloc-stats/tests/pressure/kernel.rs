//! Watches that the kernel of this machine serves.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use malloc_stats::limits::watch::{PressureWatch, Source, Woken};
use malloc_stats::limits::{Bound, CgroupVersion, Limits};

use crate::cgroup::{Cgroup, Running, eater, machine_of_version_2};
use crate::{Scratch, asleep, until, wait_past_pressure};

const INSIDE: &str = "MALLOC_STATS_TEST_CGROUP";
const LIMIT: u64 = 64 << 20;
/// Only a kernel that never tells makes a test wait that long.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_process_that_reaches_the_limit_of_its_cgroup_is_told() {
    let needed = "memory.pressure_level";
    let Some(cgroup) = Cgroup::make(CgroupVersion::V1, "limit", needed) else {
        return;
    };
    cgroup.limit(LIMIT);
    let inside = cgroup
        .command(std::env::current_exe().unwrap())
        .args(["--exact", "kernel::inside_of_a_cgroup", "--nocapture"])
        .env(INSIDE, &cgroup.directory)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&inside.stdout),
        String::from_utf8_lossy(&inside.stderr),
    );
    assert!(inside.status.success(), "{}: {out}{err}", inside.status);
    assert!(out.contains("1 passed"), "{out}{err}");
}

/// The part of the test above that runs in the cgroup; alone it has nothing to do.
#[test]
fn inside_of_a_cgroup() {
    let Some(directory) = std::env::var_os(INSIDE).map(PathBuf::from) else {
        return;
    };
    let watch = PressureWatch::of_self();
    assert_eq!(*watch.source(), Source::CgroupLevel(directory.clone()));
    let room = Limits::of_self().room().unwrap();
    let (Bound::CgroupMax(path) | Bound::CgroupMemorySwap(path)) = &room.bound else {
        panic!("{room:?} is not that of the cgroup");
    };
    assert!(directory.ends_with(path.trim_start_matches('/')));
    assert_eq!(room.total.bytes(), Some(LIMIT));
    assert!(room.bytes().unwrap() <= LIMIT, "{room:?}");
    assert_eq!(
        Limits::of_self().cgroups[0].oom_kills.bytes(),
        Some(0),
        "a new cgroup"
    );

    let mut eater = eater();
    assert_eq!(watch.wait(LONG), Woken::Pressure);
    assert_eq!(eater.0.wait().unwrap().signal(), Some(libc::SIGKILL));
    let kills = Limits::of_self().cgroups[0].oom_kills;
    assert_eq!(kills.bytes(), Some(1));
}

#[test]
fn a_watch_outlives_the_cgroup_of_version_1_and_polls_then() {
    let needed = "memory.pressure_level";
    let Some(cgroup) = Cgroup::make(CgroupVersion::V1, "removed", needed) else {
        return;
    };
    let inside = Running(cgroup.command("sleep").arg("1000").spawn().unwrap());
    let pid = inside.0.id().to_string();
    let expected = Source::CgroupLevel(cgroup.directory.clone());
    until("the process is in the cgroup", || {
        *PressureWatch::under(Path::new("/"), &pid).source() == expected
    });
    let watch = PressureWatch::under(Path::new("/"), &pid);
    drop(inside);
    polls_once_removed(watch, &cgroup);
}

#[test]
fn a_watch_outlives_the_cgroup_of_version_2_and_polls_then() {
    let Some((cgroup, watch)) = watch_of_version_2("removed") else {
        return;
    };
    polls_once_removed(watch, &cgroup);
}

/// Removes the cgroup while a thread waits; which goes on waiting, without the kernel.
fn polls_once_removed(watch: PressureWatch, cgroup: &Cgroup) {
    let watch = Arc::new(watch);
    let waiting = Arc::clone(&watch);
    let thread = asleep(move || wait_past_pressure(&waiting, Duration::MAX));
    until("the cgroup can be removed", || cgroup.remove());
    until(
        "the watch polls",
        || matches!(watch.source(), Source::Polling { reason } if reason.contains("removed")),
    );
    assert!(!thread.is_finished());
    assert_eq!(watch.wait(Duration::from_millis(1)), Woken::Timeout);
    watch.stopper().stop();
    assert_eq!(thread.join().unwrap(), Woken::Stopped);
}

/// A new cgroup, and a watch that listens to its own stalls; `None` where there is no such.
fn watch_of_version_2(name: &str) -> Option<(Cgroup, PressureWatch)> {
    let cgroup = Cgroup::make(CgroupVersion::V2, name, "memory.pressure")?;
    let machine = Scratch::new(&format!("version_2_{name}"));
    machine_of_version_2(&machine.0, &cgroup.directory);
    let watch = PressureWatch::under(&machine.0, "self");
    let own = machine.0.join("cg/own/memory.pressure");
    if *watch.source() == Source::Psi(own) {
        return Some((cgroup, watch));
    }
    eprintln!(
        "skipped, as stalls cannot be listened to: {}",
        watch.source()
    );
    None
}

#[test]
fn processes_that_wait_for_memory_are_told_of_by_the_cgroup_of_version_2() {
    let Some((stalled, watch)) = watch_of_version_2("stalls") else {
        return;
    };
    // Dropped last: what runs in the cgroups writes there.
    let files = Scratch::new("stalls");
    // What makes them wait is a limit, which here only version 1 can be relied on to have.
    let Some(limited) = Cgroup::make(CgroupVersion::V1, "stalls", "memory.pressure_level") else {
        return;
    };
    limited.limit(16 << 20);
    assert_eq!(watch.wait(Duration::ZERO), Woken::Timeout);
    let write = r#"echo $$ > "$0/cgroup.procs" && while :; do
        dd if=/dev/zero of="$1" bs=1M count=100 conv=notrunc 2>/dev/null && cat "$1" > /dev/null
    done"#;
    let _writer = Running(
        limited
            .command("sh")
            .args(["-c", write])
            .args([&stalled.directory, &files.0.join("written")])
            .spawn()
            .unwrap(),
    );
    assert_eq!(watch.wait(LONG), Woken::Pressure);
}
