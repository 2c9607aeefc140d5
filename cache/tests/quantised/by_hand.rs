//! Files that candle cannot write: tied tensors, odd alignments, types that are not quantised.

use std::sync::Arc;

use candle_core::Module;
use candle_core::quantized::{QMatMul, QTensor};
use plimsoll_cache::{Error, Model, Storage};

use crate::support::Folder;
use crate::{STORAGES, cache, numbers};

#[test]
fn what_is_not_quantised_is_refused_by_name_and_type() {
    let folder = Folder::new();
    let path = folder.path().join("m.gguf");
    std::fs::write(
        &path,
        by_hand(&[("integers", 26, &[8]), ("scalar", 0, &[])], 32),
    )
    .unwrap();
    let gguf = Model::open(path).unwrap();
    let (cache, _) = cache(Storage::Anonymous);
    let lease = cache.lease([&gguf]).unwrap();
    let weights = lease.get(&gguf).unwrap();
    for (name, word) in [("integers", "I32"), ("scalar", "no dimensions")] {
        let error = weights.quantised(name).unwrap_err();
        assert!(matches!(error, Error::NotATensor { .. }));
        let message = error.to_string();
        assert!(
            message.contains(name) && message.contains(word),
            "{message}"
        );
        assert!(weights.tensor(name).is_ok());
    }
    let error = weights.quantised("gone").unwrap_err();
    assert!(matches!(error, Error::NoTensor { .. }));
}

/// A file of these tensors, of type and dimensions, one behind the other.
fn by_hand(tensors: &[(&str, u32, &[u64])], alignment: u32) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    text(&mut bytes, "general.alignment");
    bytes.extend([4_u32, alignment].map(u32::to_le_bytes).as_flattened());
    let mut end = 0_u64;
    for (name, id, dimensions) in tensors {
        text(&mut bytes, name);
        bytes.extend((dimensions.len() as u32).to_le_bytes());
        dimensions
            .iter()
            .for_each(|dimension| bytes.extend(dimension.to_le_bytes()));
        bytes.extend(id.to_le_bytes());
        end = end.next_multiple_of(alignment.into());
        bytes.extend(end.to_le_bytes());
        let elements: u64 = dimensions.iter().product();
        end += match id {
            8 => elements / 32 * 34,
            24 => elements,
            _ => elements * 4,
        };
    }
    bytes.resize(bytes.len().next_multiple_of(alignment as usize), 0);
    // No infinities, and no numbers that are none.
    bytes.extend((0..end).map(|at| (at % 60) as u8));
    bytes
}

#[test]
fn misaligned_blocks_are_copied_once_and_compute_the_same() {
    let folder = Folder::new();
    let tensors: [(&str, u32, &[u64]); 4] = [
        ("odd", 24, &[1]),
        ("blocks", 8, &[64, 4]),
        ("numbers", 0, &[64, 4]),
        ("empty", 8, &[0, 4]),
    ];
    let path = folder.path().join("m.gguf");
    // Whichever length its header has, one of these is misaligned.
    let bytes = by_hand(&tensors, 1);
    std::fs::write(&path, &bytes).unwrap();
    let model = Model::open(&path).unwrap();
    let aligned = model.tensors().iter().filter(|tensor| tensor.is_aligned());
    assert!(aligned.count() < 4);
    for storage in STORAGES {
        let (cache, _) = cache(storage);
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        for name in ["blocks", "numbers"] {
            let ours = weights.quantised(name).unwrap();
            let tensor = model.tensor(name).unwrap().1;
            assert_eq!(ours.shape().dims(), [4, 64]);
            let at = tensor.offset as usize..(tensor.offset + tensor.bytes) as usize;
            assert_eq!(*ours.data().unwrap(), bytes[at]);
            let input = numbers(7, (2, 64));
            let product = QMatMul::from_arc(ours).unwrap().forward(&input).unwrap();
            assert_eq!(product.dims(), [2, 4]);
        }
        assert_eq!(
            weights.quantised("empty").unwrap().storage_size_in_bytes(),
            0
        );
    }
}

/// Two names for the bytes of one tensor, and a third in another shape.
pub fn tied(folder: &Folder) -> Model {
    let mut bytes = by_hand(
        &[
            ("embedding", 8, &[64, 4]),
            ("output", 8, &[64, 4]),
            ("flat", 8, &[128, 2]),
        ],
        32,
    );
    for (name, after) in [("output", 8 * 2), ("flat", 8 * 2)] {
        let mut windows = bytes.windows(name.len());
        let at = windows
            .position(|window| window == name.as_bytes())
            .unwrap();
        let at = at + name.len() + 4 + after + 4;
        bytes[at..at + 8].fill(0);
    }
    let path = folder.path().join("tied.gguf");
    std::fs::write(&path, bytes).unwrap();
    Model::open(path).unwrap()
}

#[test]
fn tied_tensors_are_one_in_memory() {
    let folder = Folder::new();
    let model = tied(&folder);
    assert_eq!(model.bytes(), 8 * 34);
    for storage in STORAGES {
        let (cache, _) = cache(storage);
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        let [one, other, flat] =
            ["embedding", "output", "flat"].map(|name| weights.quantised(name).unwrap());
        assert_eq!(Arc::ptr_eq(&one, &other), storage != Storage::Heap);
        assert_eq!(flat.shape().dims(), [2, 128]);
        let data = |tensor: &QTensor| tensor.data().unwrap().into_owned();
        assert_eq!(data(&one), data(&other));
        assert_eq!(data(&one), data(&flat));
        assert_eq!(*weights.bytes("output").unwrap(), data(&one));
    }
}
