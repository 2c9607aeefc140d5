//! Whatever a checkpoint holds: never a panic, and every tensor of what is opened lies in the file.

#![allow(clippy::unwrap_used)]

mod torch_files;

use std::io::{Seek, Write};
use std::path::Path;

use plimsoll_cache::Model;
use proptest::prelude::*;
use torch_files::{Checkpoint, Pickler, Zip};

fn sound() -> Checkpoint {
    Checkpoint::default()
        .with("a", "FloatStorage", &[2, 3])
        .view("a.tied", 0, &[3, 2])
        .view("a.part", 2, &[3])
        .with("b", "HalfStorage", &[1, 5, 1, 1])
        .with("c", "LongStorage", &[])
}

/// Opens a file of these bytes and holds it to what models promise. Whether it was opened.
fn open(file: &mut tempfile::NamedTempFile, bytes: &[u8]) -> bool {
    file.as_file_mut().set_len(0).unwrap();
    file.rewind().unwrap();
    file.write_all(bytes).unwrap();
    match Model::open(file.path()) {
        Ok(model) => {
            hold(&model, bytes.len() as u64);
            true
        }
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error}");
            false
        }
    }
}

fn hold(model: &Model, file_bytes: u64) {
    let mut end = 0;
    for (at, tensor) in model.tensors().iter().enumerate() {
        let bits = tensor.elements() * tensor.dtype.bitsize() as u64;
        assert_eq!(tensor.bytes * 8, bits);
        assert!(tensor.offset + tensor.bytes <= file_bytes);
        assert!(tensor.offset >= end, "in the order of their bytes");
        end = tensor.offset;
        if let Some(tied) = tensor.tied_to {
            let other = &model.tensors()[tied as usize];
            assert!((tied as usize) < at && other.tied_to.is_none());
            assert_eq!((other.offset, other.bytes), (tensor.offset, tensor.bytes));
        }
        assert_eq!(model.tensor(&tensor.name).unwrap().0, at);
    }
}

fn temporary() -> tempfile::NamedTempFile {
    let memory = Path::new("/dev/shm");
    let named = tempfile::Builder::new().suffix(".pt").tempfile_in(memory);
    named.unwrap_or_else(|_| tempfile::Builder::new().suffix(".pt").tempfile().unwrap())
}

/// Parts of pickles, right and wrong.
fn part() -> impl Strategy<Value = Vec<u8>> {
    let mut tensor = Pickler::default();
    tensor.bytes.clear();
    tensor.tensor(&sound().tensors[0]);
    let bytes = |parts: &[&[u8]]| parts.iter().map(|part| part.to_vec()).collect::<Vec<_>>();
    let known = bytes(&[
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"X\x07\0\0\0storage",
        b"X\x01\0\0\x000",
        b"\x8c\x01a",
        b"K\x06",
        b"K\0",
        b"\x8a\x01\xff",
        b"h\0",
        b"q\0",
        b"\x8c\x02osq\x010\x8c\x06system\x93",
        &tensor.bytes,
    ]);
    prop_oneof![
        proptest::sample::select(known),
        proptest::sample::select(b"()\x85\x86\x87t}]Rbsuae01NQ\x88\x89\x94\x8f\x90\x91".to_vec())
            .prop_map(|opcode| vec![opcode]),
        proptest::collection::vec(any::<u8>(), 1..4),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn files_with_changed_bytes_are_refused_or_read_within_their_bounds(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::weighted(0.1, any::<proptest::sample::Index>()),
    ) {
        let mut bytes = sound().bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        open(&mut temporary(), &bytes);
    }

    #[test]
    fn pickles_with_changed_bytes_are_refused_or_read_within_their_bounds(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let sound = sound();
        let mut pickle = sound.pickle();
        let changed = !changes.is_empty();
        for (at, byte) in changes {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        let opened = open(&mut temporary(), &Zip::around(&pickle, &sound.storages).bytes());
        prop_assert!(opened || changed);
    }

    #[test]
    fn pickles_of_any_instructions_are_refused_or_read_within_their_bounds(
        parts in proptest::collection::vec(part(), 0..40),
    ) {
        let pickle = [&b"\x80\x02}"[..], &parts.concat(), b"."].concat();
        open(&mut temporary(), &Zip::around(&pickle, &sound().storages).bytes());
    }
}
