//! Models in several files are one, and parts that do not belong together are none.

use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Value;
use plimsoll_cache::model::{Format, Model, OpenError, SplitFault, discover};
use tempfile::{TempDir, tempdir};

use crate::model_files::{refused, write};
use crate::written::{F32, Gguf};

/// What a part says of itself.
#[derive(Clone, Copy)]
struct Says {
    number: u16,
    count: u16,
    tensors: i32,
}

fn part(says: Says) -> Gguf {
    Gguf::new()
        .key("split.no", &Value::U16(says.number))
        .key("split.count", &Value::U16(says.count))
        .key("split.tensors.count", &Value::I32(says.tensors))
}

fn name(number: u16) -> String {
    format!("m-{:05}-of-00003.gguf", number + 1)
}

/// A model in three parts with tensors `0.a`, `0.b`, …, the last part with two that are tied.
fn three() -> TempDir {
    let folder = tempdir().unwrap();
    for number in 0..3 {
        let says = Says {
            number,
            count: 3,
            tensors: 6,
        };
        let tied = if number == 2 { 0 } else { 32 };
        let file = part(says)
            .key("which", &Value::U16(number))
            .tensor(format!("{number}.a"), &[8], F32, 0)
            .tensor(format!("{number}.b"), &[8], F32, tied)
            .data(64);
        write(folder.path(), &name(number), file.bytes());
    }
    folder
}

fn first(folder: &TempDir) -> PathBuf {
    folder.path().join(name(0))
}

#[track_caller]
fn split_fault(path: &Path, words: &[&str]) -> SplitFault {
    match refused(path, words) {
        OpenError::Split { fault, .. } => *fault,
        other => panic!("not of its parts: {other:?}"),
    }
}

#[test]
fn the_first_part_opens_all() {
    let folder = three();
    let model = Model::open(first(&folder)).unwrap();
    assert_eq!((model.name(), model.format()), ("m", Format::Gguf));
    let files: Vec<PathBuf> = model
        .files()
        .iter()
        .map(|file| file.path.to_path_buf())
        .collect();
    assert_eq!(
        files,
        [0, 1, 2].map(|number| folder.path().join(name(number)))
    );
    let tensors: Vec<_> = model
        .tensors()
        .iter()
        .map(|tensor| (&*tensor.name, tensor.file, tensor.tied_to))
        .collect();
    let wanted = [
        ("0.a", 0, None),
        ("0.b", 0, None),
        ("1.a", 1, None),
        ("1.b", 1, None),
        ("2.a", 2, None),
        ("2.b", 2, Some(4)),
    ];
    assert_eq!(tensors, wanted);
    assert_eq!(model.bytes(), 5 * 32);
    assert_eq!(model.tensor("2.b").unwrap().0, 5);
    assert_eq!(model.metadata().get("which"), Some("0"));
    for (file, tensor) in model.files().iter().zip([0, 2, 4]) {
        assert_eq!(file.data_offset, model.tensors()[tensor].offset);
    }
}

#[test]
fn another_part_points_at_the_first() {
    let folder = three();
    let beside = first(&folder).display().to_string();
    let fault = split_fault(
        &folder.path().join(name(1)),
        &["part 2 of 3", "open the first", &beside],
    );
    assert!(matches!(
        fault,
        SplitFault::NotFirst {
            part: 2,
            parts: 3,
            ..
        }
    ));
    let renamed = folder.path().join("x.gguf");
    std::fs::rename(folder.path().join(name(2)), &renamed).unwrap();
    let fault = split_fault(&renamed, &["part 3 of 3", "open the first"]);
    assert!(matches!(fault, SplitFault::NotFirst { first: None, .. }));
}

#[test]
fn a_part_that_is_not_there_is_named() {
    let folder = three();
    let gone = folder.path().join(name(1));
    std::fs::remove_file(&gone).unwrap();
    let fault = split_fault(
        &first(&folder),
        &[
            "part 2",
            "of 3",
            &gone.display().to_string(),
            "missing",
            "download",
        ],
    );
    assert!(matches!(fault, SplitFault::Missing { part: 2, .. }));
}

#[test]
fn a_first_part_under_another_name_is_refused() {
    let folder = three();
    for other in ["m.gguf", "m-00001-of-00004.gguf", "m-00002-of-00003.gguf"] {
        let path = folder.path().join(other);
        std::fs::copy(first(&folder), &path).unwrap();
        let fault = split_fault(&path, &["3 parts", "-00001-of-00003.gguf"]);
        assert_eq!(fault, SplitFault::Named { parts: 3 }, "{other}");
    }
}

#[test]
fn parts_that_say_something_else_are_refused() {
    let whole = Gguf::one();
    let other = |number, count| {
        let tensors = 6;
        part(Says {
            number,
            count,
            tensors,
        })
    };
    for (file, word) in [
        (whole, "no part"),
        (other(2, 3), "part 3 of 3"),
        (other(1, 4), "part 2 of 4"),
    ] {
        let folder = three();
        let path = write(folder.path(), &name(1), file.bytes());
        let error = Model::open(first(&folder)).unwrap_err();
        assert_eq!(error.path(), path);
        assert!(matches!(error, OpenError::Split { .. }), "{error}");
        let message = error.to_string();
        for word in [word, "part 2 of 3", "download"] {
            assert!(message.contains(word), "no {word:?}: {message}");
        }
    }
}

#[test]
fn tensors_are_counted_over_all_parts() {
    let folder = three();
    let says = Says {
        number: 1,
        count: 3,
        tensors: 6,
    };
    write(folder.path(), &name(1), part(says).bytes());
    let fault = split_fault(&first(&folder), &["3 parts", "6 tensors", "have 4"]);
    assert!(matches!(
        fault,
        SplitFault::Tensors {
            says: 6,
            have: 4,
            ..
        }
    ));
}

#[test]
fn a_name_in_two_parts_is_refused() {
    let folder = three();
    let says = Says {
        number: 1,
        count: 3,
        tensors: 6,
    };
    let file = part(says)
        .tensor("0.a", &[8], F32, 0)
        .tensor("x", &[8], F32, 32)
        .data(64);
    write(folder.path(), &name(1), file.bytes());
    let error = refused(&first(&folder), &["`0.a`", &name(0), &name(1)]);
    assert!(matches!(error, OpenError::TwoShards { .. }), "{error}");
}

#[test]
fn a_name_twice_in_one_part_is_refused() {
    let folder = three();
    let says = Says {
        number: 1,
        count: 3,
        tensors: 6,
    };
    let file = part(says)
        .tensor("x", &[8], F32, 0)
        .tensor("x", &[8], F32, 32)
        .data(64);
    let path = write(folder.path(), &name(1), file.bytes());
    let error = Model::open(first(&folder)).unwrap_err();
    assert!(matches!(error, OpenError::Gguf { .. }), "{error}");
    assert!(error.to_string().contains("`x` twice"), "{error}");
    assert_eq!(error.path(), path);
}

#[test]
fn a_broken_part_is_named() {
    let folder = three();
    let path = write(folder.path(), &name(2), "GGUF");
    let error = Model::open(first(&folder)).unwrap_err();
    assert!(matches!(error, OpenError::Gguf { .. }), "{error}");
    assert_eq!(error.path(), path);
}

#[test]
fn a_split_of_one_part_is_a_whole_model() {
    let folder = tempdir().unwrap();
    let says = Says {
        number: 0,
        count: 1,
        tensors: 1,
    };
    let file = part(says).tensor("t", &[8], F32, 0).data(32);
    let path = write(folder.path(), "m-00001-of-00001.gguf", file.bytes());
    let model = Model::open(path).unwrap();
    assert_eq!((model.name(), model.files().len()), ("m", 1));
}

#[test]
fn parts_are_one_model_of_their_folder() {
    let folder = three();
    write(folder.path(), "n-00001-of-00002.gguf", Gguf::one().bytes());
    write(folder.path(), "n-00002-of-00002.gguf", Gguf::one().bytes());
    write(folder.path(), "m.gguf", Gguf::one().bytes());
    let found = discover(folder.path()).unwrap();
    let seen: Vec<(&str, usize)> = found
        .entries
        .iter()
        .map(|entry| (&*entry.name, entry.model.as_ref().unwrap().files().len()))
        .collect();
    // Files that are whole are models of their own, whatever they are called.
    let wanted = [
        ("m-00001-of-00003.gguf", 3),
        ("m.gguf", 1),
        ("n", 1),
        ("n-00002-of-00002", 1),
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn parts_without_their_first_are_one_error() {
    let folder = three();
    std::fs::remove_file(first(&folder)).unwrap();
    let found = discover(folder.path()).unwrap();
    let [only] = &found.entries[..] else {
        panic!("{found:?}");
    };
    assert_eq!(only.path, folder.path().join(name(1)));
    let error = only.model.as_ref().unwrap_err();
    assert!(matches!(error, OpenError::Split { .. }), "{error}");
}

#[test]
fn a_first_part_that_says_it_is_another_does_not_point_at_itself() {
    let folder = three();
    std::fs::rename(folder.path().join(name(1)), first(&folder)).unwrap();
    let fault = split_fault(
        &first(&folder),
        &["should be part 1 of 3", "says that it is part 2 of 3"],
    );
    assert!(matches!(fault, SplitFault::OtherPart { part: 1, .. }));
}
