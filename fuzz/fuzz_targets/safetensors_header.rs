//! Any bytes as a whole file: never a panic, and what is accepted here, the safetensors crate
//! accepts with the same ranges.
//!
//! `cargo +nightly fuzz run safetensors_header`

#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_cache::model::{header_length, parse_header};
use safetensors::SafeTensors;

fuzz_target!(|file: &[u8]| {
    let file_bytes = file.len() as u64;
    let Ok(length) = header_length(file, file_bytes) else {
        return;
    };
    let Ok(header) = parse_header(&file[8..8 + length], file_bytes) else {
        return;
    };
    let (their_length, theirs) = SafeTensors::read_metadata(file).expect("accepted only here");
    assert_eq!(their_length, length);
    assert_eq!(theirs.tensors().len(), header.tensors.len());
    for tensor in &header.tensors {
        let info = theirs.info(&tensor.name).expect("the same names");
        let begin = (tensor.offset - header.data_offset) as usize;
        assert_eq!(info.data_offsets, (begin, begin + tensor.bytes as usize));
        assert_eq!(info.dtype.to_string(), tensor.dtype.name());
        assert_eq!(info.shape, *tensor.shape);
    }
});
