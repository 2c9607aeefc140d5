//! PyTorch checkpoints, sound and otherwise, made byte by byte as `torch.save` makes them.
//!
//! The three files beside this one were written by PyTorch 2; they come with candle-core 0.11.1
//! (`candle-core/tests`, MIT or Apache-2.0).

#![allow(dead_code, clippy::unwrap_used)]

use std::path::Path;

use plimsoll_cache::Model;
use plimsoll_cache::model::{OpenError, TorchFault};

pub mod pickle;
pub mod zip;

pub use pickle::{Pickler, Saved};
pub use zip::Zip;

/// A checkpoint of tensors, and the bytes of each storage.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    pub tensors: Vec<Saved>,
    pub storages: Vec<(String, Vec<u8>)>,
}

impl Checkpoint {
    /// Tensors of every type that has a storage of its own, of several shapes.
    pub fn of_every_type() -> Checkpoint {
        Checkpoint::default()
            .with("f32", "FloatStorage", &[3, 5])
            .with("f16", "HalfStorage", &[7])
            .with("bf16", "BFloat16Storage", &[2, 1, 3])
            .with("f64", "DoubleStorage", &[2, 2])
            .with("i64", "LongStorage", &[])
            .with("i32", "IntStorage", &[300])
            .with("i16", "ShortStorage", &[1, 1])
            .with("i8", "CharStorage", &[9])
            .with("u8", "ByteStorage", &[70_000])
            .with("bool", "BoolStorage", &[4])
            .with("c64", "ComplexFloatStorage", &[2])
            .with("none", "FloatStorage", &[0, 3])
            .with("deep", "HalfStorage", &[1, 2, 1, 2, 3])
    }

    /// Adds a tensor with a storage of its own.
    pub fn with(mut self, name: &str, of: &'static str, shape: &[u64]) -> Checkpoint {
        let key = self.storages.len().to_string();
        let tensor = Saved::new(name, of, &key, shape);
        let bytes = tensor.count * pickle::bytes_of(of);
        let seed = self.storages.len() as u64 + 1;
        let data = (0..bytes).map(|at| ((at + 1) * seed * 37 % 251) as u8);
        self.storages.push((key, data.collect()));
        self.tensors.push(tensor);
        self
    }

    /// Adds another tensor in the storage of the last.
    pub fn view(mut self, name: &str, first: u64, shape: &[u64]) -> Checkpoint {
        let last = self.tensors.last().unwrap();
        let mut tensor = Saved::new(name, last.of, &last.key, shape);
        tensor.count = last.count;
        tensor.first = first;
        self.tensors.push(tensor);
        self
    }

    pub fn pickle(&self) -> Vec<u8> {
        let mut pickler = Pickler::default();
        pickler.state_dict(&self.tensors);
        pickler.end()
    }

    pub fn zip(&self) -> Zip {
        Zip::around(&self.pickle(), &self.storages)
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.zip().bytes()
    }

    /// What the bytes of a tensor are.
    pub fn content(&self, name: &str) -> &[u8] {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name);
        let tensor = tensor.unwrap();
        let mut storages = self.storages.iter();
        let (_, storage) = storages.find(|(key, _)| *key == tensor.key).unwrap();
        let size = pickle::bytes_of(tensor.of) as usize;
        let count: u64 = tensor.shape.iter().product();
        &storage[tensor.first as usize * size..][..count as usize * size]
    }
}

/// A model of these bytes, in a folder that goes away at the end.
pub fn open(bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    std::fs::write(&path, bytes).unwrap();
    let model = Model::open(path).unwrap();
    (folder, model)
}

/// The fault that `bytes` are refused for as a model, once its message is seen to name the file and
/// to hold each of `words`, on one line.
#[track_caller]
pub fn fault(bytes: impl AsRef<[u8]>, words: &[&str]) -> TorchFault {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pt");
    std::fs::write(&path, bytes).unwrap();
    fault_at(&path, words)
}

#[track_caller]
pub fn fault_at(path: &Path, words: &[&str]) -> TorchFault {
    let error = match Model::open(path) {
        Ok(model) => panic!("{} was opened: {model:?}", path.display()),
        Err(error) => error,
    };
    let message = error.to_string();
    assert!(
        message.contains(path.to_str().unwrap()),
        "no path: {message}"
    );
    assert!(!message.contains(char::is_control), "{message:?}");
    for word in words {
        assert!(message.contains(word), "no {word:?}: {message}");
    }
    match error {
        OpenError::Torch { fault, .. } => *fault,
        other => panic!("not of a checkpoint: {other:?}"),
    }
}
