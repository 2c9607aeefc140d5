//! What snapshots hold, and what they do not pretend to know.

#![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

mod own_process;

use std::path::{Path, PathBuf};
use std::process::Command;

use malloc_stats::{
    Allocator, Depth, Diff, Grade, Metric, Reader, Setting, SettingGrade, Settings, Snapshot, glibc,
};
use own_process::in_own_process;

const MIB: u64 = 1 << 20;

fn reader() -> Reader {
    Reader::new(Allocator::default()).expect("/proc is mounted")
}

/// A jemalloc to preload: the system's, or a library that stands for it.
fn preloadable_jemalloc() -> PathBuf {
    let libraries = std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten();
    let installed = libraries
        .map(|directory| directory.path().join("libjemalloc.so.2"))
        .find(|library| library.exists());
    installed.unwrap_or_else(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preloaded/malloc.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libjemalloc-like.so");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-fno-builtin", "-o"])
            .args([&library, &source])
            .status()
            .expect("the C compiler that links Rust programs");
        assert!(status.success());
        library
    })
}

#[test]
#[cfg(target_env = "gnu")]
fn preloaded_jemalloc_gives_unavailable_not_zero() {
    const NAME: &str = "preloaded_jemalloc_gives_unavailable_not_zero";
    let library = if std::env::var_os("LD_PRELOAD").is_some() {
        PathBuf::new()
    } else {
        preloadable_jemalloc()
    };
    in_own_process(NAME, &[("LD_PRELOAD", &library.to_string_lossy())], || {
        let library = std::env::var("LD_PRELOAD").expect("set by the parent");
        let reader = reader();
        assert_eq!(
            reader.allocator_name(),
            format!("jemalloc (preloaded, {library})")
        );
        assert_eq!(glibc::mallinfo(), None);
        let reading = reader
            .full()
            .allocator
            .expect("a full capture reads the allocator");
        for metric in [
            reading.in_use,
            reading.held,
            reading.free_virtual,
            reading.cached_resident,
            reading.top_main,
            reading.heap_rss,
        ] {
            assert_eq!(metric, Metric::Unavailable);
        }
        assert_eq!(reading.glibc, None);
        assert!(reading.notes[0].contains(&library), "{:?}", reading.notes);
        assert_eq!(reading.waste(), None);
    });
}

#[test]
fn a_bracket_never_carries_allocator_zeros() {
    in_own_process("a_bracket_never_carries_allocator_zeros", &[], || {
        let reader = reader();
        let bracket = reader.bracket();
        assert_eq!(bracket.depth, Depth::Bracket);
        assert_eq!(bracket.allocator, None);
        assert_eq!(reader.last_full_cost(), None);
        let json = serde_json::to_string(&bracket).expect("serialises");
        assert!(
            !json.contains("allocator") && !json.contains("vram"),
            "{json}"
        );
    });
}

#[test]
fn a_bracket_carries_the_latest_reading_and_its_age() {
    let reader = reader();
    let full = reader.full();
    let bracket = reader.bracket();
    assert_eq!(full.depth, Depth::Full);
    assert_eq!(full.allocator_age_us, 0);
    assert_eq!(bracket.allocator, full.allocator);
    assert_eq!(bracket.allocator_read_at_us(), Some(full.at_us));
    assert_eq!(bracket.allocator_age_us, bracket.at_us - full.at_us);
    assert!(reader.last_full_cost().is_some());
}

#[test]
fn the_parts_of_resident_memory_add_up() {
    in_own_process("the_parts_of_resident_memory_add_up", &[], || {
        let process = reader().bracket().process;
        assert!(process.rss.bytes() > Some(0));
        let parts = process.anon.plus(process.file).plus(process.shmem);
        assert_eq!(parts, process.rss);
        assert!(process.minor_faults > 0);
    });
}

/// The kernel's own walk over the page tables, in bytes.
fn rollup(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("Linux 4.14 or later");
    let line = text
        .lines()
        .find(|line| line.starts_with(field))
        .expect("a field of smaps_rollup");
    let kibibytes = line.split_ascii_whitespace().nth(1).expect("a number");
    kibibytes.parse::<u64>().expect("a number") << 10
}

#[test]
fn rss_that_is_graded_exact_equals_the_walk_of_smaps() {
    in_own_process(
        "rss_that_is_graded_exact_equals_the_walk_of_smaps",
        &[],
        || {
            let touched = vec![1_u8; 12_345_678];
            let reader = reader();
            // Once beforehand, so that the reading itself touches no new page.
            let _ = (reader.bracket(), rollup("Rss:"), rollup("Anonymous:"));
            let before = reader.bracket().process;
            let (rss, anon) = (rollup("Rss:"), rollup("Anonymous:"));
            let after = reader.bracket().process;
            drop(touched);
            if before.rss.grade() == Grade::Exact {
                assert!(before.rss.bytes() <= Some(rss) && Some(rss) <= after.rss.bytes());
                assert!(before.anon.bytes() <= Some(anon) && Some(anon) <= after.anon.bytes());
                assert!(after.rss.bytes() < Some(rss + MIB), "the bounds are close");
            }
        },
    );
}

#[test]
fn a_touched_block_shows_in_both_halves() {
    in_own_process("a_touched_block_shows_in_both_halves", &[], || {
        let reader = reader();
        let before = reader.full();
        let block = vec![1_u8; 64 << 20];
        let after = reader.full();
        let diff = Diff::between(&before, &after);
        drop(block);
        let grown = u64::try_from(diff.rss_delta().expect("both have RSS")).expect("grows");
        assert!((63 * MIB..70 * MIB).contains(&grown), "{grown}");
        assert!(diff.minor_faults > 0);
        let used = diff.total_used.delta().expect("glibc is read");
        assert!(used >= 64 << 20, "{used}");
        let resident = diff.heap_rss.delta().expect("heaps are read");
        assert!(resident >= 64 << 20, "{resident}");
    });
}

#[test]
#[cfg(target_env = "gnu")]
fn heap_rss_counts_what_secondary_arenas_hold_and_waste_sees_it() {
    const NAME: &str = "heap_rss_counts_what_secondary_arenas_hold_and_waste_sees_it";
    in_own_process(NAME, &[("MALLOC_TRIM_THRESHOLD_", "1073741824")], || {
        let reader = reader();
        let before = reader.full().allocator.expect("read");
        let fill = || drop((0..512).map(|_| vec![1_u8; 64 << 10]).collect::<Vec<_>>());
        std::thread::spawn(fill).join().expect("joins");
        let after = reader.full().allocator.expect("read");
        let grown = after
            .heap_rss
            .since(before.heap_rss)
            .expect("heaps are read");
        assert!(grown > 30 << 20, "{grown} {:?}", after.notes);
        assert!(after.cached_resident.bytes() > Some(30 * MIB), "{after:?}");
        let waste = after.waste().expect("both are known");
        assert!(
            waste.fraction > 0.5 && waste.bytes.bytes() > Some(30 * MIB),
            "{waste:?}"
        );
    });
}

#[test]
#[cfg(target_env = "gnu")]
fn a_capture_does_not_raise_the_mmap_threshold() {
    in_own_process("a_capture_does_not_raise_the_mmap_threshold", &[], || {
        let reader = reader();
        for _ in 0..3 {
            let _ = (reader.full(), reader.bracket());
        }
        let before = glibc::mallinfo().expect("glibc").hblks;
        let block = std::hint::black_box(vec![0_u8; 140 << 10]);
        let after = glibc::mallinfo().expect("glibc").hblks;
        drop(block);
        assert_eq!(
            after,
            before + 1,
            "140 KiB are above the threshold a process starts with"
        );
    });
}

#[test]
fn a_full_capture_carries_settings_limits_host_and_a_word_on_vram() {
    let mut settings = Settings::default();
    let setting = Setting {
        value: "1048576".to_owned(),
        grade: SettingGrade::Requested,
    };
    settings.insert("mmap_threshold", setting);
    let allocator = Allocator {
        settings: settings.clone(),
        ..Allocator::default()
    };
    let full = Reader::new(allocator).expect("/proc is mounted").full();
    assert_eq!(full.settings, settings);
    assert!(full.limits.is_some());
    assert!(full.host.is_some_and(|host| !host.total.is_unavailable()));
    assert_ne!(full.vram.is_empty(), full.vram_absent.is_none());
}

#[test]
fn a_forked_child_sees_no_process_part_through_its_parents_reader() {
    in_own_process(
        "a_forked_child_sees_no_process_part_through_its_parents_reader",
        &[],
        || {
            let reader = reader();
            // SAFETY: the process has one thread, so the child may go on as any program.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let absent = reader.bracket().process.rss == Metric::Unavailable;
                // SAFETY: ends the child at once, without the parent's exit handlers.
                unsafe { libc::_exit(i32::from(!absent)) };
            }
            let mut status = -1;
            // SAFETY: waits for the child from above, and writes its status.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0);
        },
    );
}

#[test]
fn readers_are_shared_between_threads() {
    let reader = reader();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _ = (reader.bracket(), reader.full());
                }
            });
        }
    });
    assert!(reader.bracket().allocator.is_some());
}

#[test]
fn snapshots_of_this_process_survive_json() {
    let reader = reader();
    for snapshot in [reader.full(), reader.bracket()] {
        let json = serde_json::to_string(&snapshot).expect("serialises");
        let back: Snapshot = serde_json::from_str(&json).expect(&json);
        assert_eq!(back, snapshot);
    }
}
