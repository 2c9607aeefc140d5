//! Models that are dropped, and files that change, while they stream.

use std::sync::Arc;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Cpu, Error, Model, Partial, Storage};

use super::files::folder;
use super::models::{compute, in_file_order, layers};
use super::support::MIB;
use super::watch::on_device;

fn cache(gpu: &Arc<Simulated>, model: &Model, storage: Storage, keeps: bool) -> Cache {
    Cache::builder()
        .ram(64 * MIB)
        .storage(storage)
        .keep_ram_copy(keeps)
        .device(Arc::clone(gpu), gpu.charge(model) / 2)
        .build()
        .unwrap()
}

#[test]
fn a_dropped_model_goes_on_streaming_for_who_has_it() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let order = in_file_order(&model);
    for partial in [Partial::default(), Partial::default().firm()] {
        for (storage, keeps) in [
            (Storage::Heap, true),
            (Storage::Anonymous, false),
            (Storage::Mapped, true),
        ] {
            let gpu = Arc::new(Simulated::new(64 * MIB));
            let cache = cache(&gpu, &model, storage, keeps);
            let wanted = model.on(&*gpu).partial(partial.clone());
            let lease = cache.lease([wanted]).unwrap();
            let wanted = compute(&lease, &model, &order);
            assert!(!cache.drop_model(&model), "a lease holds it");
            for _ in 0..2 {
                assert_eq!(compute(&lease, &model, &order), wanted);
            }
            assert_eq!(lease.grow(&model).unwrap(), 0, "what was dropped stays so");
            drop(lease);
            assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
            assert_eq!(on_device(&gpu), 0);
            let lease = cache.lease([model.on(&*gpu).partial(Partial::default())]);
            assert_eq!(compute(&lease.unwrap(), &model, &order), wanted);
        }
    }
}

/// What every tensor gives, by whether it is as in the first file, or an error.
fn pass(lease: &plimsoll_cache::Lease, model: &Model, first: &[Vec<u8>]) -> (usize, Vec<Error>) {
    let leased = lease.get(model).unwrap();
    let mut right = 0;
    let mut errors = Vec::new();
    for (tensor, wanted) in model.tensors().iter().zip(first) {
        match leased.bytes(&tensor.name) {
            Ok(bytes) => {
                assert!(*bytes == wanted[..], "mixed weights: {}", tensor.name);
                right += 1;
            }
            Err(error) => errors.push(error),
        }
    }
    (right, errors)
}

fn in_file(model: &Model) -> Vec<Vec<u8>> {
    let file = std::fs::read(model.path()).unwrap();
    let tensors = model.tensors().iter();
    let place = |at: u64, bytes: u64| file[at as usize..(at + bytes) as usize].to_vec();
    tensors.map(|one| place(one.offset, one.bytes)).collect()
}

#[test]
fn files_that_are_replaced_cut_short_or_deleted_are_errors_and_no_mixed_weights() {
    type Harm = fn(&std::path::Path);
    let harms: [(&str, Harm); 3] = [
        ("replaced", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let at = bytes.len() / 2;
            bytes[at..].fill(7);
            let new = path.with_extension("new");
            std::fs::write(&new, bytes).unwrap();
            std::fs::rename(new, path).unwrap();
        }),
        ("cut short", |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("deleted", |path| std::fs::remove_file(path).unwrap()),
    ];
    for (what, harm) in harms {
        for drops in [false, true] {
            let folder = folder();
            let model = layers(&folder, "m", 24, 144);
            let first = in_file(&model);
            let gpu = Arc::new(Simulated::new(64 * MIB));
            // Nothing of it stays in RAM.
            let cache = cache(&gpu, &model, Storage::Anonymous, false);
            let lease = cache
                .lease([model.on(&*gpu).partial(Partial::default())])
                .unwrap();
            let (right, errors) = pass(&lease, &model, &first);
            assert_eq!((right, errors.len()), (48, 0), "{errors:?}");
            harm(model.path());
            if drops {
                cache.drop_model(&model);
            }
            for _ in 0..2 {
                let (right, errors) = pass(&lease, &model, &first);
                assert!(right > 0 && errors.len() > 10, "{what}: {right}");
                for error in errors {
                    assert!(matches!(error, Error::Load(_)), "{what}: {error}");
                }
            }
            drop(lease);
            cache.clear();
            assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
            let again = cache.lease([model.on(&*gpu).partial(Partial::default())]);
            let Err(Error::Load(error)) = again else {
                panic!("{what}: {again:?}");
            };
            println!("{what}: {error}");
        }
    }
}

#[test]
fn a_copy_in_ram_streams_whatever_becomes_of_its_file() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let order = in_file_order(&model);
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let cache = cache(&gpu, &model, Storage::Anonymous, true);
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    let wanted = compute(&lease, &model, &order);
    std::fs::remove_file(model.path()).unwrap();
    assert_eq!(compute(&lease, &model, &order), wanted);
}

#[test]
fn parts_in_ram_are_no_mapped_files_that_could_be_cut_short() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let first = in_file(&model);
    let cache = Cache::builder()
        .ram(model.bytes() / 2)
        .storage(Storage::Mapped)
        .build()
        .unwrap();
    let lease = cache
        .lease([model.on(Cpu).partial(Partial::default())])
        .unwrap();
    let (right, errors) = pass(&lease, &model, &first);
    assert_eq!((right, errors.len()), (48, 0), "{errors:?}");
    let file = std::fs::File::options().write(true).open(model.path());
    file.unwrap().set_len(4096).unwrap();
    let (right, errors) = pass(&lease, &model, &first);
    assert!(right > 0 && errors.len() > 10, "{right}");
    lease.check().unwrap();
}
