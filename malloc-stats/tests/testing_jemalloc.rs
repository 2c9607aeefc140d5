//! Measurements of a program whose Rust heap is jemalloc's.

#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use malloc_stats::testing::{Fragmentation, Measure};
use malloc_stats::{Allocator, AllocatorKind, Settings};

#[global_allocator]
static JEMALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn measure() -> Measure {
    Fragmentation::measure().allocator(Allocator {
        kind: AllocatorKind::Jemalloc,
        settings: Settings::default(),
    })
}

fn model() -> Vec<Vec<u8>> {
    (0..1024).map(|_| black_box(vec![1_u8; 32 << 10])).collect()
}

/// It gives unused pages back after ten seconds by default.
#[test]
fn dirty_pages_are_retention_that_a_purge_returns() {
    let seen = measure().cycles(3).warm_up(0).over(model);
    assert!(seen.retained() > 16 << 20, "{seen}");
    assert!(seen.trim_gap() > 16 << 20, "{seen}");
    assert!(seen.structural() < 8 << 20, "{seen}");
    let text = seen.to_string();
    assert!(
        text.contains("retention") && text.contains("dirty_decay_ms"),
        "{text}"
    );
}

#[test]
#[should_panic(expected = "In use grows by 1.0 MiB each cycle: a leak")]
fn a_leak_is_called_one() {
    measure()
        .over(|| std::mem::forget(black_box(vec![1_u8; 1 << 20])))
        .assert_returned();
}
