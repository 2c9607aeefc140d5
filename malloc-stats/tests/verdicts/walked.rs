//! Heaps that could not be walked, or not as a whole.

use std::path::Path;
use std::process::Command;

use malloc_stats::inspect::Severity::{Bad, Note};

use super::holder::{Holder, find, must, must_not, program};

#[test]
fn a_corrupt_heap_is_told_from_one_in_motion() {
    let Some(holder) = Holder::new(&["corrupt"], &[]) else {
        return;
    };
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "heap-corrupt", Bad);
    let chunk = format!(
        "the main arena cannot be followed at {:#x}",
        holder.said["chunk"]
    );
    assert!(found.finding.starts_with(&chunk), "{chunk}");
    must_not(&verdicts, "walk-torn");

    let Some(holder) = Holder::new(&["scribble"], &[]) else {
        return;
    };
    // On a busy machine the writer may stand still for a whole look.
    let verdicts = (0..200)
        .map(|_| holder.verdicts())
        .find(|verdicts| find(verdicts, "walk-torn").is_some())
        .unwrap();
    let found = must(&verdicts, "walk-torn", Note);
    assert!(found.finding.starts_with("1 of 1 stretch"), "{found:?}");
    assert!(found.remedy.contains("--pause"));
    must_not(&verdicts, "heap-corrupt");
}

#[test]
fn nothing_is_said_of_a_process_that_does_nothing() {
    let Some(holder) = Holder::new(&["idle"], &[]) else {
        return;
    };
    assert_eq!(holder.verdicts(), []);
}

#[test]
fn a_malloc_of_another_kind_is_said_not_to_be_walkable() {
    let Some(program) = program() else {
        return;
    };
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdicts-malloc.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preloaded/malloc.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let mut command = Command::new(program);
    let holder = Holder::start(command.arg("idle").env("LD_PRELOAD", &library));
    let verdicts = holder.verdicts();
    let found = must(&verdicts, "not-walkable", Note);
    assert!(
        found
            .finding
            .starts_with("the heap of jemalloc cannot be walked")
    );
}
