//! Measurements as tests use them: what passes, what fails and with which words, and how each way
//! to run a test binary comes through.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::io::Write;
use std::process::{Command, Output};
use std::sync::Mutex;

use malloc_stats::testing::{Fragmentation, SECONDS, VARIABLE, assert_returns_memory};
use malloc_stats::{Grade, Metric};

const MIB: usize = 1 << 20;

fn touched(bytes: usize) -> Vec<u8> {
    black_box(vec![1_u8; bytes])
}

/// glibc fixes its threshold, so that large blocks are mapped one by one. Here and in the process
/// that measures, since the test runs in both.
fn map_large_blocks() {
    // SAFETY: mallopt(3) takes two numbers.
    let taken = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10) };
    assert_eq!(taken, 1);
}

fn is_glibc(seen: &Fragmentation) -> bool {
    let glibc = seen.allocator.starts_with("glibc");
    if !glibc {
        println!("skipped: the allocator is {}", seen.allocator);
    }
    glibc
}

#[test]
fn large_blocks_return() {
    assert_returns_memory(|| touched(64 * MIB));
}

#[test]
fn blocks_above_a_fixed_threshold_return() {
    map_large_blocks();
    let seen = Fragmentation::over(6, || touched(8 * MIB));
    seen.assert_returned();
    assert!(seen.retained() < 1 << 20, "{seen}");
    assert!(seen.leak_per_cycle() < 4096.0, "{seen}");
    assert_eq!(seen.cycles.len(), 6);
    let took = seen.took();
    assert_eq!(took.grade(), Grade::Estimated);
    assert!(
        (7 << 20..12 << 20).contains(&took.bytes().unwrap()),
        "{seen}"
    );
}

#[test]
#[should_panic(expected = "the allocator's retention, not a leak: a fixed mmap threshold")]
fn blocks_below_the_threshold_that_rises_by_itself_do_not() {
    assert_returns_memory(|| touched(8 * MIB));
}

#[test]
#[should_panic(expected = "In use grows by 1.0 MiB each cycle: a leak")]
fn a_leak_is_called_one() {
    assert_returns_memory(|| std::mem::forget(touched(MIB)));
}

#[test]
#[should_panic(expected = "In use grows by 63.9 KiB each cycle: a leak")]
fn a_leak_too_small_to_be_kept_memory_is_found_in_the_allocators_numbers() {
    assert_returns_memory(|| std::mem::forget(touched(65_400)));
}

/// A freed heap below one block that stays: glibc shrinks its heap from the end alone.
#[test]
fn a_pinned_heap_is_retention_that_a_trim_returns() {
    static PINS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    let seen = Fragmentation::measure().cycles(4).warm_up(0).over(|| {
        let blocks: Vec<Vec<u8>> = (0..32 << 10).map(|_| touched(1000)).collect();
        PINS.lock().unwrap().push(touched(48));
        drop(blocks);
    });
    if !is_glibc(&seen) {
        return;
    }
    assert!(seen.retained() > 24 << 20, "{seen}");
    assert!(seen.trim_gap() > 24 << 20, "{seen}");
    assert!(seen.structural() < 4 << 20, "{seen}");
    assert!(seen.leak_per_cycle() < 4096.0, "{seen}");
    let text = seen.to_string();
    assert!(
        text.contains("malloc_trim(0) returns") && text.contains("mmap_threshold"),
        "{text}"
    );
}

/// A small block that stays in every page: no trim returns those.
#[test]
fn a_block_in_every_page_is_structural() {
    static PINS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    let seen = Fragmentation::measure().cycles(4).warm_up(0).over(|| {
        let mut pins = PINS.lock().unwrap();
        let first = pins.is_empty();
        let mut blocks = Vec::new();
        for _ in 0..16 << 10 {
            blocks.push(touched(2000));
            if first {
                pins.push(touched(48));
            }
        }
        drop(blocks);
    });
    if !is_glibc(&seen) {
        return;
    }
    assert!(seen.structural() > 24 << 20, "{seen}");
    assert!(seen.trim_gap() < seen.structural() / 2, "{seen}");
    assert!(
        seen.to_string().contains("pin the pages around them"),
        "{seen}"
    );
}

#[test]
fn a_test_may_measure_several_times() {
    let first = Fragmentation::over(3, || touched(64 * MIB));
    let sizes: Vec<usize> = (1..3).map(|times| times * 40 * MIB).collect();
    let numbers = serde_json::to_string(&first).unwrap();
    let mut peaks = Vec::new();
    for size in sizes {
        let seen = Fragmentation::over(2, || {
            // The process that measures this one has the same numbers of the first.
            assert_eq!(first.cycles.len(), 3);
            touched(size)
        });
        assert_eq!(seen.cycles.len(), 2);
        peaks.push(seen.took().bytes().unwrap());
    }
    assert!(peaks[0] < 60 << 20 && peaks[1] > 70 << 20, "{peaks:?}");
    let again: Fragmentation = serde_json::from_str(&numbers).unwrap();
    assert_eq!(again, first);
}

#[test]
fn the_closure_runs_elsewhere_and_may_say_what_it_likes() {
    let here = std::process::id();
    let mut runs = 0;
    let seen = Fragmentation::over(2, || {
        assert_ne!(std::process::id(), here_unless_measuring(here));
        println!("not to be seen");
        // More than a pipe holds.
        std::io::stderr().write_all(&vec![b'.'; 200_000]).unwrap();
        runs += 1;
    });
    assert_eq!(runs, 0);
    assert_eq!(seen.warm_up, 1);
}

/// In the process that measures, the test's own number is that process's.
fn here_unless_measuring(here: u32) -> u32 {
    if std::env::var_os(VARIABLE).is_some() {
        0
    } else {
        here
    }
}

#[test]
fn memory_of_threads_counts() {
    map_large_blocks();
    let seen = Fragmentation::over(3, || {
        std::thread::spawn(|| drop(touched(16 * MIB)))
            .join()
            .unwrap();
    });
    assert!(seen.took().bytes().unwrap() > 12 << 20, "{seen}");
}

#[test]
#[should_panic(expected = "it panicked: the model 7 is broken")]
fn a_closure_that_panics_is_quoted() {
    let number = 7;
    assert_returns_memory(|| panic!("the model {number} is broken"));
}

#[test]
#[should_panic(expected = "ended with exit status: 3")]
fn a_closure_that_exits_is_noticed() {
    assert_returns_memory(|| std::process::exit(3));
}

#[test]
#[should_panic(
    expected = "did not come to its end: the closure's process ended with exit status: 0"
)]
fn even_where_it_exits_as_if_all_were_well() {
    assert_returns_memory(|| std::process::exit(0));
}

#[test]
#[should_panic(expected = "last words")]
fn a_closure_that_aborts_is_noticed_with_its_last_words() {
    assert_returns_memory(|| {
        eprintln!("last words");
        std::process::abort()
    });
}

#[test]
#[should_panic(expected = "was never come to")]
fn a_test_that_takes_another_way_is_noticed() {
    if std::env::var_os(VARIABLE).is_none() {
        assert_returns_memory(|| ());
    }
}

#[test]
#[should_panic(expected = "was never come to")]
fn a_name_that_no_test_has_is_noticed() {
    let _ = Fragmentation::measure().named("no::such::test").over(|| ());
}

#[test]
#[should_panic(expected = "a measurement inside a measurement")]
fn a_measurement_inside_one_is_refused() {
    assert_returns_memory(|| assert_returns_memory(|| ()));
}

#[test]
#[should_panic(expected = "MALLOC_STATS_MEASURE is set, and not for this process")]
fn a_process_that_a_closure_starts_does_not_measure() {
    assert_returns_memory(|| {
        let output = alone(&["large_blocks_return"]).output().unwrap();
        assert!(!output.status.success());
        panic!("{}", said(&output));
    });
}

#[test]
#[should_panic(expected = "0 cycles")]
fn no_cycles_are_no_measurement() {
    let _ = Fragmentation::over(0, || ());
}

#[test]
fn on_another_thread_the_test_is_named() {
    let seen = std::thread::Builder::new()
        .name("worker".into())
        .spawn(|| {
            let name = "on_another_thread_the_test_is_named";
            Fragmentation::measure()
                .named(name)
                .over(|| touched(64 * MIB))
        })
        .unwrap()
        .join()
        .unwrap();
    seen.assert_returned();
}

mod inside {
    pub mod another {
        #[test]
        fn a_test_in_a_module_is_found() {
            super::super::assert_returns_memory(|| super::super::touched(64 << 20));
        }
    }
}

/// Run by others here: ignored ones are measured too.
#[test]
#[ignore = "never ends by itself within the minute; run by another test"]
fn it_hangs() {
    assert_returns_memory(|| std::thread::sleep(std::time::Duration::from_secs(60)));
}

/// This test binary, for the tests with `arguments`.
fn alone(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(arguments);
    command
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}\n{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

#[test]
fn what_hangs_is_ended() {
    let arguments = ["--exact", "it_hangs", "--ignored", "--nocapture"];
    let output = alone(&arguments).env(SECONDS, "1").output().unwrap();
    assert!(!output.status.success());
    let said_so = said(&output);
    assert!(
        said_so.contains("was not done after 1 s and was ended"),
        "{said_so}"
    );

    for wrong in ["", "0", "soon", "-1"] {
        let output = alone(&arguments).env(SECONDS, wrong).output().unwrap();
        let said_so = said(&output);
        assert!(said_so.contains("is no number of seconds"), "{said_so}");
    }
}

#[test]
fn every_way_to_run_the_binary_comes_through() {
    let deep = "inside::another::a_test_in_a_module_is_found";
    let several = "a_test_may_measure_several_times";
    let talks = "the_closure_runs_elsewhere_and_may_say_what_it_likes";
    let ways: [&[&str]; 8] = [
        // cargo nextest
        &["--exact", deep, "--nocapture"],
        &["--exact", several, "--nocapture"],
        &["--exact", talks, "--nocapture"],
        // cargo test -- --test-threads=1 NAME
        &["--test-threads=1", "--nocapture", deep],
        &["--test-threads=1", deep, several],
        &["--test-threads", "1", "--exact", several, talks],
        &["--test-threads=8", deep, several, talks],
        &["--test-threads=1", "large_blocks"],
    ];
    for way in ways {
        let output = alone(way).output().unwrap();
        let said = said(&output);
        assert!(output.status.success(), "{way:?}: {said}");
        assert!(!said.contains("not to be seen"), "{way:?}: {said}");
        assert!(!said.contains(" 0 passed"), "{way:?}: {said}");
    }
    let list = said(&alone(&["--list", "--format", "terse"]).output().unwrap());
    assert!(list.contains(&format!("{deep}: test")), "{list}");
}

/// Under another allocator, put before the C library's, what cannot be known is so.
#[test]
fn what_a_preloaded_allocator_does_not_tell_is_unavailable() {
    if std::env::var_os("LD_PRELOAD").is_none() {
        let places = [
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/usr/lib64",
        ];
        let libraries = [
            "libjemalloc.so.2",
            "libmimalloc.so.2",
            "libtcmalloc_minimal.so.4",
        ];
        let mut found = places
            .iter()
            .flat_map(|place| libraries.map(|library| format!("{place}/{library}")))
            .filter(|path| std::path::Path::new(path).exists());
        let Some(library) = found.next() else {
            return println!("skipped: no other allocator is installed");
        };
        let name = "what_a_preloaded_allocator_does_not_tell_is_unavailable";
        let output = alone(&["--exact", name, "--nocapture"])
            .env("LD_PRELOAD", library)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        return;
    }
    let seen = Fragmentation::over(3, || touched(64 * MIB));
    assert_eq!(seen.cycles[0].in_use, Metric::Unavailable);
    assert!(seen.leak_per_cycle().is_nan());
    assert_eq!(seen.structural(), u64::MAX);
    assert!(seen.cycles[0].rss.bytes().is_some());
    assert!(
        seen.to_string()
            .contains("mallinfo2 would count an unused heap"),
        "{seen}"
    );
}
