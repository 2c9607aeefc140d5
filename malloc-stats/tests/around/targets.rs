//! Processes are found by number and by name, and held whatever becomes of them.

use std::fs;
use std::time::Duration;

use malloc_stats::inspect::{Change, Status, Target, TargetError, parse_stack_pointer};
use malloc_stats::limits::{Limit, Limits};
use malloc_stats::{Metric, Pressure};
use proptest::prelude::*;

use crate::processes::{Forked, Shell, is_root};

fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_process_is_itself_until_it_ends() {
    let child = Forked::named(c"steady");
    let target = Target::open(child.pid).unwrap();
    assert_eq!(target.pid(), child.pid);
    if let Err(error) = target.readable() {
        assert!(error.to_string().contains("ptrace_scope"), "{error}");
    }
    assert!(target.is_same());
    child.kill();
    assert_eq!(target.changed(), Some(Change::Exited));
    drop(child);
    assert_eq!(target.changed(), Some(Change::Exited));
    assert!(target.text("status").is_err() && target.smaps().is_err());
}

#[test]
fn running_another_program_midway_is_noticed() {
    let mut shell = Shell::new("read x; exec sleep 1000");
    let target = Target::open(shell.0.id()).unwrap();
    assert_eq!(target.changed(), None);
    shell.go_on();
    wait_until(|| target.text("comm").unwrap() == "sleep\n");
    if target.program_path().is_some() {
        assert_eq!(target.changed(), Some(Change::Executed));
    }
}

#[test]
fn running_the_same_program_anew_is_noticed_too() {
    let mut shell = Shell::new("read x; exec sh -c 'read again'");
    let target = Target::open(shell.0.id()).unwrap();
    if target.readable().is_err() {
        println!("skipped: the memory of a child may not be read here");
        return;
    }
    assert_eq!(target.changed(), None);
    shell.go_on();
    wait_until(|| !target.text("cmdline").unwrap().contains("exec"));
    assert_eq!(target.changed(), Some(Change::Executed));
}

#[test]
fn who_gets_the_number_next_is_never_read_as_the_old_process() {
    if !is_root() {
        println!("skipped: only root can choose the next PID");
        return;
    }
    let child = Forked::named(c"first");
    let pid = child.pid;
    let target = Target::open(pid).unwrap();
    drop(child);
    for _ in 0..100 {
        if fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).is_err() {
            break;
        }
        let next = Forked::named(c"second");
        if next.pid == pid {
            assert!(Target::open(pid).is_ok());
            assert!(target.text("comm").is_err());
            assert_eq!(target.changed(), Some(Change::Exited));
            return;
        }
    }
    println!("skipped: the PID could not be had again");
}

#[test]
fn a_process_is_found_by_any_of_its_names() {
    let child = Forked::named(c"plimsoll-by-com");
    assert_eq!(Target::find("plimsoll-by-com").unwrap().pid(), child.pid);
    assert_eq!(
        Target::find(&child.pid.to_string()).unwrap().pid(),
        child.pid
    );

    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("plimsoll-with-a-long-name");
    fs::copy("/bin/sleep", &program).unwrap();
    let child = std::process::Command::new(&program).arg("1000").spawn();
    let sleeping = Shell(child.unwrap());
    let found = Target::find("plimsoll-with-a-long-name").unwrap();
    assert_eq!(found.pid(), sleeping.0.id());
    // The kernel's short name is that of both.
    let error = Target::find("plimsoll-with-another-name").unwrap_err();
    assert!(matches!(error, TargetError::NoSuchName { .. }), "{error}");
    let error = Target::find("plimsoll-with-a-long-nane").unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("did you mean `plimsoll-with-a-long-name`"),
        "{said}"
    );
    fs::remove_file(&program).unwrap();
    assert!(Target::find("plimsoll-with-a-long-name").is_ok());
}

#[test]
fn several_of_a_name_are_listed_and_their_control_characters_escaped() {
    let name = c"tw\x1b[2Jo\n)";
    let (one, two) = (Forked::named(name), Forked::named(name));
    let name = name.to_str().unwrap();
    let error = Target::find(name).unwrap_err();
    let TargetError::Ambiguous { matches, .. } = &error else {
        panic!("{error}");
    };
    let mut pids: Vec<u32> = matches.iter().map(|found| found.pid).collect();
    pids.sort_unstable();
    let mut both = [one.pid, two.pid];
    both.sort_unstable();
    assert_eq!(pids, both);
    let said = error.to_string();
    assert!(said.contains("say which PID"), "{said}");
    assert!(said.contains(r"tw\u{1b}[2Jo\n)"), "{said}");
    let printed = said.split('\n').collect::<String>();
    assert!(!printed.contains(char::is_control), "{said:?}");
}

#[test]
fn a_status_has_what_the_process_did() {
    let child = Forked::new(|| {
        // SAFETY: maps fresh memory, and touches each page of it.
        unsafe {
            libc::prctl(libc::PR_SET_NAME, c"a)\xff R 1 (b".as_ptr());
            let length = 32 << 20;
            let (access, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            let memory = libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0);
            for page in (0..length).step_by(4096) {
                memory.cast::<u8>().add(page).write_volatile(1);
            }
        }
    });
    let status = Status::read(&Target::open(child.pid).unwrap()).unwrap();
    assert_eq!(status.command, "a)\u{fffd} R 1 (b");
    assert_eq!(status.threads, 1);
    assert!(!status.arguments.is_empty());
    assert!(status.memory.anon.bytes().unwrap() >= 32 << 20);
    assert!(status.memory.rss.bytes() >= status.memory.anon.bytes());
    assert!(status.memory.minor_faults > 0);
    assert!((0.0..3600.0).contains(&status.age_s), "{}", status.age_s);
    assert!(status.oom_score_adj.is_some());
}

#[test]
fn all_processes_are_listed() {
    let child = Forked::named(c"listed");
    let pids = Target::pids().unwrap();
    assert!(pids.is_sorted());
    assert!(pids.contains(&child.pid) && pids.contains(&std::process::id()));
}

#[test]
fn limits_are_those_of_the_targets_own_cgroup() {
    let child = Forked::named(c"bounded");
    let own = Limits::of_self();
    let Some(cgroup) = own.cgroups.first() else {
        println!("skipped: no memory cgroup here");
        return;
    };
    let mount = if fs::exists("/sys/fs/cgroup/memory").unwrap_or(false) {
        "/sys/fs/cgroup/memory"
    } else {
        "/sys/fs/cgroup"
    };
    let name = format!("plimsoll-around-{}", child.pid);
    let path = format!("{}/{name}", cgroup.path.trim_end_matches('/'));
    let directory = format!("{mount}{path}");
    let limit = ["memory.max", "memory.limit_in_bytes"].map(|file| format!("{directory}/{file}"));
    let bounded = fs::create_dir(&directory).is_ok()
        && limit
            .iter()
            .any(|file| fs::write(file, "268435456").is_ok())
        && fs::write(format!("{directory}/cgroup.procs"), child.pid.to_string()).is_ok();
    if bounded {
        let limits = Limits::of_process(child.pid);
        assert_eq!(limits.cgroups[0].path, path);
        assert_eq!(limits.cgroups[0].max, Limit::Bytes(256 << 20));
        assert_eq!(limits.cgroups.len(), own.cgroups.len() + 1);
        assert_eq!(limits.cgroups[0].oom_kills, Metric::Exact(0));
        assert_eq!(
            Pressure::of_process(child.pid).is_some(),
            Pressure::of_self().is_some()
        );
    } else {
        println!("skipped: no cgroup can be made in {mount}");
    }
    drop(child);
    for _ in 0..100 {
        if fs::remove_dir(&directory).is_ok() || !fs::exists(&directory).unwrap_or(false) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_stack_pointer_is_read_in_and_outside_of_system_calls() {
    let inside = "202 0x7f00 0x80 0x0 0x0 0x0 0x0 0x7ffd9f6a1b20 0x7f8a4b5c6d70\n";
    assert_eq!(parse_stack_pointer(inside), Some(0x7ffd_9f6a_1b20));
    let outside = "-1 0x7ffd9f6a1b20 0x7f8a4b5c6d70\n";
    assert_eq!(parse_stack_pointer(outside), Some(0x7ffd_9f6a_1b20));
    assert_eq!(parse_stack_pointer("running\n"), None);
    assert_eq!(parse_stack_pointer("-1 0x0 0x0\n"), None);
}

proptest! {
    #[test]
    fn any_text_is_some_stack_pointer_or_none(text in ".*") {
        let _ = parse_stack_pointer(&text);
    }
}
