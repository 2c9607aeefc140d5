//! What a lease with patches gives, shares and counts.

use plimsoll_cache::device::Simulated;
use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Cache, Cpu, Error, Model, Storage};
use safetensors::Dtype;
use tempfile::TempDir;

use super::files::{File, decode, folder};

fn base(folder: &TempDir) -> Model {
    File::new()
        .with(
            "lin.weight",
            Dtype::F32,
            &[2, 3],
            &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        )
        .with("lin.bias", Dtype::F32, &[2], &[7.0, 8.0])
        .with("other.weight", Dtype::F16, &[2, 2], &[1.0, 0.0, 0.0, 1.0])
        .model(folder, "base")
}

/// down = [[1, 1, 1]], up = [[1], [2]]: adds 1 to the first row, 2 to the second.
fn lora(folder: &TempDir, name: &str) -> Patch {
    let file = File::new()
        .with("lin.lora_A.weight", Dtype::F32, &[1, 3], &[1.0; 3])
        .with("lin.lora_B.weight", Dtype::F32, &[2, 1], &[1.0, 2.0]);
    Patch::open(file.save(folder.path(), name)).unwrap()
}

fn numbers(lease: &plimsoll_cache::Lease, model: &Model, name: &str) -> Vec<f64> {
    decode(Dtype::F32, &lease.get(model).unwrap().bytes(name).unwrap())
}

#[test]
fn a_merged_patch_changes_what_it_names_and_shares_the_rest() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style"));
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        let gpu = Simulated::new(1 << 20);
        let gpu = std::sync::Arc::new(gpu);
        let cache = Cache::builder()
            .ram(1 << 20)
            .storage(storage)
            .device(std::sync::Arc::clone(&gpu), 1 << 20)
            .build()
            .unwrap();
        for tier in [plimsoll_cache::Tier::RAM, (&*gpu).into()] {
            let lease = cache.lease([model.on(tier).with(&patch, 0.5)]).unwrap();
            let leased = lease.get(&model).unwrap();
            assert_eq!(leased.is_merged(), Some(true));
            assert_eq!(leased.name(), "base + style×0.5");
            assert_eq!(
                numbers(&lease, &model, "lin.weight"),
                [1.5, 2.5, 3.5, 5.0, 6.0, 7.0]
            );
            assert_eq!(numbers(&lease, &model, "lin.bias"), [7.0, 8.0]);
            let tensor: Vec<Vec<f32>> = leased.tensor("lin.weight").unwrap().to_vec2().unwrap();
            assert_eq!(tensor, [[1.5, 2.5, 3.5], [5.0, 6.0, 7.0]]);
            let plain = cache.lease([model.on(tier)]).unwrap();
            assert_eq!(
                numbers(&plain, &model, "lin.weight"),
                [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
            );
            let used = cache.usage_of(tier).unwrap().used_bytes;
            let again = cache.lease([model.on(tier).with(&patch, 0.5)]).unwrap();
            assert_eq!(cache.usage_of(tier).unwrap().used_bytes, used);
            drop((plain, again, lease));
        }
        cache.clear();
        assert_eq!(cache.usage().used_bytes, 0);
    }
}

#[test]
fn a_patch_beside_gives_its_factors() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder, "style"));
    let cache = Cache::builder().ram(1 << 20).build().unwrap();
    let lease = cache
        .lease([model.on(Cpu).with(&patch, 0.5).beside()])
        .unwrap();
    let leased = lease.get(&model).unwrap();
    assert_eq!(leased.is_merged(), Some(false));
    assert_eq!(
        numbers(&lease, &model, "lin.weight"),
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    );
    let beside = leased.beside("lin.weight").unwrap();
    assert_eq!(beside.len(), 1);
    let x = candle_core::Tensor::new(&[[1.0_f32, 1.0, 1.0]], &candle_core::Device::Cpu).unwrap();
    let y: Vec<Vec<f32>> = beside[0].linear(&x).unwrap().to_vec2().unwrap();
    assert_eq!(y, [[1.5, 3.0]]);
    assert!(leased.beside("lin.bias").unwrap().is_empty());
}

#[test]
fn without_room_for_merged_tensors_patches_lie_beside() {
    let folder = folder();
    let big: Vec<f64> = vec![1.0; 64 * 1024];
    let model = File::new()
        .with("lin.weight", Dtype::F32, &[256, 256], &big)
        .model(&folder, "big");
    let patch = File::new()
        .with("lin.lora_A.weight", Dtype::F32, &[1, 256], &[1.0; 256])
        .with("lin.lora_B.weight", Dtype::F32, &[256, 1], &[1.0; 256]);
    let patch = Patch::open(patch.save(folder.path(), "thin")).unwrap();
    let cache = Cache::builder().ram(300 << 10).build().unwrap();
    let lease = cache.lease([model.on(Cpu).with(&patch, 1.0)]).unwrap();
    assert_eq!(lease.get(&model).unwrap().is_merged(), Some(false));
    drop(lease);
    let error = cache
        .lease([model.on(Cpu).with(&patch, 1.0).merged()])
        .unwrap_err();
    assert!(matches!(error, Error::ExceedsBudget { .. }), "{error}");
    let error = cache
        .lease([model.on(Cpu).with(&patch, f64::NAN)])
        .unwrap_err();
    assert!(matches!(error, Error::Strength { .. }), "{error}");
}
