//! Findings about a cache, and their chapter.

use std::collections::BTreeSet;
use std::path::Path;

use plimsoll_tui::live::state::CACHE_LINTS;

#[test]
fn each_finding_about_a_cache_is_documented_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/diagnose.md");
    let chapter = match std::fs::read_to_string(&path) {
        Ok(chapter) => chapter,
        Err(error) => return println!("skipped: {}: {error}", path.display()),
    };
    let (_, part) = chapter.split_once("\n## What a cache does\n").unwrap();
    let documented: Vec<&str> = part
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .collect();
    let once: BTreeSet<&str> = documented.iter().copied().collect();
    let lints: BTreeSet<&str> = CACHE_LINTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(once, lints);
    assert_eq!(once.len(), documented.len());
    for section in part.split("\n### `").skip(1) {
        for what in ["**Cause.**", "**Check.**", "**Remedy.**", "**Not when"] {
            assert!(section.contains(what), "{what} is missing: {section}");
        }
    }
}
