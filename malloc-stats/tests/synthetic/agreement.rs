//! What the walker finds is what was laid out.

use malloc_stats::Metric;
use malloc_stats::heap::{Heap, HeapError, Options, walk};
use proptest::prelude::*;

use crate::dice::{Dice, scatter};
use crate::forge::forge;
use crate::image::Image;
use crate::layout::{LAYOUTS, Layout};
use crate::object::options;
use crate::plan::{Decoy, Plan};
use crate::space::PAGE;
use crate::truth::{ArenaTruth, Truth};

/// The image that these bytes describe, in the layout of this index.
fn image(layout: usize, bytes: &[u8]) -> Image {
    let mut dice = Dice::new(bytes);
    let plan = Plan::draw(&mut dice, &LAYOUTS[layout]);
    forge(plan, &mut dice)
}

fn walked(image: &Image, version: Option<(u32, u32)>) -> Heap {
    match walk(&image.space, &options(version, 5)) {
        Ok(heaps) if heaps.len() == 1 => heaps.into_iter().next().unwrap(),
        Ok(heaps) => panic!("{} heaps in {}", heaps.len(), image.plan),
        Err(error) => panic!("{error} in {}", image.plan),
    }
}

/// Panics with what differs, and with the plan that it differs for.
fn agrees(image: &Image, heap: &Heap) {
    let truth = Truth::of(image);
    let mut wrong = Vec::new();
    let mut check = |what: String, found: String, expected: String| {
        if found != expected {
            wrong.push(format!("{what}: found {found}, laid out {expected}"));
        }
    };
    macro_rules! same {
        ($what:expr, $found:expr, $expected:expr) => {
            check(
                $what.to_string(),
                format!("{:?}", $found),
                format!("{:?}", $expected),
            )
        };
    }
    let totals = &heap.totals;
    let info = truth.mallinfo;
    same!("mallinfo", totals.mallinfo, info);
    same!(
        "in_use",
        totals.in_use.bytes(),
        Some(info.uordblks + info.hblkhd)
    );
    same!("held", totals.held.bytes(), Some(info.arena + info.hblkhd));
    same!(
        "free_virtual",
        totals.free_virtual.bytes(),
        Some(info.fordblks)
    );
    same!(
        "cached_resident",
        totals.cached_resident,
        Metric::Exact(truth.free_resident)
    );
    same!(
        "free_resident",
        heap.trim.free_resident,
        Metric::Exact(truth.free_resident)
    );
    same!(
        "releasable",
        heap.trim.releasable.bytes(),
        Some(truth.releasable)
    );
    same!(
        "secondary_tops",
        heap.trim.secondary_tops.bytes(),
        Some(truth.secondary_tops)
    );
    same!("tcache", heap.trim.tcache.bytes(), Some(truth.tcache));
    same!("found_chunks", heap.mmapped.found_chunks, info.hblks);
    same!("found_bytes", heap.mmapped.found_bytes, info.hblkhd);
    same!(
        "mmapped resident",
        heap.mmapped.resident,
        Metric::Exact(truth.mmapped_resident)
    );
    same!("histogram", heap.histogram, truth.histogram);
    same!("unresolved", heap.torn.unresolved, 0);
    same!("retried", heap.torn.retried, 0);
    same!("disagreed", heap.torn.disagreed, 0);
    same!("faults", heap.torn.faults, Vec::<u8>::new());
    same!("arenas", heap.arenas.len(), truth.arenas.len());
    settings(image, heap, &mut |what, found, expected| {
        same!(what, found, expected);
    });
    for (index, (found, laid)) in heap.arenas.iter().zip(&truth.arenas).enumerate() {
        let of = &image.arenas[index];
        let name = |what: &str| format!("arena {index}: {what}");
        let ArenaTruth {
            address,
            free,
            top,
            cached,
            ..
        } = laid;
        same!(name("address"), found.address.0, *address);
        same!(name("system_mem"), found.system_mem, of.system_mem);
        same!(
            name("max_system_mem"),
            found.max_system_mem,
            of.max_system_mem
        );
        same!(
            name("attached_threads"),
            found.attached_threads,
            of.attached_threads
        );
        same!(name("locked"), found.locked, of.locked);
        same!(name("free"), found.free.bytes(), Some(*free));
        same!(
            name("in_use"),
            found.in_use.bytes(),
            Some(of.system_mem - free)
        );
        same!(name("top"), found.top, *top);
        same!(name("cached"), found.cached.bytes(), Some(*cached));
        same!(
            name("chunks_in_use"),
            found.chunks_in_use,
            laid.chunks_in_use
        );
        same!(name("chunks_free"), found.chunks_free, laid.chunks_free);
        same!(
            name("free_resident"),
            found.free_resident,
            Metric::Exact(laid.free_resident)
        );
        same!(
            name("releasable"),
            found.releasable.bytes(),
            Some(laid.releasable)
        );
        if index > 0 || !image.plan.has_foreign() {
            same!(name("segments"), found.segments, laid.segments);
            // The data segment may count from its first page, or from its first chunk.
            let rss = found.rss.bytes().unwrap_or(0);
            let near = if index == 0 {
                laid.rss - 15..=laid.rss + PAGE
            } else {
                laid.rss..=laid.rss
            };
            same!(name("rss is near"), near.contains(&rss), true);
        }
        let shares: Vec<_> = found
            .coverage
            .cells(1)
            .iter()
            .map(|cell| cell.shares)
            .collect();
        let sum = |of: fn(&malloc_stats::heap::Shares) -> u64| shares.iter().map(of).sum::<u64>();
        same!(
            name("coverage of free resident"),
            sum(|s| s.free_resident),
            laid.free_resident
        );
        same!(
            name("coverage of the rest"),
            sum(|s| s.free_released),
            free - laid.free_resident
        );
    }
    for pin in &heap.pins {
        let Some(laid) = truth
            .arenas
            .get(pin.arena)
            .and_then(|arena| arena.pin.as_ref())
        else {
            continue;
        };
        let name = |what: &str| format!("pin of arena {}: {what}", pin.arena);
        same!(name("address"), pin.address.0, laid.address);
        same!(name("size"), pin.size, laid.size);
        same!(name("cached"), pin.cached, laid.cached);
        same!(name("run_chunks"), pin.run_chunks, laid.run_chunks);
        same!(name("run_bytes"), pin.run_bytes, laid.run_bytes);
        same!(name("unlocks"), pin.unlocks, laid.unlocks);
        same!(
            name("unlocks_resident"),
            pin.unlocks_resident.bytes(),
            Some(laid.unlocks_resident)
        );
        same!(name("below_free"), pin.below_free, laid.below_free);
        same!(
            name("below_free_resident"),
            pin.below_free_resident.bytes(),
            Some(laid.below_free_resident)
        );
    }
    assert!(wrong.is_empty(), "{}\nin {}", wrong.join("\n"), image.plan);
}

fn settings(image: &Image, heap: &Heap, same: &mut dyn FnMut(&str, u64, u64)) {
    let Some(found) = &heap.settings else {
        return same("settings found", 0, 1);
    };
    let laid = &image.parameters;
    same("mmap_threshold", found.mmap_threshold, laid.mmap_threshold);
    same("trim_threshold", found.trim_threshold, laid.trim_threshold);
    same("top_pad", found.top_pad, laid.top_pad);
    same(
        "dynamic",
        u64::from(found.dynamic),
        u64::from(!laid.no_dyn_threshold),
    );
    same("mmap_max", found.mmap_max, laid.n_mmaps_max);
    same("arena_max", found.arena_max, laid.arena_max);
    same("tcache_count", found.tcache_count, laid.tcache_count);
    same("thp_pagesize", found.thp_pagesize, laid.thp_pagesize);
    same("hp_pagesize", found.hp_pagesize, laid.hp_pagesize);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_glibc_is_read_as_it_was_laid_out(
        layout in 0..LAYOUTS.len(),
        version in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..900),
    ) {
        let image = image(layout, &bytes);
        let version = *version.get(LAYOUTS[layout].versions);
        agrees(&image, &walked(&image, Some(version)));
    }

    #[test]
    fn the_layout_shows_where_no_version_is_known(
        layout in 0..LAYOUTS.len(),
        bytes in prop::collection::vec(any::<u8>(), 0..900),
    ) {
        let image = image(layout, &bytes);
        prop_assume!(image.plan.has_cache());
        agrees(&image, &walked(&image, None));
    }

    #[test]
    fn no_read_is_larger_than_the_window(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
        let image = image(4, &bytes);
        for window in [4096, 16 << 10, 64 << 10] {
            let before = image.space.tally();
            before.largest_read.store(0, std::sync::atomic::Ordering::Relaxed);
            let options = Options { window, ..options(Some((2, 36)), 5) };
            let heaps = walk(&image.space, &options);
            prop_assert!(heaps.is_ok());
            let largest = image.space.tally().largest_read.load(std::sync::atomic::Ordering::Relaxed);
            prop_assert!(largest <= window as u64, "{largest} at once with a window of {window}");
        }
    }
}

/// Many more images than the property tests draw, always the same.
#[test]
fn a_hundred_images_of_each_layout_agree() {
    for (layout, Layout { versions, .. }) in LAYOUTS.iter().enumerate() {
        for seed in 0..100_u64 {
            let bytes = noise(seed * 7 + layout as u64, 1200);
            let image = image(layout, &bytes);
            let version = versions[seed as usize % versions.len()];
            agrees(&image, &walked(&image, Some(version)));
        }
    }
}

#[test]
fn what_only_looks_like_an_arena_is_none() {
    let mut plan = Plan::draw(&mut Dice::new(&[]), &LAYOUTS[4]);
    plan.decoys = vec![
        Decoy::EmptyList,
        Decoy::FewBins,
        Decoy::LostRing,
        Decoy::NoRing,
    ];
    let mut image = forge(plan, &mut Dice::new(&[]));
    // Of the true one nothing is left.
    for offset in (0..image.layout().state).step_by(8) {
        image.space.word(image.arenas[0].state + offset, 0);
    }
    let options = options(Some((2, 36)), 5);
    let error = walk(&image.space, &options).map(|heaps| heaps.len());
    assert!(
        matches!(
            error,
            Err(HeapError::NoArena | HeapError::UnknownLayout { .. })
        ),
        "{error:?}"
    );
}

/// `length` bytes of noise, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = scatter(seed);
    let words = std::iter::repeat_with(|| {
        state = scatter(state);
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
