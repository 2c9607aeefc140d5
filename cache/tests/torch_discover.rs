//! Checkpoints in folders: found by their content, whole or in shards.

#![allow(clippy::unwrap_used)]

mod model_files;
mod torch_files;

use std::path::Path;

use model_files::{index, sound, write};
use plimsoll_cache::Model;
use plimsoll_cache::model::{Format, OpenError, TorchFault, discover};
use safetensors::Dtype;
use tempfile::tempdir;
use torch_files::{Checkpoint, Pickler, Zip};

fn small() -> Vec<u8> {
    Checkpoint::default().with("w", "HalfStorage", &[4]).bytes()
}

/// At least as large as a `.bin` has to be to be looked at.
fn large(name: &str) -> Checkpoint {
    Checkpoint::default().with(name, "ByteStorage", &[1 << 20])
}

#[test]
fn checkpoints_are_found_and_what_only_looks_like_one_is_named() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    write(folder, "a.pt", small());
    write(folder, "b.ckpt", small());
    write(folder, "pytorch_model.bin", large("w").bytes());
    write(folder, "tiny.bin", small());
    write(folder, "damaged.pth", &small()[..1000]);
    let code = b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R.";
    write(folder, "evil.pt", Zip::around(code, &[]).bytes());
    write(folder, "zeros.bin", vec![0; 1 << 20]);
    write(
        folder,
        "old.pt",
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
    );
    write(
        folder,
        "optimizer.pt",
        Zip::around(b"\x80\x02}.", &[]).bytes(),
    );
    write(folder, "site.pth", "/usr/lib/python");
    let found = discover(folder).unwrap();
    let models: Vec<(&str, bool)> = found
        .entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.model.is_ok()))
        .collect();
    let expected = [
        ("a", true),
        ("b", true),
        ("damaged", false),
        ("evil", false),
        ("pytorch_model", true),
    ];
    assert_eq!(models, expected);
    let file_name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let other: Vec<String> = found
        .other
        .iter()
        .map(|other| file_name(&other.path))
        .collect();
    assert_eq!(other, ["old.pt", "optimizer.pt", "site.pth", "zeros.bin"]);
}

#[test]
fn a_file_named_alone_says_what_is_wrong_with_it() {
    let folder = tempdir().unwrap();
    let path = write(
        folder.path(),
        "optimizer.pt",
        Zip::around(b"\x80\x02}.", &[]).bytes(),
    );
    let found = discover(path).unwrap();
    let error = found.entries[0].model.as_ref().unwrap_err();
    assert!(error.to_string().contains("no tensors"), "{error}");
}

#[test]
fn a_checkpoint_is_one_by_its_content_whatever_its_name() {
    let folder = tempdir().unwrap();
    for name in ["m.safetensors", "m.dat", "m"] {
        let model = Model::open(write(folder.path(), name, small())).unwrap();
        assert_eq!(model.format(), Format::PyTorch);
    }
}

#[test]
fn shards_are_joined_by_their_index() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let first = large("a")
        .view("a.tied", 0, &[1 << 20])
        .with("c", "FloatStorage", &[2]);
    let second = large("left.out")
        .view("b", 0, &[1 << 20])
        .view("b.tied", 0, &[1 << 10, 1 << 10]);
    write(folder, "pytorch_model-00001-of-00002.bin", first.bytes());
    write(folder, "pytorch_model-00002-of-00002.bin", second.bytes());
    let placed = [
        ("a", "pytorch_model-00001-of-00002.bin"),
        ("a.tied", "pytorch_model-00001-of-00002.bin"),
        ("c", "pytorch_model-00001-of-00002.bin"),
        ("b", "pytorch_model-00002-of-00002.bin"),
        ("b.tied", "pytorch_model-00002-of-00002.bin"),
    ];
    write(folder, "pytorch_model.bin.index.json", index(&placed));
    let found = discover(folder).unwrap();
    let [entry] = &found.entries[..] else {
        panic!("{found:?}");
    };
    assert!(found.other.is_empty());
    let model = entry.model.as_ref().unwrap();
    assert_eq!(
        (model.name(), model.format()),
        ("pytorch_model", Format::PyTorch)
    );
    assert_eq!((model.files().len(), model.summary().unmapped), (2, 1));
    assert_eq!(model.bytes(), (2 << 20) + 8);
    let at = |name: &str| model.tensor(name).unwrap().0 as u32;
    let tied = |name: &str| model.tensor(name).unwrap().1.tied_to;
    assert_eq!(
        (tied("a.tied"), tied("b.tied")),
        (Some(at("a")), Some(at("b")))
    );
    assert_eq!((tied("a"), tied("b"), tied("c")), (None, None, None));
}

#[test]
fn a_shard_that_is_no_checkpoint_is_refused_by_its_own_name() {
    let folder = tempdir().unwrap();
    write(folder.path(), "m-00001-of-00001.bin", "x");
    let placed = index(&[("w", "m-00001-of-00001.bin")]);
    let path = write(folder.path(), "m.bin.index.json", placed);
    let error = Model::open(path).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("m-00001-of-00001.bin"), "{message}");
    let OpenError::Torch { fault, .. } = error else {
        panic!("{message}");
    };
    assert_eq!(
        *fault,
        TorchFault::NotZip {
            kind: None,
            file_bytes: 1
        }
    );
}

#[test]
fn a_safetensors_header_as_long_as_a_zip_file_begins_is_still_one() {
    let folder = tempdir().unwrap();
    let mut bytes = sound(&[("t", Dtype::U8, &[1])]);
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let length = u32::from_le_bytes(*b"PK\x03\x04") as usize;
    let padding = std::iter::repeat_n(b' ', length - header);
    bytes.splice(8 + header..8 + header, padding);
    bytes[..8].copy_from_slice(&(length as u64).to_le_bytes());
    let model = Model::open(write(folder.path(), "m.safetensors", bytes)).unwrap();
    assert_eq!(model.format(), Format::Safetensors);
}

#[test]
fn two_tables_of_tensors_are_refused_by_their_names() {
    let weights = Checkpoint::default().with("w", "HalfStorage", &[2]);
    let mut pickler = Pickler::default();
    pickler.op(b"}(").text("model").state_dict(&weights.tensors);
    pickler.text("ema").state_dict(&weights.tensors).op(b"u");
    let bytes = Zip::around(&pickler.end(), &weights.storages).bytes();
    let fault = torch_files::fault(bytes, &["`model`", "`ema`", "save the one you want"]);
    assert!(matches!(fault, TorchFault::SeveralTables { .. }));
}

#[test]
fn what_only_looks_like_a_checkpoint_is_called_what_it_is() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let mut tar = vec![0; 10 << 10];
    tar[257..262].copy_from_slice(b"ustar");
    let mut program = large("w").zip();
    program.add("test/code/model.py", "x");
    let mut other = Zip {
        entries: Vec::new(),
    };
    other.add("word/document.xml", "x");
    for (name, bytes) in [
        ("a.pt", b"\x80\x03}q\0.".to_vec()),
        ("b.pt", tar),
        ("c.pt", program.bytes()),
        ("d.pt", other.bytes()),
        ("e.pt", Zip::around(b"\x80\x02}.", &[]).bytes()),
        ("f.pt", Vec::new()),
        ("tokenizer.bin", vec![b'x'; 1 << 20]),
    ] {
        write(folder, name, bytes);
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    write(folder, "g.pt", pointer);
    let found = discover(folder).unwrap();
    let kinds: Vec<&str> = found.other.iter().map(|other| other.format).collect();
    assert_eq!(
        kinds,
        [
            "a PyTorch file from before version 1.6",
            "a PyTorch file from before version 1.6",
            "a TorchScript program",
            "a zip file that is not PyTorch's",
            "a PyTorch file without a table of tensors",
            "a file that is PyTorch's by its name alone",
            "a file that is PyTorch's by its name alone",
        ]
    );
    let [pointer] = &found.entries[..] else {
        panic!("{found:?}");
    };
    let error = pointer.model.as_ref().unwrap_err().to_string();
    assert!(error.contains("git lfs pull"), "{error}");
}
