//! Objects that come from elsewhere than the linker: custom, deleted, loaded later, a second time.

use std::fs;
use std::process::Command;

use super::{Built, Waiting, library};

#[test]
fn a_custom_malloc_is_unknown_and_named() {
    let Some(program) = Built::with("cc", "waits.c", &[]) else {
        return;
    };
    let Some(custom) = Built::with("cc", "custom.c", &["-shared", "-fPIC", "-fno-builtin"]) else {
        return;
    };
    let found = Waiting::preloading(&program.path, &custom.path).detection();
    let detected = &found.detected;
    assert_eq!(
        (&*detected.name, &*detected.placement),
        ("unknown", "preloaded"),
        "{found:?}"
    );
    assert!(
        detected.reason.as_ref().unwrap().contains("custom.built"),
        "{found:?}"
    );
    assert!(!detected.walkable && detected.mappings_rss.bytes().is_some());
    assert_eq!(detected.others[0].name, "glibc");
    assert_eq!(found.libcs.len(), 1);
}

#[test]
fn a_custom_malloc_in_the_program_itself_is_unknown_and_static() {
    let custom = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/detect/custom.c");
    let Some(built) = Built::with("cc", "waits.c", &[custom, "-fno-builtin", "-s"]) else {
        return;
    };
    let found = Waiting::program(&built.path).detection();
    let detected = &found.detected;
    assert_eq!(
        (&*detected.name, &*detected.placement),
        ("unknown", "static"),
        "{found:?}"
    );
    assert_eq!(detected.others[0].name, "glibc");
}

#[test]
fn a_library_that_was_deleted_is_still_told() {
    let Some(program) = Built::with("cc", "waits.c", &[]) else {
        return;
    };
    let Some(installed) = library("libjemalloc.so.2") else {
        return;
    };
    let copy = program.directory.path().join("libjemalloc.so.2");
    fs::copy(installed, &copy).unwrap();
    let process = Waiting::preloading(&program.path, &copy);
    fs::remove_file(&copy).unwrap();
    let found = process.detection();
    let detected = &found.detected;
    assert_eq!(
        (&*detected.name, &*detected.placement),
        ("jemalloc", "preloaded"),
        "{found:?}"
    );
    // Read through the mapping, or told by its name, which is said.
    let said = found.notes.iter().any(|note| note.contains("by its name"));
    assert!(said || detected.version.is_some(), "{found:?}");
}

#[test]
fn another_file_in_the_place_of_a_library_is_not_taken_for_it() {
    let Some(program) = Built::with("cc", "waits.c", &[]) else {
        return;
    };
    let Some(installed) = library("libjemalloc.so.2") else {
        return;
    };
    let Some(custom) = Built::with("cc", "custom.c", &["-shared", "-fPIC", "-fno-builtin"]) else {
        return;
    };
    let copy = program.directory.path().join("libjemalloc.so.2");
    fs::copy(installed, &copy).unwrap();
    let process = Waiting::preloading(&program.path, &copy);
    fs::rename(&custom.path, &copy).unwrap();
    let found = process.detection();
    assert_eq!(found.detected.name, "jemalloc", "{found:?}");
}

#[test]
fn a_preload_that_the_environment_does_not_name_any_more_is_found() {
    let Some(built) = Built::with("cc", "title.c", &[]) else {
        return;
    };
    let Some(jemalloc) = library("libjemalloc.so.2") else {
        return;
    };
    // It is told by where it lies, and addresses are random: once in many starts it lies elsewhere.
    let guessed = (0..5).find_map(|_| {
        let process = Waiting::preloading(&built.path, &jemalloc);
        assert_eq!(process.said, "overwritten");
        let found = process.detection();
        (found.detected.name == "jemalloc").then_some(found)
    });
    let found = guessed.unwrap();
    assert_eq!(found.detected.placement, "preloaded", "{found:?}");
    assert!(
        found.notes.iter().any(|note| note.contains("LD_PRELOAD")),
        "{found:?}"
    );
}

#[test]
fn an_allocator_that_is_loaded_later_does_not_serve() {
    let Some(built) = Built::with("cc", "loads.c", &[]) else {
        return;
    };
    let Some(mimalloc) = library("libmimalloc.so.2") else {
        return;
    };
    let process = Waiting::start(Command::new(&built.path).arg(mimalloc));
    if process.said != "loaded" {
        return println!("skipped: {}", process.said);
    }
    let found = process.detection();
    assert_eq!(found.detected.name, "glibc", "{found:?}");
    assert!(found.detected.walkable);
    let [other] = &found.detected.others[..] else {
        panic!("{found:?}");
    };
    assert_eq!(other.name, "mimalloc");
    assert!(
        other.reason.as_ref().unwrap().contains("after the start"),
        "{found:?}"
    );
}

#[test]
fn a_second_libc_in_a_namespace_of_its_own_is_told_apart() {
    let Some(built) = Built::with("cc", "loads.c", &[]) else {
        return;
    };
    let process = Waiting::start(Command::new(&built.path).args(["libc.so.6", "apart"]));
    if process.said != "loaded" {
        return println!("skipped: {}", process.said);
    }
    let found = process.detection();
    assert_eq!(found.detected.name, "glibc", "{found:?}");
    let [second] = &found.detected.others[..] else {
        panic!("{found:?}");
    };
    assert_eq!(second.name, "glibc");
    assert!(
        second.reason.as_ref().unwrap().contains("dlmopen"),
        "{found:?}"
    );
    let [first, second] = &found.libcs[..] else {
        panic!("{found:?}");
    };
    assert_eq!((&first.path, first.version), (&second.path, second.version));
    assert_ne!(first.base, second.base);
}
