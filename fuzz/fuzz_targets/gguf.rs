//! Any bytes as a whole file, or as what a sparse one begins with: never a panic, and what is
//! accepted here, candle accepts with the same ranges, as far as it knows the element types.
//!
//! `cargo +nightly fuzz run gguf`

#![no_main]

use std::io::Cursor;

use candle_core::quantized::gguf_file::Content;
use libfuzzer_sys::fuzz_target;
use plimsoll_cache::model::{Dtype, parse_gguf};

fuzz_target!(|file: &[u8]| {
    check(file, file.len() as u64);
    check(file, u64::MAX);
});

/// Reads a file of so many bytes by its first ones.
fn check(start: &[u8], file_bytes: u64) {
    let header = match parse_gguf(start, file_bytes) {
        Ok(header) => header,
        Err(fault) => return assert!(!fault.to_string().contains(char::is_control)),
    };
    let mut end = header.data_offset;
    for tensor in &header.tensors {
        assert!(tensor.offset >= end || tensor.tied_to.is_some() || tensor.bytes == 0);
        end = end.max(tensor.offset + tensor.bytes);
        assert!(tensor.offset.is_multiple_of(header.alignment));
        if let Some(first) = tensor.tied_to {
            let first = &header.tensors[first as usize];
            assert_eq!((first.offset, first.bytes), (tensor.offset, tensor.bytes));
            assert_eq!((first.dtype, first.tied_to), (tensor.dtype, None));
        }
    }
    assert!(end <= file_bytes);
    let is_known = |dtype: Dtype| {
        dtype.quantised().is_some() || matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    };
    if !header.tensors.iter().all(|tensor| is_known(tensor.dtype)) {
        return;
    }
    let theirs = Content::read(&mut Cursor::new(start)).expect("accepted only here");
    assert_eq!(theirs.tensor_infos.len(), header.tensors.len());
    let metadata = &header.metadata;
    let keys = metadata.iter().count() + metadata.left_out();
    assert_eq!(theirs.metadata.len(), keys);
    assert!(
        metadata
            .iter()
            .all(|(key, _)| theirs.metadata.contains_key(key))
    );
    for tensor in &header.tensors {
        let info = &theirs.tensor_infos[&*tensor.name];
        assert_eq!(theirs.tensor_data_offset + info.offset, tensor.offset);
        assert_eq!(info.shape.dims(), &*tensor.shape);
        let known = tensor.dtype.quantised();
        assert!(known.is_none_or(|known| known == info.ggml_dtype));
        let blocks = info.shape.elem_count() / info.ggml_dtype.block_size();
        assert_eq!((blocks * info.ggml_dtype.type_size()) as u64, tensor.bytes);
    }
}
