//! Files that are broken, or made to harm, are refused quickly, with an error that names the file,
//! the numbers and a way out.

#![allow(clippy::unwrap_used)]

mod model_files;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use model_files::{raw, refused, write};
use plimsoll_cache::model::{HeaderFault, MAX_HEADER_BYTES, Model, OpenError};
use tempfile::tempdir;

/// Writes `bytes` as a model and gives the fault that its header is refused for.
#[track_caller]
fn fault(bytes: impl AsRef<[u8]>, words: &[&str]) -> HeaderFault {
    let folder = tempdir().unwrap();
    let path = write(folder.path(), "m.safetensors", bytes);
    fault_at(&path, words)
}

#[track_caller]
fn fault_at(path: &Path, words: &[&str]) -> HeaderFault {
    match refused(path, words) {
        OpenError::Header { fault, .. } => *fault,
        other => panic!("not of the header: {other:?}"),
    }
}

/// A header with one tensor `t`.
fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

/// A header with two tensors of bytes.
fn two(first: (u64, u64), second: (u64, u64)) -> String {
    let entry = |(begin, end): (u64, u64)| {
        let size = end.saturating_sub(begin);
        format!(r#"{{"dtype":"U8","shape":[{size}],"data_offsets":[{begin},{end}]}}"#)
    };
    format!(r#"{{"a":{},"b":{}}}"#, entry(first), entry(second))
}

#[test]
fn a_missing_file_is_not_found() {
    let folder = tempdir().unwrap();
    let error = refused(
        &folder.path().join("m.safetensors"),
        &["no such file", "check the path"],
    );
    assert!(matches!(error, OpenError::NotFound { .. }));
}

#[test]
fn a_directory_is_refused_as_one() {
    let folder = tempdir().unwrap();
    let error = refused(folder.path(), &["directory", "scan"]);
    assert!(matches!(error, OpenError::Directory { .. }));
}

#[test]
fn a_file_that_may_not_be_looked_at_says_what_the_system_said() {
    let folder = tempdir().unwrap();
    let file = write(folder.path(), "file", "x");
    let error = refused(
        &file.join("m.safetensors"),
        &["cannot look at it", "Not a directory"],
    );
    assert!(matches!(error, OpenError::Io { .. }));
}

#[test]
fn an_empty_file_is_refused() {
    assert_eq!(
        fault([], &["empty", "0 bytes", "download"]),
        HeaderFault::Empty
    );
}

#[test]
fn a_file_shorter_than_eight_bytes_is_refused() {
    assert_eq!(
        fault([1; 7], &["7 bytes"]),
        HeaderFault::TooShort { file_bytes: 7 }
    );
}

#[test]
fn a_header_longer_than_its_file_is_refused() {
    let mut bytes = raw("{}", 0);
    bytes[0] = 3;
    assert_eq!(
        fault(bytes, &["header of 3 bytes", "10 bytes in all"]),
        HeaderFault::HeaderBeyondFile {
            claimed: 3,
            file_bytes: 10
        }
    );
}

#[test]
fn a_header_of_exabytes_is_refused() {
    for claimed in [1 << 60, u64::MAX, u64::MAX - 7] {
        let mut bytes = raw("{}", 0);
        bytes[..8].copy_from_slice(&claimed.to_le_bytes());
        assert_eq!(
            fault(bytes, &[&claimed.to_string(), "100000000"]),
            HeaderFault::HeaderTooLarge {
                claimed,
                file_bytes: 10
            }
        );
    }
}

#[test]
fn a_header_above_the_limit_is_refused_though_its_file_holds_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let file = File::create(&path).unwrap();
    let claimed = MAX_HEADER_BYTES + 1;
    file.write_all_at(&claimed.to_le_bytes(), 0).unwrap();
    file.write_all_at(b"{", 8).unwrap();
    file.set_len(1 << 30).unwrap();
    assert_eq!(
        fault_at(&path, &["100000001", "1073741824"]),
        HeaderFault::HeaderTooLarge {
            claimed,
            file_bytes: 1 << 30
        }
    );
}

#[test]
fn a_header_that_begins_with_anything_but_a_brace_is_refused() {
    assert_eq!(
        fault(raw("[]", 0), &["0x5b", "of 2 bytes"]),
        HeaderFault::NotObject {
            first: b'[',
            claimed: 2
        }
    );
}

#[test]
fn a_header_that_is_not_utf8_is_refused() {
    assert_eq!(
        fault(raw(b"{\"a\xff\":1}", 0), &["UTF-8", "byte 3 of 8"]),
        HeaderFault::NotUtf8 { at: 3, claimed: 8 }
    );
}

#[test]
fn a_header_that_is_not_json_is_refused() {
    for header in [
        "",
        "{",
        "{]",
        "{}x",
        "{\"t\":",
        "{\"t\":1}",
        "{\"t\":\"x\"}",
        "{\"t\":null}",
        "{1:2}",
    ] {
        let fault = fault(raw(header, 0), &["cannot be read", "line 1 column"]);
        assert!(
            matches!(fault, HeaderFault::Json { .. }),
            "{header}: {fault:?}"
        );
    }
}

#[test]
fn the_tensor_whose_entry_is_of_a_wrong_form_is_named() {
    let entries = [
        r#"{"dtype":"U8","shape":[1]}"#,
        r#"{"dtype":"U8","shape":[1],"data_offsets":[0]}"#,
        r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}"#,
        r#"{"dtype":"U8","shape":[1],"data_offsets":"0,1"}"#,
        r#"{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}"#,
        r#"{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}"#,
        r#"{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}"#,
        r#"{"dtype":"U8","shape":"[1]","data_offsets":[0,1]}"#,
        r#"{"dtype":7,"shape":[1],"data_offsets":[0,1]}"#,
        r#"{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}"#,
        r#"["U8",[1],[0,1]]"#,
    ];
    for entry in entries {
        let header = format!(r#"{{"the.name":{entry}}}"#);
        let fault = fault(raw(header, 1), &["at tensor `the.name`", "column"]);
        assert!(
            matches!(fault, HeaderFault::Json { .. }),
            "{entry}: {fault:?}"
        );
    }
}

#[test]
fn metadata_that_is_not_made_of_strings_or_occurs_twice_is_refused() {
    for header in [
        r#"{"__metadata__":{"a":1}}"#,
        r#"{"__metadata__":"a"}"#,
        r#"{"__metadata__":{},"__metadata__":{}}"#,
    ] {
        let fault = fault(raw(header, 0), &["__metadata__", "column"]);
        assert!(matches!(fault, HeaderFault::Json { .. }), "{header}");
    }
}

#[test]
fn a_deeply_nested_header_is_refused_without_deep_recursion() {
    let deep = 20_000_000;
    let nested = format!(r#"{{"t":{{"x":{}"#, "[".repeat(deep));
    let began = Instant::now();
    let fault = fault(raw(nested, 0), &["recursion limit", "tensor `t`"]);
    assert!(matches!(fault, HeaderFault::Json { .. }));
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// The most memory this process ever held, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

#[test]
fn a_hundred_megabytes_of_garbage_are_refused_quickly_in_bounded_memory() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for (fill, begin) in [
        (0_u8, &b"\0"[..]),
        (b'[', b"{\"t\":"),
        (b'a', b"{\"t\":{\"dtype\":\""),
        (b'1', b"{\"t\":{\"shape\":["),
        (b'\\', b"{\""),
    ] {
        let mut file = File::create(&path).unwrap();
        file.write_all(&MAX_HEADER_BYTES.to_le_bytes()).unwrap();
        let mut header = vec![fill; MAX_HEADER_BYTES as usize];
        header[..begin.len()].copy_from_slice(begin);
        file.write_all(&header).unwrap();
        drop((file, header));
        let (began, before) = (Instant::now(), peak());
        let error = Model::open(&path).unwrap_err();
        let took = began.elapsed();
        assert!(matches!(error, OpenError::Header { .. }), "{error}");
        assert!(
            error.to_string().len() < 2000,
            "the message does not quote it all"
        );
        // Generous, for machines under load and unoptimised builds.
        assert!(
            took < Duration::from_secs(10),
            "{took:?} for {}",
            fill as char
        );
        assert!(
            peak() - before < 400_000_000,
            "{} for {}",
            peak() - before,
            fill as char
        );
    }
}

#[test]
fn tensors_that_overlap_are_refused() {
    assert_eq!(
        fault(
            raw(two((0, 4), (3, 8)), 8),
            &["`b` begins at byte 3", "`a`", "ends at 4"]
        ),
        HeaderFault::Overlap {
            tensor: "b".into(),
            begin: 3,
            other: "a".into(),
            end: 4
        }
    );
    let same = fault(raw(two((0, 4), (0, 4)), 4), &["begins at byte 0"]);
    assert!(matches!(same, HeaderFault::Overlap { .. }));
}

#[test]
fn a_gap_between_tensors_is_refused() {
    assert_eq!(
        fault(
            raw(two((0, 4), (5, 8)), 8),
            &["`b` begins at byte 5", "from 4"]
        ),
        HeaderFault::Gap {
            tensor: "b".into(),
            begin: 5,
            end: 4
        }
    );
    let first = fault(
        raw(one("U8", "[4]", "[1,5]"), 5),
        &["begins at byte 1", "from 0"],
    );
    assert!(matches!(
        first,
        HeaderFault::Gap {
            begin: 1,
            end: 0,
            ..
        }
    ));
}

#[test]
fn a_tensor_outside_its_file_is_refused() {
    assert_eq!(
        fault(
            raw(one("U8", "[9]", "[0,9]"), 8),
            &["ends at byte 9", "has 8", "cut off", "download"]
        ),
        HeaderFault::OutsideFile {
            tensor: "t".into(),
            end: 9,
            data_bytes: 8
        }
    );
    let end = u64::MAX;
    let far = one("U8", &format!("[{end}]"), &format!("[0,{end}]"));
    assert!(matches!(
        fault(raw(far, 8), &[&end.to_string()]),
        HeaderFault::SizeOverflow { .. } | HeaderFault::OutsideFile { .. }
    ));
}

#[test]
fn a_range_that_shape_and_dtype_do_not_fill_is_refused() {
    assert_eq!(
        fault(
            raw(one("F16", "[2,3]", "[0,8]"), 8),
            &["F16", "[2, 3]", "needs 12 bytes", "has 8"]
        ),
        HeaderFault::SizeMismatch {
            tensor: "t".into(),
            dtype: plimsoll_cache::model::Dtype::F16,
            shape: [2, 3].into(),
            needs: 12,
            has: 8,
        }
    );
}

#[test]
fn a_shape_whose_product_overflows_is_refused() {
    for shape in [
        "[4294967296,4294967296]",
        "[9223372036854775807]",
        "[4294967296,4294967296,0]",
    ] {
        let fault = fault(raw(one("F32", shape, "[0,0]"), 0), &["2^64 bits", "F32"]);
        assert!(matches!(fault, HeaderFault::SizeOverflow { .. }), "{shape}");
    }
}

#[test]
fn a_tensor_that_ends_within_a_byte_is_refused() {
    for (dtype, shape, bits) in [
        ("F4", "[3]", 12),
        ("F6_E2M3", "[2,1]", 12),
        ("F6_E3M2", "[]", 6),
    ] {
        let fault = fault(
            raw(one(dtype, shape, "[0,1]"), 1),
            &[&format!("{bits} bits"), dtype],
        );
        assert!(matches!(fault, HeaderFault::PartOfByte { bits: is, .. } if is == bits));
    }
}

#[test]
fn reversed_offsets_are_refused() {
    assert_eq!(
        fault(
            raw(one("U8", "[0]", "[4,0]"), 4),
            &["begins at byte 4", "at 0"]
        ),
        HeaderFault::Reversed {
            tensor: "t".into(),
            begin: 4,
            end: 0
        }
    );
}

#[test]
fn bytes_behind_the_last_tensor_are_refused() {
    assert_eq!(
        fault(
            raw(one("U8", "[4]", "[0,4]"), 7),
            &["end at byte 4", "has 7", "3 bytes too many"]
        ),
        HeaderFault::TrailingBytes {
            end: 4,
            data_bytes: 7
        }
    );
}

#[test]
fn a_name_that_occurs_twice_is_refused() {
    let header = two((0, 4), (4, 8)).replace("\"b\"", "\"\\u0061\"");
    assert_eq!(
        fault(raw(header, 8), &["`a` twice"]),
        HeaderFault::DuplicateName { tensor: "a".into() }
    );
}

#[test]
fn an_unknown_dtype_is_named() {
    assert_eq!(
        fault(
            raw(one("Q4_K", "[4]", "[0,4]"), 4),
            &["tensor `t`", "`Q4_K`", "safetensors 0.8", "convert"]
        ),
        HeaderFault::UnknownDtype {
            tensor: "t".into(),
            dtype: "Q4_K".into()
        }
    );
}

#[test]
fn more_dimensions_than_anything_has_are_refused() {
    let shape = |dimensions: usize| format!("[{}1]", "1,".repeat(dimensions - 1));
    let folder = tempdir().unwrap();
    let most = write(
        folder.path(),
        "m.safetensors",
        raw(one("U8", &shape(64), "[0,1]"), 1),
    );
    assert_eq!(Model::open(most).unwrap().tensors()[0].shape.len(), 64);
    assert_eq!(
        fault(raw(one("U8", &shape(65), "[0,1]"), 1), &["64 dimensions"]),
        HeaderFault::TooManyDimensions { tensor: "t".into() }
    );
}

#[test]
fn names_in_errors_are_escaped_and_cut() {
    let name = format!("\\u001b[2J{}", "x".repeat(100_000));
    let header = one("U8", "[1]", "[4,0]").replace("\"t\"", &format!("\"{name}\""));
    let fault = fault(raw(header, 4), &[r"\u{1b}[2Jxxx", "(100004 bytes)"]);
    assert!(fault.to_string().len() < 1000);
}

#[test]
fn a_path_with_control_characters_prints_escaped() {
    let folder = tempdir().unwrap();
    let path = write(folder.path(), "a\n\u{1b}b.safetensors", []);
    let message = Model::open(path).unwrap_err().to_string();
    assert!(
        message.contains(r"a\n\u{1b}b.safetensors: is empty"),
        "{message}"
    );
}

#[test]
fn what_is_often_saved_instead_of_a_model_is_recognised() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    let kinds = [
        (pointer.as_bytes(), "Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page", "download"),
    ];
    for (bytes, kind, remedy) in kinds {
        let size = format!("{} bytes", bytes.len());
        let fault = fault(bytes, &[kind, remedy, &size]);
        assert!(matches!(fault, HeaderFault::OtherKind { .. }), "{fault:?}");
    }
}

#[test]
fn a_format_that_is_not_read_is_named() {
    let folder = tempdir().unwrap();
    for (name, word) in [("m.onnx", "ONNX"), ("m.h5", "Keras")] {
        let error = refused(
            &write(folder.path(), name, "x"),
            &[word, "convert it to safetensors"],
        );
        assert!(matches!(error, OpenError::OtherFormat { .. }));
    }
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let folder = tempdir().unwrap();
    let fifo = folder.path().join("fifo.safetensors");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let socket = folder.path().join("socket.safetensors");
    let _listener = UnixListener::bind(&socket).unwrap();
    let device = Path::new("/dev/zero");
    let link = folder.path().join("link.safetensors");
    std::os::unix::fs::symlink(&fifo, &link).unwrap();
    let began = Instant::now();
    for (path, kind) in [
        (&*fifo, "FIFO"),
        (&*link, "FIFO"),
        (&*socket, "socket"),
        (device, "character device"),
    ] {
        let error = refused(path, &[kind, "regular files"]);
        assert!(matches!(error, OpenError::NotRegular { .. }));
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_file_is_found_through_symbolic_links_and_a_loop_of_them_is_an_error() {
    let folder = tempdir().unwrap();
    let path = write(folder.path(), "blob", raw("{}", 0));
    let link = folder.path().join("m.safetensors");
    std::os::unix::fs::symlink(path, &link).unwrap();
    assert_eq!(Model::open(&link).unwrap().name(), "m");
    let circle = folder.path().join("circle.safetensors");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    assert!(matches!(
        refused(&circle, &["cannot look at it"]),
        OpenError::Io { .. }
    ));
}

#[test]
fn a_link_that_leads_nowhere_says_where_it_leads() {
    let folder = tempdir().unwrap();
    for name in [
        "m.safetensors",
        "m.gguf",
        "m.pt",
        "m.safetensors.index.json",
    ] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink("blobs/gone\n", &link).unwrap();
        let error = refused(&link, &[r"is a link to blobs/gone\n", "restore"]);
        assert!(matches!(error, OpenError::DeadLink { .. }));
    }
}
