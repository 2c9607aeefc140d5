//! The walk-through of docs/diagnose.md, on the script that it names.

use std::path::Path;
use std::process::Command;

use malloc_stats::inspect::Severity::Warn;
use malloc_stats::inspect::Verdict;

use super::holder::{Holder, find, must};

/// What is said of the server once it has unloaded its last model; `None` without Python.
fn verdicts(environment: &[(&str, &str)], arguments: &[&str]) -> Option<Vec<Verdict>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/diagnose/server.py");
    if !script.exists() {
        println!("skipped: {} is not there", script.display());
        return None;
    }
    if let Err(error) = Command::new("python3").arg("--version").output() {
        println!("skipped: python3: {error}");
        return None;
    }
    let mut command = Command::new("python3");
    command
        .arg(script)
        .args(["--scale", "4", "--machine"])
        .args(arguments);
    Some(Holder::start(command.envs(environment.iter().copied())).verdicts())
}

const KEPT: [&str; 3] = ["free-but-resident", "pinned-top", "risen-threshold"];

#[test]
fn a_server_keeps_what_it_unloaded() {
    let Some(verdicts) = verdicts(&[], &[]) else {
        return;
    };
    for lint in KEPT {
        must(&verdicts, lint, Warn);
    }
    let pin = find(&verdicts, "pinned-top").unwrap();
    assert!(pin.finding.contains("(a Python str)"), "{pin:?}");
}

#[test]
fn a_server_with_the_threshold_of_the_remedy_keeps_nothing() {
    let Some(verdicts) = verdicts(&[("MALLOC_MMAP_THRESHOLD_", "131072")], &[]) else {
        return;
    };
    for lint in KEPT {
        assert_eq!(find(&verdicts, lint), None);
    }
}

#[test]
fn a_server_that_trims_keeps_nothing() {
    let Some(verdicts) = verdicts(&[], &["--trim"]) else {
        return;
    };
    assert_eq!(find(&verdicts, "free-but-resident"), None);
}
