//! A program whose Rust heap is jemalloc's.

#![allow(clippy::expect_used, reason = "a test that cannot go on says so")]

use malloc_stats::{Allocator, AllocatorKind, Diff, Grade, Metric, Reader, Settings};

#[global_allocator]
static JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn reader() -> Reader {
    Reader::new(Allocator {
        kind: AllocatorKind::Jemalloc,
        settings: Settings::default(),
    })
    .expect("/proc is mounted")
}

#[test]
fn jemalloc_is_read_and_ordered_as_its_manual_says() {
    let reading = reader().full().allocator.expect("read");
    assert!(reading.name.starts_with("jemalloc"));
    let raw = reading.jemalloc.expect("jemalloc serves");
    assert!(0 < raw.allocated && raw.allocated <= raw.active && raw.active <= raw.resident);
    assert_eq!(reading.in_use, Metric::Exact(raw.allocated));
    assert_eq!(reading.heap_rss, Metric::Upper(raw.resident));
    assert_eq!(reading.top_main, Metric::Unavailable);
    assert!(
        reading
            .waste()
            .is_some_and(|waste| waste.bytes.grade() == Grade::Upper)
    );
}

#[test]
fn statistics_are_of_the_moment_and_show_in_a_diff() {
    let reader = reader();
    let before = reader.full();
    let block = std::hint::black_box(vec![1_u8; 64 << 20]);
    let after = reader.full();
    drop(block);
    let diff = Diff::between(&before, &after);
    let used = diff.total_used.delta().expect("read twice");
    assert!(used > 60 << 20, "{used}");
    let text = diff.to_string();
    assert!(text.contains("jemalloc retained"), "{text}");
}

#[test]
#[cfg(target_env = "gnu")]
fn what_c_libraries_hold_is_shown_apart() {
    let reader = reader();
    let before = reader
        .full()
        .allocator
        .and_then(|a| a.glibc)
        .expect("glibc is there too");
    // SAFETY: a block of C, as a library would take it, given back below.
    let block = unsafe { libc::malloc(8 << 20) };
    let reading = reader.full().allocator.expect("read");
    let after = reading.glibc.expect("glibc is there too");
    // SAFETY: from malloc above.
    unsafe { libc::free(std::hint::black_box(block)) };
    let held = |info: malloc_stats::Mallinfo| info.uordblks + info.hblkhd;
    assert!(held(after) >= held(before) + (8 << 20));
    assert_eq!(
        reading.in_use.bytes(),
        reading.jemalloc.map(|raw| raw.allocated)
    );
}
