//! Storage `pinned`: exact, capped, used again, and degraded with a reason.

use std::sync::Arc;

use plimsoll_cache::device::{Cuda, Device, DeviceWeights, Host, Load, Source};
use plimsoll_cache::observe::Unobserved;
use plimsoll_cache::{Cache, Model, Storage};
use plimsoll_events::{Kind, Load as Loaded, Received, Subscription};

use crate::driver::{Count, Simulated};
use crate::support::{Folder, MIB, verify_on};

fn cache(device: &Arc<Cuda>, ram: u64, most: Option<u64>) -> (Cache, Subscription) {
    let mut builder = Cache::builder()
        .ram(ram)
        .storage(Storage::Pinned)
        .device(Arc::clone(device), 512 * MIB);
    if let Some(most) = most {
        builder = builder.pinned_at_most(most);
    }
    let cache = builder.build().unwrap();
    let heard = cache.subscribe(4096);
    (cache, heard)
}

fn loads(heard: &Subscription) -> Vec<Loaded> {
    std::iter::from_fn(|| heard.try_recv().ok())
        .filter_map(|received| match received {
            Received::Event(event) => match &event.kind {
                Kind::Load(load) => Some((**load).clone()),
                _ => None,
            },
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn exactly_a_models_pages_are_locked_and_the_device_reads_them_by_itself() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = Arc::new(driver.device(512 * MIB).unwrap());
    let (cache, heard) = cache(&device, 256 * MIB, Some(256 * MIB));
    // More than is locked at once, so that copies are cut.
    let model = folder.model("m", 70 * MIB + 5);
    let lease = cache.lease([model.on(&device)]).unwrap();
    verify_on(&lease, &model, device.tier());
    assert_eq!(
        driver.count(Count::RegisteredBytes),
        Storage::Pinned.charge(&model),
        "no lane was needed"
    );
    assert!(loads(&heard).iter().all(|load| load.degraded.is_none()));
    let tiers = cache.residency().tiers;
    assert_eq!(tiers[0].page_locked_bytes, Storage::Pinned.charge(&model));
    assert!(tiers[1].device.as_ref().unwrap().pool_used.bytes() > Some(0));
    drop(lease);
    cache.clear();
    assert_eq!(driver.count(Count::RegisteredBytes), 0);
}

#[test]
fn pages_of_an_evicted_model_are_used_again_by_smaller_and_by_larger_ones() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = Arc::new(driver.device(512 * MIB).unwrap());
    let (cache, heard) = cache(&device, 75 * MIB, Some(256 * MIB));
    let models = [70 * MIB, 40 * MIB + 3, 66 * MIB, 74 * MIB]
        .map(|bytes| folder.model(&format!("m{}", bytes / MIB), bytes));
    for _ in 0..2 {
        for model in &models {
            drop(cache.lease([model]).unwrap());
            assert_eq!(
                driver.count(Count::RegisteredBytes),
                Storage::Pinned.charge(model)
            );
        }
    }
    let recycled: Vec<u64> = loads(&heard)
        .iter()
        .map(|load| load.recycled_bytes)
        .collect();
    let charge = |which: usize| Storage::Pinned.charge(&models[which]);
    // The first has none to use; the fourth is longer than any before, and has no room to grow.
    assert_eq!(recycled[..4], [0, charge(1), charge(1), 0]);
    assert_eq!(recycled[4..], [charge(0), charge(1), charge(1), charge(2)]);
    for model in &models {
        let lease = cache.lease([model]).unwrap();
        crate::support::verify(&lease, model);
    }
}

#[test]
fn beyond_the_cap_a_model_is_kept_in_plain_memory_and_its_load_says_why() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = Arc::new(driver.device(512 * MIB).unwrap());
    let (cache, heard) = cache(&device, 64 * MIB, Some(5 * MIB));
    let (small, large) = (
        folder.model("small", 3 * MIB),
        folder.model("large", 6 * MIB),
    );
    let lease = cache.lease([&small, &large]).unwrap();
    crate::support::verify(&lease, &large);
    let loads = loads(&heard);
    let of = |name: &str| loads.iter().find(|load| load.model.contains(name)).unwrap();
    assert_eq!(of("small").degraded, None);
    let why = of("large").degraded.as_ref().unwrap();
    assert!(why.starts_with("not page-locked: "), "{why}");
    assert!(why.contains("5.0 MiB may be: as was asked for"), "{why}");
    assert_eq!(
        driver.count(Count::RegisteredBytes),
        Storage::Pinned.charge(&small)
    );
}

#[test]
fn what_the_driver_will_not_lock_is_kept_in_plain_memory() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = Arc::new(driver.device(512 * MIB).unwrap());
    let (cache, heard) = cache(&device, 64 * MIB, None);
    driver.refuse("cuMemHostRegister_v2", 2);
    let model = folder.model("m", 6 * MIB);
    let lease = cache.lease([model.on(&device)]).unwrap();
    verify_on(&lease, &model, device.tier());
    let loads = loads(&heard);
    let in_ram = loads.iter().find(|load| load.tier == "ram").unwrap();
    let why = in_ram.degraded.as_ref().unwrap();
    assert!(why.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{why}");
}

#[test]
fn a_cache_without_a_device_that_locks_pages_keeps_models_in_plain_memory() {
    let folder = Folder::new();
    let cache = Cache::builder()
        .ram(64 * MIB)
        .storage(Storage::Pinned)
        .build()
        .unwrap();
    let heard = cache.subscribe(64);
    let model = folder.model("m", MIB);
    let lease = cache.lease([&model]).unwrap();
    crate::support::verify(&lease, &model);
    let why = loads(&heard)[0].degraded.clone().unwrap();
    assert!(why.contains("no device of this cache"), "{why}");
}

fn load(device: &dyn Device, model: &Model, source: Source<'_>) -> Box<dyn DeviceWeights> {
    let load = Load {
        model,
        source,
        observer: &Unobserved,
    };
    device.load(&load).unwrap()
}

#[test]
fn pages_that_cannot_be_unlocked_are_never_given_to_others() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = driver.device(64 * MIB).unwrap();
    let ram =
        Host::new(Storage::Pinned, 64 * MIB).with_page_locker(device.page_locker(), Some(64 * MIB));
    let model = folder.model("m", MIB);
    let weights = load(&ram, &model, Source::Files { staging: 0 });
    driver.refuse("cuMemHostUnregister", 999);
    drop(weights);
    driver.refuse("cuMemHostUnregister", 0);
    // Were its addresses used again, the driver would say that they are locked already.
    for _ in 0..3 {
        let weights = load(&ram, &model, Source::Files { staging: 0 });
        assert!(weights.degraded().is_none());
        weights.unload();
    }
}

#[test]
fn nor_are_those_of_a_region_that_could_not_be_cut() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = driver.device(64 * MIB).unwrap();
    let ram =
        Host::new(Storage::Pinned, 64 * MIB).with_page_locker(device.page_locker(), Some(64 * MIB));
    let (large, small) = (folder.model("large", 3 * MIB), folder.model("small", MIB));
    let weights = load(&ram, &large, Source::Files { staging: 0 });
    ram.expect(ram.charge(&small));
    driver.refuse("cuMemHostUnregister", 999);
    let unloaded = weights.unload();
    driver.refuse("cuMemHostUnregister", 0);
    assert_eq!((unloaded.recycled_bytes, ram.page_locked_bytes()), (0, 0));
    for _ in 0..3 {
        let weights = load(&ram, &small, Source::Files { staging: 0 });
        assert!(weights.degraded().is_none(), "{:?}", weights.degraded());
        weights.unload();
    }
}

#[test]
fn a_model_of_the_same_size_takes_over_pages_that_are_not_locked_anew() {
    let folder = Folder::new();
    let driver = Simulated::new();
    let device = driver.device(64 * MIB).unwrap();
    let ram =
        Host::new(Storage::Pinned, 64 * MIB).with_page_locker(device.page_locker(), Some(64 * MIB));
    let (one, two) = (folder.model("one", 3 * MIB), folder.model("two", 3 * MIB));
    assert_eq!(ram.charge(&one), ram.charge(&two));
    let weights = load(&ram, &one, Source::Files { staging: 0 });
    ram.expect(ram.charge(&two));
    driver.refuse("cuMemHostRegister_v2", 999);
    assert_eq!(weights.unload().recycled_bytes, ram.charge(&two));
    let weights = load(&ram, &two, Source::Files { staging: 0 });
    assert_eq!(weights.degraded(), None);
    assert_eq!(weights.recycled_bytes(), ram.charge(&two));
}
