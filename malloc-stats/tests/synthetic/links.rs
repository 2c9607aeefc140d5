//! Ties the chunks of an image together: bins, fastbins and threads' caches.

use std::collections::BTreeMap;

use crate::dice::Dice;
use crate::image::Image;
use crate::layout::{Layout, MAX_CACHED, NBINS, bin_index};
use crate::plan::Fate;
use crate::space::Forged;

/// Writes every `malloc_state` and every cache.
pub fn tie(image: &mut Image, dice: &mut Dice<'_>) {
    caches(image, dice);
    let states: Vec<u64> = image.arenas.iter().map(|arena| arena.state).collect();
    for index in 0..states.len() {
        let next = states[(index + 1) % states.len()];
        malloc_state(image, index, next, dice);
    }
}

fn malloc_state(image: &mut Image, index: usize, next: u64, dice: &mut Dice<'_>) {
    let layout = image.layout();
    let Image {
        arenas,
        space,
        plan,
        ..
    } = image;
    let arena = &arenas[index];
    let state = arena.state;
    let chunks = || arena.segments.iter().flat_map(|segment| &segment.chunks);

    let mut fast: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut bins: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for chunk in chunks() {
        match chunk.fate {
            Fate::Fast => fast.entry(chunk.size / 16 - 2).or_default().push(chunk.at),
            Fate::Free => {
                let unsorted = dice.noise().is_multiple_of(4);
                let bin = if unsorted { 1 } else { bin_index(chunk.size) };
                bins.entry(bin).or_default().push((chunk.size, chunk.at));
            }
            _ => {}
        }
    }

    let noncontiguous = plan
        .main
        .iter()
        .any(|piece| matches!(piece.start, crate::plan::Start::Mapped { .. }));
    let flags = if index == 0 && noncontiguous {
        2_u64
    } else {
        0
    };
    space.word(state, u64::from(arena.locked) | (flags << 32));
    if let Some(fastbins) = layout.fastbins {
        if layout.have_fastchunks {
            space.word(state + 8, u64::from(!fast.is_empty()));
        }
        for slot in 0..10 {
            let held = fast.remove(&slot).unwrap_or_default();
            list(layout, space, state + fastbins + slot * 8, &held, 16);
        }
    }
    let any_free = bins.values().flatten().next().map_or(0, |(_, at)| *at);
    space.words(state + layout.top, &[arena.top().start, any_free]);
    let mut binmap = [0_u32; 4];
    for index in 1..NBINS {
        let mut held = bins.remove(&index).unwrap_or_default();
        held.sort_unstable_by(|a, b| b.cmp(a));
        // A bit outlives what it stood for.
        if index > 1 && (!held.is_empty() || dice.noise().is_multiple_of(16)) {
            binmap[index as usize / 32] |= 1 << (index % 32);
        }
        ring(space, state + layout.bin(index), &held);
    }
    for (word, at) in binmap.iter().zip((state + layout.binmap()..).step_by(4)) {
        space.write(at, &word.to_le_bytes());
    }
    let (threads, now, most) = (
        arena.attached_threads,
        arena.system_mem,
        arena.max_system_mem,
    );
    space.words(state + layout.next(), &[next, 0, threads, now, most]);
}

/// A bin: a ring through its head, which has the links of a chunk.
fn ring(space: &mut Forged, head: u64, held: &[(u64, u64)]) {
    let mut previous = head;
    for at in held.iter().map(|(_, at)| *at).chain([head]) {
        space.word(previous + 16, at);
        space.word(at + 24, previous);
        previous = at;
    }
}

/// A list from `head` through the chunks, each linked `link` bytes into itself: what it is linked
/// by, and what it links to, where that is `target` bytes into the chunk.
fn list(layout: &Layout, space: &mut Forged, head: u64, held: &[u64], link: u64) {
    linked(layout, space, head, held, link, 0);
}

fn linked(layout: &Layout, space: &mut Forged, head: u64, held: &[u64], link: u64, target: u64) {
    space.word(head, held.first().map_or(0, |first| first + target));
    for (index, at) in held.iter().enumerate() {
        let next = held.get(index + 1).map_or(0, |next| next + target);
        space.word(at + link, layout.link(at + link, next));
    }
}

fn caches(image: &mut Image, dice: &mut Dice<'_>) {
    let layout = image.layout();
    let (large, count) = (image.plan.large_cached, image.plan.tcache_count);
    let caches: Vec<u64> = image
        .chunks()
        .filter(|chunk| chunk.fate == Fate::Cache)
        .map(|chunk| chunk.at)
        .collect();
    let mut bins = vec![BTreeMap::<u64, Vec<(u64, u64)>>::new(); caches.len()];
    let chunks = image
        .arenas
        .iter_mut()
        .flat_map(|arena| &mut arena.segments);
    for chunk in chunks.flat_map(|segment| &mut segment.chunks) {
        if chunk.fate != Fate::Cached {
            continue;
        }
        let of = dice.noise() as usize % caches.len().max(1);
        let bin = layout.tcache.bin(chunk.size, large);
        let room = bins
            .get_mut(of)
            .zip(bin)
            .map(|(bins, bin)| bins.entry(bin).or_default());
        match room {
            Some(held) if (held.len() as u64) < count => held.push((chunk.size, chunk.at)),
            _ => chunk.fate = Fate::InUse,
        }
    }
    let key = dice.noise();
    for (at, bins) in caches.iter().zip(bins) {
        cache(layout, &mut image.space, at + 16, bins, count, key);
    }
}

/// A `tcache_perthread_struct`. Bins of mixed sizes are sorted from the smallest.
fn cache(
    layout: &Layout,
    space: &mut Forged,
    at: u64,
    mut bins: BTreeMap<u64, Vec<(u64, u64)>>,
    count: u64,
    key: u64,
) {
    let tcache = &layout.tcache;
    let entries = at + tcache.width * tcache.slots;
    for slot in 0..tcache.slots {
        let mut held = bins.remove(&slot).unwrap_or_default();
        if held.iter().any(|(size, _)| *size > MAX_CACHED) {
            held.sort_unstable();
        }
        let held: Vec<u64> = held.iter().map(|(_, at)| *at).collect();
        let len = held.len() as u64;
        let says = if tcache.counts_down { count - len } else { len };
        let bytes = says.to_le_bytes();
        space.write(at + slot * tcache.width, &bytes[..tcache.width as usize]);
        linked(layout, space, entries + slot * 8, &held, 16, 16);
        for chunk in held {
            space.word(chunk + 24, key);
        }
    }
}
