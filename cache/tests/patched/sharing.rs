//! What is shared by leases with patches, what goes with what, and where it is granted.

use std::sync::{Arc, Barrier};

use plimsoll_cache::device::{Device, Fault, Simulated};
use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Cache, Cpu, Error, Model, Tier};
use plimsoll_events::{Kind, Load};
use safetensors::Dtype;
use tempfile::TempDir;

use super::files::{File, PEFT, decode, folder};
use super::support::{Folder, Kept, MIB, cache, until};

const NAME: &str = "lin.weight";

/// 256 KiB, of which a patch changes 64 KiB.
fn base(folder: &TempDir) -> Model {
    File::new()
        .with(NAME, Dtype::F32, &[128, 128], &[1.0; 128 * 128])
        .with("other.weight", Dtype::F32, &[384, 128], &[2.0; 384 * 128])
        .model(folder, "base")
}

/// Adds `by` to every number.
fn lora(folder: &TempDir, name: &str, by: f64) -> Patch {
    File::new()
        .with("lin.lora_A.weight", Dtype::F32, &[1, 128], &[1.0; 128])
        .with("lin.lora_B.weight", Dtype::F32, &[128, 1], &[by; 128])
        .patch(folder, name)
}

fn loads(kept: &Kept) -> Vec<Load> {
    let kinds = kept.kinds().into_iter();
    let loads = kinds.filter_map(|kind| match kind {
        Kind::Load(load) if load.error.is_none() => Some(*load),
        _ => None,
    });
    loads.collect()
}

fn patches(kept: &Kept) -> Vec<String> {
    let loads = loads(kept).into_iter();
    let loads = loads.filter(|load| load.is_patch);
    loads
        .map(|load| format!("{} in {}", load.model, load.tier))
        .collect()
}

fn first(leased: &plimsoll_cache::Leased<'_>) -> f64 {
    decode(Dtype::F32, &leased.bytes(NAME).unwrap()[..4])[0]
}

struct World {
    cache: Cache,
    kept: Arc<Kept>,
    gpu: Arc<Simulated>,
}

fn world(ram: u64, there: u64) -> World {
    let gpu = Arc::new(Simulated::new(there));
    let (cache, kept) = cache(|builder| builder.ram(ram).device(Arc::clone(&gpu), there));
    World { cache, kept, gpu }
}

#[test]
fn threads_that_want_the_same_patches_share_one_load_of_them() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    for on_device in [false, true] {
        let world = world(4 * MIB, 4 * MIB);
        let tier = if on_device {
            world.gpu.tier()
        } else {
            Tier::RAM
        };
        let begin = Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    begin.wait();
                    let lease = world.cache.lease([model.on(tier).with(&patch, 0.5)]);
                    let lease = lease.unwrap();
                    assert_eq!(first(&lease.get(&model).unwrap()), 1.5);
                });
            }
        });
        let there = if on_device { "simulated" } else { "ram" };
        assert_eq!(
            patches(&world.kept),
            [format!("base + style×0.5 in {there}")]
        );
        // Later ones find it there.
        let wanted = model.on(tier).with(&patch, 0.5);
        let lease = world.cache.try_lease([wanted]).unwrap();
        assert_eq!(patches(&world.kept).len(), 1);
        drop(lease);
        // Another strength is another one.
        drop(
            world
                .cache
                .lease([model.on(tier).with(&patch, 0.25)])
                .unwrap(),
        );
        assert_eq!(patches(&world.kept).len(), 2);
        assert_eq!(
            loads(&world.kept)
                .iter()
                .filter(|load| load.tier == there && !load.is_patch)
                .count(),
            1,
            "one base for all of them"
        );
    }
}

#[test]
fn other_handles_of_the_same_files_share_what_is_made_of_them() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    let world = world(4 * MIB, MIB);
    let one = world
        .cache
        .lease([model.on(Cpu).with(&patch, 0.5)])
        .unwrap();
    let again = Model::open(&*model.files()[0].path).unwrap();
    let patch_again = Patch::open(&*patch.model().files()[0].path).unwrap();
    let used = world.cache.usage().used_bytes;
    let other = world
        .cache
        .lease([again.on(Cpu).with(&patch_again, 0.5)])
        .unwrap();
    assert_eq!(patches(&world.kept).len(), 1);
    assert_eq!(world.cache.usage().used_bytes, used);
    assert_eq!(first(&other.get(&model).unwrap()), 1.5);
    drop((one, other));
    // And go with any of them.
    assert!(world.cache.drop_model(&again));
    assert_eq!(world.cache.usage().used_bytes, 0);
}

#[test]
fn the_merged_part_alone_goes_where_room_is_needed() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    let fillers = Folder::new();
    let filler = fillers.model("filler", 60 << 10);
    let world = world(400 << 10, MIB);
    drop(
        world
            .cache
            .lease([model.on(Cpu).with(&patch, 0.5).merged()])
            .unwrap(),
    );
    let plain = world.cache.lease([&model]).unwrap();
    drop(world.cache.lease([&filler]).unwrap());
    // 256 + 64 + 64 KiB: another 64 have to come from what is merged, or the filler.
    let other = fillers.model("other", 120 << 10);
    drop(world.cache.lease([&other]).unwrap());
    let evicted: Vec<String> = world
        .kept
        .evictions()
        .into_iter()
        .map(|one| one.model)
        .collect();
    assert!(
        evicted.contains(&"base + style×0.5".to_owned()),
        "{evicted:?}"
    );
    assert!(!evicted.contains(&"base".to_owned()), "{evicted:?}");
    assert_eq!(first(&plain.get(&model).unwrap()), 1.0);
    let again = world
        .cache
        .lease([model.on(Cpu).with(&patch, 0.5).merged()])
        .unwrap();
    assert_eq!(first(&again.get(&model).unwrap()), 1.5);
    assert_eq!(patches(&world.kept).len(), 2);
}

#[test]
fn what_is_made_of_a_model_goes_with_it() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    for way in 0..3 {
        let world = world(4 * MIB, 4 * MIB);
        let gpu = world.gpu.tier();
        for tier in [Tier::RAM, gpu] {
            drop(
                world
                    .cache
                    .lease([model.on(tier).with(&patch, 0.5)])
                    .unwrap(),
            );
        }
        let there = || world.cache.usage_of(gpu).unwrap().used_bytes;
        match way {
            0 => assert!(world.cache.evict(&model)),
            1 => assert!(world.cache.drop_model(&model)),
            _ => {
                // It leaves its devices, and RAM keeps it.
                assert!(world.cache.offload(&model).unwrap());
                assert_eq!(there(), 0);
                assert!(world.cache.usage().used_bytes > 0);
                world.cache.clear();
            }
        }
        assert_eq!((world.cache.usage().used_bytes, there()), (0, 0));
    }
}

#[test]
fn a_model_that_is_dropped_while_its_patches_are_leased_goes_with_the_last_lease() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    let world = world(4 * MIB, MIB);
    let old = world
        .cache
        .lease([model.on(Cpu).with(&patch, 0.5)])
        .unwrap();
    let used = world.cache.usage().used_bytes;
    assert!(!world.cache.drop_model(&model));
    let new = world
        .cache
        .lease([model.on(Cpu).with(&patch, 0.5)])
        .unwrap();
    assert_eq!(
        world.cache.usage().used_bytes,
        2 * used,
        "fresh bytes beside the old"
    );
    for lease in [&old, &new] {
        assert_eq!(first(&lease.get(&model).unwrap()), 1.5);
    }
    drop(old);
    assert_eq!(world.cache.usage().used_bytes, used);
    assert!(!world.cache.evict(&model));
    drop(new);
    assert!(world.cache.evict(&model));
    assert_eq!(world.cache.usage().used_bytes, 0);
}

#[test]
fn one_lease_has_a_model_with_different_patches_and_in_different_ways() {
    let folder = folder();
    let model = base(&folder);
    let (one, two) = (lora(&folder, "one", 1.0), lora(&folder, "two", 10.0));
    let world = world(4 * MIB, 4 * MIB);
    for tier in [Tier::RAM, world.gpu.tier()] {
        let wanted = [
            model.on(tier).with(&one, 1.0),
            model.on(tier),
            model.on(tier).with(&two, 0.5),
            model.on(tier).with(&one, 1.0).with(&two, 0.5),
            model.on(tier).with(&one, 1.0).beside(),
            model.on(tier).with(&one, 1.0).merged(),
        ];
        let lease = world.cache.lease(wanted).unwrap();
        let seen: Vec<(f64, Option<bool>, usize)> = (0..lease.models().count())
            .map(|at| {
                let leased = lease.at(at).unwrap();
                let beside = leased.beside(NAME).unwrap().len();
                (first(&leased), leased.is_merged(), beside)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (2.0, Some(true), 0),
                (1.0, None, 0),
                (6.0, Some(true), 0),
                (7.0, Some(true), 0),
                (1.0, Some(false), 1),
            ],
            "the last is the first again"
        );
        assert!(matches!(lease.at(5), Err(Error::NotLeased { .. })));
        assert_eq!(first(&lease.get_on(&model, tier).unwrap()), 2.0);
    }
}

#[test]
fn a_fallback_brings_a_model_and_its_patches_to_one_device() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    // The device has room for the model or for nothing; what is merged does not fit beside it.
    for way in 0..3 {
        let world = world(4 * MIB, 200 << 10);
        let gpu = world.gpu.tier();
        let wanted = model.on(gpu).or_on(Cpu).with(&patch, 0.5);
        let wanted = match way {
            0 => wanted,
            1 => wanted.merged(),
            _ => wanted.beside(),
        };
        let lease = world.cache.lease([wanted]).unwrap();
        let leased = lease.get(&model).unwrap();
        assert_eq!(leased.tier(), Tier::RAM);
        assert_eq!(leased.is_merged(), Some(way < 2));
        assert_eq!(world.cache.usage_of(gpu).unwrap().used_bytes, 0);
        let pinned = world.cache.usage().pinned_bytes;
        assert_eq!(pinned, world.cache.usage().used_bytes);
    }
}

#[test]
fn patches_beside_on_the_first_device_come_before_merged_ones_on_the_next() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    let world = world(4 * MIB, 300 << 10);
    let gpu = world.gpu.tier();
    let wanted = model.on(gpu).or_on(Cpu).with(&patch, 0.5);
    let lease = world.cache.lease([wanted]).unwrap();
    let leased = lease.get(&model).unwrap();
    assert_eq!((leased.tier(), leased.is_merged()), (gpu, Some(false)));
}

#[test]
fn where_a_devices_memory_fails_patches_are_merged_on_the_next() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    let world = world(4 * MIB, 4 * MIB);
    let gpu = world.gpu.tier();
    // First with merged patches, and then without them.
    world.gpu.inject(Fault::OutOfMemory);
    world.gpu.inject(Fault::OutOfMemory);
    let wanted = model.on(gpu).or_on(Cpu).with(&patch, 0.5);
    let lease = world.cache.lease([wanted]).unwrap();
    let leased = lease.get(&model).unwrap();
    assert_eq!((leased.tier(), leased.is_merged()), (Tier::RAM, Some(true)));
    assert_eq!(first(&leased), 1.5);
    drop(lease);
    until("all of it goes", || {
        world.cache.clear();
        world.cache.usage_of(gpu).unwrap().used_bytes == 0
    });
}

#[test]
fn a_tensor_that_is_kept_outlives_the_lease_and_counts() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    let world = world(4 * MIB, 4 * MIB);
    let wanted = model.on(Cpu).with(&patch, 0.5).merged();
    let lease = world.cache.lease([wanted]).unwrap();
    let tensor = lease.get(&model).unwrap().tensor(NAME).unwrap();
    drop(lease);
    assert!(world.cache.evict(&model));
    let usage = world.cache.usage();
    assert_eq!(
        (usage.used_bytes, usage.resident_models),
        (usage.held_bytes, 0)
    );
    assert_eq!(
        usage.held_bytes,
        64 << 10,
        "what is merged, and not the base"
    );
    let numbers: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    assert!(numbers.iter().all(|number| *number == 1.5));
    drop((tensor, numbers));
    assert_eq!(world.cache.usage().used_bytes, 0);
}

#[test]
fn prefetch_brings_patches_and_pins_nothing() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style", 1.0));
    let world = world(4 * MIB, MIB);
    let wanted = || model.on(world.gpu.tier()).with(&patch, 0.5);
    world.cache.prefetch(wanted()).wait().unwrap();
    assert_eq!(patches(&world.kept), ["base + style×0.5 in simulated"]);
    assert_eq!(
        world.cache.usage_of(world.gpu.tier()).unwrap().pinned_bytes,
        0
    );
    let lease = world.cache.try_lease([wanted()]).unwrap();
    assert_eq!(first(&lease.get(&model).unwrap()), 1.5);
    assert_eq!(patches(&world.kept).len(), 1);
}

#[test]
fn a_thousand_strengths_leave_no_more_models_known_than_there_are() {
    let folder = folder();
    let model = File::new()
        .zeros("lin.weight", &[2, 2])
        .model(&folder, "small");
    let patch = File::new()
        .pair("lin", PEFT, &[1, 2], &[2, 1])
        .patch(&folder, "lora");
    let world = world(MIB, MIB);
    for step in 1..1000 {
        let strength = f64::from(step) / 100.0;
        drop(
            world
                .cache
                .lease([model.on(Cpu).with(&patch, strength)])
                .unwrap(),
        );
        world.cache.clear();
    }
    let known = world.cache.known_models();
    assert!(known < 300, "{known} are known");
}
