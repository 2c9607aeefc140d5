//! Lays a planned image out as glibc would have left it.

use std::ops::Range;

use malloc_stats::heap::PageState;
use malloc_stats::mappings::Backing;

use crate::dice::Dice;
use crate::heads;
use crate::image::{ArenaImage, Chunk, Image, MmappedImage, Segment};
use crate::links;
use crate::object;
use crate::plan::{Block, Fate, Large, Pages, Piece, Plan, Start};
use crate::space::{Forged, PAGE, anonymous};

const IS_MMAPPED: u64 = 2;
const MINSIZE: u64 = 32;
/// What one piece of `mmap(2)` that stands in for `sbrk(2)` has at least.
const MAPPED_PIECE: u64 = 1 << 20;

/// The image that `plan` describes; where malloc leaves a choice, `dice` make it.
pub fn forge(plan: Plan, dice: &mut Dice<'_>) -> Image {
    let mut forge = Forge {
        space: Forged::default(),
        pages: Vec::new(),
        plan,
    };
    let (main, brk) = forge.main_arena(dice);
    let mut arenas = vec![main];
    for index in 0..forge.plan.secondary.len() {
        let arena = forge.secondary_arena(index, dice);
        arenas.push(arena);
    }
    let mmapped = forge.mmapped(&arenas, dice);
    let mut image = Image {
        plan: forge.plan,
        space: forge.space,
        arenas,
        mmapped,
        parameters: Default::default(),
        parameters_at: 0,
        brk,
    };
    object::place(&mut image, dice);
    links::tie(&mut image, dice);
    object::decoys(&mut image, dice);
    // What malloc never looks at comes last: a page that was written to stays resident.
    for (range, pages) in forge.pages {
        fill(&mut image.space, range, pages);
    }
    image
}

struct Forge {
    plan: Plan,
    space: Forged,
    /// How the pages of each block are to be that hold no structure.
    pages: Vec<(Range<u64>, Pages)>,
}

/// Where a piece goes.
struct Ground {
    /// What the arena counts as its own from here on.
    start: u64,
    first_chunk: u64,
    least: u64,
    most: u64,
    tail: Tail,
    main: bool,
}

/// What stands behind the blocks of a piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    Top,
    /// Two chunks of 16 bytes; in heaps one of 16 bytes and one of none.
    Fences,
}

impl Tail {
    fn of(index: usize, pieces: usize) -> Self {
        if index + 1 == pieces {
            Self::Top
        } else {
            Self::Fences
        }
    }
}

impl Forge {
    fn main_arena(&mut self, dice: &mut Dice<'_>) -> (ArenaImage, u64) {
        let base = 0x5555_5500_0000 + (dice.noise() % 0x1000) * PAGE;
        let pieces = self.plan.main.clone();
        let mut brk = base + self.plan.brk_offset;
        let (mut segments, mut system_mem, mut contiguous) = (Vec::new(), 0, true);
        for (index, piece) in pieces.iter().enumerate() {
            let (from, least) = match piece.start {
                Start::Fresh => (brk, 0),
                Start::AfterForeign(gap) if contiguous => (brk + gap, 0),
                Start::AfterForeign(gap) => {
                    (brk.next_multiple_of(PAGE) + gap.next_multiple_of(PAGE), 0)
                }
                Start::Mapped { above } => {
                    contiguous = false;
                    let area = if above {
                        0x7f10_0000_0000
                    } else {
                        0x1000_0000_0000
                    };
                    (area + index as u64 * 0x1000_0000, MAPPED_PIECE)
                }
            };
            let ground = Ground {
                start: from,
                first_chunk: from.next_multiple_of(16),
                least,
                most: u64::MAX,
                tail: Tail::of(index, pieces.len()),
                main: true,
            };
            let segment = self.lay(piece, &ground, dice);
            system_mem += segment.range.end - from;
            if least > 0 {
                self.space.map(segment.range.clone(), "rwp", anonymous());
            } else {
                if let (true, Start::AfterForeign(gap)) = (contiguous, piece.start) {
                    system_mem += gap;
                }
                if index > 0 {
                    self.foreign(brk..from, dice);
                }
                brk = segment.range.end;
            }
            segments.push(segment);
        }
        let taken = brk + self.plan.brk_taken_after;
        self.foreign(brk..taken, dice);
        let end = taken.next_multiple_of(PAGE);
        self.space.map(base..end, "rwp", Backing::Brk);
        for (piece, segment) in pieces.iter().zip(&segments) {
            self.split(piece, segment);
        }
        (arena(0, segments, system_mem, dice), taken)
    }

    fn secondary_arena(&mut self, index: usize, dice: &mut Dice<'_>) -> ArenaImage {
        let layout = self.plan.layout;
        let heaps = self.plan.secondary[index].clone();
        let most = self.plan.heap_max();
        let base = |heap: usize| 0x7e00_0000_0000 + (index as u64 * 8 + heap as u64) * 2 * most;
        let state = base(0) + layout.heap_info;
        let (mut segments, mut system_mem): (Vec<Segment>, u64) = (Vec::new(), 0);
        for (heap, piece) in heaps.iter().enumerate() {
            let at = base(heap);
            let (head, previous) = match heap.checked_sub(1) {
                None => (layout.first_chunk(), 0),
                Some(previous) => (layout.heap_info, base(previous)),
            };
            let ground = Ground {
                start: at,
                first_chunk: at + head,
                least: 0,
                most,
                tail: Tail::of(heap, heaps.len()),
                main: false,
            };
            let segment = self.lay(piece, &ground, dice);
            let size = segment.range.end - at;
            // A heap that shrank keeps its permissions, and gave its pages back.
            let given_back = PAGE * (1 + dice.below(32));
            let mapped = size + if dice.chance(60) { given_back } else { 0 };
            self.space.words(at, &[state, previous, size, mapped]);
            if layout.heap_info > 32 {
                self.space.word(at + 32, PAGE);
            }
            self.space.map(at..at + mapped, "rwp", anonymous());
            self.space.map(at + mapped..at + most, "p", anonymous());
            self.split(piece, &segment);
            system_mem += size;
            segments.push(segment);
        }
        arena(state, segments, system_mem, dice)
    }

    fn lay(&mut self, piece: &Piece, ground: &Ground, dice: &mut Dice<'_>) -> Segment {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut at = ground.first_chunk;
        // Room for a guard, the tail and fences.
        let most = ground.most.saturating_sub(piece.tail + 3 * MINSIZE + PAGE);
        let mut after_free = false;
        for block in &piece.blocks {
            let (size, fate) = self.settled(block, after_free);
            if at - ground.start + size > most {
                break;
            }
            chunks.push(Chunk { at, size, fate });
            self.pages.push((at..at + size, block.pages));
            at += size;
            after_free = fate == Fate::Free;
        }
        if after_free {
            // What lies below the top, or is freed, is in use: else the two were one.
            let (size, fate) = (MINSIZE, Fate::InUse);
            chunks.push(Chunk { at, size, fate });
            at += size;
        }
        let end = (at + piece.tail.max(MINSIZE)).max(ground.start + ground.least);
        let end = end.next_multiple_of(PAGE);
        self.pages.push((at..end, piece.tail_pages));
        let (mut fences, mut top) = (Vec::new(), None);
        let left = end - at;
        match ground.tail {
            Tail::Top => top = Some(at..end),
            Tail::Fences => {
                let size = left - MINSIZE;
                if size >= MINSIZE {
                    chunks.push(Chunk {
                        at,
                        size,
                        fate: Fate::Free,
                    });
                    fences.push((end - 32, 16));
                } else if ground.main {
                    // Too little to free: fences stand in its place.
                    fences.extend((at..=end - 32).step_by(16).map(|fence| (fence, 16)));
                } else if size == 16 {
                    // A block that nobody asked for and nobody can free.
                    chunks.push(Chunk {
                        at,
                        size: 32,
                        fate: Fate::InUse,
                    });
                } else {
                    fences.push((at, 16));
                }
                fences.push((end - 16, if ground.main { 16 } else { 0 }));
            }
        }
        let segment = Segment {
            range: ground.start..end,
            chunks,
            top,
        };
        heads::write(&mut self.space, &segment, &fences, ground.main, dice);
        segment
    }

    /// What malloc would have made of a block in this place.
    fn settled(&self, block: &Block, after_free: bool) -> (u64, Fate) {
        let layout = self.plan.layout;
        match block.fate {
            Fate::Cache | Fate::LikeCache { .. } => (layout.tcache.chunk, block.fate),
            Fate::Fast if layout.fastbins.is_none() || block.size > crate::layout::MAX_FAST => {
                (block.size, Fate::InUse)
            }
            Fate::Free if after_free => (block.size, Fate::InUse),
            fate => (block.size, fate),
        }
    }

    fn foreign(&mut self, range: Range<u64>, dice: &mut Dice<'_>) {
        for at in (range.start.next_multiple_of(8)..range.end & !7).step_by(8) {
            self.space.word(at, dice.noise());
        }
    }

    fn split(&mut self, piece: &Piece, segment: &Segment) {
        if piece.split {
            let middle = segment.range.start + (segment.range.end - segment.range.start) / 2;
            self.space.split(middle & !(PAGE - 1));
        }
    }

    fn mmapped(&mut self, arenas: &[ArenaImage], dice: &mut Dice<'_>) -> Vec<MmappedImage> {
        let mut laid = Vec::new();
        for (index, group) in self.plan.mmapped.clone().iter().enumerate() {
            let length: u64 = group.iter().map(|large| large.pages * PAGE).sum();
            let mut at = 0x7f20_0000_0000 + index as u64 * 0x1000_0000;
            let end = at + length;
            // Where the kernel maps right below a heap, the two show as one mapping.
            let heap = arenas.get(1 + index).filter(|_| dice.chance(80));
            match heap.map(|arena| arena.segments[0].range.start) {
                Some(heap) => {
                    self.space.map(heap - length..heap, "rwp", anonymous());
                    self.space.join(heap);
                    at = heap - length;
                }
                None => self.space.map(at..end, "rwp", anonymous()),
            }
            for large in group {
                let range = at..at + large.pages * PAGE;
                at = range.end;
                laid.push(self.mmapped_chunk(large, range, dice));
            }
        }
        laid
    }

    fn mmapped_chunk(
        &mut self,
        large: &Large,
        range: Range<u64>,
        dice: &mut Dice<'_>,
    ) -> MmappedImage {
        let trailer = self.plan.layout.trailer;
        let huge = u64::from(large.huge && trailer > 0);
        let whole = range.end - range.start - trailer;
        let mut header = range.start;
        if large.alignment > 16 {
            // The header it was cut from stays behind.
            self.space.words(header, &[huge, whole | IS_MMAPPED]);
            header = (header + 16 + MINSIZE).next_multiple_of(large.alignment) - 16;
        }
        let offset = header - range.start;
        self.space.words(
            header,
            &[offset | huge, (whole - offset) | IS_MMAPPED, dice.noise()],
        );
        fill(&mut self.space, range.clone(), large.resident);
        MmappedImage { range, header }
    }
}

fn arena(state: u64, segments: Vec<Segment>, system_mem: u64, dice: &mut Dice<'_>) -> ArenaImage {
    ArenaImage {
        state,
        segments,
        system_mem,
        max_system_mem: system_mem + dice.noise() % 64 * PAGE,
        attached_threads: dice.noise() % 4,
        locked: dice.chance(20),
    }
}

fn fill(space: &mut Forged, range: Range<u64>, pages: Pages) {
    let whole = range.start.next_multiple_of(PAGE)..range.end & !(PAGE - 1);
    if whole.is_empty() {
        return;
    }
    match pages {
        Pages::Absent => {}
        Pages::Resident => space.fill(whole, PageState::Resident),
        Pages::Swapped => space.fill(whole, PageState::Swapped),
        Pages::Zero => space.fill(whole, PageState::Zero),
        Pages::Striped => {
            for page in whole.step_by(2 * PAGE as usize) {
                space.fill(page..page + PAGE, PageState::Resident);
            }
        }
    }
}
