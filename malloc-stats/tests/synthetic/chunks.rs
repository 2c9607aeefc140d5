//! Chunks one by one: those that were laid out in the range, and no others.

use std::ops::Range;

use malloc_stats::heap::{
    Chunk, ChunkState, ChunksSeen, HeapError, Options, PageState, chunks, walk,
};
use proptest::prelude::*;

use crate::agreement::noise;
use crate::bounds::{self, MOST_MEMORY};
use crate::dice::{Dice, scatter};
use crate::forge::forge;
use crate::hostile;
use crate::image::{ArenaImage, Image};
use crate::layout::LAYOUTS;
use crate::object::options;
use crate::plan::{Fate, Plan};
use crate::space::PAGE;
use crate::weight::weighed;

const EVERYWHERE: Range<u64> = 0..u64::MAX;

fn image(layout: usize, bytes: &[u8]) -> Image {
    let mut dice = Dice::new(bytes);
    let plan = Plan::draw(&mut dice, &LAYOUTS[layout]);
    forge(plan, &mut dice)
}

fn named(image: &Image) -> Options {
    options(Some(image.layout().versions[0]), 2)
}

/// The chunks of an arena as they were laid out, in order of address.
fn laid_out(image: &Image, arena: &ArenaImage) -> Vec<Chunk> {
    let resident = |range: Range<u64>| image.space.bytes_in(range, PageState::Resident);
    let chunks = arena.segments.iter().flat_map(|segment| &segment.chunks);
    let mut laid: Vec<Chunk> = chunks
        .map(|chunk| Chunk {
            address: chunk.at,
            size: chunk.size,
            state: match chunk.fate {
                Fate::Free | Fate::Fast => ChunkState::Free,
                Fate::Cached => ChunkState::Cached,
                _ => ChunkState::InUse,
            },
            resident: resident(chunk.range()),
        })
        .collect();
    let top = arena.top();
    if !top.is_empty() {
        laid.push(Chunk {
            address: top.start,
            size: top.end - top.start,
            state: ChunkState::Top,
            resident: resident(top),
        });
    }
    laid.sort_by_key(|chunk| chunk.address);
    laid
}

fn agrees(image: &Image, arena: usize, range: Range<u64>, most: usize) {
    let seen = chunks(&image.space, &named(image), arena, range.clone(), most).unwrap();
    let laid = laid_out(image, &image.arenas[arena]);
    let meets =
        |chunk: &Chunk| chunk.address < range.end && range.start < chunk.address + chunk.size;
    let mut expected: Vec<Chunk> = laid.into_iter().filter(meets).collect();
    let beyond = expected.len().saturating_sub(most) as u64;
    expected.truncate(most);
    let of = |seen: &ChunksSeen| (seen.arena, seen.range.clone(), seen.beyond);
    assert_eq!(of(&seen), (arena, range.clone(), beyond), "{}", image.plan);
    assert_eq!(
        seen.chunks, expected,
        "arena {arena}, {range:x?} in {}",
        image.plan
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_chunks_of_every_glibc_are_those_that_were_laid_out(
        layout in 0..LAYOUTS.len(),
        bytes in prop::collection::vec(any::<u8>(), 0..900),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        most in 0..40_usize,
    ) {
        let image = image(layout, &bytes);
        for (index, arena) in image.arenas.iter().enumerate() {
            agrees(&image, index, EVERYWHERE, usize::MAX);
            let laid = laid_out(&image, arena);
            if laid.is_empty() {
                continue;
            }
            // From inside of one chunk to inside of another, and up to where they meet.
            let (one, other) = (laid[from.index(laid.len())], laid[to.index(laid.len())]);
            let (first, last) = (one.address.min(other.address), one.address.max(other.address));
            agrees(&image, index, first..last, usize::MAX);
            agrees(&image, index, first + 8..last + 8, usize::MAX);
            agrees(&image, index, first..first + 1, usize::MAX);
            agrees(&image, index, EVERYWHERE, most);
        }
    }
}

#[test]
fn images_of_each_layout_are_read_chunk_by_chunk() {
    for layout in 0..LAYOUTS.len() {
        for seed in 0..30_u64 {
            let image = image(layout, &noise(seed * 7 + layout as u64, 1200));
            for arena in 0..image.arenas.len() {
                agrees(&image, arena, EVERYWHERE, usize::MAX);
            }
        }
    }
}

#[test]
fn an_empty_range_has_no_chunks() {
    let image = hostile::image();
    let first = image.arenas[1].segments[0].chunks[0].at;
    let backwards = Range {
        start: first + 64,
        end: first,
    };
    for range in [first..first, backwards, 0..1, u64::MAX - 1..u64::MAX] {
        let seen = chunks(&image.space, &named(&image), 1, range, 100).unwrap();
        assert_eq!((seen.chunks.len(), seen.beyond), (0, 0));
        assert!(
            seen.notes[0].contains("no memory between"),
            "{:?}",
            seen.notes
        );
    }
}

#[test]
fn an_arena_that_is_not_there_is_said_to_be_none() {
    let image = hostile::image();
    for arena in [3, usize::MAX] {
        let error = chunks(&image.space, &named(&image), arena, EVERYWHERE, 100).unwrap_err();
        let expected = HeapError::NoSuchArena { arena, arenas: 3 };
        assert_eq!(error, expected);
    }
}

/// What lies behind a chunk that makes no sense is not made up, and it is said from where on.
#[test]
fn a_chunk_that_makes_no_sense_is_named() {
    for arena in 0..3 {
        let mut image = hostile::image();
        let laid: Vec<u64> = image.arenas[arena].segments[0]
            .chunks
            .iter()
            .map(|chunk| chunk.at)
            .collect();
        image.space.word(laid[3] + 8, 8);
        let seen = bounds::seen(&image.space, &named(&image), arena, EVERYWHERE, 100).unwrap();
        let place = format!("{:#x}", laid[3]);
        assert!(
            seen.notes.iter().any(|note| note.contains(&place)),
            "{:?}",
            seen.notes
        );
        let at = |address: u64| seen.chunks.iter().any(|chunk| chunk.address == address);
        assert!(at(laid[2]) && !at(laid[3]));
        // Before it nothing is wrong.
        let before = bounds::seen(&image.space, &named(&image), arena, 0..laid[2] + 1, 100);
        assert!(before.unwrap().notes.is_empty());
    }
}

/// The image panics where a page in swap, or one that is not there, is read.
#[test]
fn a_header_in_swap_or_gone_is_not_read() {
    for state in [Some(PageState::Swapped), None] {
        for arena in 0..3 {
            let mut image = hostile::image();
            let chunks = &image.arenas[arena].segments[0].chunks;
            let (gone, end) = (chunks[3].at, chunks[3].at + chunks[3].size);
            match state {
                Some(state) => image.space.set_state(gone, state),
                None => image.space.drop_page(gone),
            }
            let seen = bounds::seen(&image.space, &named(&image), arena, gone..end, 100).unwrap();
            assert!(!seen.notes.is_empty());
            let page = gone / PAGE * PAGE..(gone / PAGE + 1) * PAGE;
            let within = |chunk: &&Chunk| page.contains(&chunk.address);
            assert_eq!(seen.chunks.iter().find(within), None);
        }
    }
}

/// A torn read is read again, and every chunk is there as it was laid out.
#[test]
fn what_is_torn_once_is_read_again() {
    for torn in 0..64 {
        let mut image = hostile::image();
        let victim = image.arenas[1].segments[0].chunks[1].at + 8;
        let mut reads = 0;
        image.space.tear(Box::new(move |address, bytes| {
            let at = victim.wrapping_sub(address) as usize;
            if at < bytes.len() {
                bytes[at] ^= if reads == torn { 0xf8 } else { 0 };
                reads += 1;
            }
        }));
        agrees(&image, 1, EVERYWHERE, usize::MAX);
    }
}

#[test]
fn noise_in_motion_ends_in_little_memory() {
    for seed in 0..40 {
        let mut image = hostile::image();
        let mut motion = scatter(seed);
        image.space.tear(Box::new(move |_, bytes| {
            motion = scatter(motion);
            if motion.is_multiple_of(4) && !bytes.is_empty() {
                let at = (motion >> 8) as usize % bytes.len();
                bytes[at] ^= (motion >> 56) as u8;
            }
        }));
        for arena in 0..3 {
            let ask = || bounds::seen(&image.space, &named(&image), arena, EVERYWHERE, 8);
            let (_, most) = weighed(ask);
            assert!(most <= MOST_MEMORY, "{most} bytes");
        }
    }
}

/// The picture of an arena and its chunks are of the same bytes.
#[test]
fn chunks_come_to_what_the_picture_shows() {
    let image = hostile::image();
    let options = named(&image);
    let heap = walk(&image.space, &options).unwrap().remove(0);
    for arena in &heap.arenas {
        let span = arena.coverage.span().unwrap();
        let seen = chunks(&image.space, &options, arena.index, span, usize::MAX).unwrap();
        let shares = arena.coverage.cells(1)[0].shares;
        let free = |chunk: &&Chunk| matches!(chunk.state, ChunkState::Free | ChunkState::Top);
        let (mut free_bytes, mut resident) = (0, 0);
        for chunk in seen.chunks.iter().filter(free) {
            free_bytes += chunk.size;
            resident += chunk.resident;
        }
        assert_eq!(free_bytes, shares.free_resident + shares.free_released);
        assert_eq!(resident, shares.free_resident);
    }
}
