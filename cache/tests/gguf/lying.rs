//! Headers that claim more than there is, or far too much, cost neither memory nor time.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::quantized::gguf_file::Value;
use plimsoll_cache::model::{GgufFault, MAX_GGUF_BYTES, OpenError, parse_gguf};
use tempfile::tempdir;

use crate::hostile::fault;
use crate::model_files::refused;
use crate::weight::weighed;
use crate::written::{Gguf, array_of};

/// What a refusal may allocate, the file's name and the message included.
const LITTLE: u64 = 256 << 10;

/// As [`fault`], once it is seen that hardly anything was allocated.
#[track_caller]
fn cheap(bytes: &[u8], words: &[&str]) -> GgufFault {
    let fault = fault(bytes, words);
    let (refused, most) = weighed(|| parse_gguf(bytes, bytes.len() as u64).err());
    assert!(most < LITTLE, "{most} bytes held");
    assert_eq!(refused.as_ref(), Some(&fault));
    fault
}

#[test]
fn counts_of_2_to_the_64_are_refused() {
    for count in [u64::MAX, u64::MAX / 24 + 1, 1 << 32, 100] {
        let word = count.to_string();
        let tensors = cheap(
            &Gguf::one().counts(count, 0).bytes(),
            &[&word, "tensors", "left"],
        );
        assert!(matches!(tensors, GgufFault::Counts { .. }), "{tensors:?}");
        let keys = cheap(
            &Gguf::one().counts(0, count).bytes(),
            &[&word, "keys", "left"],
        );
        assert!(matches!(keys, GgufFault::Counts { .. }), "{keys:?}");
    }
    let both = Gguf::one().counts(u64::MAX, u64::MAX);
    assert!(matches!(
        cheap(&both.bytes(), &["18446744073709551615"]),
        GgufFault::Counts { .. }
    ));
}

#[test]
fn strings_of_2_to_the_60_are_refused() {
    for length in [1_u64 << 60, u64::MAX, 1 << 31, 1000] {
        let word = length.to_string();
        let length = length.to_le_bytes();
        let value = Gguf::one().raw_key("k", 8, &length);
        let word = &[&*word, "at byte", "left", "cut off"];
        assert!(matches!(
            cheap(&value.bytes(), word),
            GgufFault::CutOff { .. }
        ));
        let in_array = [&array_of(8, 2)[..], &length].concat();
        let value = Gguf::one().raw_key("k", 9, &in_array);
        assert!(matches!(
            cheap(&value.bytes(), word),
            GgufFault::CutOff { .. }
        ));
        // The names of the first key and of the first tensor.
        for file in [Gguf::one().key("k", &Value::U8(1)), Gguf::one()] {
            let mut bytes = file.bytes();
            bytes[24..32].copy_from_slice(&length);
            assert!(matches!(cheap(&bytes, word), GgufFault::CutOff { .. }));
        }
    }
}

#[test]
fn arrays_of_2_to_the_60_are_refused_whatever_they_are_of() {
    for id in 0..=12 {
        for len in [1_u64 << 60, u64::MAX, 1 << 32, 1000] {
            let array = Gguf::one().raw_key("k", 9, &array_of(id, len));
            let fault = cheap(&array.bytes(), &["`k`", &len.to_string(), "left"]);
            assert!(matches!(fault, GgufFault::LongArray { .. }), "{fault:?}");
            let nested = [array_of(9, 1), array_of(id, len)].concat();
            let nested = Gguf::one().raw_key("k", 9, &nested);
            let fault = cheap(&nested.bytes(), &["`k`", &len.to_string(), "left"]);
            assert!(matches!(fault, GgufFault::LongArray { .. }), "{fault:?}");
        }
    }
}

/// A sparse file that begins with `start`.
fn sparse(folder: &Path, start: &[u8], bytes: u64) -> PathBuf {
    let path = folder.join("sparse.gguf");
    let file = File::create(&path).unwrap();
    file.write_all_at(start, 0).unwrap();
    file.set_len(bytes).unwrap();
    path
}

/// The fault of a sparse file, which is found quickly and with little memory.
#[track_caller]
fn sparse_fault(start: &[u8], bytes: u64, most: u64, words: &[&str]) -> GgufFault {
    let folder = tempdir().unwrap();
    let path = sparse(folder.path(), start, bytes);
    let begun = Instant::now();
    let (error, held) = weighed(|| refused(&path, words));
    assert!(held < most, "{held} bytes held");
    assert!(begun.elapsed() < Duration::from_secs(60), "hangs");
    let OpenError::Gguf { fault, .. } = error else {
        panic!("not of its header: {error}");
    };
    *fault
}

#[test]
fn a_header_above_the_limit_is_refused_though_its_file_holds_it() {
    let array = Gguf::new().raw_key("k", 9, &array_of(12, MAX_GGUF_BYTES / 8));
    let fault = sparse_fault(&array.header(), 4 << 30, LITTLE, &["limit", "1073741824"]);
    assert!(matches!(fault, GgufFault::TooLong { .. }), "{fault:?}");
    let text = [&(3_u64 << 30).to_le_bytes()[..], &[0; 8]].concat();
    let text = Gguf::new().raw_key("k", 8, &text);
    let fault = sparse_fault(&text.header(), 4 << 30, LITTLE, &["limit", "1073741824"]);
    assert!(matches!(fault, GgufFault::TooLong { .. }), "{fault:?}");
}

#[test]
fn millions_of_tensors_are_refused_though_their_file_holds_them() {
    let start = Gguf::new().counts(10 << 20, 0).header();
    // Each takes 24 bytes of zeros, and about five times as much where it is kept.
    let fault = sparse_fault(
        &start,
        1 << 30,
        256 << 20,
        &["keys and tensors", "16777216"],
    );
    assert!(matches!(fault, GgufFault::LongTable), "{fault:?}");
}

#[test]
fn millions_of_empty_strings_are_passed_over() {
    let array = Gguf::new()
        .raw_key("k", 9, &array_of(8, 1 << 22))
        .counts(1 << 30, 1);
    let fault = sparse_fault(&array.header(), 64 << 20, LITTLE << 4, &["tensors"]);
    assert!(matches!(fault, GgufFault::Counts { .. }), "{fault:?}");
    let array = Gguf::new()
        .raw_key("k", 9, &array_of(8, 1 << 22))
        .counts(1, 1);
    let folder = tempdir().unwrap();
    let path = sparse(folder.path(), &array.header(), 64 << 20);
    // What follows is a tensor without a name, of no dimensions.
    let (model, held) = weighed(|| plimsoll_cache::Model::open(path).unwrap());
    assert_eq!((model.tensors().len(), model.bytes()), (1, 4));
    assert!(held < 4 << 20, "{held} bytes held");
}
