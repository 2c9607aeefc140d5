//! The C library's own data, `main_arena` and `mp_`, and what looks like them.

use std::ops::Range;
use std::time::Duration;

use malloc_stats::heap::{NamedLibc, Options};

use crate::dice::Dice;
use crate::image::{Image, Settings};
use crate::layout::{Layout, MAX_CACHED, NBINS};
use crate::plan::Decoy;
use crate::space::{DEVICE, Forged, PAGE, anonymous, file};

pub const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
pub const INODE: u64 = 7;

/// To be walked as a process whose C library is of this version, without waiting between tries.
pub fn options(version: Option<(u32, u32)>, retries: u32) -> Options {
    let libc = version.map(|version| NamedLibc {
        device: DEVICE,
        inode: INODE,
        version,
    });
    Options {
        libcs: libc.into_iter().collect(),
        retries,
        retry_pause: Duration::ZERO,
        ..Options::default()
    }
}

/// Maps the C library and decides where its data lie; `main_arena` itself is written by
/// [`links::tie`](crate::links::tie).
pub fn place(image: &mut Image, dice: &mut Dice<'_>) {
    let layout = image.layout();
    let base = 0x7f30_0000_0000 + dice.noise() % 0x1000 * PAGE;
    let data = base + 0x1d_0000..base + 0x1d_0000 + (2 + dice.below(4)) * PAGE;
    library(&mut image.space, LIBC, INODE, base, &data);
    // In either order, as linkers please, and anywhere that is aligned.
    let parameters = layout.parameters.sbrk_base + 48;
    let room = (data.end - data.start - layout.state - parameters - 128) / 64;
    let first = data.start + 32 * dice.below(room);
    let (arena, parameters) = if dice.chance(128) {
        let after = (first + layout.state).next_multiple_of(32);
        (first, after + 32 * dice.below(room))
    } else {
        let after = (first + parameters).next_multiple_of(32);
        (after + 32 * dice.below(room), first)
    };
    for at in data.clone().step_by(64) {
        image.space.word(at, dice.noise());
    }
    for structure in [arena..arena + layout.state, parameters..parameters + 160] {
        for at in structure.step_by(8) {
            image.space.word(at, 0);
        }
    }
    image.arenas[0].state = arena;
    image.parameters_at = parameters;
    write_parameters(image, dice);
}

fn write_parameters(image: &mut Image, dice: &mut Dice<'_>) {
    let layout = image.layout();
    let at = image.parameters_at;
    let mmapped: u64 = image
        .mmapped
        .iter()
        .map(|m| m.range.end - m.range.start)
        .sum();
    let chunks = image.mmapped.len() as u32;
    let risen = 4096 * (32 + dice.below(8000));
    let settings = Settings {
        trim_threshold: 2 * risen,
        top_pad: dice.pick(&[128 << 10, 0, 1 << 20]),
        mmap_threshold: risen,
        arena_max: dice.pick(&[0, 0, 2]),
        thp_pagesize: image.plan.thp_pagesize,
        hp_pagesize: image.plan.hp_pagesize,
        n_mmaps_max: 65536,
        no_dyn_threshold: dice.chance(60),
        tcache_max_bytes: match (layout.tcache.counts_down, image.plan.large_cached) {
            (false, _) => MAX_CACHED - 8,
            (true, false) => MAX_CACHED + 1,
            (true, true) => (2 << 20) + 1,
        },
        tcache_count: image.plan.tcache_count,
    };
    image.parameters = settings;
    let base = image.arenas[0].segments[0].range.start;
    let space = &mut image.space;
    let thresholds = [
        settings.trim_threshold,
        settings.top_pad,
        settings.mmap_threshold,
    ];
    space.words(at, &thresholds);
    space.words(at + 24, &[8, settings.arena_max]);
    if let Some(offset) = layout.parameters.thp_pagesize {
        space.word(at + offset, settings.thp_pagesize);
    }
    if let Some(offset) = layout.parameters.hp_pagesize {
        space.word(at + offset, settings.hp_pagesize);
    }
    let most = settings.n_mmaps_max as u32;
    let counts = [
        chunks,
        most,
        chunks + 3,
        u32::from(settings.no_dyn_threshold),
    ];
    let start = at + layout.parameters.n_mmaps;
    for (count, at) in counts.iter().zip((start..).step_by(4)) {
        space.write(at, &count.to_le_bytes());
    }
    space.words(
        at + layout.parameters.sbrk_base - 16,
        &[mmapped, mmapped + 8 * PAGE, base],
    );
    let cache = [64, settings.tcache_max_bytes, settings.tcache_count, 0];
    space.words(at + layout.parameters.sbrk_base + 8, &cache);
}

/// An object as the loader maps it: its headers, code, constants, data and `.bss`.
pub fn library(map: &mut Forged, path: &str, inode: u64, base: u64, data: &Range<u64>) {
    let part = |from: u64| from - base;
    map.map_at_offset(base..base + 0x2_8000, "rp", file(path), 0, inode);
    map.map_at_offset(
        base + 0x2_8000..base + 0x18_0000,
        "rxp",
        file(path),
        part(base + 0x2_8000),
        inode,
    );
    map.map_at_offset(
        base + 0x18_0000..data.start,
        "rp",
        file(path),
        part(base + 0x18_0000),
        inode,
    );
    map.map_at_offset(data.clone(), "rwp", file(path), part(data.start), inode);
    map.map(data.end..data.end + 2 * PAGE, "rwp", anonymous());
}

/// Writes what looks like `main_arena`, into the data of other objects.
pub fn decoys(image: &mut Image, dice: &mut Dice<'_>) {
    let layout = image.layout();
    for (index, decoy) in image.plan.decoys.clone().into_iter().enumerate() {
        let base = 0x7f31_0000_0000 + index as u64 * 0x100_0000;
        let data = base + 0x1d_0000..base + 0x1d_0000 + 2 * PAGE;
        library(&mut image.space, "/usr/lib/libdecoy.so.1", 8, base, &data);
        let at = data.start + 16 * dice.below((2 * PAGE - layout.state) / 16);
        match decoy {
            Decoy::EmptyList => bins(image, at, 0..1),
            Decoy::FewBins => bins(image, at, 3..3 + dice.below(60)),
            Decoy::Copy => {
                let from = image.arenas[0].state;
                for offset in (0..layout.state).step_by(8) {
                    let word = image.space.word_at(from + offset);
                    image.space.word(at + offset, word);
                }
            }
            Decoy::LostRing | Decoy::NoRing => {
                lone_arena(image, layout, at);
                let lost = image.arenas[0].top().start;
                let next = if decoy == Decoy::LostRing { lost } else { 0 };
                image.space.word(at + layout.next(), next);
            }
        }
    }
}

fn lone_arena(image: &mut Image, layout: &Layout, at: u64) {
    bins(image, at, 0..NBINS - 1);
    let top = image.arenas[0].top().start;
    image.space.word(at + layout.top, top);
    image
        .space
        .words(at + layout.next(), &[at, 0, 1, 33 * PAGE, 33 * PAGE]);
}

/// Empty bins, as in an arena at `at`.
fn bins(image: &mut Image, at: u64, which: Range<u64>) {
    let layout = image.layout();
    for index in which {
        let head = at + layout.bin(index + 1);
        image.space.words(head + 16, &[head, head]);
    }
}
