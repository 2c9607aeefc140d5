//! Sound models are opened by their headers, and known again.

#![allow(clippy::unwrap_used)]

mod model_files;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::thread;

use model_files::{raw, sound, write};
use plimsoll_cache::model::{Dtype as Known, Model, OpenError, escape};
use safetensors::Dtype;
use tempfile::tempdir;

const EVERY_DTYPE: [Dtype; 22] = [
    Dtype::BOOL,
    Dtype::F4,
    Dtype::F6_E2M3,
    Dtype::F6_E3M2,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::C64,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
];

#[test]
fn a_model_is_what_the_safetensors_crate_wrote() {
    let folder = tempdir().unwrap();
    let bytes = sound(&[
        ("b.weight", Dtype::F16, &[3, 5]),
        ("a.weight", Dtype::F32, &[2, 2]),
        ("scalar", Dtype::I64, &[]),
        ("empty", Dtype::F32, &[4, 0, 3]),
    ]);
    let path = write(folder.path(), "unet.safetensors", &bytes);
    let model = Model::open(&path).unwrap();
    assert_eq!(model.name(), "unet");
    assert_eq!(model.path(), path);
    assert_eq!(model.bytes(), 30 + 16 + 8);
    let names: Vec<&str> = model.tensors().iter().map(|tensor| &*tensor.name).collect();
    assert_eq!(names, ["scalar", "a.weight", "empty", "b.weight"]);
    let (position, scalar) = model.tensor("scalar").unwrap();
    assert_eq!((position, scalar.shape.len(), scalar.elements()), (0, 0, 1));
    assert_eq!(model.tensor("empty").unwrap().1.bytes, 0);
    assert!(model.tensor("c.weight").is_none());
    let last = model.tensors().last().unwrap();
    assert_eq!(last.offset + last.bytes, bytes.len() as u64);
    assert_eq!(model.files()[0].data_offset, model.tensors()[0].offset);
    assert_eq!(model.files()[0].identity.size, bytes.len() as u64);
    assert!(model.files()[0].path.is_absolute());
}

#[test]
fn every_dtype_of_the_format_is_measured_in_bits() {
    let folder = tempdir().unwrap();
    for dtype in EVERY_DTYPE {
        let path = write(
            folder.path(),
            "m.safetensors",
            sound(&[("t", dtype, &[2, 4])]),
        );
        let model = Model::open(path).unwrap();
        let tensor = &model.tensors()[0];
        assert_eq!(
            tensor.bytes,
            dtype.bitsize() as u64,
            "8 elements of {dtype}"
        );
        let known = tensor.dtype;
        assert_eq!(known.name(), dtype.to_string());
        assert_eq!(known.bitsize(), dtype.bitsize());
        assert!(known.alignment().is_power_of_two());
    }
    assert_eq!(Known::C64.alignment(), 4, "a complex number is two f32");
    assert_eq!(Known::F6_E2M3.alignment(), 1);
}

#[test]
fn a_header_longer_than_the_first_read_is_read_whole() {
    let folder = tempdir().unwrap();
    let names: Vec<String> = (0..5000)
        .map(|at| format!("block.{at}.attention.weight"))
        .collect();
    let tensors: Vec<(&str, Dtype, &[usize])> = names
        .iter()
        .map(|name| (name.as_str(), Dtype::U8, &[1][..]))
        .collect();
    let path = write(folder.path(), "m.safetensors", sound(&tensors));
    let model = Model::open(path).unwrap();
    assert!(model.files()[0].data_offset > 200_000);
    for name in &names {
        let (position, tensor) = model.tensor(name).unwrap();
        assert_eq!(&*tensor.name, name);
        assert_eq!(&model.tensors()[position], tensor);
    }
}

#[test]
fn an_empty_table_is_a_model_without_tensors() {
    let folder = tempdir().unwrap();
    for header in [
        "{}",
        "{\"__metadata__\":{\"format\":\"pt\"}}",
        "{\"__metadata__\":null} ",
    ] {
        let model = Model::open(write(folder.path(), "m.safetensors", raw(header, 0))).unwrap();
        assert_eq!((model.bytes(), model.tensors().len()), (0, 0));
        assert_eq!(model.summary().alignment, None);
    }
}

#[test]
fn unknown_fields_of_a_tensor_are_skipped() {
    let folder = tempdir().unwrap();
    let header = r#"{"a":{"dtype":"U8","x":[{"y":[1.5,null,"z",true,-1]}],"shape":[4],"data_offsets":[0,4]}}"#;
    let model = Model::open(write(folder.path(), "m.safetensors", raw(header, 4))).unwrap();
    assert_eq!(model.bytes(), 4);
}

#[test]
fn every_opening_is_another_model_and_every_clone_the_same() {
    let folder = tempdir().unwrap();
    let path = write(folder.path(), "m.safetensors", raw("{}", 0));
    let (first, second) = (Model::open(&path).unwrap(), Model::open(&path).unwrap());
    assert_ne!(first.id(), second.id());
    assert_eq!(first.id(), first.clone().id());
    let id = first.id();
    let named = first.with_name("other");
    assert_eq!((named.name(), named.id()), ("other", id));
    let shared = named.clone();
    let third = named.with_name("third");
    assert_eq!((shared.name(), third.name()), ("other", "third"));
    assert_ne!(shared.id(), third.id());
}

#[test]
fn a_model_can_be_used_from_many_threads() {
    let folder = tempdir().unwrap();
    let model = Model::open(write(
        folder.path(),
        "m.safetensors",
        sound(&[("t", Dtype::U8, &[4])]),
    ))
    .unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            let model = model.clone();
            scope.spawn(move || assert_eq!(model.tensor("t").unwrap().1.bytes, 4));
        }
    });
}

#[test]
fn a_reopened_file_has_the_bytes_where_the_table_says() {
    let folder = tempdir().unwrap();
    let header = r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}"#;
    let model = Model::open(write(folder.path(), "m.safetensors", raw(header, 5))).unwrap();
    let mut file = model.reopen_file(0).unwrap();
    let (_, tensor) = model.tensor("b").unwrap();
    let mut bytes = vec![0; tensor.bytes as usize];
    file.seek(SeekFrom::Start(tensor.offset)).unwrap();
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, [3, 4]);
    let error = model.reopen_file(1).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::NoSuchFile {
                index: 1,
                files: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_file_that_was_replaced_overwritten_or_removed_has_changed() {
    let folder = tempdir().unwrap();
    let bytes = sound(&[("t", Dtype::U8, &[4])]);
    let path = write(folder.path(), "m.safetensors", &bytes);
    let open = || Model::open(&path).unwrap();
    let changed = |model: &Model| {
        let error = model.changed().unwrap_err();
        let message = error.to_string();
        assert!(message.contains(path.to_str().unwrap()) && message.contains("bytes, inode"));
        assert!(matches!(
            model.reopen_file(0),
            Err(OpenError::Changed { .. })
        ));
        match error {
            OpenError::Changed { was, is, .. } => (was, is),
            other => panic!("{other}"),
        }
    };

    let model = open();
    model.changed().unwrap();
    fs::rename(write(folder.path(), "new", &bytes), &path).unwrap();
    let (was, is) = changed(&model);
    assert_ne!(was.ino, is.unwrap().ino);

    let model = open();
    fs::File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_len(7)
        .unwrap();
    let (was, is) = changed(&model);
    assert_eq!((was.size, is.unwrap().size), (bytes.len() as u64, 7));

    fs::write(&path, &bytes).unwrap();
    let model = open();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_500_000_007))
        .unwrap();
    let (was, is) = changed(&model);
    assert_eq!(
        (was.size, is.unwrap().mtime_ns),
        (is.unwrap().size, 1_500_000_007)
    );

    let model = open();
    fs::remove_file(&path).unwrap();
    assert_eq!(changed(&model).1, None);
}

#[test]
fn names_with_control_characters_are_accepted_and_print_escaped() {
    let folder = tempdir().unwrap();
    let name = "a\n\u{1b}[31m\u{0}\u{202e}";
    let header = serde_json::json!({
        name: { "dtype": "U8", "shape": [1], "data_offsets": [0, 1] }
    });
    let path = write(folder.path(), "m.safetensors", raw(header.to_string(), 1));
    let model = Model::open(path).unwrap();
    let (_, tensor) = model.tensor(name).unwrap();
    assert_eq!(escape(&tensor.name).to_string(), r"a\n\u{1b}[31m\0\u{202e}");
}

#[test]
fn a_summary_counts_types_alignment_and_what_is_misaligned() {
    let folder = tempdir().unwrap();
    // Data begins at an odd offset, so that nothing wider than a byte is aligned.
    let header = r#"{"a":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},"b":{"dtype":"F32","shape":[2],"data_offsets":[6,14]},"c":{"dtype":"U8","shape":[1],"data_offsets":[14,15]},"d":{"dtype":"F64","shape":[0],"data_offsets":[15,15]}}"#;
    let odd = if header.len().is_multiple_of(2) {
        format!("{header} ")
    } else {
        header.to_owned()
    };
    let even = format!("{odd} ");
    let summary = |header: &str| {
        Model::open(write(folder.path(), "m.safetensors", raw(header, 15)))
            .unwrap()
            .summary()
    };
    let odd = summary(&odd);
    assert_eq!(
        (odd.alignment, odd.misaligned, odd.tensors, odd.bytes),
        (Some(1), 2, 4, 15)
    );
    assert_eq!(odd.largest, 8);
    let types: Vec<_> = odd
        .dtypes
        .iter()
        .map(|share| (share.dtype, share.tensors, share.bytes))
        .collect();
    assert_eq!(
        types,
        [
            (Known::F32, 1, 8),
            (Known::F16, 1, 6),
            (Known::U8, 1, 1),
            (Known::F64, 1, 0)
        ]
    );
    assert_eq!(odd.dtype_mix().to_string(), "F32 53% F16 40% U8 7% F64 0%");
    // F16 at an even offset; F32 six bytes later is at a multiple of 4 or is not.
    assert!(summary(&even).alignment >= Some(2) && summary(&even).misaligned <= 1);

    let path = write(
        folder.path(),
        "p.safetensors",
        sound(&[("t", Dtype::F16, &[64, 64])]),
    );
    let public = Model::open(path).unwrap().summary();
    assert!(
        public.alignment >= Some(8),
        "safetensors pads headers to 8 bytes"
    );
    assert_eq!(
        (public.misaligned, public.dtype_mix().to_string()),
        (0, "F16".to_owned())
    );
}
