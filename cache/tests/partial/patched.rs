//! Patches on a model of which a part is there.

use std::sync::Arc;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Cache, Lease, Model, Partial, Wanted};
use safetensors::Dtype;

use super::files::{File, folder};
use super::models::{compute, in_file_order, layers, shuffled};
use super::support::MIB;
use super::watch::{Watch, on_device};

/// Changes every third layer's matrix.
fn patch(folder: &tempfile::TempDir) -> Patch {
    let layers = (0..24).step_by(3);
    let file = layers.fold(File::new(), |file, layer| {
        let numbers = |seed: usize| (0..288).map(move |at| ((at * seed) % 17) as f64 / 64.0);
        let down: Vec<f64> = numbers(layer + 3).collect();
        let up: Vec<f64> = numbers(layer + 7).collect();
        file.with(
            &format!("l{layer:03}.lora_A.weight"),
            Dtype::F32,
            &[2, 144],
            &down,
        )
        .with(
            &format!("l{layer:03}.lora_B.weight"),
            Dtype::F32,
            &[144, 2],
            &up,
        )
    });
    Patch::open(file.save(folder.path(), "style")).unwrap()
}

/// What is beside, where anything is, as one number.
fn beside(lease: &Lease, model: &Model) -> usize {
    let leased = lease.get(model).unwrap();
    let names = model.tensors().iter().map(|tensor| &tensor.name);
    names.map(|name| leased.beside(name).unwrap().len()).sum()
}

#[test]
fn merged_and_beside_a_part_gives_what_the_whole_gives() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let patch = patch(&folder);
    type Way = for<'a> fn(Wanted<'a>) -> Wanted<'a>;
    let ways: [Way; 2] = [|wanted| wanted.merged(), |wanted| wanted.beside()];
    for (way, is_merged) in ways.into_iter().zip([true, false]) {
        for order in [in_file_order(&model), shuffled(&model)] {
            let whole = Arc::new(Simulated::new(64 * MIB));
            let builder = Cache::builder().ram(64 * MIB);
            let roomy = builder
                .device(Arc::clone(&whole), 64 * MIB)
                .build()
                .unwrap();
            let wanted = way(model.on(&*whole).with(&patch, 0.5));
            let all = roomy.lease([wanted]).unwrap();
            let (wanted, besides) = (compute(&all, &model, &order), beside(&all, &model));
            let plain = compute(&roomy.lease([model.on(&*whole)]).unwrap(), &model, &order);
            assert_eq!(is_merged, wanted != plain);
            assert_eq!(besides, if is_merged { 0 } else { 8 });

            let gpu = Arc::new(Simulated::new(64 * MIB));
            let cache = Cache::builder()
                .ram(64 * MIB)
                .device(Arc::clone(&gpu), gpu.charge(&model) * 7 / 10)
                .build()
                .unwrap();
            let watch = Watch::new(&cache, &gpu);
            let partial = Partial::default().in_order(&order);
            let asked = way(model.on(&*gpu).with(&patch, 0.5).partial(partial));
            let lease = cache.lease([asked]).unwrap();
            let leased = lease.get(&model).unwrap();
            assert_eq!(leased.is_merged(), Some(is_merged));
            for _ in 0..2 {
                assert_eq!(compute(&lease, &model, &order), wanted);
            }
            assert_eq!(beside(&lease, &model), besides);
            let residency = leased.residency();
            assert!(residency.streamed_bytes > 0, "{residency:?}");
            drop(lease);
            watch.end();
            cache.clear();
            assert_eq!(on_device(&gpu), 0);
        }
    }
}
