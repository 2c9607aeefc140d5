//! What was not found, or could not be read, is in no exact number, and is not called corrupt.

use malloc_stats::Metric;
use malloc_stats::heap::PageState;

use crate::dice::Dice;
use crate::forge::forge;
use crate::hostile::{image, walked};
use crate::image::Image;
use crate::layout::{HEAP_MAX, LAYOUTS};
use crate::plan::{Block, Fate, Pages, Piece, Plan, Start};
use crate::space::{PAGE, anonymous};
use crate::truth::Truth;

fn is_exact(metric: Metric) -> bool {
    matches!(metric, Metric::Exact(_))
}

/// A main arena with a piece off the brk, in which its top lies.
fn in_pieces() -> Image {
    let block = |size, fate| Block {
        size,
        fate,
        pages: Pages::Resident,
    };
    let piece = |start| Piece {
        start,
        blocks: vec![block(64, Fate::InUse), block(0x5000, Fate::Free)],
        tail: 0x8000,
        tail_pages: Pages::Resident,
        split: false,
    };
    let plan = Plan {
        main: vec![piece(Start::Fresh), piece(Start::Mapped { above: true })],
        secondary: Vec::new(),
        mmapped: Vec::new(),
        ..Plan::draw(&mut Dice::new(&[]), &LAYOUTS[4])
    };
    forge(plan, &mut Dice::new(&[]))
}

#[test]
fn a_piece_that_was_not_found_leaves_no_exact_sum() {
    let mut image = in_pieces();
    let whole = walked(&image.space).unwrap().remove(0);
    assert!(is_exact(whole.totals.free_virtual) && is_exact(whole.arenas[0].free));
    let piece = image.arenas[0].segments[1].range.start;
    image.space.set_state(piece, PageState::Swapped);
    let heap = walked(&image.space).unwrap().remove(0);
    for metric in [
        heap.totals.free_virtual,
        heap.totals.in_use,
        heap.arenas[0].free,
        heap.arenas[0].releasable,
        heap.trim.free_resident,
    ] {
        assert!(!is_exact(metric), "{metric:?} in {heap:#?}");
    }
    assert!(!heap.notes.is_empty());
}

#[test]
fn a_heap_whose_head_is_in_swap_leaves_no_exact_sum() {
    let mut image = image();
    let heap = image.arenas[1].segments[1].range.start;
    image.space.set_state(heap, PageState::Swapped);
    let heap = walked(&image.space).unwrap().remove(0);
    for metric in [
        heap.arenas[1].free,
        heap.arenas[1].releasable,
        heap.trim.releasable,
        heap.totals.heap_rss,
    ] {
        assert!(!is_exact(metric), "{metric:?}");
    }
    assert!(is_exact(heap.arenas[2].free));
}

#[test]
fn what_is_in_swap_is_not_corrupt() {
    let mut image = image();
    let behind = image.arenas[1].segments[0].chunks[3].at;
    image.space.set_state(behind, PageState::Swapped);
    let heap = walked(&image.space).unwrap().remove(0);
    assert!(!heap.torn.faults.is_empty());
    assert!(heap.torn.faults.iter().all(|fault| !fault.stable));
}

#[test]
fn fastbins_that_lead_nowhere_leave_no_exact_sum() {
    let mut image = image();
    let bin = image.arenas[1].state + image.layout().fastbins.unwrap() + 8 * 2;
    image.space.word(bin, 0x1230);
    let heap = walked(&image.space).unwrap().remove(0);
    assert!(!is_exact(heap.arenas[1].free));
    assert!(!is_exact(heap.totals.free_virtual));
}

/// Two places near each other, chunks between and behind them.
#[test]
fn two_overwritten_headers_are_corrupt_and_cost_only_themselves() {
    let mut image = image();
    let top = image.arenas[1].top().start;
    let heap = image.arenas[1].segments[1].range.start;
    let mut at = top;
    for _ in 0..3 {
        for _ in 0..20 {
            image.space.word(at + 8, 0x25);
            at += 32;
        }
        image.space.word(at + 8, 0x3);
        at += 16;
    }
    for _ in 0..20 {
        image.space.word(at + 8, 0x25);
        at += 32;
    }
    let end = (at + 32).next_multiple_of(PAGE);
    image.space.word(at + 8, (end - at) | 1);
    let state = image.arenas[1].state;
    image.space.word(state + image.layout().top, at);
    image.space.words(heap + 16, &[end - heap, end - heap]);
    image.space.extend_mapping(heap, end);
    let torn = walked(&image.space).unwrap().remove(0).torn;
    assert!(torn.faults[0].stable, "{torn:#?}");
    assert!(torn.unresolved_bytes <= 3 * 48, "{torn:#?}");
}

/// Heaps that begin anywhere inside of each other, and would count the same memory again and again.
#[test]
fn heaps_begin_where_heaps_can() {
    let mut image = image();
    let arena = image.arenas[1].state;
    let last = image.arenas[1].segments[1].range.start;
    let first = image.arenas[1].segments[0].range.start;
    let base = last + HEAP_MAX;
    let heaps = 500;
    image
        .space
        .map(base..base + (heaps + 2) * PAGE, "rwp", anonymous());
    for heap in 0..heaps {
        let at = base + heap * PAGE + 16;
        let previous = if heap + 1 < heaps { at + PAGE } else { first };
        let size = (heaps + 1 - heap) * PAGE;
        image.space.words(at, &[arena, previous, size, size]);
        // Chunks of a page each.
        image.space.word(at + 48 + 8, PAGE | 5);
    }
    image.space.word(last + 8, base + 16);
    let heap = walked(&image.space).unwrap().remove(0);
    assert!(heap.arenas[1].segments <= 2, "{}", heap.arenas[1].segments);
    assert!(!heap.torn.faults.is_empty());
}

/// The kernel joins neighbours, and shows the memory right behind the brk as its own mapping.
#[test]
fn memory_right_behind_the_brk_does_not_hide_it() {
    let mut image = image();
    let end = image.brk.next_multiple_of(PAGE);
    image.space.map(end..end + 4 * PAGE, "rwp", anonymous());
    let heap = walked(&image.space).unwrap().remove(0);
    assert_eq!(heap.totals.mallinfo, Truth::of(&image).mallinfo);
}
