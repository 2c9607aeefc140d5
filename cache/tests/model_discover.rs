//! Models are found in folders, and one bad file hides nothing.

#![allow(clippy::unwrap_used)]

mod model_files;

use std::os::unix::fs::symlink;
use std::path::Path;

use model_files::{index, raw, sound, write};
use plimsoll_cache::model::{Discovery, MAX_DEPTH, OpenError, discover};
use safetensors::Dtype;
use tempfile::tempdir;

fn small() -> Vec<u8> {
    sound(&[("t", Dtype::F16, &[4])])
}

fn names(found: &Discovery) -> Vec<&str> {
    found
        .entries
        .iter()
        .map(|entry| entry.name.as_str())
        .collect()
}

#[test]
fn a_folder_gives_its_models_and_the_errors_of_the_bad_ones() {
    let folder = tempdir().unwrap();
    write(folder.path(), "b.safetensors", small());
    write(folder.path(), "a.safetensors", []);
    write(folder.path(), "sub/c.safetensors", small());
    write(folder.path(), "readme.md", "x");
    let found = discover(folder.path()).unwrap();
    assert_eq!(names(&found), ["a", "b", "c"]);
    assert!(found.entries[0].model.is_err());
    for entry in &found.entries[1..] {
        assert_eq!(entry.model.as_ref().unwrap().name(), entry.name);
        assert_eq!(entry.model.as_ref().unwrap().path(), entry.path);
    }
    assert!(found.other.is_empty());
}

#[test]
fn an_index_claims_its_shards() {
    let folder = tempdir().unwrap();
    write(folder.path(), "m-00001-of-00001.safetensors", small());
    write(
        folder.path(),
        "odd.safetensors",
        sound(&[("u", Dtype::U8, &[1])]),
    );
    write(
        folder.path(),
        "m.safetensors.index.json",
        index(&[
            ("t", "m-00001-of-00001.safetensors"),
            ("u", "odd.safetensors"),
        ]),
    );
    write(folder.path(), "other.safetensors", small());
    let found = discover(folder.path()).unwrap();
    assert_eq!(names(&found), ["m", "other"]);
    assert_eq!(found.entries[0].model.as_ref().unwrap().files().len(), 2);
}

#[test]
fn shards_of_a_broken_index_are_no_models_of_their_own() {
    let folder = tempdir().unwrap();
    write(folder.path(), "m-00001-of-00002.safetensors", small());
    write(folder.path(), "m.safetensors.index.json", "{");
    write(folder.path(), "m-lora.safetensors", small());
    let found = discover(folder.path()).unwrap();
    assert_eq!(names(&found), ["m-lora", "m"]);
    assert!(matches!(
        found.entries[1].model,
        Err(OpenError::Index { .. })
    ));
}

#[test]
fn shards_without_an_index_are_listed_as_they_are() {
    let folder = tempdir().unwrap();
    write(folder.path(), "m-00001-of-00002.safetensors", small());
    assert_eq!(
        names(&discover(folder.path()).unwrap()),
        ["m-00001-of-00002"]
    );
}

#[test]
fn stems_that_collide_are_told_apart_by_their_folders() {
    let folder = tempdir().unwrap();
    for part in ["unet", "vae"] {
        write(
            folder.path(),
            &format!("{part}/diffusion_model.safetensors"),
            small(),
        );
    }
    write(folder.path(), "clip.safetensors", small());
    write(folder.path(), "x/twice.safetensors", small());
    write(
        folder.path(),
        "x/twice.safetensors.index.json",
        index(&[("t", "part.safetensors")]),
    );
    let found = discover(folder.path()).unwrap();
    assert_eq!(
        names(&found),
        [
            "clip",
            "unet/diffusion_model",
            "vae/diffusion_model",
            "x/twice.safetensors",
            "x/twice.safetensors.index.json"
        ]
    );
    assert_eq!(
        found.entries[1].model.as_ref().unwrap().name(),
        "unet/diffusion_model"
    );
}

#[test]
fn names_that_only_look_alike_are_still_told_apart() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempdir().unwrap();
    for bytes in [&b"\xff.safetensors"[..], b"\xfe.safetensors"] {
        std::fs::write(
            folder.path().join(std::ffi::OsStr::from_bytes(bytes)),
            small(),
        )
        .unwrap();
    }
    let found = discover(folder.path()).unwrap();
    assert_eq!(
        names(&found),
        ["\u{fffd}.safetensors", "\u{fffd}.safetensors#2"]
    );
}

#[test]
fn loops_of_folders_end() {
    let folder = tempdir().unwrap();
    write(folder.path(), "a/m.safetensors", small());
    symlink(folder.path(), folder.path().join("a/up")).unwrap();
    symlink("a", folder.path().join("b")).unwrap();
    symlink("circle", folder.path().join("circle")).unwrap();
    assert_eq!(names(&discover(folder.path()).unwrap()), ["m"]);
}

#[test]
fn a_cache_of_links_into_blobs_is_found_once() {
    let folder = tempdir().unwrap();
    write(folder.path(), "models--x/blobs/0123", small());
    let snapshot = folder.path().join("models--x/snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    symlink("../../blobs/0123", snapshot.join("model.safetensors")).unwrap();
    symlink("../../blobs/gone", snapshot.join("lost.safetensors")).unwrap();
    let found = discover(folder.path()).unwrap();
    assert_eq!(names(&found), ["lost", "model"]);
    assert!(matches!(
        found.entries[0].model,
        Err(OpenError::DeadLink { .. })
    ));
}

#[test]
fn folders_too_deep_are_named_and_hidden_ones_left_out() {
    let folder = tempdir().unwrap();
    let below = |depth: usize| format!("{}m.safetensors", "d/".repeat(depth));
    write(folder.path(), &below(MAX_DEPTH), small());
    write(folder.path(), &below(MAX_DEPTH + 1), small());
    write(folder.path(), ".git/m.safetensors", small());
    let found = discover(folder.path()).unwrap();
    assert_eq!(found.entries.len(), 2);
    let deep = found
        .entries
        .iter()
        .find_map(|entry| entry.model.as_ref().err())
        .unwrap();
    assert!(
        matches!(deep, OpenError::TooDeep { depth, .. } if *depth == MAX_DEPTH + 1),
        "{deep}"
    );
}

#[test]
fn models_of_other_formats_are_reported_with_what_they_are() {
    let folder = tempdir().unwrap();
    write(folder.path(), "llama.onnx", "ONNX");
    write(folder.path(), "old.CKPT", "x");
    write(folder.path(), "pytorch_model.bin", vec![0; 1 << 20]);
    write(folder.path(), "vocab.bin", "x");
    let found = discover(folder.path()).unwrap();
    assert!(found.entries.is_empty());
    let other: Vec<_> = found
        .other
        .iter()
        .map(|file| {
            (
                file.path.file_name().unwrap().to_str().unwrap(),
                file.format,
                file.bytes,
            )
        })
        .collect();
    assert_eq!(
        other,
        [
            ("llama.onnx", "an ONNX file", 4),
            ("old.CKPT", "a file that is PyTorch's by its name alone", 1),
            (
                "pytorch_model.bin",
                "a file that is PyTorch's by its name alone",
                1 << 20
            ),
        ]
    );
}

#[test]
fn a_file_alone_is_what_it_is() {
    let folder = tempdir().unwrap();
    let path = write(folder.path(), "m.safetensors", small());
    assert_eq!(names(&discover(&path).unwrap()), ["m"]);
    let bad = write(folder.path(), "bad.safetensors", []);
    assert!(discover(&bad).unwrap().entries[0].model.is_err());
    let other = discover(write(folder.path(), "m.onnx", "x")).unwrap();
    assert_eq!((other.entries.len(), other.other.len()), (0, 1));
}

#[test]
fn a_path_that_is_not_there_is_an_error() {
    let error = discover(Path::new("no/such/folder")).unwrap_err();
    assert!(matches!(error, OpenError::NotFound { .. }), "{error}");
}

#[test]
fn odd_neighbours_do_not_stop_the_search() {
    let folder = tempdir().unwrap();
    write(folder.path(), "a\nb.safetensors", raw("{}", 0));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("fifo.safetensors"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    std::fs::create_dir(folder.path().join("folder.safetensors")).unwrap();
    let found = discover(folder.path()).unwrap();
    assert_eq!(names(&found), ["a\nb", "fifo"]);
    assert!(matches!(
        found.entries[1].model,
        Err(OpenError::NotRegular { .. })
    ));
}

#[test]
fn what_is_no_file_is_refused_under_any_name_of_a_model_and_passed_over_under_others() {
    let folder = tempdir().unwrap();
    let models = [
        "m.gguf",
        "m.pt",
        "m.safetensors",
        "m.safetensors.index.json",
    ];
    for name in models.iter().chain(&["m.onnx", "m.bin"]) {
        let fifo = folder.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            fifo,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
    }
    let found = discover(folder.path()).unwrap();
    let paths = found.entries.iter().map(|entry| entry.path.file_name());
    let names: Vec<&str> = paths.map(|name| name.unwrap().to_str().unwrap()).collect();
    assert_eq!(names, models);
    for entry in &found.entries {
        let error = entry.model.as_ref().unwrap_err();
        assert!(matches!(error, OpenError::NotRegular { .. }), "{error}");
    }
    assert_eq!(found.other, [], "they are of no format");
}

#[test]
fn a_folder_is_one_whatever_it_is_called() {
    let folder = tempdir().unwrap();
    let named = [
        "m.bin",
        "m.gguf",
        "m.pt",
        "m.safetensors",
        "m.safetensors.index.json",
    ];
    for name in named {
        write(folder.path(), &format!("{name}/t.safetensors"), small());
    }
    let found = discover(folder.path()).unwrap();
    assert_eq!(found.entries.len(), named.len());
    assert!(found.entries.iter().all(|entry| entry.model.is_ok()));
}

#[test]
fn a_folder_to_which_links_lead_is_searched_by_its_shortest_way() {
    let folder = tempdir().unwrap();
    let mut deep = folder.path().to_path_buf();
    (0..MAX_DEPTH).for_each(|_| deep.push("a"));
    std::fs::create_dir_all(&deep).unwrap();
    write(folder.path(), "z/below/m.safetensors", small());
    symlink(folder.path().join("z"), deep.join("link")).unwrap();
    let above = deep.parent().unwrap().join("link");
    symlink(folder.path().join("z"), above).unwrap();
    let found = discover(folder.path()).unwrap();
    let [entry] = &found.entries[..] else {
        panic!("{found:?}");
    };
    assert!(entry.model.is_ok());
    assert_eq!(entry.path, folder.path().join("z/below/m.safetensors"));
}
