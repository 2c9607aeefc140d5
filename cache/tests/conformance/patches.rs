//! A device in a cache: models with patches.

use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Cpu, Error, Model, Storage, Tier};
use safetensors::Dtype;

use crate::Make;
use crate::files::on_the_cpu;
use crate::leases::Beside;
use crate::patch_files::{File, encode};
use crate::support::{Folder, MIB};

const NAME: &str = "lin.weight";
const SIDE: usize = 512;

fn all(number: f64) -> Vec<f64> {
    vec![number; SIDE * SIDE]
}

/// 1 MiB of numbers, and as much again that no patch touches.
fn base(folder: &Folder) -> Model {
    let path = File::new()
        .with(NAME, Dtype::F32, &[SIDE, SIDE], &all(1.0))
        .with("other.weight", Dtype::F32, &[SIDE, SIDE], &all(2.0))
        .save(folder.path(), "base");
    Model::open(path).unwrap()
}

/// Adds 1 to every number.
fn lora(folder: &Folder) -> Patch {
    let path = File::new()
        .with("lin.lora_A.weight", Dtype::F16, &[1, SIDE], &[1.0; SIDE])
        .with("lin.lora_B.weight", Dtype::F16, &[SIDE, 1], &[1.0; SIDE])
        .save(folder.path(), "style");
    Patch::open(path).unwrap()
}

/// What is merged, as a model of its own, which counts as much.
fn merged(folder: &Folder, by: f64) -> Model {
    let path = File::new()
        .with(NAME, Dtype::F32, &[SIDE, SIDE], &all(1.0 + by))
        .save(folder.path(), "merged");
    Model::open(path).unwrap()
}

/// What something that is made counts on the device: mapped files cannot hold it.
fn charge(beside: &Beside, model: &Model) -> u64 {
    let there = beside.device.charge(model);
    match there == Storage::Heap.charge(model) {
        true => there,
        false => Storage::Anonymous.charge(model),
    }
}

pub fn patches_are_merged_where_the_model_is_and_the_rest_is_shared(make: Make) {
    let folder = Folder::new();
    let (model, patch) = (base(&folder), lora(&folder));
    let beside = Beside::with(make, |builder| builder.keep_ram_copy(false));
    let tier = beside.tier;
    let wanted = || model.on(tier).with(&patch, 0.5).merged();
    let lease = beside.cache.lease([wanted()]).unwrap();
    let leased = lease.get(&model).unwrap();
    assert_eq!((leased.tier(), leased.is_merged()), (tier, Some(true)));
    let there = encode(Dtype::F32, &all(1.5));
    assert!(*leased.bytes(NAME).unwrap() == there[..]);
    assert!(on_the_cpu(&leased.tensor(NAME).unwrap()) == there);
    let both = beside.device.charge(&model) + charge(&beside, &merged(&folder, 0.5));
    assert_eq!(beside.used(), (both, 0));
    // The base is as it was, and there once.
    let plain = beside.cache.lease([model.on(tier)]).unwrap();
    let of_base = plain.get(&model).unwrap();
    assert!(*of_base.bytes(NAME).unwrap() == encode(Dtype::F32, &all(1.0))[..]);
    let other = leased.tensor("other.weight").unwrap();
    assert!(on_the_cpu(&other) == on_the_cpu(&of_base.tensor("other.weight").unwrap()));
    drop(other);
    drop(beside.cache.lease([wanted()]).unwrap());
    assert_eq!(beside.used(), (both, 0));
    drop((plain, lease));
    assert!(beside.cache.evict(&model));
    assert_eq!(beside.used(), (0, 0));
}

pub fn patches_lie_beside_where_they_are_asked_for_or_nothing_else_fits(make: Make) {
    let folder = Folder::new();
    let (model, patch) = (base(&folder), lora(&folder));
    let beside = Beside::with(make, |builder| builder.keep_ram_copy(false));
    let tier = beside.tier;
    let of_patch = charge(&beside, patch.model());
    let both = beside.device.charge(&model) + of_patch;
    for by_room in [false, true] {
        let wanted = model.on(tier).with(&patch, -1.0);
        let wanted = if by_room {
            // Not as much as what is merged takes.
            let budget = both + of_patch;
            beside.cache.set_budget(tier, budget).unwrap();
            wanted
        } else {
            wanted.beside()
        };
        let lease = beside.cache.lease([wanted]).unwrap();
        let leased = lease.get(&model).unwrap();
        assert_eq!(leased.is_merged(), Some(false));
        assert_eq!(leased.patched_bytes(), patch.model().bytes());
        assert_eq!(beside.used(), (both, 0));
        let [one] = &leased.beside(NAME).unwrap()[..] else {
            panic!("there is one patch");
        };
        let weights = leased.tensor(NAME).unwrap();
        let figures = beside.device.figures();
        if weights.device().is_cuda() && figures.is_some_and(|one| one.name.contains("Simulated")) {
            eprintln!("not computed with: the driver is simulated and runs no kernels");
            continue;
        }
        let x = weights.narrow(0, 0, 2).unwrap();
        let y = (x.matmul(&weights.t().unwrap()).unwrap() + one.linear(&x).unwrap()).unwrap();
        assert!(on_the_cpu(&y) == encode(Dtype::F32, &[0.0; 2 * SIDE]));
    }
    let error = beside
        .cache
        .lease([model.on(tier).with(&patch, -1.0).merged()])
        .unwrap_err();
    assert!(matches!(error, Error::ExceedsBudget { .. }), "{error}");
    beside.cache.clear();
    assert_eq!(beside.used(), (0, 0));
}

pub fn patches_come_where_the_model_is_granted(make: Make) {
    let folder = Folder::new();
    let (model, patch) = (base(&folder), lora(&folder));
    let filler = folder.model("filler", 10 * MIB);
    let beside = Beside::new(make);
    let held = beside.cache.lease([filler.on(beside.tier)]).unwrap();
    let wanted = model.on(beside.tier).or_on(Cpu).with(&patch, 1.0).merged();
    let lease = beside.cache.lease([wanted]).unwrap();
    let leased = lease.get(&model).unwrap();
    assert_eq!(leased.tier(), Tier::RAM);
    assert!(*leased.bytes(NAME).unwrap() == encode(Dtype::F32, &all(2.0))[..]);
    assert_eq!(beside.used().0, beside.device.charge(&filler));
    drop((held, lease));
    beside.cache.clear();
    assert_eq!(beside.used(), (0, 0));
}

pub fn a_patch_that_cannot_be_read_leaves_the_device_as_it_was(make: Make) {
    let folder = Folder::new();
    let (model, patch) = (base(&folder), lora(&folder));
    for way in 0..2 {
        let beside = Beside::new(make);
        let plain = beside.cache.lease([model.on(beside.tier)]).unwrap();
        let before = beside.used();
        let path = &patch.model().files()[0].path;
        let away = path.with_extension("away");
        std::fs::rename(path, &away).unwrap();
        let wanted = model.on(beside.tier).with(&patch, 1.0);
        let wanted = if way == 0 {
            wanted.merged()
        } else {
            wanted.beside()
        };
        let error = beside.cache.lease([wanted]).unwrap_err();
        std::fs::rename(away, path).unwrap();
        assert!(error.to_string().contains("style.safetensors"), "{error}");
        assert_eq!(beside.used(), before);
        let usage = beside.cache.usage_of(beside.tier).unwrap();
        assert_eq!(usage.pinned_bytes, beside.device.charge(&model));
        drop(plain);
    }
}
