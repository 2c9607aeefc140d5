//! Too much of everything: what is said a million times costs no more than what is there.

use crate::hostile::{at_odds, image, walked};
use crate::image::Image;
use crate::object;
use crate::space::{PAGE, anonymous};

/// Arenas that overlap each other, so many that their states do not fit into memory.
#[test]
fn a_million_arenas_are_too_many() {
    for arenas in [16_000, 20_000, 1_000_000] {
        let mut image = image();
        let next = image.layout().next();
        let base = 0x7c00_0000_0000;
        let last = base + 16 * arenas;
        image.space.map(
            base..(last + 2 * PAGE).next_multiple_of(PAGE),
            "rwp",
            anonymous(),
        );
        for arena in (base..last).step_by(16) {
            image.space.word(arena + next, arena + 16);
        }
        let main = image.arenas[0].state;
        image.space.word(last + next, main);
        image.space.word(main + next, base);
        let _ = walked(&image.space);
    }
}

/// Many caches that all lead to one long list: by their counts they hold more than there is.
#[test]
fn caches_that_share_a_list_do_not_multiply_it() {
    let mut image = image();
    let layout = image.layout();
    let top = image.arenas[1].top();
    let heap = image.arenas[1].segments[1].range.start;
    // One list through chunks of 32 bytes, and caches behind it.
    let (list, caches) = (20_000, 8_000);
    let mut at = top.start;
    let first = at + 16;
    for index in 0..list {
        let next = if index + 1 < list { at + 32 + 16 } else { 0 };
        image
            .space
            .words(at + 8, &[0x25, layout.link(at + 16, next)]);
        at += 32;
    }
    for _ in 0..caches {
        image.space.word(at + 8, layout.tcache.chunk | 5);
        image.space.write(at + 16, &u16::MAX.to_le_bytes());
        image
            .space
            .word(at + 16 + layout.tcache.width * layout.tcache.slots, first);
        at += layout.tcache.chunk;
    }
    grown(&mut image, heap, at);
    let count = image.parameters_at + layout.parameters.sbrk_base + 24;
    image.space.word(count, u64::from(u16::MAX));
    let heaps = walked(&image.space).unwrap();
    assert!(heaps[0].trim.tcache.bytes().unwrap() <= (list + 2) * 96);
}

/// Thousands of faults, behind each of which chunks can be found again, and a long list of fast
/// chunks to look through again for each of them.
#[test]
fn faults_all_over_are_not_tried_again_one_by_one() {
    let mut image = image();
    let layout = image.layout();
    let top = image.arenas[1].top();
    let heap = image.arenas[1].segments[1].range.start;
    let (fast, faults) = (4000, 4000);
    let mut at = top.start;
    let first = at;
    for index in 0..fast {
        let next = if index + 1 < fast { at + 32 } else { 0 };
        image
            .space
            .words(at + 8, &[0x25, layout.link(at + 16, next)]);
        at += 32;
    }
    image
        .space
        .word(image.arenas[1].state + layout.fastbins.unwrap(), first);
    for _ in 0..faults {
        for _ in 0..7 {
            image.space.word(at + 8, 0x25);
            at += 32;
        }
        image.space.word(at + 8, 0x3);
        at += 16;
    }
    grown(&mut image, heap, at);
    at_odds(&image);
}

/// Data full of empty lists, each of which could be a bin of an arena that is nowhere.
#[test]
fn empty_lists_all_over_are_looked_at_once() {
    let mut image = image();
    let data = 0x7f32_0020_0000;
    let range = data..data + (2 << 20);
    object::library(
        &mut image.space,
        "/usr/lib/libhostile.so",
        9,
        data - 0x20_0000,
        &range,
    );
    for head in range.step_by(16) {
        image.space.words(head, &[head - 16, head - 16]);
    }
    assert_eq!(walked(&image.space).unwrap().len(), 1);
}

/// What is mapped and not there costs no steps: reservations are as large as they like.
#[test]
fn a_huge_mapping_of_nothing_costs_nothing() {
    let mut image = image();
    let huge = 0x1000_0000_0000..0x5000_0000_0000;
    image.space.map(huge.clone(), "rwp", anonymous());
    // malloc says that there is more than can be found.
    let chunks = image.parameters_at + image.layout().parameters.n_mmaps;
    image.space.write(chunks, &5_u32.to_le_bytes());
    let mmapped = image.parameters_at + image.layout().parameters.sbrk_base - 16;
    image.space.words(mmapped, &[1 << 40, 1 << 41]);
    at_odds(&image);
    image.space.word(huge.start + (1 << 44), 1);
    at_odds(&image);
}

/// Every page of gigabytes begins an mmapped chunk, as many as malloc says.
#[test]
fn a_million_mmapped_chunks_are_counted_once() {
    let mut image = image();
    let bytes: u64 = 4 << 30;
    let base = 0x7d00_0000_0000;
    let mut page = [0; PAGE as usize];
    page[8..16].copy_from_slice(&(PAGE | 2).to_le_bytes());
    image.space.map(base..base + bytes, "rwp", anonymous());
    image.space.repeat(base..base + bytes, page);
    let mmapped = image.parameters_at + image.layout().parameters.sbrk_base - 16;
    image.space.words(mmapped, &[bytes, bytes]);
    let heaps = walked(&image.space).unwrap();
    assert!(heaps[0].mmapped.found_bytes <= bytes);
}

/// The last heap of the first secondary arena goes on, and its top begins at `top`.
fn grown(image: &mut Image, heap: u64, top: u64) {
    let end = (top + 32).next_multiple_of(PAGE);
    image.space.word(top + 8, (end - top) | 1);
    let state = image.arenas[1].state;
    image.space.word(state + image.layout().top, top);
    image.space.words(heap + 16, &[end - heap, end - heap]);
    image.space.extend_mapping(heap, end);
}

/// Every page of a gigabyte begins a piece of the main arena, and ends it.
#[test]
fn pieces_of_the_main_arena_have_an_end() {
    let mut image = image();
    let bytes: u64 = 1 << 30;
    let base = 0x7d00_0000_0000;
    let mut page = [0; PAGE as usize];
    for (at, head) in [(0, 0x21_u64), (32, 0x11), (48, 0x11)] {
        page[at + 8..at + 16].copy_from_slice(&head.to_le_bytes());
    }
    image.space.map(base..base + bytes, "rwp", anonymous());
    image.space.repeat(base..base + bytes, page);
    let main = &image.arenas[0];
    let (state, size) = (main.state, main.system_mem);
    image.space.word(state, 2 << 32);
    let system_mem = state + image.layout().next() + 24;
    image.space.word(system_mem, size + 2 * bytes);
    let _ = walked(&image.space);
}

/// Thousands of arenas with the same long list of fast chunks, each on a page of its own.
#[test]
fn arenas_that_share_a_list_do_not_multiply_it() {
    let mut image = image();
    let layout = image.layout();
    let (arenas, listed) = (4_000, 2_000);
    let next = layout.next();
    let (base, list) = (0x7c00_0000_0000, 0x7b00_0000_0000);
    let last = base + 16 * arenas;
    let end = (last + 2 * PAGE).next_multiple_of(PAGE);
    image.space.map(base..end, "rwp", anonymous());
    let pages = list..list + listed * PAGE;
    image.space.map(pages.clone(), "rwp", anonymous());
    for chunk in pages.clone().step_by(PAGE as usize) {
        let behind = Some(chunk + PAGE).filter(|next| *next < pages.end);
        let link = layout.link(chunk + 16, behind.unwrap_or(0));
        image.space.words(chunk + 8, &[49, link]);
    }
    for word in (base + 8..last + 2 * PAGE - 8).step_by(16) {
        image.space.word(word, list);
    }
    for arena in (base..last).step_by(16) {
        image.space.word(arena + next, arena + 16);
    }
    let main = image.arenas[0].state;
    image.space.word(last + next, main);
    image.space.word(main + next, base);
    let _ = walked(&image.space);
}

/// Hundreds of objects with a main arena of their own, each with a long ring.
#[test]
fn main_arenas_have_an_end() {
    let mut image = image();
    let layout = image.layout();
    let arenas = 10_000;
    let next = layout.next();
    let base = 0x7c00_0000_0000;
    let last = base + 16 * arenas;
    let end = (last + 2 * PAGE).next_multiple_of(PAGE);
    image.space.map(base..end, "rwp", anonymous());
    for arena in (base..last).step_by(16) {
        image.space.word(arena + next, arena + 16);
    }
    for object in 0..200 {
        let data = 0x7f32_0020_0000 + object * 0x100_0000;
        let path = format!("/usr/lib/libhostile{object}.so");
        let range = data..data + PAGE;
        object::library(
            &mut image.space,
            &path,
            9 + object,
            data - 0x20_0000,
            &range,
        );
        for bin in (data + layout.bins..).step_by(16).take(127) {
            image.space.words(bin, &[bin - 16, bin - 16]);
        }
        image.space.word(data + next, base);
        // The last of the ring leads back to one of them.
        image.space.word(last + next, data);
    }
    let _ = walked(&image.space);
}
