//! Mapped weights whose file is cut short by another process, with the guard of `SIGBUS`.
//!
//! A model of 64 MiB is cut 50 times. `PLIMSOLL_TEST_CUT_MIB` and `PLIMSOLL_TEST_CUTS` ask for more:
//! twice the size is needed in memory, and twice on disk.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plimsoll_cache::{Cache, Error, Lease, Mapping, Model, Storage};
use support::{Folder, MIB, cache, contents, until, verify};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const READERS: usize = 4;

/// The tests here count this process's mappings, so they take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn asked(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect(variable),
        Err(_) => otherwise,
    }
}

fn guarded(ram: u64) -> Cache {
    let mapping = Mapping {
        guard: true,
        // Wherever temporary files are here, this is about mappings.
        anywhere: true,
        ..Mapping::default()
    };
    cache(|builder| builder.ram(ram).storage(Storage::Mapped).mapping(mapping)).0
}

/// Has another process cut a file.
fn cut(path: &Path, bytes: u64) {
    let mut truncate = Command::new("truncate");
    let status = truncate.arg("-s").arg(bytes.to_string()).arg(path).status();
    assert!(status.expect("truncate(1), of coreutils").success());
}

/// Mappings and descriptors of this process.
fn held() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    (maps.lines().count(), descriptors.count())
}

/// Reads all tensors of a model once. Whatever is not as it was made, the lease has to tell of.
fn read_all(lease: &Lease, model: &Model, reader: usize, expected: &[Vec<u8>]) {
    let weights = lease.get(model).unwrap();
    let tensors = weights.tensors();
    for step in 0..tensors.len() {
        // Each begins elsewhere, so that they meet missing pages at once.
        let index = (step + reader * tensors.len() / READERS) % tensors.len();
        let bytes = weights.bytes(&tensors[index].name).unwrap();
        let sound = *bytes == expected[index][..];
        assert!(sound || lease.check().is_err(), "tensor {index} in silence");
    }
}

/// Reads a model with four threads while another process cuts its file.
fn cut_while_read(lease: &Lease, model: &Model, expected: &[Vec<u8>], bytes: u64) {
    let (passes, was_cut) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (passes, was_cut) = (&passes, &was_cut);
            scope.spawn(move || {
                loop {
                    let last = was_cut.load(Ordering::SeqCst);
                    read_all(lease, model, reader, expected);
                    passes.fetch_add(1, Ordering::SeqCst);
                    if last {
                        return;
                    }
                }
            });
        }
        until("a model is read", || passes.load(Ordering::SeqCst) > 0);
        cut(model.path(), bytes);
        was_cut.store(true, Ordering::SeqCst);
    });
}

/// That a lease says what became of its file.
fn says_poisoned(lease: &Lease, bytes: u64) {
    match lease.check() {
        Err(Error::Poisoned { what, .. }) => {
            assert!(what.contains("was cut short"), "{what}");
            assert!(what.contains(&format!("to {bytes} bytes")), "{what}");
            assert!(what.contains("been read as zeros"), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mapped_model_that_is_cut_again_and_again_harms_nobody() {
    let _turn = turn();
    let bytes = asked("PLIMSOLL_TEST_CUT_MIB", 64) * MIB;
    let folder = Folder::new();
    let path = folder.file("cut", bytes);
    let pristine = folder.path().join("pristine");
    std::fs::rename(&path, &pristine).unwrap();
    let other = folder.model("other", 8 * MIB);
    std::fs::copy(&pristine, &path).unwrap();
    let expected = contents(&Model::open(&path).unwrap());
    let cache = guarded(bytes + 16 * MIB);
    let mut at_first = None;
    for round in 0..asked("PLIMSOLL_TEST_CUTS", 50) {
        std::fs::copy(&pristine, &path).unwrap();
        let model = Model::open(&path).unwrap();
        let lease = cache.lease([&model, &other]).unwrap();
        read_all(&lease, &model, 0, &expected);
        lease.check().unwrap();
        // To nothing, inside a page, between two pages, and nearly to its end.
        let size = std::fs::metadata(&path).unwrap().len();
        let left = [0, (size / 3) | 1, size / 2 / 4096 * 4096, size - 8192][round as usize % 4];
        cut_while_read(&lease, &model, &expected, left);
        says_poisoned(&lease, left);
        verify(&lease, &other);
        drop(lease);
        cache
            .lease([&model])
            .expect_err("the file is not what was opened");
        assert_eq!(cache.usage().resident_models, 1, "the other one");
        // Threads and allocators have their mappings by the second round.
        if round == 1 {
            at_first = Some(held());
        }
    }
    if let Some((mappings, descriptors)) = at_first {
        let now = held();
        assert_eq!(now.1, descriptors);
        // The C library may keep a stack more or less.
        assert!(
            now.0 <= mappings + 8,
            "{} mappings, {mappings} at first",
            now.0
        );
    }
    std::fs::copy(&pristine, &path).unwrap();
    let model = Model::open(&path).unwrap();
    let lease = cache.lease([&model, &other]).unwrap();
    read_all(&lease, &model, 0, &expected);
    verify(&lease, &other);
    lease.check().unwrap();
}

#[test]
fn a_tensor_that_outlives_its_lease_is_guarded_for_as_long_as_it_lives() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 8 * MIB);
    let cache = guarded(16 * MIB);
    let lease = cache.lease([&model]).unwrap();
    let weights = lease.get(&model).unwrap();
    let names = weights.tensors().iter().map(|tensor| &tensor.name);
    let tensors: Vec<_> = names.map(|name| weights.tensor(name).unwrap()).collect();
    drop(lease);
    cache.clear();
    cut(model.path(), 0);
    for tensor in &tensors {
        let bytes = tensor.flatten_all().unwrap();
        let bytes = bytes.to_dtype(candle_core::DType::F32).unwrap();
        let all = bytes.to_vec1::<f32>().unwrap();
        assert!(all.iter().all(|value| *value == 0.0));
    }
    drop(tensors);
    cache.clear();
    assert_eq!(cache.usage().used_bytes, 0);
}

#[test]
fn a_lease_that_nobody_has_read_tells_of_a_cut_as_well() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", MIB);
    let cache = guarded(4 * MIB);
    let lease = cache.lease([&model]).unwrap();
    let weights = lease.get(&model).unwrap();
    lease.check().unwrap();
    cut(model.path(), MIB / 2);
    match lease.check() {
        Err(Error::Poisoned { what, .. }) => {
            assert!(what.contains("to 524288 bytes"), "{what}");
            assert!(what.contains("may have been read as zeros"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    let (expected, tensors) = (contents(&model), weights.tensors());
    let is_sound =
        |index: usize| *weights.bytes(&tensors[index].name).unwrap() == expected[index][..];
    assert!(!(0..tensors.len()).all(is_sound));
    says_poisoned(&lease, MIB / 2);
}

#[test]
fn a_tensor_that_outlives_its_cache_is_guarded_too() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 8 * MIB);
    let cache = guarded(16 * MIB);
    let lease = cache.lease([&model]).unwrap();
    let tensor = lease.get(&model).unwrap().tensor("t000").unwrap();
    drop((lease, cache));
    cut(model.path(), 0);
    let all = tensor.to_dtype(candle_core::DType::F32).unwrap();
    let all = all.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(all.iter().all(|value| *value == 0.0));
}
