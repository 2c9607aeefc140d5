//! Processes in cgroups of their own.

use std::fs;
use std::process::Command;

use malloc_stats::inspect::Severity::{Bad, Note, Warn};
use malloc_stats::inspect::{Verdict, judge};
use malloc_stats::limits::CgroupVersion;

use super::cgroup::Cgroup;
use super::holder::{Holder, MIB, find, must, must_not, near, program};
use super::pages::weights;

/// A cgroup with a limit; `None`, with words, where none may be made.
fn group(name: &str, limit: u64) -> Option<Cgroup> {
    let version_1 = "memory.limit_in_bytes";
    if let Some(group) = Cgroup::make(CgroupVersion::V1, name, version_1) {
        group.limit(limit);
        return Some(group);
    }
    let group = Cgroup::make(CgroupVersion::V2, name, "memory.max")?;
    fs::write(group.directory.join("memory.max"), limit.to_string()).unwrap();
    let swap = group.directory.join("memory.swap.max");
    if swap.exists() {
        fs::write(swap, "0").unwrap();
    }
    Some(group)
}

/// A process in a cgroup with a limit. The process is to be dropped first.
pub fn limited(name: &str, limit: u64, arguments: &[&str]) -> Option<(Cgroup, Holder)> {
    let program = program()?;
    let group = group(name, limit)?;
    let holder = Holder::start(group.command(program).args(arguments));
    Some((group, holder))
}

/// The verdict of a lint, if it is about this cgroup: others may be short, too.
fn about<'a>(verdicts: &'a [Verdict], lint: &str, group: &Cgroup) -> Option<&'a Verdict> {
    let name = group.directory.file_name().unwrap().to_str().unwrap();
    find(verdicts, lint).filter(|verdict| verdict.finding.contains(name))
}

#[test]
fn a_nearly_full_cgroup_is_near_its_limit() {
    for (held, severity) in [(246, Bad), (225, Warn)] {
        let held = (held * MIB).to_string();
        let Some((group, holder)) = limited("near", 256 * MIB, &["anonymous", &held]) else {
            return;
        };
        let inspection = holder.inspect();
        let verdicts = judge(&inspection);
        let found = about(&verdicts, "near-limit", &group).unwrap();
        assert_eq!(found.severity, severity, "{found:?}");
        must(&verdicts, "near-limit", severity);
        let left = 256 * MIB - inspection.limits.cgroups[0].current.bytes().unwrap();
        near(found.bytes, left, MIB);
        assert!(
            found.finding.contains("is left of the 256.0 MiB under"),
            "{found:?}"
        );
        assert_eq!(about(&verdicts, "cache-charged", &group), None);
        drop((holder, group));
    }
}

#[test]
fn a_cgroup_half_full_is_not() {
    let held = (128 * MIB).to_string();
    let Some((group, holder)) = limited("half", 256 * MIB, &["anonymous", &held]) else {
        return;
    };
    let verdicts = judge(&holder.inspect());
    assert_eq!(about(&verdicts, "near-limit", &group), None);
    assert_eq!(about(&verdicts, "cache-charged", &group), None);
    drop((holder, group));
}

#[test]
fn a_cgroup_full_of_page_cache_is_not_near_its_limit() {
    let (_directory, path) = weights(230 * MIB);
    let arguments = ["file", "read", path.to_str().unwrap()];
    let Some((group, holder)) = limited("cache", 256 * MIB, &arguments) else {
        return;
    };
    let verdicts = judge(&holder.inspect());
    let found = about(&verdicts, "cache-charged", &group).unwrap();
    must(&verdicts, "cache-charged", Note);
    // The kernel counts in batches, for each core.
    near(found.bytes, 230 * MIB, 16 * MIB);
    assert_eq!(about(&verdicts, "near-limit", &group), None);
    drop((holder, group));
}

#[test]
fn a_kill_is_told_to_those_who_are_left_in_the_cgroup() {
    let Some((group, holder)) = limited("killed", 128 * MIB, &["idle"]) else {
        return;
    };
    let kills = holder.inspect().limits.cgroups[0].oom_kills;
    if kills.is_unavailable() {
        return println!("skipped: this kernel does not count kills");
    }
    let verdicts = judge(&holder.inspect());
    assert_eq!(about(&verdicts, "oom-killed", &group), None);
    let eaten = group.command("tail").arg("/dev/zero").status().unwrap();
    assert!(!eaten.success());
    let verdicts = judge(&holder.inspect());
    let found = about(&verdicts, "oom-killed", &group).unwrap();
    must(&verdicts, "oom-killed", Bad);
    assert!(
        found.finding.starts_with("1 process was killed"),
        "{found:?}"
    );
    // It is no matter of processes beside it.
    let Some((beside, other)) = limited("beside", 128 * MIB, &["idle"]) else {
        return;
    };
    assert_eq!(about(&judge(&other.inspect()), "oom-killed", &group), None);
    drop((holder, group, other, beside));
}

#[test]
fn address_space_runs_out_before_memory_does() {
    let Some(program) = program() else {
        return;
    };
    let under = |mebibytes: u64| {
        let shell = format!("ulimit -v {}; exec \"$0\" \"$@\"", mebibytes << 10);
        let mut command = Command::new("sh");
        command.args(["-c", &shell]).arg(program);
        let bytes = (100 * MIB).to_string();
        Holder::start(command.args(["anonymous", &bytes])).verdicts_with_limits()
    };
    let verdicts = under(110);
    let found = must(&verdicts, "address-limit", Warn);
    assert!(found.bytes.bytes().unwrap() < 10 * MIB, "{found:?}");
    assert!(found.finding.contains("of 110.0 MiB that RLIMIT_AS allows"));
    must_not(&under(200), "address-limit");
}
