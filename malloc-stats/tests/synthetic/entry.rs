//! One try of a fuzzer: its bytes are a heap, and damage to it.

use malloc_stats::heap::{Heap, HeapError, Options};
use malloc_stats::mappings::Backing;

use crate::bounds;
use crate::dice::{Dice, scatter};
use crate::forge::forge;
use crate::image::Image;
use crate::mutation::damage;
use crate::object;
use crate::plan::Plan;
use crate::space::{Forged, PAGE, anonymous};

/// Walks what the bytes describe; panics where the walker broke a promise. Whether it found a heap.
pub fn once(bytes: &[u8]) -> bool {
    // Apart, so that no plan uses up what the damage is drawn from.
    let (damage, plan) = bytes.split_at(bytes.len() / 4);
    let (mut dice, mut plan) = (Dice::new(damage), Dice::new(plan));
    let (mut space, options) = match dice.below(8) {
        1 => raw(&mut plan, &mut dice),
        _ => damaged(&mut plan, &mut dice),
    };
    if dice.chance(40) {
        let mut motion = dice.word();
        space.tear(Box::new(move |_, bytes| {
            motion = scatter(motion);
            if motion.is_multiple_of(8) && !bytes.is_empty() {
                let at = (motion >> 8) as usize % bytes.len();
                bytes[at] ^= (motion >> 56) as u8;
            }
        }));
    }
    let found: Result<Vec<Heap>, HeapError> = bounds::walked(&space, &options);
    let arenas = found.iter().flatten().flat_map(|heap| &heap.arenas);
    let spans: Vec<_> = arenas.filter_map(|arena| arena.coverage.span()).collect();
    let (arena, most) = (dice.below(4) as usize, dice.below(64) as usize);
    let range = match spans.len() as u64 {
        0 => dice.word()..dice.word(),
        spanned => {
            let span = &spans[dice.below(spanned) as usize];
            let start = span.start + dice.below(span.end - span.start);
            start..start.saturating_add(1 << dice.below(48))
        }
    };
    let _ = bounds::seen(&space, &options, arena, range, most);
    found.is_ok_and(|heaps| !heaps.is_empty())
}

/// A forged image, damaged.
fn damaged(plan: &mut Dice<'_>, dice: &mut Dice<'_>) -> (Forged, Options) {
    let known = dice.chance(160);
    let mut image: Image = forge(Plan::draw_any(plan), plan);
    let versions = image.layout().versions;
    damage(&mut image, dice);
    let version = known.then(|| versions[0]);
    (image.space, object::options(version, dice.below(3) as u32))
}

/// Pages that hold the bytes as they are, in every sort of mapping a heap can lie in.
fn raw(content: &mut Dice<'_>, dice: &mut Dice<'_>) -> (Forged, Options) {
    let mut space = Forged::default();
    let data = 0x7f30_0020_0000;
    object::library(
        &mut space,
        object::LIBC,
        object::INODE,
        0x7f30_0000_0000,
        &(data..data + 2 * PAGE),
    );
    let heap = 0x5555_5500_0000;
    space.map(heap..heap + 8 * PAGE, "rwp", Backing::Brk);
    let other = 0x7e00_0000_0000;
    space.map(other..other + 8 * PAGE, "rwp", anonymous());
    while !content.is_empty() {
        let from = content.pick(&[data, heap, other]);
        let at = from + 8 * content.below(if from == data { 2 } else { 8 } * PAGE / 8);
        for offset in (0..8 * (1 + content.below(32))).step_by(8) {
            let (to, small) = (content.pick(&[data, heap, other]), content.below(0x8000));
            let word = content.pick(&[0, small, to + small, at + offset - 16]);
            if space.mappings_hold(at + offset) {
                space.word(at + offset, word);
            }
        }
    }
    let version = dice.chance(128).then_some((2, 36));
    (space, object::options(version, 1))
}
