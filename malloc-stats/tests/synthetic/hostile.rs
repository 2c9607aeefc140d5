//! Heaps made to mislead: each ends in a bounded number of steps, with numbers that can be true.

use malloc_stats::heap::{Heap, HeapError, PageState};

use crate::bounds::{self, MOST_MEMORY};
use crate::dice::{Dice, scatter};
use crate::forge::forge;
use crate::image::Image;
use crate::layout::{HEAP_MAX, LAYOUTS};
use crate::object::options;
use crate::plan::{Block, Fate, Large, Pages, Piece, Plan, Start};
use crate::space::{Forged, PAGE};
use crate::truth::Truth;
use crate::weight::weighed;

/// 2.35–2.41, with everything that can be pointed elsewhere.
const LAYOUT: usize = 4;
const VERSION: Option<(u32, u32)> = Some((2, 36));

/// An image of one piece of each sort, all of it resident.
pub fn image() -> Image {
    let block = |size, fate| Block {
        size,
        fate,
        pages: Pages::Resident,
    };
    let piece = |start| Piece {
        start,
        blocks: vec![
            block(0, Fate::Cache),
            block(64, Fate::InUse),
            block(0x5000, Fate::Free),
            block(48, Fate::InUse),
            block(64, Fate::Fast),
            block(64, Fate::Fast),
            block(96, Fate::Cached),
            block(96, Fate::Cached),
            block(0x300, Fate::InUse),
        ],
        tail: 0x8000,
        tail_pages: Pages::Resident,
        split: false,
    };
    let large = Large {
        pages: 40,
        alignment: 16,
        huge: false,
        resident: Pages::Resident,
    };
    let plan = Plan {
        main: vec![piece(Start::Fresh)],
        secondary: vec![vec![piece(Start::Fresh); 2]; 2],
        mmapped: vec![vec![large; 2]],
        ..Plan::draw(&mut Dice::new(&[]), &LAYOUTS[LAYOUT])
    };
    forge(plan, &mut Dice::new(&[]))
}

/// Walks within the bounds of steps and memory.
pub fn walked(space: &Forged) -> Result<Vec<Heap>, HeapError> {
    let (walked, most) = weighed(|| bounds::walked(space, &options(VERSION, 2)));
    assert!(most <= MOST_MEMORY, "{most} bytes");
    walked
}

/// Walks, and there is something wrong with what is found.
pub fn at_odds(image: &Image) {
    if let Ok(heaps) = walked(&image.space) {
        let says = |heap: &Heap| {
            let torn = &heap.torn;
            torn.unresolved > 0 || !torn.faults.is_empty() || !heap.notes.is_empty()
        };
        assert!(heaps.iter().any(says), "nothing is said of it: {heaps:#?}");
    }
}

#[test]
fn sizes_that_no_chunk_has_end_a_stretch() {
    let sizes = [
        0,
        1,
        8,
        17,
        24,
        0x2_0000_0001,
        1 << 60,
        u64::MAX,
        u64::MAX - 15,
        1 << 63,
    ];
    for size in sizes {
        for arena in 0..3 {
            let mut image = image();
            let chunks = &image.arenas[arena].segments[0].chunks;
            let victim = chunks[1].at;
            image.space.word(victim + 8, size);
            at_odds(&image);
        }
    }
}

#[test]
fn a_size_that_leads_back_is_no_loop() {
    for arena in 0..3 {
        let mut image = image();
        let chunks = &image.arenas[arena].segments[0].chunks;
        let (first, last) = (chunks[0].at, chunks[chunks.len() - 1].at);
        image.space.word(last + 8, first.wrapping_sub(last) | 1);
        at_odds(&image);
    }
}

#[test]
fn a_top_may_lie_anywhere() {
    let image_of = |top: &dyn Fn(&Image) -> u64| {
        (0..3)
            .map(|arena| {
                let mut image = image();
                let at = image.arenas[arena].state + image.layout().top;
                let top = top(&image);
                image.space.word(at, top);
                image
            })
            .collect::<Vec<_>>()
    };
    let mut images = image_of(&|image| image.arenas[2].top().start);
    images.extend(image_of(&|image| image.arenas[0].segments[0].chunks[2].at));
    images.extend(image_of(&|image| image.arenas[0].state));
    images.extend(image_of(&|image| image.mmapped[0].header));
    images.extend(image_of(&|_| 0));
    images.extend(image_of(&|_| u64::MAX));
    images.extend(image_of(&|_| 0x7fff_dead_0000));
    for image in images {
        let _ = walked(&image.space);
    }
}

#[test]
fn a_top_may_be_of_any_size() {
    for size in [0, 1, 16, 17, 1 << 40, u64::MAX, u64::MAX - 4095] {
        for arena in 0..3 {
            let mut image = image();
            let top = image.arenas[arena].top().start;
            image.space.word(top + 8, size);
            let _ = walked(&image.space);
        }
    }
}

#[test]
fn a_ring_that_never_comes_back_is_walked_once_and_said_to_be_broken() {
    let mut image = image();
    let next = image.layout().next();
    let (second, third) = (image.arenas[1].state, image.arenas[2].state);
    image.space.word(third + next, second);
    at_odds(&image);
    for heap in walked(&image.space).iter().flatten() {
        assert!(heap.arenas.len() <= 3, "{:?}", heap.arenas);
        assert!(!heap.torn.faults.is_empty());
    }
}

#[test]
fn heaps_that_lead_to_each_other_end() {
    let mut image = image();
    let heaps: Vec<u64> = image.arenas[1]
        .segments
        .iter()
        .map(|s| s.range.start)
        .collect();
    image.space.word(heaps[0] + 8, heaps[1]);
    image.space.word(heaps[1] + 8, heaps[1]);
    at_odds(&image);
}

#[test]
fn no_heap_belongs_to_two_arenas() {
    let mut image = image();
    let top = image.layout().top;
    let taken = image.arenas[1].segments[1].range.start;
    let other = image.arenas[2].segments[1].range.start;
    image.space.word(other + 8, taken);
    let _ = walked(&image.space);
    // And as if the top were there.
    let there = image.arenas[1].top().start;
    image.space.word(image.arenas[2].state + top, there);
    at_odds(&image);
}

#[test]
fn a_heap_is_no_longer_than_heaps_are() {
    for size in [0, 1, PAGE, HEAP_MAX, HEAP_MAX + PAGE, 1 << 60, !15] {
        let mut image = image();
        let heap = image.arenas[1].segments[1].range.start;
        image.space.word(heap + 16, size);
        let _ = walked(&image.space);
    }
}

#[test]
fn lists_that_loop_end() {
    let mut image = image();
    let layout = image.layout();
    let fast: Vec<u64> = of_fate(&image, Fate::Fast);
    let cached: Vec<u64> = of_fate(&image, Fate::Cached);
    for chunks in [fast, cached] {
        let link = |target: u64| layout.link(chunks[0] + 16, target);
        for target in [chunks[0], chunks[0] + 16, chunks[1] + 16, 0x1234_5670] {
            image.space.word(chunks[0] + 16, link(target));
            let _ = walked(&image.space);
        }
    }
}

#[test]
fn bins_may_lead_anywhere() {
    let mut noise = 7;
    for _ in 0..20 {
        let mut image = image();
        let bins = image.arenas[0].state + image.layout().bins;
        for at in (bins..bins + 120 * 16).step_by(8) {
            noise = scatter(noise);
            image.space.word(at, noise & !15);
        }
        let _ = walked(&image.space);
    }
}

/// A header in swap stays there, and what is behind it is said to be unknown.
#[test]
fn what_is_in_swap_is_not_brought_back() {
    for arena in 0..3 {
        let mut image = image();
        let chunks = &image.arenas[arena].segments[0].chunks;
        let behind = chunks[3].at;
        image.space.set_state(behind, PageState::Swapped);
        let heaps = walked(&image.space).unwrap();
        assert_eq!(heaps[0].torn.unresolved, 1, "{:#?}", heaps[0].torn);
        assert!(heaps[0].torn.faults[0].reason.contains("swap"));
    }
}

/// A torn look is looked at again, and then everything is there.
#[test]
fn what_is_torn_once_is_whole_at_the_second_look() {
    let truth = Truth::of(&image());
    let mut retried = 0;
    for torn in 0..64 {
        let mut image = image();
        let victim = image.arenas[1].segments[0].chunks[1].at + 8;
        // The page is read for more than the walk; whichever read of it is torn.
        let mut reads = 0;
        image.space.tear(Box::new(move |address, bytes| {
            let at = victim.wrapping_sub(address) as usize;
            if at < bytes.len() {
                bytes[at] ^= if reads == torn { 0xf8 } else { 0 };
                reads += 1;
            }
        }));
        let heaps = walked(&image.space).unwrap();
        assert_eq!(heaps[0].torn.unresolved, 0);
        assert_eq!(heaps[0].totals.mallinfo, truth.mallinfo);
        retried += heaps[0].torn.retried + heaps[0].torn.reread;
    }
    assert!(retried > 0, "whichever read is torn, nothing is said");
}

/// A process whose mappings are gone between the list of them and the first read.
#[test]
fn memory_that_is_gone_meanwhile_is_said_to_be_gone() {
    let mut image = image();
    let heap = image.arenas[1].segments[1].range.start;
    image.space.refuse(heap..heap + PAGE);
    at_odds(&image);
    let data = image.arenas[0].state & !(PAGE - 1);
    image.space.refuse(data..data + 2 * PAGE);
    assert!(walked(&image.space).is_err());
}

fn of_fate(image: &Image, fate: Fate) -> Vec<u64> {
    let chunks = image.chunks().filter(|chunk| chunk.fate == fate);
    chunks.map(|chunk| chunk.at).collect()
}
