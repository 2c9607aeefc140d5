//! Profile files: what is accepted, and what is said about what is not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use plimsoll_profiles::{Profile, Reclaim, builtin};
use proptest::prelude::*;

fn error(text: &str) -> String {
    Profile::from_toml(text, "mine.toml")
        .unwrap_err()
        .to_string()
}

const HEAD: &str = "name = \"mine\"\nwhy = \"because\"\n";

#[test]
fn a_file_is_read_with_its_sizes() {
    let text = format!(
        "{HEAD}allocator = \"glibc\"\nreclaim = \"trim\"\n[knobs]\nmmap_threshold = \"1MiB\"\n"
    );
    let profile = Profile::from_toml(&text, "mine.toml").unwrap();
    assert_eq!(profile.reclaim, Reclaim::Trim);
    let knobs: Vec<_> = profile
        .knobs()
        .map(|(knob, value)| (knob.name, value))
        .collect();
    assert_eq!(knobs, [("mmap_threshold", "1048576")]);
}

#[test]
fn every_builtin_profile_survives_being_written_and_read() {
    for profile in builtin::all() {
        let again = Profile::from_toml(&profile.to_toml(), &profile.name).unwrap();
        assert_eq!(&again, profile);
    }
}

#[test]
fn an_unknown_profile_is_answered_with_the_nearest() {
    let text = Profile::find("glibc-mmap-1M").unwrap_err().to_string();
    assert!(text.contains("did you mean `glibc-mmap-1m`?"), "{text}");
}

#[test]
fn an_unknown_knob_is_answered_with_the_nearest() {
    let text = error(&format!(
        "{HEAD}allocator = \"glibc\"\n[knobs]\nmap_threshold = 1\n"
    ));
    assert!(
        text.contains("mine.toml") && text.contains("`mmap_threshold`"),
        "{text}"
    );
}

#[test]
fn a_knob_of_the_other_allocator_is_named_as_such() {
    let text = error(&format!(
        "{HEAD}allocator = \"glibc\"\n[knobs]\nretain = true\n"
    ));
    assert!(text.contains("jemalloc's"), "{text}");
}

#[test]
fn a_knob_outside_its_table_is_told_where_it_belongs() {
    let text = error(&format!(
        "{HEAD}allocator = \"glibc\"\nmmap_threshold = 1\n"
    ));
    assert!(text.contains("[knobs]"), "{text}");
}

#[test]
fn values_are_of_the_kind_the_knob_takes() {
    for (allocator, knob) in [
        ("glibc", "mmap_threshold = true"),
        ("glibc", "mmap_threshold = -1"),
        ("glibc", "mmap_threshold = \"much\""),
        ("jemalloc", "dirty_decay_ms = -2"),
        ("jemalloc", "background_thread = 1"),
    ] {
        let text = error(&format!(
            "{HEAD}allocator = \"{allocator}\"\n[knobs]\n{knob}\n"
        ));
        assert!(text.contains(knob.split(' ').next().unwrap()), "{text}");
    }
}

#[test]
fn a_reclaim_action_of_the_other_allocator_is_refused() {
    assert!(
        error(&format!(
            "{HEAD}allocator = \"glibc\"\nreclaim = \"purge\"\n"
        ))
        .contains("trim")
    );
    assert!(
        error(&format!(
            "{HEAD}allocator = \"jemalloc\"\nreclaim = \"trim\"\n"
        ))
        .contains("purge")
    );
}

#[test]
fn what_is_no_profile_file_is_refused_by_path() {
    for path in ["/nonexistent.toml", "/", "/dev/zero"] {
        let text = Profile::find(path).unwrap_err().to_string();
        assert!(text.contains(path), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = Profile::from_toml(&text, "any");
    }

    #[test]
    fn no_knob_makes_the_reader_panic(name in "[a-z_]{1,12}", value in "\\PC{0,20}") {
        let _ = Profile::from_toml(
            &format!("{HEAD}allocator = \"jemalloc\"\n[knobs]\n{name} = {value}\n"), "any");
    }
}
