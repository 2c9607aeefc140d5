//! Files that change while they are read.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll_cache::{Cache, Error, LoadError, LoadObserver, Model, Storage};
use support::{Folder, MIB, cache};

/// Does something to a file once the first bytes of it were read.
struct Meanwhile {
    path: PathBuf,
    act: fn(&PathBuf),
    read: AtomicU64,
}

impl LoadObserver for Meanwhile {
    fn bytes_read(&self, bytes: u64) {
        if self.read.fetch_add(bytes, Ordering::SeqCst) == 0 {
            (self.act)(&self.path);
        }
    }
}

fn load_while(storage: Storage, act: fn(&PathBuf)) -> Result<(), Arc<LoadError>> {
    let folder = Folder::new();
    let path = folder.file("a", 20 * MIB);
    // The times of files move in ticks of the kernel's clock.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let model = Model::open(&path).unwrap();
    let read = AtomicU64::new(0);
    let cache = Cache::builder()
        .ram(32 * MIB)
        .storage(storage)
        .observer(Arc::new(Meanwhile { path, act, read }))
        .build()
        .unwrap();
    let result = match cache.lease([&model]) {
        Ok(_) => Ok(()),
        Err(Error::Load(error)) => Err(error),
        Err(other) => panic!("{other}"),
    };
    cache.clear();
    assert_eq!(cache.usage().used_bytes, 0);
    result
}

#[test]
fn a_file_overwritten_while_it_is_read_is_an_error_and_not_mixed_weights() {
    for storage in [Storage::Heap, Storage::Anonymous] {
        let error = load_while(storage, |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_at(b"other weights", 19 * MIB).unwrap();
        });
        assert!(matches!(*error.unwrap_err(), LoadError::Open(_)));
    }
}

#[test]
fn a_file_cut_while_it_is_read_is_an_error() {
    for storage in [Storage::Heap, Storage::Anonymous] {
        let error = load_while(storage, |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(MIB).unwrap();
        });
        assert!(matches!(*error.unwrap_err(), LoadError::Truncated { .. }));
    }
}

#[test]
fn a_file_deleted_or_replaced_while_it_is_read_is_read_to_its_end() {
    for act in [
        (|path| std::fs::remove_file(path).unwrap()) as fn(&PathBuf),
        |path| {
            let other = path.with_extension("other");
            std::fs::write(&other, "other").unwrap();
            std::fs::rename(other, path).unwrap();
        },
    ] {
        load_while(Storage::Anonymous, act).unwrap();
    }
}

/// Has a deep stack, as drawing a progress bar may.
struct Deep;

impl LoadObserver for Deep {
    fn bytes_read(&self, bytes: u64) {
        let mut frame = [0_u8; 512 << 10];
        frame[bytes as usize % frame.len()] = 1;
        std::hint::black_box(&mut frame);
    }
}

#[test]
fn an_observer_has_an_ordinary_stack_on_every_reader() {
    let folder = Folder::new();
    let model = folder.model("a", 70 * MIB);
    let cache = Cache::builder()
        .ram(100 * MIB)
        .observer(Arc::new(Deep))
        .build()
        .unwrap();
    cache.lease([&model]).unwrap();
}

#[test]
fn a_file_that_is_gone_costs_no_other_model_its_place() {
    let folder = Folder::new();
    let (good, dead) = (folder.model("good", MIB), folder.model("dead", MIB));
    let (cache, kept) = cache(|builder| builder.ram(3 * MIB / 2));
    drop(cache.lease([&good]).unwrap());
    std::fs::remove_file(dead.path()).unwrap();
    assert!(matches!(cache.lease([&dead]), Err(Error::Load(_))));
    assert_eq!(cache.usage().resident_models, 1);
    let failed = kept
        .kinds()
        .into_iter()
        .filter(|kind| matches!(kind, plimsoll_events::Kind::Load(load) if load.error.is_some()));
    assert_eq!(failed.count(), 1, "the failure is told");
}
