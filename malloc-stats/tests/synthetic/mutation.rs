//! Damage to an image: what a hostile process may write into its own heap.

use malloc_stats::heap::{AddressSpace, PageState};

use crate::dice::Dice;
use crate::image::Image;
use crate::space::PAGE;

/// Damages the image as the dice say, a few times.
pub fn damage(image: &mut Image, dice: &mut Dice<'_>) {
    let places = places(image);
    for _ in 0..=dice.below(24) {
        let place = places[dice.below(places.len() as u64) as usize];
        let at = (place + 8 * dice.below(4)) & !7;
        match dice.below(16) {
            0 => image.space.drop_page(at),
            1 => {
                let state = dice.pick(&[PageState::Swapped, PageState::Zero]);
                image.space.set_state(at, state);
            }
            2 => {
                let written = image.space.written_pages();
                let page = written[dice.below(written.len() as u64) as usize];
                let within = 8 * dice.below(PAGE / 8);
                let value = dice.word();
                image.space.word(page + within, value);
            }
            _ => {
                let value = value(image, &places, at, dice);
                image.space.word(at, value);
            }
        }
    }
}

/// Where something stands that malloc relies on.
fn places(image: &Image) -> Vec<u64> {
    let layout = image.layout();
    let mut places = vec![
        image.parameters_at,
        image.parameters_at + layout.parameters.n_mmaps,
        image.parameters_at + layout.parameters.sbrk_base - 16,
        image.parameters_at + layout.parameters.sbrk_base,
        image.parameters_at + layout.parameters.sbrk_base + 8,
    ];
    for arena in &image.arenas {
        let state = arena.state;
        places.extend([
            state + layout.top,
            state + layout.bins,
            state + layout.bins + 0x200,
            state + layout.next(),
            state + layout.next() + 24,
        ]);
        places.extend(layout.fastbins.map(|fastbins| state + fastbins));
        for segment in &arena.segments {
            places.extend([segment.range.start, segment.range.end - 16]);
            places.extend(segment.chunks.iter().map(|chunk| chunk.at));
            places.extend(segment.chunks.iter().map(|chunk| chunk.at + 16));
            places.extend(segment.top.iter().map(|top| top.start));
        }
    }
    places.extend(image.mmapped.iter().flat_map(|m| [m.header, m.range.start]));
    places
}

fn value(image: &Image, places: &[u64], at: u64, dice: &mut Dice<'_>) -> u64 {
    let now = image.space.word_at(at);
    match dice.below(12) {
        0 => dice.pick(&[0, 1, 2, 7, 16, 17, 31, 32, 33]),
        1 => 1 << dice.below(64),
        2 => u64::MAX << dice.below(64),
        3 => u64::MAX - dice.below(64),
        4 => now ^ (1 << dice.below(64)),
        5 => now.wrapping_add(16 * dice.below(64)),
        6 => now.wrapping_sub(16 * dice.below(64)),
        // The place itself, and any other.
        7 => at & !15,
        8 => (at & !15).wrapping_sub(16 * dice.below(32)),
        9 => places[dice.below(places.len() as u64) as usize],
        10 => {
            let mappings = image.space.mappings();
            let range = mappings[dice.below(mappings.len() as u64) as usize]
                .range
                .clone();
            dice.pick(&[range.start, range.end, range.end - 16, range.start - 16])
        }
        _ => dice.word(),
    }
}
