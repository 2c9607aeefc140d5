//! What mapped weights take, and what becomes of it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use candle_core::Tensor;
use malloc_stats::page_cache;
use plimsoll_cache::storage::{Advice, Mapping};
use plimsoll_cache::{Model, Storage};
use plimsoll_events::Kind;

use crate::support::{Folder, MIB, anonymous_rss, cache, content, verify};
use crate::{dropping, file_with_data_off_by, mapped, turn};

/// Bytes of a file in the page cache; what was just written is written out first, as only clean
/// pages can be dropped.
fn cached(model: &Model) -> u64 {
    let file = File::open(model.path()).unwrap();
    page_cache::cached(&file, file.metadata().unwrap().len()).unwrap()
}

fn written_out(model: &Model) {
    File::open(model.path()).unwrap().sync_all().unwrap();
}

#[test]
fn every_tensor_of_an_aligned_file_is_a_view_of_it() {
    let _turn = turn();
    let folder = Folder::new();
    let path = folder.path().join("a.safetensors");
    let parts: Vec<(String, Vec<u8>)> = (0..32)
        .map(|n| (format!("t{n:03}"), content("a", n, 2 << 20)))
        .collect();
    let tensors: Vec<(&str, &str, Vec<usize>, Vec<u8>)> = parts
        .iter()
        .map(|(name, data)| (&**name, "F16", vec![data.len() / 2], data.clone()))
        .collect();
    file_with_data_off_by(&path, 0, &tensors);
    drop(tensors);
    drop(parts);
    let model = Model::open(&path).unwrap();
    let (cache, kept) = cache(|builder| mapped(builder.ram(80 * MIB)));
    let before = anonymous_rss();
    let lease = cache.lease([&model]).unwrap();
    let weights = lease.get(&model).unwrap();
    let names = weights.tensors().iter().map(|tensor| &*tensor.name);
    let views: Vec<Tensor> = names.map(|name| weights.tensor(name).unwrap()).collect();
    let sum: f64 = views.iter().map(|view| view.elem_count() as f64).sum();
    assert_eq!(sum as u64 * 2, model.bytes());
    assert!(anonymous_rss() < before + MIB, "it was copied");
    verify(&lease, &model);
    cache.tell_hits();
    let copied = |kind: &Kind| matches!(kind, Kind::Tally(tally) if tally.copied_tensors > 0);
    assert!(!kept.kinds().iter().any(copied));
}

#[test]
fn what_is_not_aligned_is_copied_and_counted() {
    let folder = Folder::new();
    let path = folder.path().join("a.safetensors");
    // Off by one byte, all but the bytes; then all is well again.
    for (off, copied_tensors) in [(1, 2), (2, 1), (4, 0)] {
        let data: Vec<Vec<u8>> = (0..3).map(|n| content("a", n, 4096)).collect();
        file_with_data_off_by(
            &path,
            off,
            &[
                ("t000", "F32", vec![1024], data[0].clone()),
                ("t001", "F16", vec![2048], data[1].clone()),
                ("t002", "U8", vec![4096], data[2].clone()),
            ],
        );
        let model = Model::open(&path).unwrap();
        let (cache, kept) = cache(|builder| mapped(builder.ram(MIB)));
        let lease = cache.lease([&model]).unwrap();
        verify(&lease, &model);
        for tensor in model.tensors() {
            lease.get(&model).unwrap().tensor(&tensor.name).unwrap();
        }
        verify(&lease, &model);
        cache.tell_hits();
        let copied: u64 = kept
            .kinds()
            .iter()
            .filter_map(|kind| match kind {
                Kind::Tally(tally) => Some(tally.copied_tensors),
                _ => None,
            })
            .sum();
        assert_eq!(copied, copied_tensors, "off by {off}");
    }
}

#[test]
fn all_storages_read_the_same_from_mixed_files() {
    let folder = Folder::new();
    let model = folder.model("mixed", 9 * MIB);
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        for advice in [
            Advice::None,
            Advice::Sequential,
            Advice::WillNeed,
            Advice::Populate,
        ] {
            let mapping = Mapping {
                advice,
                ..Mapping::default()
            };
            let (cache, _) = cache(|b| b.ram(16 * MIB).storage(storage).mapping(mapping));
            verify(&cache.lease([&model]).unwrap(), &model);
        }
    }
}

#[test]
fn what_counts_covers_every_page_and_is_given_back() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 5 * MIB);
    let (cache, kept) = cache(|builder| mapped(builder.ram(8 * MIB)));
    let lease = cache.lease([&model]).unwrap();
    let used = cache.usage().used_bytes;
    assert!(used >= model.bytes() && used < model.bytes() + 64 * 1024);
    assert_eq!(used, Storage::Mapped.charge(&model));
    verify(&lease, &model);
    drop(lease);
    assert!(cache.evict(&model));
    assert_eq!(cache.usage().used_bytes, 0);
    let evicted = &kept.evictions()[0];
    let left = evicted.page_cache.unwrap();
    assert!(left.mapped_bytes > 0 && left.resident.bytes() >= Some(model.bytes() / 2));
    assert_eq!(
        left.left,
        Some(left.resident),
        "kept, unless asked otherwise"
    );
    assert!(cached(&model) >= model.bytes());
}

#[test]
fn pages_are_dropped_from_the_page_cache_where_that_is_asked_for() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 5 * MIB);
    written_out(&model);
    let (cache, kept) = cache(|builder| dropping(builder.ram(8 * MIB)));
    verify(&cache.lease([&model]).unwrap(), &model);
    assert!(cached(&model) >= model.bytes());
    assert!(cache.evict(&model));
    let left = kept.evictions()[0].page_cache.unwrap();
    // The page of the header may stay.
    let bound = 64 * 1024;
    assert!(left.left.unwrap().bytes() <= Some(bound), "{left:?}");
    assert!(cached(&model) <= bound, "{}", cached(&model));
    verify(&cache.lease([&model]).unwrap(), &model);
}

#[test]
fn a_tensor_outlives_its_lease_and_its_file_and_the_pages_go_with_it() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 5 * MIB);
    written_out(&model);
    let (cache, kept) = cache(|builder| dropping(builder.ram(8 * MIB)));
    let lease = cache.lease([&model]).unwrap();
    let tensor = lease.get(&model).unwrap().tensor("t000").unwrap();
    drop(lease);
    assert!(cache.evict(&model));
    let left = kept.evictions()[0].page_cache.unwrap();
    assert_eq!(left.left, None, "it is still mapped");
    let held = cache.usage().held_bytes;
    assert!(held > 0);
    let bytes: Vec<u8> = tensor
        .to_vec1::<half::f16>()
        .unwrap()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    assert_eq!(bytes, content("a", 0, bytes.len()));
    let spare = File::open(model.path()).unwrap();
    std::fs::remove_file(model.path()).unwrap();
    drop(tensor);
    assert_eq!(cache.usage().used_bytes, 0);
    let size = spare.metadata().unwrap().len();
    assert!(page_cache::cached(&spare, size).unwrap() <= 64 * 1024);
    let mut byte = [0];
    spare.read_exact_at(&mut byte, 0).unwrap();
}

#[test]
fn a_thousand_loads_leave_no_mapping_and_no_descriptor() {
    let _turn = turn();
    let folder = Folder::new();
    let models: Vec<Model> = ["a", "b", "c"].map(|n| folder.model(n, MIB)).into();
    let (cache, _) = cache(|builder| mapped(builder.ram(5 * MIB / 2)));
    let count = |path: &str| match path {
        // Tests beside this one open files of their own.
        "fd" => std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .filter(|file| file.starts_with(folder.path()))
            .count(),
        _ => std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .count(),
    };
    for round in 0..20 {
        drop(cache.lease([&models[round % 3]]).unwrap());
    }
    let (descriptors, mappings) = (count("fd"), count("maps"));
    for round in 0..1000 {
        drop(cache.lease([&models[round % 3]]).unwrap());
    }
    assert!(count("fd") <= descriptors + 2, "{}", count("fd"));
    assert!(count("maps") <= mappings + 8, "{}", count("maps"));
}
