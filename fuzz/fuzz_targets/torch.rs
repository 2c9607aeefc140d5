//! Any bytes as a checkpoint, or as the pickle in a sound one: never a panic, what is opened lies in
//! its file, and what is said of it is safe to print.
//!
//! `cargo +nightly fuzz run torch`

#![no_main]
#![allow(dead_code, reason = "the tests use more of it")]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use libfuzzer_sys::fuzz_target;
use plimsoll_cache::Model;

#[path = "../../cache/tests/torch_files/zip.rs"]
mod zip;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let file = match first {
        0 if rest.starts_with(b"PK\x03\x04") => rest.to_vec(),
        0 => return,
        _ => zip::Zip::around(rest, &[("0".to_owned(), vec![7; 24])]).bytes(),
    };
    // SAFETY: the name is a C string, and the descriptor is the file's alone.
    let memory = unsafe { File::from_raw_fd(libc::memfd_create(c"checkpoint".as_ptr(), 0)) };
    memory.write_all_at(&file, 0).expect("memory for it");
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    match Model::open(path) {
        Ok(model) => {
            for (position, tensor) in model.tensors().iter().enumerate() {
                assert_eq!(model.tensor(&tensor.name), Some((position, tensor)));
                assert!(tensor.offset + tensor.bytes <= file.len() as u64);
                let bits = tensor.elements() * tensor.dtype.bitsize() as u64;
                assert_eq!(tensor.bytes * 8, bits);
                if let Some(first) = tensor.tied_to {
                    let first = &model.tensors()[first as usize];
                    assert_eq!((first.offset, first.bytes), (tensor.offset, tensor.bytes));
                    assert_eq!((first.dtype, first.tied_to), (tensor.dtype, None));
                }
            }
            let (kind, seen) = (model.kind(), model.seen());
            let mix = model.summary().dtype_mix().to_string();
            let said = format!("{kind} {} {mix}", kind.evidence);
            assert!(!said.contains(char::is_control));
            assert!(seen.groups.len() <= 64);
            let in_groups: u64 = seen.groups.iter().map(|group| group.tensors).sum();
            assert_eq!(in_groups, model.tensors().len() as u64);
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
});
