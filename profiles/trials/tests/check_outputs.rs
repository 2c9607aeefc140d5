//! Reports of a check: whole and well-formed, whatever programs and files are called.

#![allow(clippy::unwrap_used)]

mod xml;

use std::path::Path;
use std::process::{Command, Stdio};

use malloc_stats::Grade;
use plimsoll_trials::baseline::{Subject, SubjectKind, Tuning};
use plimsoll_trials::check::{Verdict, annotations, junit, markdown};
use plimsoll_trials::{Baseline, Checked, Choice, Gates, Machine, Measure, Trial};
use proptest::prelude::*;
use xml::well_formed;

const MIB: f64 = 1_048_576.0;
const HOSTILE: &str = "a<b>&\"'\u{1b}[2J\u{0}\u{ffff}|`x`\n]]>\r%,:\u{202e}@all #1 *_\\ 模型";

/// A check with a row of every verdict, of a program and a profile with these names.
fn every_verdict(name: &str) -> Checked {
    let then = [100.0, 101.0, 102.0, 103.0, 104.0].map(|mib| mib * MIB);
    let noisy = [90.0, 95.0, 130.0, 140.0, 150.0].map(|mib| mib * MIB);
    let trial = |at: usize, now: bool| {
        let mut trial = Trial::default();
        let base = then[at];
        let mut set = |measure, was: f64, is: f64| {
            trial.set(measure, if now { is } else { was }, Grade::Estimated);
        };
        set(Measure::Peak, base, base);
        set(Measure::Retained, base, base * 2.0);
        set(Measure::Excess, base, noisy[at]);
        set(Measure::Structural, base, base / 2.0);
        set(Measure::Cpu, 1.25, 1.5);
        if now {
            trial.miss(Measure::Growth, name);
            trial.profile = name.to_owned();
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
        arguments: vec![name.to_owned(), "--flag".to_owned()],
    };
    let profile = Tuning {
        name: name.to_owned(),
        ..Tuning::default()
    };
    let machine = Machine::here("glibc 2.36");
    let baseline = Baseline::of(subject, profile, machine, Vec::new(), &trials(false), 0).unwrap();
    let cpu: Choice = "cpu=1%,0.1s".parse().unwrap();
    let gates = Gates::default().with(&[cpu]).unwrap();
    let mut checked = Checked::judge(&baseline, &trials(true), &gates);
    checked.reasons.push(name.to_owned());
    let verdicts: Vec<Verdict> = checked.rows.iter().map(|row| row.verdict).collect();
    use Verdict::*;
    let all = [
        Pass, Regression, Unclear, Improved, Skipped, Missing, TooFew,
    ];
    assert_eq!(verdicts, all, "{checked:#?}");
    checked
}

#[test]
fn a_test_report_has_a_case_a_gate_and_counts_that_are_right() {
    let xml = junit(&every_verdict("./server"));
    let seen = well_formed(&xml).unwrap();
    let count = |name: &str| seen.iter().filter(|it| it.name == name).count();
    assert_eq!((count("testsuite"), count("testcase")), (1, 8));
    assert_eq!(
        (count("failure"), count("error"), count("skipped")),
        (1, 4, 1)
    );
    assert!(xml.contains(r#"tests="8" failures="1" errors="4" skipped="1""#));
    assert!(xml.contains(r#"name="retained" time="0">"#), "{xml}");
    assert!(xml.contains(r#"name="peak" time="0"/>"#), "{xml}");
    assert!(xml.contains("plimsoll check: ./server --flag"), "{xml}");
}

#[test]
fn a_test_report_with_hostile_names_is_read_by_a_real_parser() {
    let xml = junit(&every_verdict(HOSTILE));
    well_formed(&xml).unwrap();
    let script = "import sys, xml.dom.minidom as m; \
        d = m.parse(sys.stdin.buffer); print(len(d.getElementsByTagName('testcase')))";
    let python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut python = match python {
        Ok(python) => python,
        Err(error) => return println!("skipped: there is no python3 ({error})"),
    };
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), xml.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "8\n");
}

#[test]
fn a_summary_has_a_verdict_a_table_and_a_way_out() {
    let text = markdown(&every_verdict("./server"), Path::new("ci/memory.json"));
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("## ❌ plimsoll check: 1 regression in 6 gates")
    );
    let row = "| retained | \\~102.0 MiB ± 2.0 % | \\~204.0 MiB ± 2.0 % | +102.0 MiB (+100 %) \
               | 10%,4MiB | ❌ regression |";
    assert!(text.contains(row), "{text}");
    assert!(
        text.contains("--update --baseline ci/memory.json"),
        "{text}"
    );
    assert!(text.contains("- **excess**: "), "{text}");
}

#[test]
fn hostile_names_stay_in_their_cells_and_code() {
    let text = markdown(&every_verdict(HOSTILE), Path::new(HOSTILE));
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
    assert!(!text.contains('\u{202e}'), "{text:?}");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    assert_eq!(rows.len(), 8);
    for row in rows {
        assert_eq!(row.replace("\\|", "").matches('|').count(), 7, "{row}");
    }
    // A reason is text, in which nothing is a tag, a mention or a link.
    let reason = text
        .lines()
        .find(|line| line.starts_with("**No verdict:**"));
    let reason = reason.unwrap();
    assert!(
        reason.contains("a&lt;b&gt;&amp;") && reason.contains("&#64;all"),
        "{reason}"
    );
    assert!(reason.contains(r"\`x\`"), "{reason}");
}

#[test]
fn annotations_are_a_line_each_and_name_what_failed() {
    let text = annotations(&every_verdict("./server"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    let error = "::error title=retained%3A regression (+102.0 MiB (+100 %25))::retained: ";
    assert!(lines.iter().any(|line| line.starts_with(error)), "{text}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("::notice title=structural%3A improved"))
    );
    let warnings = lines.iter().filter(|line| line.starts_with("::warning "));
    assert_eq!(warnings.count(), 4);
}

#[test]
fn a_check_that_was_refused_is_reported_all_the_same() {
    let trial = {
        let mut trial = Trial::default();
        trial.set(Measure::Peak, 1.0, Grade::Exact);
        trial
    };
    let subject = Subject {
        kind: SubjectKind::Run,
        arguments: Vec::new(),
    };
    let (profile, machine) = (Tuning::default(), Machine::default());
    let baseline = Baseline::of(subject, profile, machine, Vec::new(), &[trial], 0).unwrap();
    let checked = Checked::without_verdict(&baseline, vec!["kernel: 6.1 then, 6.18 now".into()]);
    let xml = junit(&checked);
    well_formed(&xml).unwrap();
    assert!(
        xml.contains(r#"tests="1" failures="0" errors="1""#),
        "{xml}"
    );
    let text = markdown(&checked, Path::new("b.json"));
    assert!(
        text.starts_with("## ⚠️ plimsoll check: no verdict\n"),
        "{text}"
    );
    assert!(annotations(&checked).starts_with("::warning title="));
}

proptest! {
    #[test]
    fn any_name_is_reported_in_one_piece(name in any::<String>()) {
        let checked = every_verdict(&name);
        let xml = junit(&checked);
        let seen = well_formed(&xml);
        prop_assert!(seen.is_ok(), "{:?}\n{}", seen, xml);
        let text = annotations(&checked);
        prop_assert_eq!(text.lines().count(), 6);
        prop_assert!(text.lines().all(|line| line.starts_with("::") && !line.contains('\r')));
        for line in text.lines() {
            let (title, _) = line[2..].split_once("::").unwrap();
            prop_assert!(!title.contains([':', ',']), "{}", title);
        }
        let text = markdown(&checked, Path::new(&name));
        prop_assert_eq!(text.lines().filter(|line| line.starts_with("| ")).count(), 8);
    }
}
