//! Recycled pages, against a simple account of what has to be where: right bytes, few mappings, and
//! no more memory than the budget.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use candle_core::Tensor;
use plimsoll_cache::{Cache, Error, Lease, Model};
use support::{Folder, MIB, anonymous_rss, cache, contents, verify};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// The tests here look at this process's memory, so they take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .count()
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[test]
fn random_loads_evictions_and_held_tensors_keep_bytes_mappings_and_memory_in_bounds() {
    random_loads_keep_bounds(1, false);
}

#[test]
fn so_they_do_with_huge_pages() {
    random_loads_keep_bounds(4, true);
}

fn random_loads_keep_bounds(scale: u64, huge_pages: bool) {
    const HELD: usize = 6;
    let _turn = turn();
    let folder = Folder::new();
    let models: Vec<Model> = (0..14_u64)
        .map(|n| folder.model(&format!("m{n}"), MIB / 8 + n * n * 20_011 * scale))
        .collect();
    // Made before memory is measured.
    models.iter().for_each(|model| drop(contents(model)));
    let budget = 9 * MIB * scale;
    // No event is kept: their own memory would blur what is measured.
    let builder = Cache::builder().ram(budget).huge_pages(huge_pages);
    let cache = builder.build().unwrap();
    let mut dice = Dice(1);
    let mut held: Vec<(usize, Tensor)> = Vec::new();
    let mut leases: Vec<(usize, Lease)> = Vec::new();
    drop(cache.lease([&models[0]]).unwrap());
    let (rss, maps) = (anonymous_rss(), mappings());
    let mut most_mappings = 0;
    for step in 0..1500 {
        match dice.roll(8) {
            0 if held.len() < HELD => {
                if let Some((model, lease)) = leases.last() {
                    let weights = lease.get(&models[*model]).unwrap();
                    // By its number it is of bytes; the smallest models have none.
                    if weights.model().tensor("t002").is_some() {
                        let tensor = weights.tensor("t002").unwrap();
                        held.push((*model, tensor));
                    }
                }
            }
            1 if !held.is_empty() => {
                let (model, tensor) = held.swap_remove(dice.roll(held.len()));
                let bytes: Vec<u8> = tensor.to_vec1().unwrap();
                let (index, _) = models[model].tensor("t002").unwrap();
                assert!(bytes == contents(&models[model])[index]);
            }
            2 if !leases.is_empty() => drop(leases.swap_remove(dice.roll(leases.len()))),
            3 => drop(cache.evict(&models[dice.roll(models.len())])),
            4 if step % 50 == 0 => drop(cache.clear()),
            _ => {
                let model = dice.roll(models.len());
                match cache.try_lease([&models[model]]) {
                    Ok(lease) => {
                        verify(&lease, &models[model]);
                        leases.push((model, lease));
                        if leases.len() > 3 {
                            leases.remove(0);
                        }
                    }
                    Err(Error::NoRoom { .. }) => {
                        leases.clear();
                        held.clear();
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        let usage = cache.usage();
        assert!(usage.used_bytes <= budget);
        assert_eq!(usage.recyclable_bytes, 0);
        if step % 25 == 0 {
            most_mappings = most_mappings.max(mappings());
            let (most, is) = (rss + budget + 2 * MIB, anonymous_rss());
            assert!(is <= most, "step {step}: {is} bytes of at most {most}");
        }
    }
    // A region of a few pieces for each resident or held model, and a few for the home.
    assert!(
        most_mappings < maps + 8 * (models.len() + HELD),
        "{most_mappings} mappings"
    );
    leases.clear();
    held.clear();
    assert_eq!(cache.clear().leased, []);
    assert_eq!(cache.usage().used_bytes, 0);
    assert!(mappings() <= maps + 8, "pieces at home join again");
}

/// The line of a mapping's flags in `smaps`.
fn flags_at(address: usize) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| {
            let (start, end) = range.split_once('-')?;
            let hex = |text| usize::from_str_radix(text, 16).ok();
            Some(hex(start)?..hex(end)?)
        });
        if let Some(range) = range {
            inside = range.contains(&address);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return flags.to_owned();
        }
    }
    String::new()
}

#[test]
fn weights_are_kept_out_of_core_dumps_and_forked_children() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 3 * MIB);
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    let lease = cache.lease([&model]).unwrap();
    let bytes = lease.get(&model).unwrap().bytes("t002").unwrap();
    let flags = flags_at(bytes.as_ptr() as usize);
    let flags: Vec<&str> = flags.split_whitespace().collect();
    assert!(flags.contains(&"dd") && flags.contains(&"wf"), "{flags:?}");
}

#[test]
fn address_space_does_not_grow_with_what_went_through_it() {
    let _turn = turn();
    let folder = Folder::new();
    let models = ["a", "b", "c"].map(|name| folder.model(name, MIB));
    let (cache, _) = cache(|builder| builder.ram(2 * MIB + MIB / 2));
    let address_space = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
    };
    let round = || {
        for model in &models {
            let lease = cache.lease([model]).unwrap();
            let tensor = lease.get(model).unwrap().tensor("t000").unwrap();
            drop(lease);
            cache.clear();
            drop(tensor);
        }
    };
    round();
    let before = address_space();
    (0..50).for_each(|_| round());
    assert!(address_space() < before + 64 * MIB);
}

/// Transparent huge pages of this process, bytes.
fn huge_bytes() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find(|line| line.starts_with("AnonHuge"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kib.parse::<u64>().unwrap() << 10
}

#[test]
fn weights_lie_in_huge_pages_where_those_are_asked_for_and_recycled_ones_stay_huge() {
    let _turn = turn();
    let setting = "/sys/kernel/mm/transparent_hugepage/enabled";
    let enabled = std::fs::read_to_string(setting).unwrap_or_default();
    if !enabled.contains("[madvise]") {
        return println!("skipped: {setting} says {enabled:?}, not madvise");
    }
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 17 * MIB));
    let small = Cache::builder().ram(20 * MIB).build().unwrap();
    let before = huge_bytes();
    drop(small.lease([&a]).unwrap());
    assert_eq!(huge_bytes(), before, "nobody asked");
    drop(small);
    let huge = Cache::builder().ram(20 * MIB).huge_pages(true);
    let huge = huge.build().unwrap();
    for model in [&a, &b, &a] {
        let lease = huge.lease([model]).unwrap();
        verify(&lease, model);
        let got = huge_bytes() - before;
        // What is left of a region is small pages; the kernel may have few huge ones at hand.
        assert!((2 * MIB..=18 * MIB).contains(&got), "{got}");
    }
    drop(huge);
    assert!(huge_bytes() <= before);
}

#[test]
fn leases_of_two_models_at_once_leave_no_pages_waiting_for_nobody() {
    let _turn = turn();
    let folder = Folder::new();
    let models = ["a", "b", "c", "d"].map(|name| folder.model(name, 3 * MIB));
    for huge_pages in [false, true] {
        let builder = Cache::builder().ram(7 * MIB).huge_pages(huge_pages);
        let cache = builder.build().unwrap();
        for round in 0..40 {
            let at = round % 2 * 2;
            drop(cache.lease([&models[at], &models[at + 1]]).unwrap());
            drop(cache.lease([&models[(round + 1) % 4]]).unwrap());
            assert_eq!(cache.usage().recyclable_bytes, 0, "round {round}");
        }
        for model in &models {
            let _ = cache.evict(model);
        }
        assert_eq!(cache.usage().recyclable_bytes, 0);
    }
}
