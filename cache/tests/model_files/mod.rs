//! Files of models, sound and otherwise, made byte by byte.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll_cache::model::{Model, OpenError};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// The bytes of a file: the length of `header`, `header`, and `data` bytes that count up.
pub fn raw(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend((0..data).map(|at| at as u8));
    bytes
}

/// Writes `bytes` to `name` in `folder`, making folders on the way.
pub fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

/// The bytes that the safetensors crate writes for these tensors of zeros.
pub fn sound(tensors: &[(&str, Dtype, &[usize])]) -> Vec<u8> {
    let zeros = vec![0; 1 << 16];
    let views = tensors.iter().map(|(name, dtype, shape)| {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let view = TensorView::new(*dtype, shape.to_vec(), &zeros[..bytes]).unwrap();
        ((*name).to_owned(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// An index of a sharded model.
pub fn index(weights: &[(&str, &str)]) -> String {
    let map: serde_json::Map<String, serde_json::Value> = weights
        .iter()
        .map(|(name, shard)| ((*name).to_owned(), (*shard).into()))
        .collect();
    serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string()
}

/// The error of opening `path`, once it is seen to name the path and to hold each of `words`, and
/// to be on one line.
#[track_caller]
pub fn refused(path: &Path, words: &[&str]) -> OpenError {
    let error = match Model::open(path) {
        Ok(model) => panic!("{} was opened: {model:?}", path.display()),
        Err(error) => error,
    };
    let message = error.to_string();
    assert!(
        message.contains(&path.display().to_string()),
        "no path: {message}"
    );
    assert!(
        !message.contains(char::is_control),
        "not on one line: {message:?}"
    );
    for word in words {
        assert!(message.contains(word), "no {word:?}: {message}");
    }
    error
}
