//! Merged tensors that are computed in several pieces, by several threads, through staging.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::patch::{Base, Factors, Patch, Strictness, Term, merged};
use plimsoll_cache::{Cache, Error, LoadObserver, Model, Storage, Tier};
use safetensors::Dtype;
use tempfile::TempDir;

use super::definitions::numbers;
use super::files::{File, KOHYA, folder};
use super::support::MIB;

/// Tensors whose bytes are no multiple of the next one's elements, each in a file of its own, so
/// that they lie in that order.
fn odd(folder: &TempDir) -> Model {
    let mut map = serde_json::Map::new();
    let shapes: [(&str, Dtype, [usize; 2]); 3] = [
        ("a", Dtype::F16, [1, 3]),
        ("b", Dtype::F32, [700, 601]),
        ("c", Dtype::BF16, [333, 1111]),
    ];
    for (name, dtype, shape) in shapes {
        let numbers = numbers(dtype, name, shape[0] * shape[1]);
        let tensor = format!("{name}.weight");
        File::new()
            .with(&tensor, dtype, &shape, &numbers)
            .save(folder.path(), name);
        map.insert(tensor, format!("{name}.safetensors").into());
    }
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    let path = folder.path().join("odd.safetensors.index.json");
    std::fs::write(&path, index.to_string()).unwrap();
    Model::open(path).unwrap()
}

fn for_odd(folder: &TempDir) -> Patch {
    let shapes = [("a", 1, 3), ("b", 700, 601), ("c", 333, 1111)];
    let file = shapes
        .iter()
        .fold(File::new(), |file, (name, out, inputs)| {
            let down = numbers(Dtype::F16, "down", *inputs);
            let up = numbers(Dtype::F16, "up", *out);
            let module = format!("lora_unet_{name}");
            file.with(
                &format!("{module}{}", KOHYA[0]),
                Dtype::F16,
                &[1, *inputs],
                &down,
            )
            .with(
                &format!("{module}{}", KOHYA[1]),
                Dtype::F16,
                &[*out, 1],
                &up,
            )
        });
    file.patch(folder, "odd-lora")
}

#[test]
fn no_piece_ends_within_an_element() {
    let folder = folder();
    let (model, patch) = (odd(&folder), for_odd(&folder));
    let fit = patch.fit(&model, Strictness::Strict).unwrap();
    assert_eq!(fit.edits.len(), 3);
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        // Little staging makes many pieces.
        for ram in [16 * MIB, MIB / 4] {
            let gpu = Arc::new(Simulated::new(16 * MIB));
            let cache = Cache::builder()
                .ram(ram)
                .storage(storage)
                .device(Arc::clone(&gpu), 16 * MIB)
                .build()
                .unwrap();
            for tier in [gpu.tier(), Tier::RAM] {
                if tier == Tier::RAM && ram < MIB {
                    continue;
                }
                let wanted = model.on(tier).with(&patch, 0.7).merged();
                let lease = cache.lease([wanted]).unwrap();
                let leased = lease.get(&model).unwrap();
                for edit in &fit.edits {
                    let tensor = &model.tensors()[edit.target];
                    let file = &model.files()[tensor.file as usize].path;
                    let bytes = std::fs::read(file).unwrap();
                    let from = tensor.offset as usize;
                    let base = Base {
                        dtype: tensor.dtype,
                        shape: &tensor.shape,
                        bytes: &bytes[from..from + tensor.bytes as usize],
                    };
                    let factors = Factors::read(&patch, &edit.change).unwrap();
                    let term = Term {
                        factors: &factors,
                        strength: 0.7,
                    };
                    let wanted = merged(base, &[term]).unwrap().bytes;
                    assert!(
                        *leased.bytes(&tensor.name).unwrap() == wanted[..],
                        "{storage}"
                    );
                }
            }
        }
    }
}

/// Keeps what was read, and has reads of one file fail.
#[derive(Default)]
struct Watching {
    files: Mutex<Vec<String>>,
    broken: Mutex<Option<String>>,
}

impl LoadObserver for Watching {
    fn before_read(&self, path: &Path, _: u64, bytes: u64) -> std::io::Result<()> {
        assert!(bytes > 0, "nothing is read of {}", path.display());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_broken = self.broken.lock().unwrap().as_ref() == Some(&name);
        self.files.lock().unwrap().push(name);
        match is_broken {
            true => Err(std::io::Error::other("a bad sector")),
            false => Ok(()),
        }
    }
}

#[test]
fn a_disk_that_fails_under_a_patch_is_an_error_and_nothing_counts() {
    let folder = folder();
    let (model, patch) = (odd(&folder), for_odd(&folder));
    for (file, way) in [("odd-lora", true), ("b", true), ("odd-lora", false)] {
        let watching = Arc::new(Watching::default());
        let cache = Cache::builder()
            .ram(16 * MIB)
            .observer(Arc::<Watching>::clone(&watching))
            .build()
            .unwrap();
        // The base is there already.
        drop(cache.lease([&model]).unwrap());
        let used = cache.usage().used_bytes;
        *watching.broken.lock().unwrap() = Some(file.to_owned());
        let wanted = || {
            let wanted = model.on(Tier::RAM).with(&patch, 0.7);
            if way {
                wanted.merged()
            } else {
                wanted.beside()
            }
        };
        let error = cache.lease([wanted()]).unwrap_err();
        assert!(matches!(error, Error::Load(_)), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("a bad sector") && text.contains(file),
            "{text}"
        );
        assert_eq!(cache.usage().used_bytes, used);
        assert_eq!(cache.usage().pinned_bytes, 0);
        *watching.broken.lock().unwrap() = None;
        let lease = cache.lease([wanted()]).unwrap();
        assert_eq!(lease.get(&model).unwrap().is_merged(), Some(way));
        let read = watching.files.lock().unwrap();
        assert!(read.contains(&"odd-lora".to_owned()), "{read:?}");
    }
}

#[test]
fn rows_that_are_appended_to_a_tensor_of_several_pieces_come_last() {
    let folder = folder();
    let words = "text_model.embeddings.token_embedding.weight";
    let old = numbers(Dtype::F16, "words", 9_001 * 77);
    let new = numbers(Dtype::F32, "new", 20_000 * 77);
    let model = File::new()
        .with(words, Dtype::F16, &[9_001, 77], &old)
        .model(&folder, "clip");
    let patch = File::new()
        .with("emb_params", Dtype::F32, &[20_000, 77], &new)
        .patch(&folder, "embedding");
    // It is larger than what it changes.
    assert!(patch.model().bytes() > model.bytes());
    let gpu = Arc::new(Simulated::new(16 * MIB));
    let cache = |ram: u64| {
        let builder = Cache::builder().ram(ram);
        let builder = builder.device(Arc::clone(&gpu), 16 * MIB);
        builder.build().unwrap()
    };
    let wanted = || model.on(gpu.tier()).with(&patch, 0.5).merged();
    // The patch's own numbers are in RAM while it is merged, and count.
    let refused = cache(MIB).lease([wanted()]).unwrap_err();
    assert!(
        matches!(&refused, Error::ExceedsBudget { tier, .. } if tier == "ram"),
        "{refused}"
    );
    let (cache, wanted) = (cache(16 * MIB), wanted());
    let lease = cache.lease([wanted]).unwrap();
    let leased = lease.get(&model).unwrap();
    assert_eq!(&*leased.info(words).unwrap().shape, [29_001, 77]);
    assert_eq!(leased.tensor(words).unwrap().dims(), [29_001, 77]);
    let half: Vec<f64> = new.iter().map(|x| x * 0.5).collect();
    let wanted = [
        super::files::encode(Dtype::F16, &old),
        super::files::encode(Dtype::F16, &half),
    ];
    assert!(*leased.bytes(words).unwrap() == wanted.concat()[..]);
}
