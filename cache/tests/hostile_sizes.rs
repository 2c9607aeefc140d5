//! Sparse files can claim any size: sums of such sizes are errors with numbers, not overflows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::path::Path;

use plimsoll_cache::{Error, LoadError, Model, Storage};
use safetensors::tensor::{Dtype, TensorView};
use support::{MIB, cache};

/// A model of three tensors that claim 2 EiB each; `None` where the file system has no such files.
fn sparse(folder: &Path, name: &str) -> Option<Model> {
    const EACH: u64 = (1 << 61) - MIB;
    let path = folder.join(format!("{name}.safetensors"));
    let tensors = [0, 1, 2].map(|n| {
        let (at, end) = (n * EACH, (n + 1) * EACH);
        format!(r#""t{n:03}":{{"dtype":"U8","shape":[{EACH}],"data_offsets":[{at},{end}]}}"#)
    });
    let header = format!("{{{}}}", tensors.join(","));
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + 3 * EACH).ok()?;
    Some(Model::open(path).unwrap())
}

#[test]
fn models_whose_sizes_add_up_beyond_numbers_exceed_every_budget() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let models: Option<Vec<Model>> = (0..3)
        .map(|n| sparse(folder.path(), &format!("m{n}")))
        .collect();
    let Some(models) = models else { return };
    for storage in [Storage::Heap, Storage::Anonymous] {
        for budget in [8 * MIB, u64::MAX] {
            let (cache, _) = cache(|builder| builder.ram(budget).storage(storage));
            let error = cache.lease(&models).unwrap_err();
            assert!(matches!(error, Error::ExceedsBudget { .. }), "{error}");
            let error = cache.lease([&models[0]]).unwrap_err();
            match (&error, budget) {
                (Error::ExceedsBudget { .. }, budget) => assert!(budget < u64::MAX),
                (Error::Load(load), u64::MAX) => {
                    assert!(matches!(**load, LoadError::Memory { .. }), "{error}");
                }
                _ => panic!("{error}"),
            }
            assert_eq!(cache.usage().used_bytes, 0);
        }
    }
}

#[test]
fn a_model_without_tensors_or_with_empty_ones_is_a_model() {
    let folder = support::Folder::new();
    let none: [(&str, TensorView); 0] = [];
    let empty = ["t000", "t001"].map(|name| {
        let view = TensorView::new(Dtype::F32, vec![0, 7], &[]).unwrap();
        (name, view)
    });
    let path = |name| folder.path().join(name);
    safetensors::serialize_to_file(none, None, &path("none.safetensors")).unwrap();
    safetensors::serialize_to_file(empty, None, &path("empty.safetensors")).unwrap();
    let models =
        ["none.safetensors", "empty.safetensors"].map(|name| Model::open(path(name)).unwrap());
    for storage in [Storage::Heap, Storage::Anonymous] {
        let (cache, _) = cache(|builder| builder.ram(MIB).storage(storage));
        let lease = cache.lease(&models).unwrap();
        let weights = lease.get(&models[1]).unwrap();
        assert!(weights.bytes("t001").unwrap().is_empty());
        let tensor = weights.tensor("t000").unwrap();
        assert_eq!(tensor.dims(), [0, 7]);
        drop(lease);
        assert_eq!(cache.clear().evicted.len(), 2);
        assert_eq!(cache.usage().used_bytes, 0, "an empty tensor holds nothing");
        drop(tensor);
    }
}

#[test]
fn a_model_of_very_many_tensors_loads_and_is_evicted() {
    let folder = support::Folder::new();
    let count = 100_000;
    let path = folder.path().join("many.safetensors");
    let entries: Vec<String> = (0..count)
        .map(|n| {
            let (at, end) = (n * 3, n * 3 + 3);
            format!(r#""t{n:06}":{{"dtype":"U8","shape":[3],"data_offsets":[{at},{end}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..count * 3).map(|byte| (byte / 3) as u8));
    std::fs::write(&path, bytes).unwrap();
    let model = Model::open(path).unwrap();
    for storage in [Storage::Heap, Storage::Anonymous] {
        let (cache, _) = cache(|builder| builder.ram(32 * MIB).storage(storage));
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        for n in (0..count).step_by(17) {
            assert_eq!(*weights.bytes(&format!("t{n:06}")).unwrap(), [n as u8; 3]);
        }
        drop(lease);
        assert!(cache.evict(&model));
        assert_eq!(cache.usage().used_bytes, 0);
    }
}
