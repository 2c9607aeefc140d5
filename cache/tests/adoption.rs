//! Tensors over resident weights: no copy, no dangling memory, no byte uncounted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use candle_core::{Device, IndexOp, Tensor};
use plimsoll_cache::Storage;
use plimsoll_events::Kind;
use support::{Folder, MIB, anonymous_rss, cache, content, verify};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// The tests here look at this process's resident memory, so they take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn a_tensor_over_weights_takes_no_memory_of_its_own() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 64 * MIB);
    let (cache, kept) = cache(|builder| builder.ram(80 * MIB));
    let lease = cache.lease([&model]).unwrap();
    let weights = lease.get(&model).unwrap();
    let before = anonymous_rss();
    let tensors: Vec<Tensor> = weights
        .tensors()
        .iter()
        .map(|info| weights.tensor(&info.name).unwrap())
        .collect();
    assert!(anonymous_rss() < before + 2 * MIB, "tensors were copied");
    let total: usize = tensors
        .iter()
        .map(|t| t.elem_count() * t.dtype().size_in_bytes())
        .sum();
    assert_eq!(total as u64, model.bytes());
    cache.tell_hits();
    let copied = kept
        .kinds()
        .iter()
        .any(|kind| matches!(kind, Kind::Tally(t) if t.copied_bytes > 0));
    assert!(!copied);
}

#[test]
fn a_tensor_outlives_its_lease_and_its_models_eviction() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 8 * MIB);
    let (cache, kept) = cache(|builder| builder.ram(10 * MIB));
    let before = anonymous_rss();
    let lease = cache.lease([&model]).unwrap();
    let tensor = lease.get(&model).unwrap().tensor("t002").unwrap();
    drop(lease);
    assert!(cache.evict(&model));
    let usage = cache.usage();
    assert_eq!(
        usage.used_bytes, usage.held_bytes,
        "its memory counts while it is held"
    );
    assert!(usage.held_bytes >= 8 * MIB);
    let Some(Kind::Evict(evict)) = kept.kinds().pop() else {
        panic!("no eviction")
    };
    assert_eq!(
        (evict.held_bytes, evict.returned.bytes()),
        (usage.held_bytes, Some(0))
    );
    let bytes = tensor.to_vec1::<u8>().unwrap();
    assert_eq!(bytes, content("a", 2, bytes.len()));
    drop(tensor);
    assert_eq!(cache.usage().used_bytes, 0, "and no longer");
    drop((bytes, kept));
    assert!(
        anonymous_rss() < before + 4 * MIB,
        "the last tensor gave the memory back"
    );
}

#[test]
fn held_memory_makes_room_as_soon_as_the_tensor_is_dropped() {
    let _turn = turn();
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 8 * MIB), folder.model("b", 8 * MIB));
    let (cache, _) = cache(|builder| builder.ram(10 * MIB));
    let lease = cache.lease([&a]).unwrap();
    let tensor = lease.get(&a).unwrap().tensor("t000").unwrap();
    drop(lease);
    assert!(
        cache.try_lease([&b]).is_err(),
        "a is evicted in vain: its tensor holds it"
    );
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| verify(&cache.lease([&b]).unwrap(), &b));
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(tensor);
        waiting.join().unwrap();
    });
}

#[test]
fn every_call_gives_the_same_tensor_and_in_place_writes_exclude_readers() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 4 * MIB);
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    let lease = cache.lease([&model]).unwrap();
    let weights = lease.get(&model).unwrap();
    let one = weights.tensor("t001").unwrap();
    let two = weights.tensor("t001").unwrap();
    assert_eq!(one.id(), two.id());
    std::thread::scope(|scope| {
        for value in [1.0_f32, 2.0] {
            let one = &one;
            scope.spawn(move || {
                for _ in 0..200 {
                    let source = Tensor::full(value, one.dims(), &Device::Cpu).unwrap();
                    one.slice_set(&source, 0, 0).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                let bytes = weights.bytes("t001").unwrap();
                let first = bytes[..4].to_vec();
                let last = bytes[bytes.len() - 4..].to_vec();
                let written = [1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()];
                if written.iter().any(|value| first == value) {
                    assert_eq!(first, last, "a write was seen half done");
                }
            }
        });
    });
}

#[test]
fn candles_views_and_operations_work_on_adopted_memory() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 6 * MIB);
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    let lease = cache.lease([&model]).unwrap();
    let tensor = lease.get(&model).unwrap().tensor("t002").unwrap();
    let wanted = content("a", 2, tensor.elem_count());
    let view = tensor.i(100..200).unwrap();
    assert_eq!(view.to_vec1::<u8>().unwrap(), wanted[100..200]);
    let halves = tensor
        .narrow(0, 0, 128)
        .unwrap()
        .reshape((8, 16))
        .unwrap()
        .t()
        .unwrap();
    let copy = halves.contiguous().unwrap();
    assert_eq!(copy.dims(), [16, 8]);
    let detached = (tensor.to_dtype(candle_core::DType::F32).unwrap() * 2.0).unwrap();
    drop((tensor, lease));
    assert!(
        !cache.evict(&model) || cache.usage().held_bytes > 0,
        "the view still holds it"
    );
    drop((view, halves));
    assert_eq!(cache.usage().held_bytes, 0);
    assert_eq!(
        detached.i(0).unwrap().to_scalar::<f32>().unwrap(),
        f32::from(wanted[0]) * 2.0
    );
}

#[test]
fn heap_storage_copies_and_counts_the_copies() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 2 * MIB);
    let (cache, kept) = cache(|builder| builder.ram(4 * MIB).storage(Storage::Heap));
    let lease = cache.lease([&model]).unwrap();
    let tensor = lease.get(&model).unwrap().tensor("t002").unwrap();
    drop(lease);
    assert!(cache.evict(&model));
    assert_eq!(cache.usage().used_bytes, 0);
    let bytes = tensor.to_vec1::<u8>().unwrap();
    assert_eq!(bytes, content("a", 2, bytes.len()));
    cache.tell_hits();
    let Some(Kind::Tally(tally)) = kept
        .kinds()
        .into_iter()
        .rev()
        .find(|k| matches!(k, Kind::Tally(_)))
    else {
        panic!("no tally");
    };
    assert_eq!(
        (tally.copied_tensors, tally.copied_bytes),
        (1, bytes.len() as u64)
    );
}
