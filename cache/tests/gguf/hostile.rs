//! Files that are broken, or made to harm, are refused with an error that names the file, the
//! numbers and a way out.

use candle_core::quantized::gguf_file::Value;
use plimsoll_cache::model::{Dtype, GgufFault, Model, OpenError, parse_gguf};
use tempfile::tempdir;

use crate::model_files::{self, refused};
use crate::written::{F16, F32, Gguf, Q4_K, Q8_0, array_of};

/// The fault that these bytes are refused for, as a file and as bytes.
#[track_caller]
pub fn fault(bytes: impl AsRef<[u8]>, words: &[&str]) -> GgufFault {
    let bytes = bytes.as_ref();
    let folder = tempdir().unwrap();
    let path = model_files::write(folder.path(), "m.gguf", bytes);
    let OpenError::Gguf { fault, .. } = refused(&path, words) else {
        panic!("not of its header");
    };
    if bytes.starts_with(b"GGUF") {
        assert_eq!(
            parse_gguf(bytes, bytes.len() as u64).err().as_ref(),
            Some(&*fault)
        );
    }
    *fault
}

#[test]
fn what_only_bears_the_name_says_what_it_looks_like() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    for (bytes, kind, remedy) in [
        (pointer, "Git LFS pointer", "git lfs pull"),
        ("<!DOCTYPE html><html>", "a web page", "download"),
        ("x", "does not begin like a GGUF file", "download"),
        ("", "does not begin like a GGUF file", "download"),
    ] {
        let size = format!("({} bytes)", bytes.len());
        let fault = fault(bytes, &[kind, remedy, &size]);
        assert!(matches!(fault, GgufFault::NotGguf { .. }), "{fault:?}");
    }
}

#[test]
fn every_beginning_of_a_file_is_refused_as_cut_off() {
    let words = Value::Array(vec![Value::String("a word".to_owned()); 3]);
    let file = Gguf::one()
        .key("words", &words)
        .key("truth", &Value::Bool(true));
    let (bytes, header) = (file.bytes(), file.header().len());
    assert!(parse_gguf(&bytes, bytes.len() as u64).is_ok());
    for end in 0..bytes.len() {
        let fault = parse_gguf(&bytes[..end], end as u64).err().unwrap();
        assert!(!fault.to_string().contains(char::is_control));
        // The file is whole, and what was read of it is not.
        let cut = parse_gguf(&bytes[..end], bytes.len() as u64);
        let is_cut = matches!(cut, Err(GgufFault::CutOff { .. }));
        assert!(is_cut || end >= header, "{end}");
    }
    fault(&bytes[..100], &["cut off", "at byte", "left", "download"]);
}

#[test]
fn a_header_that_ends_with_what_is_passed_over_is_still_seen_to_be_cut() {
    let long = Value::String("w".repeat(5000));
    let array = |value: Value| Value::Array(vec![value; 100]);
    for last in [long.clone(), array(Value::U64(7)), array(long)] {
        let header = Gguf::new().key("last", &last).header();
        assert!(parse_gguf(&header, header.len() as u64).is_ok());
        for less in [1, 99, 700] {
            let start = &header[..header.len() - less];
            // The file is whole, and what was read of it is not.
            let cut = parse_gguf(start, header.len() as u64);
            assert!(matches!(cut, Err(GgufFault::CutOff { .. })), "{less}");
        }
    }
}

#[test]
fn other_versions_are_refused_by_number() {
    for version in [0, 1, 4, 0x0101] {
        let bytes = Gguf::one().version(version).bytes();
        let fault = fault(bytes, &["version", &version.to_string(), "convert"]);
        assert_eq!(fault, GgufFault::Version { version });
    }
}

#[test]
fn big_endian_files_are_refused_as_such() {
    let bytes = Gguf::one().version(3_u32.swap_bytes()).bytes();
    let fault = fault(bytes, &["version 3", "big-endian", "convert"]);
    assert_eq!(fault, GgufFault::BigEndian { version: 3 });
}

#[test]
fn keys_and_names_that_occur_twice_are_refused() {
    let twice = |file: Gguf| file.key("a\n", &Value::U8(1));
    let fault_of = fault(
        twice(twice(Gguf::one())).bytes(),
        &["twice", r"a\n", "convert"],
    );
    assert!(matches!(fault_of, GgufFault::DuplicateKey { .. }));
    for (one, other) in [("w", "w"), ("w", "w\0"), ("", "\0\0")] {
        let bytes = Gguf::new()
            .tensor(one, &[8], F32, 0)
            .tensor(other, &[8], F32, 32)
            .data(64)
            .bytes();
        let fault = fault(bytes, &["twice", "convert"]);
        assert!(
            matches!(fault, GgufFault::DuplicateName { .. }),
            "{fault:?}"
        );
    }
}

#[test]
fn names_that_are_not_text_are_refused() {
    let key = Gguf::one().raw_key(b"a\xff", 0, &[1]);
    let fault_of = fault(key.bytes(), &["a key", "not UTF-8", "at byte 24"]);
    assert!(matches!(fault_of, GgufFault::NotUtf8 { .. }));
    let name = Gguf::new().tensor(b"\x80", &[8], F32, 0).data(32);
    let fault = fault(name.bytes(), &["a tensor's name", "not UTF-8"]);
    assert!(matches!(fault, GgufFault::NotUtf8 { .. }));
}

#[test]
fn names_of_65536_bytes_are_refused_and_shorter_ones_read() {
    let name = "n".repeat(65_535);
    let file = |name: &str| Gguf::new().tensor(name, &[8], F32, 0).data(32).bytes();
    let bytes = file(&name);
    let header = parse_gguf(&bytes, bytes.len() as u64).unwrap();
    assert_eq!(*header.tensors[0].name, *name);
    let longer = fault(file(&format!("{name}n")), &["65536 bytes", "65535"]);
    assert!(matches!(longer, GgufFault::LongName { bytes: 65_536, .. }));
}

#[test]
fn unknown_types_of_values_are_refused() {
    for id in [13, u32::MAX] {
        let words = [&*id.to_string(), "`k`", "0 to 12"];
        let one = fault(Gguf::one().raw_key("k", id, &[0; 64]).bytes(), &words);
        assert_eq!(
            one,
            GgufFault::ValueType {
                key: "k".into(),
                id
            }
        );
        let array = Gguf::one().raw_key("k", 9, &array_of(id, 0));
        assert_eq!(fault(array.bytes(), &words), one);
    }
}

#[test]
fn truths_that_are_neither_are_refused() {
    let array = [array_of(7, 3), vec![0, 1, 255]].concat();
    for (id, value) in [(7, &[2][..]), (9, &array)] {
        let fault = fault(
            Gguf::one().raw_key("k", id, value).bytes(),
            &["truth value", "`k`"],
        );
        assert!(matches!(fault, GgufFault::Bool { .. }), "{fault:?}");
    }
}

#[test]
fn arrays_in_arrays_end_somewhere() {
    let nested = |depth: usize| {
        let mut value: Vec<u8> = (1..depth).flat_map(|_| array_of(9, 1)).collect();
        value.extend(array_of(0, 1));
        value.push(7);
        Gguf::one().raw_key("k", 9, &value).bytes()
    };
    let bytes = nested(8);
    assert!(parse_gguf(&bytes, bytes.len() as u64).is_ok());
    for depth in [9, 100_000] {
        let fault = fault(nested(depth), &["`k`", "8 deep"]);
        assert!(matches!(fault, GgufFault::DeepArray { .. }), "{fault:?}");
    }
}

#[test]
fn alignments_that_are_none_are_refused() {
    for (value, word) in [
        (Value::U32(0), "as 0,"),
        (Value::U32(3), "as 3,"),
        (Value::U8(48), "as 48,"),
        (Value::I32(-32), "as -32,"),
        // candle would take the default for these.
        (Value::U64(64), "as 64,"),
        (Value::I64(64), "as 64,"),
        (Value::F32(32.), "as 32,"),
        (Value::String("32\n".to_owned()), r"as 32\n,"),
        (Value::Array(vec![Value::U32(32)]), "as [1 u32],"),
    ] {
        let bytes = Gguf::one().key("general.alignment", &value).bytes();
        let fault = fault(bytes, &[word, "power of two"]);
        assert!(matches!(fault, GgufFault::Alignment { .. }), "{fault:?}");
    }
}

#[test]
fn more_than_four_dimensions_are_refused() {
    let five = Gguf::new().tensor("t", &[1; 5], F32, 0).data(32).bytes();
    let fault_of = fault(&five, &["`t`", "5 dimensions", "at most 4"]);
    assert!(matches!(
        fault_of,
        GgufFault::TooManyDimensions { dimensions: 5, .. }
    ));
    let mut bytes = Gguf::one().bytes();
    let at = Gguf::new().header().len() + 8 + 1;
    bytes[at..at + 4].copy_from_slice(&[0xff; 4]);
    let fault = fault(bytes, &["4294967295 dimensions"]);
    assert!(matches!(fault, GgufFault::TooManyDimensions { .. }));
}

#[test]
fn types_that_ggml_does_not_have_are_refused_by_number_and_name() {
    for id in [40, 99, u32::MAX] {
        let bytes = Gguf::new().tensor("t\n", &[256], id, 0).data(1024).bytes();
        let fault = fault(bytes, &[r"`t\n`", &format!("type {id}"), "convert"]);
        assert!(matches!(fault, GgufFault::UnknownType { .. }), "{fault:?}");
    }
    for (id, name) in [
        (4, "Q4_2"),
        (5, "Q4_3"),
        (31, "Q4_0_4_4"),
        (38, "IQ4_NL_8_8"),
    ] {
        let bytes = Gguf::new().tensor("t", &[256], id, 0).data(1024).bytes();
        let fault = fault(bytes, &["`t`", &format!("type {id} ({name})"), "removed"]);
        assert!(matches!(fault, GgufFault::RemovedType { .. }), "{fault:?}");
    }
}

#[test]
fn sizes_beyond_numbers_are_refused() {
    let dimensions: [&[u64]; 6] = [
        &[u64::MAX],
        &[1 << 62, 1],
        &[1 << 31, 1 << 31, 1 << 31],
        &[1 << 40, 0, 1 << 40],
        &[0, u64::MAX, 2],
        &[u64::MAX, u64::MAX, u64::MAX, u64::MAX],
    ];
    for dimensions in dimensions {
        let bytes = Gguf::new().tensor("t", dimensions, F32, 0).data(32).bytes();
        let fault = fault(bytes, &["`t`", "F32", "2^64", &dimensions[0].to_string()]);
        assert!(matches!(fault, GgufFault::SizeOverflow { .. }), "{fault:?}");
    }
}

#[test]
fn rows_of_parts_of_blocks_are_refused() {
    for (dimensions, id, row, block) in [
        (&[31, 32][..], Q8_0, 31, 32),
        (&[128, 2], Q4_K, 128, 256),
        (&[], Q8_0, 1, 32),
    ] {
        let bytes = Gguf::new()
            .tensor("t", dimensions, id, 0)
            .data(4096)
            .bytes();
        let words = [
            format!("rows of {row} elements"),
            format!("blocks of {block}"),
        ];
        let fault = fault(bytes, &[&words[0], &words[1], "`t`"]);
        assert!(matches!(fault, GgufFault::PartOfBlock { .. }), "{fault:?}");
    }
}

#[test]
fn misaligned_tensors_are_refused() {
    for (offset, alignment) in [(1, 32), (16, 32), (32, 64), (u64::MAX, 2)] {
        let file = Gguf::new()
            .aligned(alignment)
            .tensor("t", &[1], F16, offset);
        let words = [offset.to_string(), format!("alignment of {alignment}")];
        let fault = fault(file.data(128).bytes(), &["`t`", &words[0], &words[1]]);
        assert!(matches!(fault, GgufFault::Misaligned { .. }), "{fault:?}");
    }
}

#[test]
fn tensors_outside_the_file_are_refused() {
    let last = !31;
    for (offset, data) in [(0, 31), (32, 32), (1 << 60, 32), (1 << 63, 32), (last, 32)] {
        let file = Gguf::new().tensor("t", &[8], F32, offset).data(data);
        let words = [format!("at byte {offset}"), file.bytes().len().to_string()];
        let fault = fault(
            file.bytes(),
            &["`t` of 32 bytes", &words[0], &words[1], "cut off"],
        );
        assert!(matches!(fault, GgufFault::OutsideFile { .. }), "{fault:?}");
    }
    // Even without bytes.
    let file = Gguf::new().tensor("t", &[0], F32, 64).data(32);
    let fault = fault(file.bytes(), &["`t` of 0 bytes"]);
    assert!(matches!(fault, GgufFault::OutsideFile { .. }));
}

#[test]
fn tensors_inside_one_another_are_refused() {
    type Lies<'a> = (&'a [u64], u32, u64);
    let pairs: [(Lies<'_>, Lies<'_>); 4] = [
        // Begun within, of another size, of another type, and around.
        ((&[16], F32, 0), (&[16], F32, 32)),
        ((&[16], F32, 0), (&[8], F32, 0)),
        ((&[16], F32, 0), (&[32], F16, 0)),
        ((&[8], F32, 32), (&[64], F32, 0)),
    ];
    for (a, b) in pairs {
        for [a, b] in [[a, b], [b, a]] {
            let file = Gguf::new()
                .tensor("a", a.0, a.1, a.2)
                .tensor("b", b.0, b.1, b.2)
                .data(256);
            let fault = fault(file.bytes(), &["`a`", "`b`", "inside", "ends at"]);
            assert!(matches!(fault, GgufFault::Overlap { .. }), "{fault:?}");
        }
    }
}

#[test]
fn a_tied_tensor_does_not_hide_another_inside() {
    let file = Gguf::new()
        .tensor("a", &[32], F32, 0)
        .tensor("b", &[32], F32, 0)
        .tensor("c", &[1], F32, 96)
        .data(128);
    let fault = fault(file.bytes(), &["`c`", "`a`", "ends at 128"]);
    assert!(matches!(fault, GgufFault::Overlap { .. }));
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(
        refused(&path, &["directory"]),
        OpenError::Directory { .. }
    ));
    let fifo = folder.path().join("fifo.gguf");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, 0o600.into(), 0).unwrap();
    let error = refused(&fifo, &["FIFO", "regular"]);
    assert!(matches!(error, OpenError::NotRegular { .. }));
    let null = refused("/dev/null".as_ref(), &["character device"]);
    assert!(matches!(null, OpenError::NotRegular { .. }));
    let folder_link = folder.path().join("link.gguf");
    std::os::unix::fs::symlink("/dev/zero", &folder_link).unwrap();
    assert!(Model::open(&folder_link).is_err());
}

#[test]
fn a_type_of_numbers_that_candle_has_not_is_still_a_tensor() {
    let bytes = Gguf::new().tensor("t", &[8], 28, 0).data(64).bytes();
    let header = parse_gguf(&bytes, bytes.len() as u64).unwrap();
    assert_eq!(header.tensors[0].dtype, Dtype::F64);
}
