//! What an image is to hold, before it has addresses.

use std::fmt;

use crate::dice::Dice;
use crate::layout::{HEAP_MAX, LAYOUTS, Layout, MAX_CACHED, MAX_FAST};
use crate::space::PAGE;

/// A process image in outline.
#[derive(Debug, Clone)]
pub struct Plan {
    pub layout: &'static Layout,
    /// How far into its first page the data segment begins, as in static programs.
    pub brk_offset: u64,
    /// Bytes somebody else took from `sbrk(2)` after malloc last did.
    pub brk_taken_after: u64,
    /// The pieces of the main arena, in the order in which it got them.
    pub main: Vec<Piece>,
    /// The heaps of each other arena, the oldest first.
    pub secondary: Vec<Vec<Piece>>,
    /// Mmapped chunks, those together that share a mapping.
    pub mmapped: Vec<Vec<Large>>,
    /// Whether thread caches take chunks beyond [`MAX_CACHED`], from 2.42 on.
    pub large_cached: bool,
    pub tcache_count: u64,
    pub thp_pagesize: u64,
    pub hp_pagesize: u64,
    pub decoys: Vec<Decoy>,
}

/// A stretch of memory of an arena.
#[derive(Debug, Clone)]
pub struct Piece {
    pub start: Start,
    pub blocks: Vec<Block>,
    /// What is left behind the blocks: the top of the last piece, freed in every other.
    pub tail: u64,
    pub tail_pages: Pages,
    /// Whether it is two mappings, as where a part of it was advised to be huge pages.
    pub split: bool,
}

/// Where a piece comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Memory that nobody had: the first of `sbrk(2)`, or a heap of an arena.
    Fresh,
    /// `sbrk(2)`, after somebody else took so many bytes.
    AfterForeign(u64),
    /// `mmap(2)`, because `sbrk(2)` failed; above or below the data segment.
    Mapped { above: bool },
}

#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// With its header.
    pub size: u64,
    pub fate: Fate,
    pub pages: Pages,
}

/// What has become of a block. The forge makes it [`InUse`](Self::InUse) where malloc would not
/// keep it as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    InUse,
    /// In a bin, or in the unsorted one.
    Free,
    Fast,
    /// In a thread's cache.
    Cached,
    /// It holds a thread's cache.
    Cache,
    /// It is as large as a thread's cache and holds zeros, or noise.
    LikeCache {
        zeros: bool,
    },
}

/// Where the whole pages are that hold nothing malloc reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    Resident,
    Absent,
    Swapped,
    Zero,
    /// Every other one is resident.
    Striped,
}

/// An mmapped chunk.
#[derive(Debug, Clone, Copy)]
pub struct Large {
    pub pages: u64,
    /// What its content is aligned to; 16 where nobody asked.
    pub alignment: u64,
    /// Whether it says that it is of huge pages, from 2.43 on.
    pub huge: bool,
    pub resident: Pages,
}

/// What looks like `main_arena` and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoy {
    /// An empty list, as C programs keep them.
    EmptyList,
    /// Some bins side by side.
    FewBins,
    /// A byte for byte copy of the arena.
    Copy,
    /// A table of empty bins whose ring leads elsewhere.
    LostRing,
    /// A table of empty bins whose ring is broken.
    NoRing,
}

impl Plan {
    /// The plan that `dice` describe, for one of the layouts.
    pub fn draw(dice: &mut Dice<'_>, layout: &'static Layout) -> Self {
        let main = 1 + dice.pick(&[0, 0, 0, 0, 1, 1, 2, 3]);
        let arenas = dice.pick(&[0, 0, 1, 1, 2, 3, 5]);
        let mappings = dice.pick(&[0, 0, 1, 2, 4]);
        let large_cached = layout.tcache.counts_down && dice.chance(100);
        Self {
            layout,
            brk_offset: if dice.chance(60) {
                16 + 16 * dice.below(255) - dice.pick(&[0, 0, 0, 7])
            } else {
                0
            },
            brk_taken_after: if dice.chance(30) {
                1 + dice.below(3 * PAGE)
            } else {
                0
            },
            main: (0..main)
                .map(|at| {
                    let start = match dice.below(3) {
                        _ if at == 0 => Start::Fresh,
                        0 => Start::AfterForeign(1 + dice.below(2 * PAGE)),
                        1 => Start::Mapped { above: true },
                        _ => Start::Mapped { above: false },
                    };
                    Piece::draw(dice, start)
                })
                .collect(),
            secondary: (0..arenas)
                .map(|_| {
                    let heaps = dice.pick(&[1, 1, 1, 2, 3]);
                    (0..heaps)
                        .map(|_| Piece::draw(dice, Start::Fresh))
                        .collect()
                })
                .collect(),
            mmapped: (0..mappings)
                .map(|_| {
                    let chunks = dice.pick(&[1, 1, 2, 3, 6]);
                    (0..chunks).map(|_| Large::draw(dice)).collect()
                })
                .collect(),
            large_cached,
            tcache_count: if dice.chance(40) {
                1 + dice.below(30)
            } else {
                layout.tcache.count
            },
            thp_pagesize: if layout.parameters.thp_pagesize.is_some() && dice.chance(20) {
                2 << 20
            } else {
                0
            },
            hp_pagesize: match (layout.parameters.hp_pagesize, dice.below(16)) {
                (Some(_), 1) => 2 << 20,
                (Some(_), 2) => 1 << 30,
                _ => 0,
            },
            decoys: (0..dice.below(3))
                .map(|_| {
                    dice.pick(&[
                        Decoy::EmptyList,
                        Decoy::FewBins,
                        Decoy::Copy,
                        Decoy::LostRing,
                        Decoy::NoRing,
                    ])
                })
                .collect(),
        }
    }

    /// As [`draw`](Self::draw), for the layout that the dice choose.
    pub fn draw_any(dice: &mut Dice<'_>) -> Self {
        let layout = &LAYOUTS[dice.below(LAYOUTS.len() as u64) as usize];
        Self::draw(dice, layout)
    }

    /// `HEAP_MAX_SIZE`, which heaps of other arenas are aligned to.
    pub fn heap_max(&self) -> u64 {
        match self.hp_pagesize {
            0 => HEAP_MAX,
            huge if self.layout.parameters.heaps_of_huge_pages => 4 * huge,
            _ => HEAP_MAX,
        }
    }

    /// Whether somebody else has bytes of the data segment.
    pub fn has_foreign(&self) -> bool {
        let foreign = |piece: &Piece| matches!(piece.start, Start::AfterForeign(_));
        self.brk_taken_after > 0 || self.main.iter().any(foreign)
    }

    /// Whether a thread's cache is in it that would give the layout away.
    pub fn has_cache(&self) -> bool {
        let pieces = self.main.iter().chain(self.secondary.iter().flatten());
        let mut blocks = pieces.flat_map(|piece| &piece.blocks);
        blocks.any(|block| block.fate == Fate::Cache)
    }
}

/// One line for each piece, mapping and decoy: short enough to be read when a test fails.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layout,
            brk_offset,
            brk_taken_after,
            tcache_count,
            thp_pagesize,
            hp_pagesize,
            ..
        } = self;
        let (first, last) = (layout.versions.first(), layout.versions.last());
        write!(
            f,
            "glibc {first:?} to {last:?}, brk +{brk_offset:#x} +{brk_taken_after:#x}, "
        )?;
        writeln!(
            f,
            "tcache_count {tcache_count}, huge {thp_pagesize:#x} {hp_pagesize:#x}"
        )?;
        let secondary = self.secondary.iter().enumerate();
        let secondary =
            secondary.flat_map(|(arena, heaps)| heaps.iter().map(move |h| (arena + 1, h)));
        for (arena, piece) in self.main.iter().map(|piece| (0, piece)).chain(secondary) {
            write!(f, "arena {arena}: {:?}:", piece.start)?;
            for Block { size, fate, pages } in &piece.blocks {
                write!(f, " {size:#x} {fate:?} {pages:?},")?;
            }
            writeln!(f, " tail {:#x} {:?}", piece.tail, piece.tail_pages)?;
        }
        for group in &self.mmapped {
            writeln!(f, "mmapped: {group:?}")?;
        }
        write!(f, "decoys: {:?}", self.decoys)
    }
}

impl Piece {
    fn draw(dice: &mut Dice<'_>, start: Start) -> Self {
        let mut blocks = Vec::new();
        if dice.chance(200) {
            blocks.push(Block {
                size: 0,
                fate: Fate::Cache,
                pages: Pages::Resident,
            });
        }
        for _ in 0..dice.pick(&[0, 3, 8, 20, 50]) {
            if dice.is_empty() {
                break;
            }
            blocks.push(Block::draw(dice));
        }
        Self {
            start,
            blocks,
            tail: match dice.below(4) {
                0 => 32 + 16 * dice.below(8),
                1 => dice.below(PAGE),
                2 => dice.below(64 * PAGE),
                _ => 132 * 1024,
            },
            tail_pages: Pages::draw(dice),
            split: dice.chance(40),
        }
    }
}

impl Block {
    fn draw(dice: &mut Dice<'_>) -> Self {
        let fate = match dice.below(16) {
            0..5 => Fate::InUse,
            5..9 => Fate::Free,
            9..12 => Fate::Fast,
            12..15 => Fate::Cached,
            _ => match dice.below(4) {
                0 | 1 => Fate::Cache,
                other => Fate::LikeCache { zeros: other == 2 },
            },
        };
        let steps = match (fate, dice.below(8)) {
            (Fate::Fast, _) => dice.below((MAX_FAST - 32) / 16 + 1),
            (Fate::Cached, 0..7) => dice.below((MAX_CACHED - 32) / 16 + 1),
            (_, 0..3) => dice.below(8),
            (_, 3 | 4) => dice.below(64),
            (_, 5) => dice.below(1 << 8),
            (_, 6) => dice.below(1 << 11),
            _ => dice.below(1 << 14),
        };
        Self {
            size: 32 + 16 * steps,
            fate,
            pages: Pages::draw(dice),
        }
    }
}

impl Pages {
    fn draw(dice: &mut Dice<'_>) -> Self {
        dice.pick(&[
            Self::Resident,
            Self::Resident,
            Self::Absent,
            Self::Absent,
            Self::Striped,
            Self::Swapped,
            Self::Zero,
        ])
    }
}

impl Large {
    fn draw(dice: &mut Dice<'_>) -> Self {
        let alignment = match dice.below(4) {
            0 | 1 => 16,
            2 => 32 << dice.below(8),
            _ => PAGE << dice.below(5),
        };
        Self {
            pages: 1 + dice.below(100) + alignment / PAGE,
            alignment,
            huge: dice.chance(60),
            resident: Pages::draw(dice),
        }
    }
}
