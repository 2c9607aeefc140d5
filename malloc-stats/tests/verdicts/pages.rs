//! Files, copies of them, and maps of nobody known.

use std::path::PathBuf;

use malloc_stats::inspect::Severity::Note;

use super::holder::{Holder, MIB, must, must_not, near};

/// A file of weights, of which nothing is in the page cache.
pub fn weights(bytes: u64) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("model.safetensors");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(bytes)
        .unwrap();
    (directory, path)
}

/// Does something with weights of this size.
fn holder(how: &str, bytes: u64) -> Option<(tempfile::TempDir, Holder)> {
    let (directory, path) = weights(bytes);
    let holder = Holder::new(&["file", how, path.to_str()?], &[])?;
    Some((directory, holder))
}

#[test]
fn weights_that_were_read_into_memory_are_there_twice() {
    let Some((_directory, copied)) = holder("copy", 128 * MIB) else {
        return;
    };
    let verdicts = copied.verdicts();
    let found = must(&verdicts, "copied-weights", Note);
    near(found.bytes, 128 * MIB, 0);
    assert!(found.finding.contains("model.safetensors"), "{found:?}");
}

#[test]
fn weights_that_are_mapped_are_not() {
    let Some((_directory, mapped)) = holder("touch", 128 * MIB) else {
        return;
    };
    must_not(&mapped.verdicts(), "copied-weights");
}

#[test]
fn memory_of_another_size_is_no_copy() {
    let Some((_directory, more)) = holder("copy-and-more", 128 * MIB) else {
        return;
    };
    must_not(&more.verdicts(), "copied-weights");
}

#[test]
fn a_mapped_file_that_was_not_read_is_cold() {
    let Some((_directory, mapped)) = holder("map", 128 * MIB) else {
        return;
    };
    let verdicts = mapped.verdicts();
    let found = must(&verdicts, "cold-file", Note);
    near(found.bytes, 128 * MIB, MIB);
    let Some((_directory, touched)) = holder("touch", 128 * MIB) else {
        return;
    };
    must_not(&touched.verdicts(), "cold-file");
}

#[test]
fn pages_of_files_are_no_leak() {
    let Some((_directory, mapped)) = holder("touch", 300 * MIB) else {
        return;
    };
    let verdicts = mapped.verdicts();
    let found = must(&verdicts, "files-not-leak", Note);
    near(found.bytes, 300 * MIB, 4 * MIB);
    let Some((_directory, copied)) = holder("copy", 300 * MIB) else {
        return;
    };
    must_not(&copied.verdicts(), "files-not-leak");
}

#[test]
fn anonymous_memory_of_nobody_known_is_told_from_mallocs() {
    let bytes = (128 * MIB).to_string();
    let Some(mapped) = Holder::new(&["anonymous", &bytes], &[]) else {
        return;
    };
    let verdicts = mapped.verdicts();
    let found = must(&verdicts, "unattributed", Note);
    near(found.bytes, 128 * MIB, MIB);
    let Some(allocated) = Holder::new(&["block", &bytes], &[]) else {
        return;
    };
    assert_eq!(allocated.verdicts(), []);
}
