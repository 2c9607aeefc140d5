//! A stretch of memory with chunks in a row, and what can be wrong with one.
//!
//! A chunk begins with two words: the size of the chunk in front, valid only if that is free, and
//! its own size with three flags in the low bits. Whether a chunk is free stands in the header of
//! the *next* one. The process goes on meanwhile, so what is read may be torn; everything is
//! checked before it is believed.

use std::ops::Range;

use super::memory::{Memory, Unread};

pub(super) const PREV_INUSE: u64 = 1;
pub(super) const IS_MMAPPED: u64 = 2;
pub(super) const NON_MAIN_ARENA: u64 = 4;
pub(super) const FLAGS: u64 = 7;
/// A header that marks the end of a piece is a chunk without content.
pub(super) const FENCE: u64 = 16;
pub(super) const SMALLEST: u64 = 32;
/// Headers that must follow on each other before a place is taken for the beginning of chunks.
const CHAIN: u32 = 6;

/// Where a stretch of memory lies in its arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of the main arena. Somebody else may have moved the brk in its middle.
    Main,
    /// A heap of another arena: chunks up to its very end.
    Heap,
}

/// A stretch of memory with chunks in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The arena's index.
    pub(super) arena: usize,
    /// From the first chunk to where memory ends.
    pub(super) range: Range<u64>,
    pub(super) kind: Kind,
    /// Where its memory begins.
    pub(super) base: u64,
    /// How long it can become.
    pub(super) longest: u64,
}

/// Why a stretch could not be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) address: u64,
    pub(super) why: Why,
}

/// What is wrong with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Unread(Unread),
    /// Its size field.
    Size(u64),
    /// Its size field leads beyond the end, which is at this address.
    Beyond(u64, u64),
    /// Its flags do not belong in this arena.
    Flags(u64),
    /// Chunks end, and the top was not met.
    NoTop,
    /// It is where the top is said to be, and too long for that: its size and the end.
    Top(u64, u64),
    /// Its size in front and behind, which disagree.
    Disagree(u64, u64),
}

impl Why {
    pub(super) fn words(self) -> String {
        match self {
            Self::Unread(Unread::Absent) => "its page is not resident".to_owned(),
            Self::Unread(Unread::Swapped) => {
                "its page is in swap; reading would bring it back into RAM".to_owned()
            }
            Self::Unread(Unread::Refused) => "it was unmapped in the meantime".to_owned(),
            Self::Size(head) => format!("its size field is {head:#x}, which is no size of a chunk"),
            Self::Beyond(head, end) => {
                format!("its size field is {head:#x}, which leads beyond the end at {end:#x}")
            }
            Self::Flags(head) => {
                format!("its size field is {head:#x}, whose flags do not belong here")
            }
            Self::Top(head, end) => {
                format!("its size field is {head:#x}, and as the top it should end at {end:#x}")
            }
            Self::NoTop => "chunks end here, and the top of the arena was not met".to_owned(),
            Self::Disagree(front, behind) => format!(
                "it is free and {front} bytes long by its own header, {behind} by the one behind"
            ),
        }
    }
}

/// Whether headers follow on each other from here, or lead to the top: two of them are chance,
/// six are not.
pub(super) fn begins_chunks(
    memory: &mut Memory<'_>,
    kind: Kind,
    start: u64,
    head: u64,
    range: &Range<u64>,
    top: u64,
) -> bool {
    let mut chunk = start;
    let mut head = head;
    for _ in 0..CHAIN {
        let size = head & !FLAGS;
        if chunk == top {
            return size >= 16 && size <= range.end - chunk;
        }
        let foreign = kind == Kind::Main && head & NON_MAIN_ARENA != 0;
        let sound = size >= SMALLEST && size.is_multiple_of(16) && head & IS_MMAPPED == 0;
        if !sound || foreign || size >= range.end - chunk {
            return false;
        }
        chunk += size;
        let Ok(next) = memory.stray_word(chunk + 8) else {
            return false;
        };
        head = next;
        if head & !FLAGS == FENCE {
            // Fences end a piece; so small a piece as this is none that malloc makes of its own.
            return true;
        }
    }
    true
}
