//! Waits that other threads and the clock end, and watches that the kernel does not serve.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use malloc_stats::limits::watch::{PressureWatch, Source, Woken};

use crate::{Scratch, asleep, wait_past_pressure};

fn fixture(name: &str) -> PressureWatch {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    assert!(root.is_dir(), "{} is missing", root.display());
    PressureWatch::under(&root, "self")
}

fn reason(watch: &PressureWatch) -> &str {
    match watch.source() {
        Source::Polling { reason } => reason,
        other => panic!("{other} is no polling"),
    }
}

/// One that the kernel serves where it can, and one that only the clock does.
fn watches() -> [PressureWatch; 2] {
    [PressureWatch::of_self(), fixture("v1")]
}

#[test]
fn stop_ends_a_wait_in_progress_and_every_later_one() {
    for watch in watches() {
        let stopper = watch.stopper();
        let thread = asleep(move || (wait_past_pressure(&watch, Duration::MAX), watch));
        stopper.stop();
        let (woken, watch) = thread.join().unwrap();
        assert_eq!(woken, Woken::Stopped, "{}", watch.source());
        watch.stopper().nudge();
        assert_eq!(watch.wait(Duration::MAX), Woken::Stopped);
        assert_eq!(watch.wait(Duration::ZERO), Woken::Stopped);
    }
}

#[test]
fn nudges_before_a_wait_end_one() {
    for watch in watches() {
        watch.stopper().nudge();
        watch.stopper().clone().nudge();
        let woken = wait_past_pressure(&watch, Duration::MAX);
        assert_eq!(woken, Woken::Nudged, "{}", watch.source());
        let woken = wait_past_pressure(&watch, Duration::ZERO);
        assert_eq!(woken, Woken::Timeout, "{}", watch.source());
    }
}

#[test]
fn of_two_threads_a_nudge_wakes_one_and_stop_the_other() {
    for watch in watches() {
        let watch = Arc::new(watch);
        let (sender, receiver) = mpsc::channel();
        let threads = [(); 2].map(|()| {
            let (watch, sender) = (Arc::clone(&watch), sender.clone());
            asleep(move || {
                let woken = wait_past_pressure(&watch, Duration::MAX);
                sender.send(woken).unwrap();
            })
        });
        watch.stopper().nudge();
        assert_eq!(receiver.recv().unwrap(), Woken::Nudged);
        watch.stopper().stop();
        assert_eq!(receiver.recv().unwrap(), Woken::Stopped);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_wait_that_nothing_ends_lasts_its_time() {
    for watch in watches() {
        let timeout = Duration::from_millis(30);
        let begin = Instant::now();
        let woken = wait_past_pressure(&watch, timeout);
        assert_eq!(woken, Woken::Timeout, "{}", watch.source());
        assert!(begin.elapsed() >= timeout);
    }
}

#[test]
fn without_the_files_of_the_kernel_it_polls_and_says_why() {
    for (name, missing) in [
        ("v1", "app.service/memory.pressure_level: No such file"),
        ("v2", "app.scope/memory.pressure: No such file"),
        ("outside_namespace", "in no mounted hierarchy"),
    ] {
        let watch = fixture(name);
        let reason = reason(&watch);
        assert!(reason.contains(missing), "{reason}");
        let host = "proc/pressure/memory: No such file";
        assert!(reason.contains(host), "{reason}");
        let shown = watch.source().to_string();
        assert!(shown.starts_with("polling alone: "), "{shown}");
    }
    let nowhere = PressureWatch::under(Path::new("/nonexistent"), "self");
    assert!(reason(&nowhere).contains("/nonexistent/proc/self/cgroup"));
}

#[test]
fn plain_files_that_look_like_the_kernels_are_not_written_to() {
    let scratch = Scratch::new("plain_pressure_files");
    let root = &scratch.0;
    let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    let files = [
        ("proc/self/cgroup", "0::/app\n"),
        (
            "proc/self/mountinfo",
            "30 1 0:26 / /cg rw - cgroup2 cgroup2 rw\n",
        ),
        ("cg/app/memory.pressure", text),
        ("proc/pressure/memory", text),
    ];
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let watch = PressureWatch::under(root, "self");
    let reason = reason(&watch);
    assert!(
        reason.contains("on no file system of the kernel's"),
        "{reason}"
    );
    for (path, text) in files {
        assert_eq!(std::fs::read_to_string(root.join(path)).unwrap(), text);
    }
}

#[test]
fn no_child_inherits_its_descriptors() {
    let before = descriptors();
    let watch = PressureWatch::of_self();
    let mut eventfds = 0;
    for (descriptor, target) in descriptors() {
        let eventfd = target.to_string_lossy().contains("eventfd");
        eventfds += usize::from(eventfd);
        if !(eventfd || target.ends_with("memory") || target.ends_with("memory.pressure"))
            || before.contains(&(descriptor.clone(), target.clone()))
        {
            continue;
        }
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"));
        // Those of other tests may be closed by now.
        let Ok(info) = info else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        let close_on_exec = rustix::fs::OFlags::CLOEXEC.bits();
        assert_ne!(flags & close_on_exec, 0, "{}", target.display());
    }
    assert!(eventfds > 0, "{} has none", watch.source());
}

/// The open descriptors of this process, and what they are of.
fn descriptors() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().into_string().unwrap(), target))
        })
        .collect()
}
