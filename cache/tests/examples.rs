//! The examples, run as a user would run them: each verifies itself, and says what it saw.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::process::Command;

/// Runs an example to its end and returns what it printed.
fn output_of(example: &str) -> String {
    // `target/PROFILE/deps/examples-HASH` → `target/PROFILE/examples/EXAMPLE`
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(example);
    assert!(
        built.is_file(),
        "{} is not built: `cargo test` without `--test` builds examples, as does `--examples`",
        built.display()
    );
    let output = Command::new(&built).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{example}: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// The number that follows `label` in what was printed.
fn number(said: &str, label: &str) -> u64 {
    let (_, rest) = said
        .split_once(label)
        .unwrap_or_else(|| panic!("no `{label}` in\n{said}"));
    let digits = rest
        .trim_start()
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number after `{label}` in\n{said}"))
}

#[test]
fn the_smallest_reads_a_tensor() {
    assert_eq!(output_of("smallest"), "linear.weight [2, 2] sums to 10\n");
}

#[test]
fn the_transformer_gives_the_same_results_wherever_it_is_granted() {
    let said = output_of("transformer");
    let lines = |what: &str| said.lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines(" on device: [24, 128]"), 8, "{said}");
    assert_eq!(lines(" on ram: [24, 128]"), 1, "{said}");
    assert!(lines("  - bert-") > 0, "nothing was evicted:\n{said}");
    assert!(number(&said, "evicted;") > 0, "{said}");
    assert_eq!(number(&said, "dropped;"), 0, "{said}");
}

#[test]
fn the_server_answers_every_request_within_its_budget() {
    let said = output_of("server");
    assert_eq!(number(&said, "answers verified:"), 300, "{said}");
    assert!(number(&said, "evictions:") > 0, "{said}");
    let (_, bytes) = said.split_once("most bytes counted:").unwrap();
    assert!(number(bytes, "") <= number(bytes, " of "), "{said}");
    assert!(said.contains("refused in time: busy"), "{said}");
    assert!(
        said.ends_with("stopped: nothing leased, nobody waiting\n"),
        "{said}"
    );
}
