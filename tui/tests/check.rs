//! The table of a check: aligned, in its columns, with a reason for whatever is no plain pass.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use malloc_stats::Grade;
use plimsoll_trials::baseline::{Subject, SubjectKind, Tuning};
use plimsoll_trials::{Baseline, Checked, Choice, Gates, Machine, Measure, Trial};
use plimsoll_tui::paint::Paint;
use plimsoll_tui::trials::check::{baseline, text};
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

const MIB: f64 = 1_048_576.0;

/// A check with a row of every verdict.
fn every_verdict(name: &str, scale: f64) -> Checked {
    let (baseline, now) = taken(name, scale);
    let cpu: Choice = "cpu=1%,0.1s".parse().unwrap();
    let faults: Choice = "faults=20%,1000".parse().unwrap();
    let gates = Gates::default().with(&[cpu, faults]).unwrap();
    Checked::judge(&baseline, &now, &gates)
}

/// A baseline, and runs to be judged by it.
fn taken(name: &str, scale: f64) -> (Baseline, Vec<Trial>) {
    let then = [100.0, 101.0, 102.0, 103.0, 104.0].map(|mib| mib * scale);
    let noisy = [90.0, 95.0, 130.0, 140.0, 150.0].map(|mib| mib * scale);
    let trial = |at: usize, now: bool| {
        let mut trial = Trial::default();
        let base = then[at];
        let mut set = |measure, was: f64, is: f64| {
            trial.set(measure, if now { is } else { was }, Grade::Upper);
        };
        set(Measure::Peak, base, base);
        set(Measure::Retained, base, base * 2.0);
        set(Measure::Excess, base, noisy[at]);
        set(Measure::Structural, base, base / 2.0);
        set(Measure::Leak, 0.0, 1000.0 * base);
        set(Measure::Cpu, 1.25, 1.5);
        if now {
            trial.miss(Measure::Growth, "it made no mark `cycle`");
            if at > 2 {
                trial.miss(Measure::Cpu, name);
            }
        } else {
            trial.set(Measure::Growth, 7.0, Grade::Exact);
        }
        trial
    };
    let trials = |now| (0..5).map(|at| trial(at, now)).collect::<Vec<Trial>>();
    let subject = Subject {
        kind: SubjectKind::Command,
        arguments: vec![name.to_owned()],
    };
    let profile = Tuning {
        name: name.to_owned(),
        ..Tuning::default()
    };
    let machine = Machine::default();
    let baseline = Baseline::of(subject, profile, machine, Vec::new(), &trials(false), 0).unwrap();
    (baseline, trials(true))
}

#[test]
fn a_baseline_that_was_taken_is_a_table_too() {
    let page = baseline(&Paint::plain(), &taken("./server", MIB).0);
    let expected = "\
baseline: ./server under ./server

metric                      median      least       most  runs
peak            <=102.0 MiB +-2.0%  100.0 MiB  104.0 MiB     5
retained        <=102.0 MiB +-2.0%  100.0 MiB  104.0 MiB     5
excess          <=102.0 MiB +-2.0%  100.0 MiB  104.0 MiB     5
structural      <=102.0 MiB +-2.0%  100.0 MiB  104.0 MiB     5
leak a cycle                 <=0 B        0 B        0 B     5
growth a cycle                 7 B        7 B        7 B     5
cpu                       <=1.25 s     1.25 s     1.25 s     5

";
    assert_eq!(page, expected);
}

#[test]
fn the_table_of_a_check_is_read_at_a_glance() {
    let page = text(
        &Paint::plain(),
        &every_verdict("./server", MIB),
        Path::new("ci/memory.json"),
    );
    insta::assert_snapshot!(page);
}

#[test]
fn colours_mean_verdicts() {
    let paint = Paint {
        colour: true,
        ..Paint::plain()
    };
    let page = text(&paint, &every_verdict("./server", MIB), Path::new("b"));
    assert!(
        page.starts_with("\x1b[31mcheck:\x1b[0m 2 regressions"),
        "{page}"
    );
    for toned in [
        "\x1b[31mregression\x1b[0m",
        "\x1b[33mtoo noisy\x1b[0m",
        "\x1b[33mmissing\x1b[0m",
        "\x1b[32mimproved\x1b[0m",
        "\x1b[32mpass\x1b[0m",
    ] {
        assert!(page.contains(toned), "{toned:?} in {page}");
    }
}

proptest! {
    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_name_moves_the_cursor(
        name in any::<String>(),
        scale in 1.0..1e9_f64,
        width in 60..300_usize,
        unicode in any::<bool>(),
    ) {
        let paint = Paint { colour: false, unicode, width };
        let page = text(&paint, &every_verdict(&name, scale), Path::new(&name));
        let page = page + &baseline(&paint, &taken(&name, scale).0);
        prop_assert!(!page.contains(|c: char| c.is_control() && c != '\n'));
        for line in page.lines() {
            prop_assert!(line.width() <= width, "{} > {width}: {line}", line.width());
        }
    }
}
