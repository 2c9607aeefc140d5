//! Sharded models: an index and the files it names, joined only when both agree.

#![allow(clippy::unwrap_used)]

mod model_files;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use model_files::{index, raw, refused, sound, write};
use plimsoll_cache::model::{HeaderFault, IndexFault, Model, OpenError};
use proptest::prelude::*;
use safetensors::Dtype;
use tempfile::{TempDir, tempdir};

const FIRST: &str = "m-00001-of-00002.safetensors";
const SECOND: &str = "m-00002-of-00002.safetensors";

/// Two shards, the first with `a` and `b`, the second with `c` and `d`.
fn shards(folder: &Path) {
    write(
        folder,
        FIRST,
        sound(&[("a", Dtype::F16, &[8]), ("b", Dtype::F16, &[4])]),
    );
    write(
        folder,
        SECOND,
        sound(&[("c", Dtype::F16, &[2]), ("d", Dtype::F16, &[1])]),
    );
}

/// A folder with both shards and an index of this text.
fn model(text: &str) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    shards(folder.path());
    let path = write(folder.path(), "m.safetensors.index.json", text);
    (folder, path)
}

#[track_caller]
fn index_fault(text: &str, words: &[&str]) -> IndexFault {
    let (_folder, path) = model(text);
    match refused(&path, words) {
        OpenError::Index { fault, .. } => *fault,
        other => panic!("not of the index: {other:?}"),
    }
}

#[test]
fn a_sharded_model_is_its_tensors_in_the_order_of_its_files() {
    let (folder, path) = model(&index(&[
        ("d", SECOND),
        ("a", FIRST),
        ("c", SECOND),
        ("b", FIRST),
    ]));
    let model = Model::open(&path).unwrap();
    assert_eq!((model.name(), model.path()), ("m", &*path));
    let tensors: Vec<_> = model
        .tensors()
        .iter()
        .map(|tensor| (&*tensor.name, tensor.file))
        .collect();
    assert_eq!(tensors, [("a", 0), ("b", 0), ("c", 1), ("d", 1)]);
    assert_eq!(model.bytes(), 30);
    let files: Vec<_> = model
        .files()
        .iter()
        .map(|file| file.path.to_path_buf())
        .collect();
    assert_eq!(
        files,
        [folder.path().join(FIRST), folder.path().join(SECOND)]
    );
    for tensor in model.tensors() {
        let (position, found) = model.tensor(&tensor.name).unwrap();
        assert_eq!((&model.tensors()[position], found), (tensor, tensor));
    }
    assert_eq!(model.summary().unmapped, 0);
}

#[test]
fn tensors_that_the_index_does_not_name_are_left_out_and_counted() {
    let (_folder, path) = model(&index(&[("a", FIRST), ("d", SECOND)]));
    let model = Model::open(path).unwrap();
    assert_eq!((model.tensors().len(), model.bytes()), (2, 18));
    assert!(model.tensor("b").is_none() && model.tensor("c").is_none());
    assert_eq!(model.tensor("d").unwrap().0, 1);
    assert_eq!(model.summary().unmapped, 2);
}

#[test]
fn any_shard_that_changed_has_changed_the_model() {
    let (folder, path) = model(&index(&[("a", FIRST), ("c", SECOND)]));
    let model = Model::open(path).unwrap();
    model.changed().unwrap();
    let second = folder.path().join(SECOND);
    File::options()
        .write(true)
        .open(&second)
        .unwrap()
        .set_len(3)
        .unwrap();
    let error = model.changed().unwrap_err();
    assert_eq!(error.path(), second);
    model.reopen_file(0).unwrap();
    assert!(matches!(
        model.reopen_file(1),
        Err(OpenError::Changed { .. })
    ));
}

#[test]
fn an_index_that_is_empty_or_broken_is_refused() {
    assert_eq!(index_fault("", &["0 bytes"]), IndexFault::Empty);
    for text in [
        "{",
        "[]",
        "{}",
        "\"x\"",
        r#"{"weight_map":[]}"#,
        r#"{"weight_map":{"a":1}}"#,
        "{\"weight_map\":{}} x",
        r#"{"weight_map":{},"weight_map":{}}"#,
    ] {
        let bytes = format!("{} bytes", text.len());
        let fault = index_fault(
            text,
            &["no index of a sharded model", &bytes, "line 1 column"],
        );
        assert!(matches!(fault, IndexFault::Json { .. }), "{text}");
    }
    assert_eq!(
        index_fault(r#"{"weight_map":{}}"#, &["0 tensors"]),
        IndexFault::NoTensors
    );
}

#[test]
fn a_deeply_nested_index_is_refused_without_deep_recursion() {
    let text = format!(r#"{{"metadata":{}"#, "[".repeat(5_000_000));
    assert!(matches!(
        index_fault(&text, &["recursion limit"]),
        IndexFault::Json { .. }
    ));
}

#[test]
fn an_index_above_the_limit_is_refused_unread() {
    let folder = tempdir().unwrap();
    let path = write(folder.path(), "m.safetensors.index.json", "{");
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let error = refused(&path, &["1099511627776", "100000000"]);
    let OpenError::Index { fault, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(*fault, IndexFault::TooLarge { bytes: 1 << 40 });
}

#[test]
fn a_missing_shard_is_named() {
    let (folder, path) = model(&index(&[("a", FIRST), ("c", SECOND), ("d", SECOND)]));
    let second = folder.path().join(SECOND);
    std::fs::remove_file(&second).unwrap();
    let error = refused(
        &path,
        &[second.to_str().unwrap(), "2 of the model's 3", "download"],
    );
    assert!(matches!(
        error,
        OpenError::ShardMissing {
            tensors: 2,
            of: 3,
            ..
        }
    ));
}

#[test]
fn a_shard_that_is_broken_is_the_one_named() {
    let (folder, path) = model(&index(&[("a", FIRST), ("c", SECOND)]));
    let second = write(folder.path(), SECOND, raw("{}", 3));
    let error = Model::open(path).unwrap_err();
    assert_eq!(error.path(), second);
    let OpenError::Header { fault, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        *fault,
        HeaderFault::TrailingBytes {
            end: 0,
            data_bytes: 3
        }
    );
}

#[test]
fn a_shard_that_is_no_plain_file_name_is_refused_before_it_is_looked_at() {
    let paths = [
        "../../etc/passwd.safetensors",
        "/etc/x.safetensors",
        "..",
        ".",
        "",
        "a/b.safetensors",
        "./a.safetensors",
        "a.safetensors/",
        "a\u{0}.safetensors",
    ];
    for shard in paths {
        let fault = index_fault(
            &index(&[("a", FIRST), ("evil", shard)]),
            &["`evil`", "plain file name"],
        );
        assert!(matches!(fault, IndexFault::ShardPath { .. }), "{shard}");
    }
}

#[test]
fn a_shard_may_be_a_symbolic_link_out_of_the_folder() {
    let (folder, path) = model(&index(&[("a", FIRST), ("c", SECOND)]));
    let elsewhere = tempdir().unwrap();
    let first = folder.path().join(FIRST);
    let blob = elsewhere.path().join("blob");
    std::fs::copy(&first, &blob).unwrap();
    std::fs::remove_file(&first).unwrap();
    std::os::unix::fs::symlink(&blob, &first).unwrap();
    assert_eq!(Model::open(path).unwrap().files()[0].path, first.into());
}

#[test]
fn a_shard_in_another_format_is_refused() {
    let fault = index_fault(
        &index(&[("a", "m-00001-of-00001.gguf")]),
        &["`a`", "m-00001-of-00001.gguf", "convert"],
    );
    assert!(matches!(fault, IndexFault::ShardFormat { .. }));
}

#[test]
fn a_tensor_that_its_shard_lacks_is_refused() {
    let (folder, path) = model(&index(&[("a", FIRST), ("zz", SECOND)]));
    let second = folder.path().join(SECOND);
    let error = refused(&path, &["`zz`", second.to_str().unwrap(), "2 tensors"]);
    assert!(matches!(
        error,
        OpenError::ShardLacks {
            found_in: None,
            has: 2,
            ..
        }
    ));
}

#[test]
fn a_tensor_in_another_shard_than_the_index_says_is_refused_with_the_place() {
    let (folder, path) = model(&index(&[("a", SECOND), ("b", FIRST)]));
    let first = folder.path().join(FIRST);
    let error = refused(&path, &["`a`", &format!("(it is in {})", first.display())]);
    assert!(matches!(
        error,
        OpenError::ShardLacks {
            found_in: Some(_),
            ..
        }
    ));
}

#[test]
fn a_tensor_in_two_shards_is_refused_whichever_the_index_names() {
    for shard in [FIRST, SECOND] {
        let (folder, path) = model(&index(&[("a", shard), ("b", FIRST), ("c", SECOND)]));
        write(
            folder.path(),
            SECOND,
            sound(&[("a", Dtype::F16, &[8]), ("c", Dtype::F16, &[1])]),
        );
        let error = refused(&path, &["`a`", FIRST, SECOND]);
        assert!(matches!(error, OpenError::TwoShards { .. }));
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused_if_the_index_names_it_in_neither() {
    let (folder, path) = model(&index(&[("b", FIRST), ("c", SECOND)]));
    let second = sound(&[("a", Dtype::F16, &[8]), ("c", Dtype::F16, &[1])]);
    write(folder.path(), SECOND, second);
    let error = refused(&path, &["`a`", FIRST, SECOND]);
    assert!(matches!(error, OpenError::TwoShards { .. }));
}

#[test]
fn a_name_twice_in_one_shard_is_refused_whether_the_index_names_it_or_not() {
    for named in ["a", "c"] {
        let (folder, path) = model(&index(&[(named, FIRST)]));
        let at = |range| format!(r#"{{"dtype":"U8","shape":[4],"data_offsets":{range}}}"#);
        let header = format!(
            r#"{{"a":{},"c":{},"a":{}}}"#,
            at("[0,4]"),
            at("[4,8]"),
            at("[8,12]")
        );
        let first = write(folder.path(), FIRST, raw(&header, 12));
        let error = Model::open(&path).unwrap_err();
        let OpenError::Header { path, fault } = &error else {
            panic!("not of a header: {error}");
        };
        let tensor = "a".into();
        assert_eq!(**fault, HeaderFault::DuplicateName { tensor });
        assert!(**path == *first && error.to_string().contains("`a` twice"));
    }
}

proptest! {
    #[test]
    fn any_shards_under_any_index_are_what_both_say_or_refused(
        held in prop::collection::vec(prop::collection::btree_set("[a-e]", 0..4), 3),
        weights in prop::collection::btree_map("[a-e]", 0_usize..3, 1..5),
    ) {
        let folder = tempdir().unwrap();
        let file_of = |shard: usize| format!("m-{shard}.safetensors");
        for (shard, names) in held.iter().enumerate() {
            let one: &[usize] = &[1];
            let tensors: Vec<_> = names.iter().map(|name| (&**name, Dtype::U8, one)).collect();
            write(folder.path(), &file_of(shard), sound(&tensors));
        }
        let map: Vec<(&str, String)> = weights.iter().map(|(tensor, at)| (&**tensor, file_of(*at))).collect();
        let map: Vec<(&str, &str)> = map.iter().map(|(tensor, at)| (*tensor, &**at)).collect();
        let path = write(folder.path(), "m.safetensors.index.json", index(&map));

        let read: BTreeSet<usize> = weights.values().copied().collect();
        let all: Vec<(usize, &str)> = read
            .iter()
            .flat_map(|shard| held[*shard].iter().map(|name| (*shard, &**name)))
            .collect();
        let once: BTreeSet<&str> = all.iter().map(|(_, name)| *name).collect();
        let lacking = weights.iter().find(|(tensor, at)| !held[**at].contains(*tensor));
        match (Model::open(path), lacking) {
            (Err(OpenError::TwoShards { .. }), _) => prop_assert!(once.len() < all.len()),
            (Err(OpenError::ShardLacks { tensor, found_in, .. }), Some((lacks, _))) => {
                prop_assert_eq!(once.len(), all.len());
                prop_assert_eq!(&*tensor, &**lacks);
                prop_assert_eq!(found_in.is_some(), once.contains(&**lacks));
            }
            (Ok(model), None) => {
                prop_assert_eq!(once.len(), all.len());
                let wanted: Vec<_> = all.iter().filter(|(_, name)| weights.contains_key(*name)).collect();
                prop_assert_eq!(model.tensors().len(), wanted.len());
                prop_assert_eq!(model.summary().unmapped, all.len() - wanted.len());
                for (position, (shard, name)) in wanted.into_iter().enumerate() {
                    let (at, tensor) = model.tensor(name).unwrap();
                    prop_assert_eq!((at, &*tensor.name), (position, *name));
                    let file = &model.files()[tensor.file as usize];
                    prop_assert!(file.path.ends_with(file_of(*shard)));
                }
                for (_, name) in all.iter().filter(|(_, name)| !weights.contains_key(*name)) {
                    prop_assert!(model.tensor(name).is_none());
                }
            }
            (other, _) => panic!("{other:?} of {held:?} under {weights:?}"),
        }
    }
}

#[test]
fn a_name_twice_in_the_index_is_refused() {
    let text = format!(r#"{{"weight_map":{{"a":"{FIRST}","b":"{FIRST}","a":"{SECOND}"}}}}"#);
    assert_eq!(
        index_fault(&text, &["`a` twice", FIRST, SECOND]),
        IndexFault::DuplicateName {
            tensor: "a".into(),
            first: FIRST.into(),
            second: SECOND.into()
        }
    );
}
