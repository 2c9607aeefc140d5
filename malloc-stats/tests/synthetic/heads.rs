//! The headers of chunks, and what lies in chunks that is nothing to malloc.

use crate::dice::Dice;
use crate::image::{Chunk, Segment};
use crate::plan::Fate;
use crate::space::Forged;

const PREV_INUSE: u64 = 1;
const NON_MAIN_ARENA: u64 = 4;

struct Head {
    at: u64,
    size: u64,
    flags: u64,
    free: bool,
}

/// Writes the headers and contents of a segment. `fences` are headers, with their sizes, between
/// its chunks and its end.
pub fn write(
    space: &mut Forged,
    segment: &Segment,
    fences: &[(u64, u64)],
    main: bool,
    dice: &mut Dice<'_>,
) {
    let plain = |at, size| Head {
        at,
        size,
        flags: 0,
        free: false,
    };
    let mut heads: Vec<Head> = Vec::new();
    for chunk in &segment.chunks {
        let free = chunk.fate == Fate::Free;
        // A free chunk that was joined with another has lost the mark.
        let unmarked = main || (free && dice.noise().is_multiple_of(2));
        heads.push(Head {
            flags: if unmarked { 0 } else { NON_MAIN_ARENA },
            free,
            ..plain(chunk.at, chunk.size)
        });
    }
    heads.extend(fences.iter().map(|(at, size)| plain(*at, *size)));
    let top = segment.top.iter();
    heads.extend(top.map(|top| plain(top.start, top.end - top.start)));
    let first = heads.first().map_or(0, |head| head.at);
    let mut freed = None;
    for head in heads {
        let in_use = if freed.is_none() { PREV_INUSE } else { 0 };
        match freed {
            Some(size) => space.word(head.at, size),
            // The last word of a block in use, whatever its owner wrote.
            None if head.at != first && dice.noise().is_multiple_of(2) => {
                space.word(head.at, dice.noise());
            }
            None => {}
        }
        space.word(head.at + 8, head.size | head.flags | in_use);
        freed = head.free.then_some(head.size);
    }
    for chunk in &segment.chunks {
        content(space, chunk, dice);
    }
}

/// What its owner, or malloc, keeps in a block that is no structure of malloc's.
fn content(space: &mut Forged, chunk: &Chunk, dice: &mut Dice<'_>) {
    let at = chunk.at + 16;
    match chunk.fate {
        Fate::InUse | Fate::Cached => match dice.noise() % 5 {
            0 => space.word(at, dice.noise()),
            1 => space.write(at, b"Connection: keep"),
            2 => space.words(at, &[chunk.at, chunk.at + chunk.size]),
            // A header where there is none.
            3 => space.words(at, &[0, 0x21]),
            _ => {}
        },
        Fate::LikeCache { zeros } => {
            for word in (at..chunk.at + chunk.size).step_by(8) {
                space.word(word, if zeros { 0 } else { dice.noise() });
            }
        }
        Fate::Free => {
            for word in (at..(chunk.at + chunk.size - 8).min(at + 32)).step_by(8) {
                space.word(word, dice.noise());
            }
        }
        Fate::Fast | Fate::Cache => {}
    }
}
