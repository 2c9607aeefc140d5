//! What a device cannot hold for its element type stays in RAM, and is given out from there.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::model::Dtype;
use plimsoll_cache::{Cache, Cpu, Model, Partial, Storage};
use plimsoll_events::{Kind, Stream};
use support::{Folder, Kept, MIB, verify, verify_on};

fn cache(gpu: &Arc<Simulated>, storage: Storage) -> (Cache, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let cache = Cache::builder()
        .ram(200 * MIB)
        .storage(storage)
        .device(Arc::clone(gpu), 64 * MIB)
        .stream(Stream::new(Arc::clone(&kept)))
        .build()
        .unwrap();
    (cache, kept)
}

fn bytes_of(model: &Model, dtype: Dtype) -> u64 {
    let tensors = model.tensors().iter();
    tensors
        .filter(|tensor| tensor.dtype == dtype)
        .map(|tensor| tensor.bytes)
        .sum()
}

fn notes(kept: &Kept) -> Vec<String> {
    let kinds = kept.kinds().into_iter();
    kinds
        .filter_map(|kind| match kind {
            Kind::Note { text } => Some(text),
            _ => None,
        })
        .collect()
}

#[test]
fn what_a_device_lacks_stays_in_ram_and_is_said_once() {
    let folder = Folder::new();
    let model = folder.model("m", 30 * MIB);
    let missing = bytes_of(&model, Dtype::BF16);
    assert!(missing > 0);
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        let gpu = Arc::new(Simulated::new(64 * MIB).without([Dtype::BF16]));
        let (cache, kept) = cache(&gpu, storage);
        for _ in 0..2 {
            let lease = cache.lease([model.on(&*gpu)]).unwrap();
            verify(&lease, &model);
            verify_on(&lease, &model, gpu.tier());
            let there = cache.usage_of(&*gpu).unwrap().used_bytes;
            let most = model.bytes() - missing;
            assert!((most..most + MIB).contains(&there), "{there} of {most}");
            assert!(cache.usage().used_bytes >= missing);
            let residency = lease.get(&model).unwrap().residency();
            assert_eq!(residency.resident_bytes, most);
            drop(lease);
        }
        cache.clear();
        assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
        assert_eq!(cache.usage().used_bytes, 0);
        let notes = notes(&kept);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes[0].contains("BF16") && notes[0].contains("simulated"),
            "{notes:?}"
        );
        // A device that lacks nothing, and the CPU, have all of it.
        let lease = cache.lease([model.on(Cpu)]).unwrap();
        verify(&lease, &model);
    }
}

#[test]
fn a_part_of_what_a_device_can_hold_is_there_and_the_rest_streams_or_stays() {
    let folder = Folder::new();
    let model = folder.model("m", 30 * MIB);
    let gpu = Arc::new(Simulated::new(64 * MIB).without([Dtype::F32, Dtype::U8]));
    let (cache, _) = cache(&gpu, Storage::Anonymous);
    let partial = Partial::default().up_to(12 * MIB);
    let lease = cache
        .lease([model.on(&*gpu).or_on(Cpu).partial(partial)])
        .unwrap();
    assert_eq!(lease.get(&model).unwrap().tier(), gpu.tier());
    for _ in 0..2 {
        verify(&lease, &model);
    }
    assert!(cache.usage_of(&*gpu).unwrap().used_bytes <= 12 * MIB);
    assert!(lease.get(&model).unwrap().residency().streamed_bytes > 0);
    drop(lease);
    cache.clear();
    assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
}
