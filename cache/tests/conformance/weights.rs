//! A device by itself: bytes right, and every one of them accounted for.

use std::sync::Arc;

use malloc_stats::Metric;
use plimsoll_cache::device::{Device, DeviceWeights, Host, Load, Source};
use plimsoll_cache::observe::Unobserved;
use plimsoll_cache::{LoadError, Model, Storage};
use safetensors::Dtype;

use crate::Make;
use crate::files::{EVERY_TYPE, in_files, model, on_the_cpu, same_as_in_files, sharded};
use crate::support::{Folder, MIB};

const CAPACITY: u64 = 64 * MIB;
const STAGING: u64 = 128 << 10;

fn load_from(
    device: &dyn Device,
    model: &Model,
    source: Source<'_>,
) -> Result<Box<dyn DeviceWeights>, LoadError> {
    device.load(&Load {
        model,
        source,
        observer: &Unobserved,
    })
}

fn load(device: &dyn Device, model: &Model) -> Box<dyn DeviceWeights> {
    load_from(device, model, Source::Files { staging: STAGING }).unwrap()
}

/// What is free, where the device has the memory that it was made with and nobody else uses it.
fn free(device: &dyn Device) -> Option<u64> {
    let memory = device.memory();
    let is_its_own = memory.total == Metric::Exact(CAPACITY);
    match memory.free {
        Metric::Exact(free) if is_its_own => Some(free),
        _ => None,
    }
}

pub fn every_type_of_element_is_as_in_the_file(make: Make) {
    let folder = Folder::new();
    let names: Vec<String> = EVERY_TYPE
        .iter()
        .map(|dtype| format!("{dtype:?}"))
        .collect();
    let tensors: Vec<(&str, Dtype, &[usize])> = names
        .iter()
        .zip(EVERY_TYPE)
        .map(|(name, dtype)| (&name[..], dtype, &[3, 8][..]))
        .collect();
    let model = model(folder.path(), "types", &tensors);
    assert_eq!(model.tensors().len(), EVERY_TYPE.len());
    let device = make(CAPACITY);
    same_as_in_files(&*load(&device, &model), &model);
}

pub fn empty_tensors_scalars_and_a_model_without_tensors_are_held(make: Make) {
    let folder = Folder::new();
    let device = make(CAPACITY);
    let odd = model(
        folder.path(),
        "odd",
        &[
            ("none", Dtype::F32, &[0]),
            ("scalar", Dtype::F32, &[]),
            ("nothing", Dtype::U8, &[3, 0, 2]),
            ("byte", Dtype::U8, &[1]),
            ("double", Dtype::F64, &[]),
            ("seven", Dtype::I16, &[7]),
            ("page", Dtype::U8, &[4096]),
            ("more", Dtype::BF16, &[2049]),
        ],
    );
    same_as_in_files(&*load(&device, &odd), &odd);
    let hollow = model(folder.path(), "hollow", &[("none", Dtype::F16, &[0, 9])]);
    same_as_in_files(&*load(&device, &hollow), &hollow);
    let bare = model(folder.path(), "bare", &[]);
    let weights = load(&device, &bare);
    let unloaded = weights.unload();
    assert!(unloaded.held.is_none());
}

pub fn shards_are_one_model(make: Make) {
    let folder = Folder::new();
    let whole = sharded(folder.path());
    assert_eq!(whole.files().len(), 2);
    let device = make(CAPACITY);
    same_as_in_files(&*load(&device, &whole), &whole);
}

pub fn staging_of_any_size_gives_the_same_bytes(make: Make) {
    let folder = Folder::new();
    let large = model(
        folder.path(),
        "large",
        &[
            ("small", Dtype::U8, &[13]),
            ("large", Dtype::F32, &[9 << 18, 1]),
            ("odd", Dtype::U8, &[300_007]),
            ("last", Dtype::F16, &[1]),
        ],
    );
    let device = make(CAPACITY);
    for staging in [STAGING, STAGING + 1, MIB + 4095, 8 * MIB, 64 * MIB] {
        let weights = load_from(&device, &large, Source::Files { staging }).unwrap();
        same_as_in_files(&*weights, &large);
        weights.unload();
    }
}

pub fn a_load_from_ram_gives_what_a_load_from_files_gives(make: Make) {
    let folder = Folder::new();
    let whole = sharded(folder.path());
    let large = model(
        folder.path(),
        "large",
        &[
            ("none", Dtype::F32, &[0]),
            ("large", Dtype::U8, &[(5 << 20) + 1]),
            ("eights", Dtype::F8_E4M3, &[65]),
            ("unknown", Dtype::BOOL, &[5]),
        ],
    );
    let device = make(CAPACITY);
    for storage in [Storage::Heap, Storage::Anonymous] {
        let ram = Host::new(storage, CAPACITY);
        for model in [&whole, &large] {
            let copy = load(&ram, model);
            // A tensor over it does not keep it from being read.
            let _seen = copy.tensor(0).unwrap();
            let weights = load_from(&device, model, Source::Ram(&*copy)).unwrap();
            copy.unload();
            same_as_in_files(&*weights, model);
        }
    }
}

pub fn a_charge_covers_the_bytes_and_all_of_it_comes_back(make: Make) {
    let folder = Folder::new();
    let device = make(CAPACITY);
    let before = free(&device);
    for bytes in [1, 4095, MIB, 3 * MIB + 7] {
        let model = folder.model(&format!("m{bytes}"), bytes);
        let charge = device.charge(&model);
        assert!(charge >= model.bytes());
        let weights = load(&device, &model);
        assert_eq!(weights.recycled_bytes(), 0, "nothing was left to recycle");
        assert_eq!(free(&device), before.map(|free| free - charge));
        let unloaded = weights.unload();
        assert!(unloaded.held.is_none(), "{unloaded:?}");
        assert_eq!(unloaded.recycled_bytes, 0, "no load was expected");
        if let Some(returned) = unloaded.returned_bytes {
            assert_eq!(returned, charge);
        }
        assert_eq!(free(&device), before);
        assert_eq!(device.kept_bytes(), 0);
    }
}

pub fn a_tensor_that_is_kept_stays_right_and_counted(make: Make) {
    let folder = Folder::new();
    let model = folder.model("kept", 2 * MIB);
    let wanted = in_files(&model);
    let device = make(CAPACITY);
    let before = free(&device);
    let charge = device.charge(&model);
    let weights = load(&device, &model);
    let kept = weights.tensor(1).unwrap();
    let unloaded = weights.unload();
    let held_bytes = unloaded.held.as_ref().map_or(0, |held| held.bytes());
    if let Some(returned) = unloaded.returned_bytes {
        assert_eq!(unloaded.recycled_bytes + returned + held_bytes, charge);
    }
    if let Some(held) = &unloaded.held {
        assert!(held.bytes() >= model.tensors()[1].bytes && !held.is_gone());
    }
    assert_eq!(free(&device), before.map(|free| free - held_bytes));
    // Other weights come and go over where it was.
    let other = folder.model("other", 2 * MIB);
    same_as_in_files(&*load(&device, &other), &other);
    assert!(on_the_cpu(&kept) == wanted[1]);
    drop(kept);
    assert!(unloaded.held.is_none_or(|held| held.is_gone()));
    assert_eq!(free(&device), before);
}

pub fn weights_that_are_only_dropped_leave_what_is_kept_counted(make: Make) {
    let folder = Folder::new();
    let model = folder.model("kept", 2 * MIB);
    let wanted = in_files(&model);
    let device = make(CAPACITY);
    let before = free(&device);
    let unloaded_leaves = {
        let weights = load(&device, &model);
        let _kept = weights.tensor(1).unwrap();
        let unloaded = weights.unload();
        unloaded.held.as_ref().map_or(0, |held| held.bytes())
    };
    let weights = load(&device, &model);
    let kept = weights.tensor(1).unwrap();
    drop(weights);
    assert_eq!(free(&device), before.map(|free| free - unloaded_leaves));
    assert!(on_the_cpu(&kept) == wanted[1]);
    drop(kept);
    assert_eq!(free(&device), before);
}

pub fn loads_at_the_same_time_do_not_mix(make: Make) {
    let folder = Folder::new();
    let models: Vec<Model> = (0..6_u64)
        .map(|n| folder.model(&format!("m{n}"), MIB + n * 111_111))
        .collect();
    let device = make(CAPACITY);
    let before = free(&device);
    std::thread::scope(|scope| {
        for model in &models {
            let device = &device;
            scope.spawn(move || {
                for _ in 0..4 {
                    let weights = load(device, model);
                    same_as_in_files(&*weights, model);
                    weights.unload();
                }
            });
        }
    });
    assert_eq!(free(&device), before);
}

pub fn a_load_that_fails_gives_all_of_it_back(make: Make) {
    let folder = Folder::new();
    let device = make(CAPACITY);
    let before = free(&device);
    let path = folder.file("cut", 9 * MIB);
    let cut = Model::open(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(5 * MIB).unwrap();
    let gone = folder.model("gone", MIB);
    std::fs::remove_file(gone.path()).unwrap();
    for model in [&cut, &gone] {
        let source = Source::Files { staging: STAGING };
        let error = load_from(&device, model, source).unwrap_err();
        assert!(error.to_string().contains(".safetensors"), "{error}");
        assert_eq!(free(&device), before);
        assert_eq!(device.kept_bytes(), 0);
    }
    let sound = folder.model("sound", MIB);
    same_as_in_files(&*load(&device, &sound), &sound);
}

pub fn a_load_that_does_not_fit_is_refused_with_numbers(make: Make) {
    let folder = Folder::new();
    let device = make(CAPACITY);
    let Some(before) = free(&device) else {
        // It has as much as the machine.
        return;
    };
    let small = make(MIB);
    let large = folder.model("large", 2 * MIB);
    let source = Source::Files { staging: STAGING };
    match load_from(&small, &large, source) {
        Err(LoadError::OutOfMemory {
            asked,
            free,
            total,
            injected,
            ..
        }) => {
            assert_eq!(asked, small.charge(&large));
            assert_eq!((free, total, injected), (MIB, MIB, false));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(small.memory().free, Metric::Exact(MIB));
    assert_eq!(free(&device), Some(before), "devices share nothing");
}

pub fn expectations_in_any_order_do_no_harm(make: Make) {
    let folder = Folder::new();
    let (one, two) = (folder.model("one", 2 * MIB), folder.model("two", 3 * MIB));
    let device = make(CAPACITY);
    let (one_charge, two_charge) = (device.charge(&one), device.charge(&two));
    device.unexpect(5 * MIB);
    let weights = load(&device, &one);
    device.expect(two_charge);
    let unloaded = weights.unload();
    assert_eq!(device.kept_bytes(), unloaded.recycled_bytes);
    assert!(device.kept_bytes() <= two_charge.min(one_charge));
    let recycled = load(&device, &two);
    assert_eq!(recycled.recycled_bytes(), unloaded.recycled_bytes);
    same_as_in_files(&*recycled, &two);
    assert_eq!(device.kept_bytes(), 0);
    // Expected, but it does not come: what was kept for it goes back, and is told of once.
    device.take_given();
    device.expect(two_charge);
    let kept = recycled.unload().recycled_bytes;
    assert_eq!(device.kept_bytes(), kept);
    device.unexpect(u64::MAX);
    assert_eq!(device.kept_bytes(), 0);
    assert_eq!((device.take_given(), device.take_given()), (kept, 0));
    device.unexpect(1);
    same_as_in_files(&*load(&device, &one), &one);
}

pub fn a_name_and_a_tier_stay(make: Make) {
    let folder = Folder::new();
    let model = folder.model("a", MIB);
    let (device, other) = (make(CAPACITY), make(CAPACITY));
    let (name, tier, simulated) = (
        device.name().to_owned(),
        device.tier(),
        device.is_simulated(),
    );
    assert_ne!(tier, other.tier(), "every device has a tier of its own");
    let _weights = load(&device, &model);
    assert_eq!((device.name(), device.tier()), (&name[..], tier));
    assert!(!name.is_empty() && !name.contains(char::is_control) && name != "ram");
    assert_eq!(name.contains("simulated"), simulated);
    let shared: Arc<dyn Device> = Arc::new(Arc::clone(&device));
    assert_eq!((shared.tier(), shared.name()), (tier, &name[..]));
}
