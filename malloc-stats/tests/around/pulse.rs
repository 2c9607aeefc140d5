//! The pulse of a process is what a full look says of the same, and ends with the process.

use malloc_stats::inspect::{Pulse, Status, Target, pulse};
use malloc_stats::limits::CgroupVersion;
use malloc_stats::{Depth, Limits};

use crate::cgroup::Cgroup;
use crate::processes::{Forked, Shell};

#[test]
fn it_agrees_with_what_a_look_reads() {
    let forked = Forked::new(|| {});
    let target = Target::open(forked.pid).unwrap();
    let mut pulse = Pulse::of(&target).unwrap();
    let (first, second) = (pulse.read().unwrap(), pulse.read().unwrap());
    let status = Status::read(&target).unwrap();
    let limits = Limits::of_process(forked.pid);
    for snapshot in [&first, &second] {
        // The process sleeps.
        assert_eq!(snapshot.process, status.memory);
        assert!(snapshot.process.rss.bytes().unwrap() > 0);
        assert!(snapshot.process.minor_faults > 0);
        let read = snapshot.limits.as_ref().unwrap();
        assert_eq!(read.cgroup_version, limits.cgroup_version);
        let paths = |limits: &Limits| -> Vec<_> {
            let cgroups = limits.cgroups.iter();
            cgroups
                .map(|cgroup| (cgroup.path.clone(), cgroup.max))
                .collect()
        };
        assert_eq!(paths(read), paths(&limits));
        assert_eq!(read.rlimits, limits.rlimits);
        assert_eq!(snapshot.host.unwrap().total, limits.host_total);
        assert_eq!(snapshot.vram.is_empty(), snapshot.vram_absent.is_some());
        assert_eq!((snapshot.depth, &snapshot.allocator), (Depth::Full, &None));
        assert!(snapshot.cost_us > 0);
    }
    assert!(second.at_us >= first.at_us + first.cost_us);
    let current = first.limits.as_ref().and_then(|limits| {
        let cgroups = limits.cgroups.iter().map(|cgroup| cgroup.current);
        cgroups
            .into_iter()
            .find(|current| !current.is_unavailable())
    });
    assert_eq!(first.cgroup_current, current.unwrap_or_default());
}

#[test]
fn it_follows_the_process_into_another_cgroup() {
    let Some(cgroup) = Cgroup::make(CgroupVersion::V1, "moved", "memory.limit_in_bytes") else {
        return;
    };
    cgroup.limit(48 << 20);
    let forked = Forked::new(|| {});
    let mut pulse = Pulse::of(&Target::open(forked.pid).unwrap()).unwrap();
    let before = pulse.read().unwrap().limits.unwrap();
    assert_ne!(before.cgroups[0].max.bytes(), Some(48 << 20));
    std::fs::write(
        cgroup.directory.join("cgroup.procs"),
        forked.pid.to_string(),
    )
    .unwrap();
    let after = pulse.read().unwrap().limits.unwrap();
    assert_eq!(after.cgroups[0].max.bytes(), Some(48 << 20));
    assert_eq!(after.cgroups.len(), before.cgroups.len() + 1);
}

#[test]
fn of_what_is_gone_there_is_none() {
    let mut shell = Shell::new("read line");
    let target = Target::open(shell.0.id()).unwrap();
    let mut kept = Pulse::of(&target).unwrap();
    kept.read().unwrap();
    shell.go_on();
    shell.0.wait().unwrap();
    for error in [kept.read().unwrap_err(), pulse(&target).unwrap_err()] {
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{error}");
    }
}
