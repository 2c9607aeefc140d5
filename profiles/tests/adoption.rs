//! Vectors over the window, in a program whose global allocator is [`Selected`].

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Barrier;

use plimsoll_profiles::window::{Span, Window};
use plimsoll_profiles::{Selected, selected_is_installed};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

#[global_allocator]
static ALLOCATOR: Selected = Selected;

/// A span with memory in it, filled with a pattern.
fn span(bytes: usize) -> Span {
    let span = Window::global().unwrap().span(bytes).unwrap();
    // SAFETY: the span is this test's own address space.
    unsafe {
        mmap_anonymous(
            span.base().as_ptr().cast(),
            span.bytes(),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
        )
        .unwrap();
        for at in 0..span.bytes() {
            span.base().as_ptr().add(at).write(at as u8);
        }
    }
    span
}

fn adopt(span: &Span, offset: usize, len: usize) -> Vec<u8> {
    // SAFETY: mapped and filled by `span`, and each test adopts disjoint ranges.
    unsafe { span.adopt(offset, len) }.unwrap()
}

/// Resident bytes of the span, by asking the kernel for each page.
fn resident(span_base: usize, bytes: usize) -> usize {
    let mut pages = vec![0_u8; bytes.div_ceil(4096)];
    // SAFETY: the range is mapped (or reserved), and the vector has a byte for each page.
    let code = unsafe { libc::mincore(span_base as *mut _, bytes, pages.as_mut_ptr()) };
    assert_eq!(code, 0);
    pages.iter().filter(|page| **page & 1 == 1).count() * 4096
}

#[test]
fn the_dispatcher_knows_that_it_is_installed() {
    assert!(selected_is_installed());
}

#[test]
fn an_adopted_vector_is_the_memory_itself_and_is_counted_until_dropped() {
    let span = span(1 << 20);
    let vector = adopt(&span, 4096, 8192);
    assert_eq!(
        vector.as_ptr() as usize,
        span.base().as_ptr() as usize + 4096
    );
    assert_eq!(vector[5], 5);
    assert_eq!(span.adopted(), 1);
    drop(vector);
    assert_eq!(span.adopted(), 0);
}

#[test]
fn growing_moves_to_the_heap_and_shrinking_stays() {
    let span = span(1 << 20);
    let mut vector = adopt(&span, 0, 1000);
    let at = vector.as_ptr();
    vector.truncate(10);
    vector.shrink_to_fit();
    assert_eq!((vector.as_ptr(), vector.capacity()), (at, 10));
    assert_eq!(span.adopted(), 1);
    vector.push(99);
    assert_ne!(vector.as_ptr(), at, "it grew out of the window");
    assert_eq!(span.adopted(), 0);
    assert_eq!(vector[..], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 99]);
}

#[test]
fn an_empty_vector_is_not_counted_for_it_is_never_freed() {
    let span = span(4096);
    drop(adopt(&span, 0, 0));
    assert_eq!(span.adopted(), 0);
}

#[test]
fn a_misaligned_or_overlong_range_is_not_adopted() {
    let span = span(4096);
    // SAFETY: nothing is adopted in either case.
    unsafe {
        assert!(span.adopt::<u32>(2, 1).is_none());
        assert!(span.adopt::<u32>(0, 1025).is_none());
        assert!(span.adopt::<u64>(8, usize::MAX / 4).is_none());
    }
    assert_eq!(span.adopted(), 0);
}

#[test]
fn the_last_block_of_an_orphan_gives_the_memory_back_at_once() {
    let span = span(1 << 20);
    let (base, bytes) = (span.base().as_ptr() as usize, span.bytes());
    let (one, two) = (adopt(&span, 0, 4096), adopt(&span, 8192, 4096));
    let orphan = span.orphan().unwrap_err();
    drop(one);
    assert!(!orphan.is_gone());
    assert_eq!(two[1], 1);
    assert_eq!(resident(base, bytes), bytes);
    drop(two);
    assert!(orphan.is_gone());
    assert_eq!(resident(base, bytes), 0);
}

#[test]
fn a_span_dropped_with_blocks_alive_leaves_them_usable() {
    let span = span(1 << 20);
    let vector = adopt(&span, 0, 100);
    drop(span);
    assert_eq!(vector[42], 42);
}

#[test]
fn a_span_without_blocks_comes_straight_back() {
    let mine = span(4096);
    drop(adopt(&mine, 0, 4096));
    let back = mine.orphan().unwrap();
    let again = adopt(&back, 0, 10);
    assert_eq!(again[3], 3);
}

#[test]
fn spans_do_not_overlap_and_their_addresses_are_used_again() {
    let window = Window::global().unwrap();
    let mut spans: Vec<Span> = Vec::new();
    for round in 0..2000_usize {
        let bytes = 1 + (round * 7_919_777) % (32 << 20);
        spans.push(window.span(bytes).unwrap());
        if round % 3 != 0 {
            spans.swap_remove(round * 31 % spans.len());
        }
        if spans.len() > 200 {
            spans.clear();
        }
    }
    let mut ranges: Vec<(usize, usize)> = spans
        .iter()
        .map(|span| (span.base().as_ptr() as usize, span.bytes()))
        .collect();
    ranges.sort_unstable();
    assert!(
        ranges
            .windows(2)
            .all(|pair| pair[0].0 + pair[0].1 <= pair[1].0)
    );
}

#[test]
fn blocks_pushed_shrunk_cloned_and_dropped_on_threads_end_at_zero() {
    const THREADS: usize = 4;
    const BLOCKS: usize = 64;
    let spans: Vec<Span> = (0..8).map(|_| span(BLOCKS * 4096)).collect();
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (spans, barrier) = (&spans, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..20_000_usize {
                    let span = &spans[(thread + round) % spans.len()];
                    // Every thread has its own blocks.
                    let block = thread + round % (BLOCKS / THREADS) * THREADS;
                    let mut vector = adopt(span, block * 4096, 512);
                    match round % 4 {
                        0 => vector.push(1),
                        1 => {
                            vector.truncate(100);
                            vector.shrink_to_fit();
                        }
                        2 => assert_eq!(vector.clone(), vector),
                        _ => {
                            // Dropped by another thread.
                            std::thread::scope(|inner| {
                                if round % 400 == 3 {
                                    inner.spawn(move || drop(vector));
                                }
                            });
                        }
                    }
                }
            });
        }
    });
    assert!(spans.iter().all(|span| span.adopted() == 0));
}
