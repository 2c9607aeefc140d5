//! Any bytes as a baseline: never a panic, no message that moves a cursor, and what is read is
//! written so that it reads back as the same, and passes a check against itself.
//!
//! `cargo +nightly fuzz run baseline`

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use plimsoll_trials::check::{annotations, junit, markdown};
use plimsoll_trials::{Baseline, Checked, Gates, Trial};

fuzz_target!(|bytes: &[u8]| {
    let baseline = match Baseline::parse(bytes) {
        Ok(baseline) => baseline,
        Err(fault) => {
            assert!(!fault.to_string().contains(char::is_control));
            return;
        }
    };
    let printed = baseline.to_json();
    assert_eq!(Baseline::parse(printed.as_bytes()), Ok(baseline.clone()));
    let longest = baseline.measures.values().map(|kept| kept.values.len());
    let mut trials = vec![Trial::default(); longest.max().unwrap_or(0)];
    for (measure, kept) in &baseline.measures {
        for (trial, value) in trials.iter_mut().zip(&kept.values) {
            trial.set(*measure, *value, kept.grade);
        }
    }
    let Ok(gates) = Gates::default().with(&baseline.gates) else {
        return;
    };
    let checked = Checked::judge(&baseline, &trials, &gates);
    assert!(
        checked
            .rows
            .iter()
            .all(|row| row.change.is_none_or(|by| by == 0.0))
    );
    assert!(junit(&checked).ends_with("</testsuites>\n"));
    assert!(markdown(&checked, Path::new("baseline.json")).starts_with("## "));
    assert!(
        annotations(&checked)
            .lines()
            .all(|line| line.starts_with("::"))
    );
});
