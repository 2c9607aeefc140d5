//! Zip files that are broken, or made to harm, are refused as checkpoints before they cost anything.

#![allow(clippy::unwrap_used)]

mod torch_files;

use std::os::unix::fs::FileExt;

use plimsoll_cache::Model;
use plimsoll_cache::model::{MAX_HEADER_BYTES, TorchFault};
use tempfile::tempdir;
use torch_files::{Checkpoint, Zip, fault, fault_at, zip};

fn sound() -> Checkpoint {
    Checkpoint::default()
        .with("a", "FloatStorage", &[2, 3])
        .with("b", "HalfStorage", &[5])
}

#[test]
fn entries_of_one_name_or_of_names_that_repaint_a_screen_are_refused() {
    let mut zip = sound().zip();
    zip.add("test/\u{1b}[2J", "");
    let fault = torch_files::fault(zip.bytes(), &[r"\u{1b}[2J", "do not trust"]);
    assert!(matches!(fault, TorchFault::EntryName { .. }));
    let mut zip = sound().zip();
    zip.add("test/data/0", [0; 24]);
    let fault = torch_files::fault(zip.bytes(), &["two entries named `test/data/0`"]);
    assert!(matches!(fault, TorchFault::DuplicateEntry { .. }));
}

#[test]
fn every_file_that_is_cut_off_is_refused() {
    let whole = sound().bytes();
    for length in (4..whole.len()).step_by(7).chain([whole.len() - 1]) {
        let fault = fault(&whole[..length], &["cut off", &format!("{length} bytes")]);
        assert!(matches!(fault, TorchFault::NoEnd { .. }), "{fault:?}");
    }
    fault([&whole[..], b"x"].concat(), &["download it again"]);
}

#[test]
fn entries_that_are_compressed_or_encrypted_are_refused_with_their_sizes() {
    for name in ["test/data/0", "test/data.pkl"] {
        let mut bomb = sound().zip();
        let entry = bomb.entry(name);
        (entry.method, entry.claims) = (8, Some([24, u32::MAX - 1]));
        let words = [name, "method 8", "24 bytes", "4294967294", "safetensors"];
        let fault = fault(bomb.bytes(), &words);
        assert!(matches!(fault, TorchFault::Compressed { .. }));
    }
    for flag in [0, 6, 13] {
        let mut locked = sound().zip();
        locked.entry("test/data/1").flags |= 1 << flag;
        fault(locked.bytes(), &["`test/data/1`", "10 bytes", "encrypted"]);
    }
}

#[test]
fn entries_that_lie_about_where_they_are_or_how_long_are_refused() {
    let change = |name: &str, change: fn(&mut zip::Entry), words: &[&str]| {
        let mut zip = sound().zip();
        change(zip.entry(name));
        fault(zip.bytes(), words)
    };
    let first = "test/data/0";
    change(first, |entry| entry.claims = Some([24, 25]), &["24 and 25"]);
    change(
        first,
        |entry| entry.claims = Some([1 << 30; 2]),
        &["`test/data/0`", "beyond"],
    );
    change(
        first,
        |entry| entry.claims = Some([300; 2]),
        &["inside entry `test/data/0`"],
    );
    change(
        first,
        |entry| entry.begin = Some(0),
        &["inside entry `test/data.pkl`"],
    );
    change(
        first,
        |entry| entry.begin = Some(u32::MAX - 1),
        &["beyond", "4294967294"],
    );
    // All ones, and no field for zip64 that says more.
    change(
        first,
        |entry| entry.begin = Some(u32::MAX),
        &["an entry of the directory"],
    );
    change(
        first,
        |entry| entry.claims = Some([20; 2]),
        &["`a`", "6 × 4", "20"],
    );
    for name in [
        "../evil",
        "/etc/passwd",
        "test/../../x",
        "test//x",
        "a\\b",
        "",
        "./x",
    ] {
        let mut zip = sound().zip();
        zip.add(name, "x");
        let fault = fault(zip.bytes(), &["no plain path"]);
        assert!(matches!(fault, TorchFault::EntryName { .. }), "{name}");
    }
    let mut zip = sound().zip();
    zip.add("x", "x").entry("x").name = vec![0xff; 9];
    fault(zip.bytes(), &["no plain path"]);
}

#[test]
fn two_entries_in_one_place_are_refused() {
    let mut zip = sound().zip();
    let name = b"test/data/0";
    let bytes = zip.bytes();
    let at = bytes.windows(name.len()).position(|at| at == name).unwrap() - 30;
    zip.entry("test/data/0").begin = Some(at as u32 + 1);
    fault(
        zip.bytes(),
        &["header of an entry", &format!("byte {}", at + 1)],
    );
    zip.entry("test/data/0").begin = None;
    let both = zip.entries[2].clone();
    zip.entries.push(both);
    let last = zip.entries.len() - 1;
    zip.entries[last].name = b"test/data/2".to_vec();
    zip.entries[last].begin = Some(at as u32);
    let fault = fault(zip.bytes(), &["`test/data/2`", "inside entry", "damaged"]);
    assert!(matches!(fault, TorchFault::Overlap { .. }), "{fault:?}");
}

#[test]
fn directories_that_are_not_where_they_should_be_are_refused() {
    let whole = sound().bytes();
    let directory = whole.windows(4).position(|at| at == b"PK\x01\x02").unwrap() as u64;
    let length = whole.len() as u64 - 98 - directory;
    let ends: [(u64, u64, u64, &str); 9] = [
        (6, directory + 1, length, "a directory that does not end"),
        (6, directory, length - 1, "a directory that does not end"),
        (6, 1 << 40, length, "a directory that does not end"),
        (6, u64::MAX, length, "a directory that does not end"),
        (
            6,
            directory,
            u64::MAX,
            "above the limits of 262144 and 67108864",
        ),
        (5, directory, length, "more than its entries"),
        (7, directory, length, "an entry of the directory"),
        (1_000_000, directory, length, "1000000 entries"),
        (u64::MAX, directory, length, "18446744073709551615 entries"),
    ];
    for (entries, begin, bytes, word) in ends {
        let mut file = whole[..whole.len() - 98].to_vec();
        let at = file.len() as u64;
        zip::end_at(&mut file, at, entries, begin, bytes);
        fault(file, &[word]);
    }
    // The two end records disagree.
    let mut file = whole.clone();
    let short = file.len() - 22;
    file[short + 16] ^= 1;
    fault(file, &["two truths"]);
}

#[test]
fn a_million_entries_are_refused_before_they_are_read() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("m.pt");
    let mut directory = Vec::new();
    for number in 0..1_000_000_u64 {
        zip::numbers(&mut directory, &[(4, 0x0201_4b50), (8, 0), (8, 0), (8, 0)]);
        zip::numbers(&mut directory, &[(2, 7), (4, 0), (8, 0), (4, 0)]);
        directory.extend(format!("{number:07}").bytes());
    }
    let mut file = b"PK\x03\x04".to_vec();
    file.extend(&directory);
    zip::end(&mut file, 1_000_000, 4, directory.len() as u64);
    std::fs::write(&path, file).unwrap();
    let fault = fault_at(&path, &["1000000 entries", "262144"]);
    let (entries, bytes) = (1_000_000, directory.len() as u64);
    assert_eq!(fault, TorchFault::DirectoryTooLarge { entries, bytes });
}

#[test]
fn a_pickle_beyond_the_limit_is_refused_before_it_is_read() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("m.pt");
    let bytes = MAX_HEADER_BYTES + 1;
    let file = std::fs::File::create(&path).unwrap();
    let name = "m/data.pkl";
    let mut header = Vec::new();
    zip::numbers(
        &mut header,
        &[
            (4, 0x0403_4b50),
            (2, 0),
            (2, 0x0808),
            (2, 0),
            (8, 0),
            (8, 0),
        ],
    );
    zip::numbers(&mut header, &[(2, name.len() as u64), (2, 0)]);
    header.extend(name.bytes());
    file.write_all_at(&header, 0).unwrap();
    let begin = header.len() as u64 + bytes;
    let mut end = Vec::new();
    zip::numbers(
        &mut end,
        &[(4, 0x0201_4b50), (4, 0), (2, 0x0808), (2, 0), (8, 0)],
    );
    zip::numbers(
        &mut end,
        &[
            (4, bytes),
            (4, bytes),
            (2, name.len() as u64),
            (8, 0),
            (8, 0),
        ],
    );
    end.extend(name.bytes());
    let length = end.len() as u64;
    zip::end_at(&mut end, begin + length, 1, begin, length);
    file.write_all_at(&end, begin).unwrap();
    assert_eq!(
        fault_at(&path, &["100000001", "above the limit of 100000000"]),
        TorchFault::PickleTooLarge { bytes }
    );
}

#[test]
fn what_only_resembles_a_checkpoint_is_named() {
    let mut program = sound().zip();
    program
        .add("test/code/__torch__.py", "x")
        .add("test/constants.pkl", ")");
    let fault_of_program = fault(program.bytes(), &["TorchScript", "state_dict()"]);
    assert!(matches!(fault_of_program, TorchFault::TorchScript { .. }));
    let mut other = Zip {
        entries: Vec::new(),
    };
    other.add("word/document.xml", "x");
    let expected = TorchFault::NotTorch {
        entries: 1,
        pickles: 0,
    };
    assert_eq!(fault(other.bytes(), &["1 entries", "data.pkl"]), expected);
    let mut two = sound().zip();
    two.add("other/data.pkl", "x");
    fault(two.bytes(), &["with 2 of the form"]);
    let old = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let expected = TorchFault::Legacy { file_bytes: 15 };
    assert_eq!(fault(old, &["before version 1.6", "15 bytes"]), expected);
    let expected = TorchFault::NotZip {
        kind: None,
        file_bytes: 0,
    };
    assert_eq!(fault([], &["0 bytes", "convert"]), expected);
    for order in ["big", "\u{1b}[2J", "middle, or something longer"] {
        let mut zip = sound().zip();
        zip.entry("test/byteorder").data = order.into();
        let fault = fault(zip.bytes(), &["byte order", "`little`"]);
        assert!(matches!(fault, TorchFault::ByteOrder { .. }));
    }
    // Files of before 2.1 do not say, and are of that order.
    let mut zip = sound().zip();
    zip.entries.remove(1);
    let folder = tempdir().unwrap();
    let path = folder.path().join("m.pt");
    std::fs::write(&path, zip.bytes()).unwrap();
    assert_eq!(Model::open(path).unwrap().tensors().len(), 2);
}
