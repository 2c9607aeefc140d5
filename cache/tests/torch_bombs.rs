//! Small checkpoints that would unpack to much: refused, or read, in little memory, and soon.

#![allow(clippy::unwrap_used)]

mod torch_files;

use plimsoll_cache::Model;
use tempfile::tempdir;
use torch_files::{Pickler, Saved, Zip};

/// Beyond what is resident before. The limits of the machine allow some 300 MiB at the worst.
const MOST: u64 = 600 << 20;

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().split_whitespace().next().unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

fn repeated(times: usize, instructions: &[u8]) -> Vec<u8> {
    instructions.repeat(times)
}

fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let proto = |rest: &[u8]| [&b"\x80\x04"[..], rest, b"."].concat();
    let doubling: Vec<u8> = (0..100_u8)
        .flat_map(|number| [b'h', number, b'h', number, 0x86, b'q', number + 1, b'0'])
        .collect();
    let long = [&b"X"[..], &4096_u32.to_le_bytes(), &[b'n'; 4096]].concat();
    let longest = [
        &b"X"[..],
        &(8_u32 << 20).to_le_bytes(),
        &vec![b'n'; 8 << 20],
    ]
    .concat();
    let many_tables = [
        &b"}}\x94("[..],
        &repeated(500_000, b"NN"),
        b"u0(",
        &repeated(400_000, b"X\x01\0\0\0xh\0"),
        b"u",
    ];
    vec![
        (
            "a memo that doubles",
            proto(&[b"Nq\0", &doubling[..]].concat()),
        ),
        ("a tall stack", proto(&repeated(4 << 20, b"N"))),
        ("marks", proto(&repeated(4 << 20, b"("))),
        ("tables", proto(&repeated(8 << 20, b"}0"))),
        (
            "tuples within tuples",
            proto(&[&b"N"[..], &repeated(8 << 20, b"\x85")].concat()),
        ),
        (
            "a memo of everything",
            proto(&[&b"N"[..], &repeated(8 << 20, b"\x94")].concat()),
        ),
        (
            "wide tuples",
            proto(&repeated(
                200_000,
                &[&b"("[..], &[b'N'; 64], b"t0"].concat(),
            )),
        ),
        ("storages", {
            let id = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000NK\x01t\x94Q0";
            proto(&[&id[..], &repeated(4 << 20, b"h\0Q0")].concat())
        }),
        ("a name as long as may be, again and again", {
            let again = repeated(1 << 20, b"h\0h\0s");
            proto(&[&long[..], b"\x940}", &again].concat())
        }),
        ("a name longer than that, again and again", {
            let again = repeated(1 << 20, b"h\0h\0s");
            proto(&[&longest[..], b"\x940}", &again].concat())
        }),
        ("tables in one another", proto(&many_tables.concat())),
        ("a circle", proto(b"}\x94X\x01\0\0\0xh\0s")),
        (
            "a large frame",
            [&b"\x80\x04\x95"[..], &[0xff; 8], b"}."].concat(),
        ),
        ("a tensor under many names", {
            let mut pickler = Pickler::default();
            let tensor = Saved::new("t", "FloatStorage", "0", &[1; 64]);
            pickler.op(b"}").tensor(&tensor).op(b"0(");
            let last = pickler.puts() - 1;
            for name in 0..300_000_u32 {
                pickler
                    .op(b"X\x08\0\0\0")
                    .op(format!("{name:08}"))
                    .op([b'h', last]);
            }
            pickler.op(b"u");
            pickler.end()
        }),
    ]
}

#[test]
fn little_that_would_become_much_costs_little() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("bomb.pt");
    let storages = [("0".to_owned(), vec![0; 4])];
    for (name, pickle) in bombs() {
        std::fs::write(&path, Zip::around(&pickle, &storages).bytes()).unwrap();
        drop(pickle);
        // From here on.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = peak_bytes();
        let error = Model::open(&path).unwrap_err();
        let grown = peak_bytes().saturating_sub(before);
        println!("{name}: {grown} bytes, {error}");
        assert!(grown < MOST, "{name}: {grown} bytes");
    }
}

#[test]
fn a_long_text_that_is_named_a_million_times_is_looked_through_but_once() {
    let text = "ü".repeat(2048);
    let folder = tempdir().unwrap();
    let path = folder.path().join("bomb.pt");
    let mut pickler = Pickler::default();
    pickler.text(&text).op(b"0}");
    pickler.items(&[Saved::new("t", "FloatStorage", "0", &[1])]);
    pickler.op(repeated(1 << 20, b"h\0h\0s"));
    let storages = [("0".to_owned(), vec![0; 4])];
    std::fs::write(&path, Zip::around(&pickler.end(), &storages).bytes()).unwrap();
    let model = Model::open(&path).unwrap();
    let metadata = model.metadata();
    assert_eq!(metadata.iter().count() + metadata.left_out(), 1 << 20);
}
