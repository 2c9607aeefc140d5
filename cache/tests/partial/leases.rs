//! What a partial lease gives, and what it counts.

use std::sync::Arc;

use plimsoll_cache::device::Simulated;
use plimsoll_cache::{Cache, Error, Lease, Model, Partial, Storage};

use super::support::{Folder, MIB, verify};

fn cache(gpu: &Arc<Simulated>, storage: Storage, budget: u64) -> Cache {
    Cache::builder()
        .ram(200 * MIB)
        .storage(storage)
        .device(Arc::clone(gpu), budget)
        .build()
        .unwrap()
}

fn pass(lease: &Lease, model: &Model) {
    let leased = lease.get(model).unwrap();
    for tensor in model.tensors() {
        drop(leased.tensor(&tensor.name).unwrap());
    }
}

#[test]
fn all_of_it_is_given_whatever_part_is_there() {
    let folder = Folder::new();
    let model = folder.model("m", 60 * MIB);
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        for share in [25, 50, 75, 100] {
            let gpu = Arc::new(Simulated::new(64 * MIB));
            let budget = 60 * MIB * share / 100 + MIB;
            let cache = cache(&gpu, storage, budget);
            let some = Partial::at_least(["t000"]);
            let lease = cache.lease([model.on(&*gpu).partial(some)]).unwrap();
            for _ in 0..2 {
                verify(&lease, &model);
                pass(&lease, &model);
            }
            let residency = lease.get(&model).unwrap().residency();
            println!("{storage} {share}: {residency:?}");
            assert!(residency.resident_bytes > 0);
            assert!(residency.charged_bytes + residency.pool_bytes <= budget);
            drop(lease);
            let usage = cache.usage_of(&*gpu).unwrap();
            assert!(usage.used_bytes <= budget, "{usage:?}");
            cache.clear();
            assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
        }
    }
}

#[test]
fn what_is_too_small_is_refused_with_numbers() {
    let folder = Folder::new();
    let model = folder.model("m", 20 * MIB);
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let cache = cache(&gpu, Storage::Anonymous, 10 * MIB);
    let error = cache.lease([model.on(&*gpu)]).unwrap_err();
    println!("{error}");
    assert!(matches!(
        error,
        Error::ExceedsBudget {
            partial: Some(_),
            ..
        }
    ));
    let partial = |partial| cache.lease([model.on(&*gpu).partial(partial)]).unwrap_err();
    let error = partial(Partial::at_least(["t000", "nothing"]));
    assert!(matches!(error, Error::NoTensor { .. }), "{error}");
    let error = partial(Partial::at_least(["t000"]).up_to(MIB));
    println!("{error}");
    assert!(matches!(error, Error::PartialTooSmall { .. }), "{error}");
    let error = partial(Partial::at_least(["t000"]).pool(4096));
    println!("{error}");
    assert!(matches!(error, Error::PoolTooSmall { .. }), "{error}");
}

#[test]
fn a_part_gives_way_and_comes_back() {
    let folder = Folder::new();
    let (model, other) = (folder.model("m", 40 * MIB), folder.model("other", 12 * MIB));
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let cache = cache(&gpu, Storage::Anonymous, 34 * MIB);
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    let resident = || lease.get(&model).unwrap().residency().resident_bytes;
    let before = resident();
    let second = cache.lease([other.on(&*gpu)]).unwrap();
    assert!(resident() + 11 * MIB < before, "{before} {}", resident());
    verify(&lease, &model);
    drop(second);
    assert!(lease.grow(&model).unwrap() > 11 * MIB);
    assert_eq!(resident(), before);
    verify(&lease, &model);
}
