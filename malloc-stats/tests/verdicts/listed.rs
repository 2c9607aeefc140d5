//! The lints and their chapter.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use malloc_stats::inspect::LINTS;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The chapter; `None`, with words, where this crate was taken out of its repository.
fn chapter() -> Option<String> {
    let path = repository().join("docs/diagnose.md");
    let read = std::fs::read_to_string(&path);
    if let Err(error) = &read {
        println!("skipped: {}: {error}", path.display());
    }
    // What follows from a cache's events is listed with the live screen.
    let whole = read.ok()?;
    let (own, _) = whole.split_once("\n## What a cache does\n")?;
    Some(own.to_owned())
}

#[test]
fn each_lint_is_documented_and_no_other() {
    let Some(chapter) = chapter() else {
        return;
    };
    let documented: Vec<&str> = chapter
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .collect();
    let once: BTreeSet<&str> = documented.iter().copied().collect();
    let lints: BTreeSet<&str> = LINTS.iter().map(|lint| lint.name).collect();
    assert_eq!(once, lints);
    assert_eq!((once.len(), lints.len()), (documented.len(), LINTS.len()));
    for section in chapter.split("\n### `").skip(1) {
        for part in ["**Cause.**", "**Check.**", "**Remedy.**", "**Not when"] {
            assert!(section.contains(part), "{part} is missing: {section}");
        }
    }
}

#[test]
fn lints_say_each_thing_in_a_line() {
    for lint in LINTS {
        for line in [lint.cause, lint.check, lint.remedy] {
            assert!(!line.is_empty() && !line.contains('\n'), "{}", lint.name);
        }
    }
}

#[test]
fn profiles_that_are_recommended_exist() {
    let profiles = repository().join("profiles/src/builtin");
    let Ok(files) = std::fs::read_dir(&profiles) else {
        return println!("skipped: {} is not there", profiles.display());
    };
    let names: BTreeSet<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|name| name.trim_end_matches(".toml").to_owned())
        .collect();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inspect/verdict");
    let mut texts = vec![chapter().unwrap_or_default()];
    for source in std::fs::read_dir(sources).unwrap() {
        texts.push(std::fs::read_to_string(source.unwrap().path()).unwrap());
    }
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    let mut recommended = 0;
    for text in &texts {
        for name in text.split(word) {
            if name.starts_with("glibc-") || name.starts_with("jemalloc-") {
                assert!(names.contains(name), "there is no profile {name}");
                recommended += 1;
            }
        }
    }
    assert!(recommended > 0);
}
