//! docs/ci.md quotes the files that `docs/ci/try.sh` runs.

use crate::world::repository;

/// The code blocks of a page, without their fences.
fn blocks(page: &str) -> Vec<String> {
    let parts = page.split("\n```");
    // Every second part stands inside; its first line is the language.
    parts
        .skip(1)
        .step_by(2)
        .filter_map(|part| part.split_once('\n'))
        .map(|(_, text)| format!("{text}\n"))
        .collect()
}

#[test]
fn the_jobs_in_the_book_are_those_that_are_tried() {
    let page = std::fs::read_to_string(repository("docs/ci.md")).unwrap();
    let blocks = blocks(&page);
    for name in [
        "github-rust.yml",
        "github-python.yml",
        "gitlab-rust.yml",
        "gitlab-python.yml",
        "crate/tests/memory.rs",
        "crate/src/main.rs",
    ] {
        let file = repository("docs/ci").join(name);
        let text = std::fs::read_to_string(file).unwrap();
        assert!(
            blocks.contains(&text),
            "docs/ci.md does not quote {name} whole"
        );
    }
}
