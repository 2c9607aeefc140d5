//! Baselines as files: what is written is read back, and what is no baseline is refused unharmed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use malloc_stats::Grade;
use plimsoll_trials::baseline::{Fault, Kept, LARGEST_FILE, Subject, SubjectKind, Tuning};
use plimsoll_trials::{Across, Baseline, Machine, Measure, Trial};
use proptest::prelude::*;

fn trial(values: &[(Measure, f64)]) -> Trial {
    let mut trial = Trial::default();
    for (measure, value) in values {
        trial.set(*measure, *value, Grade::Exact);
    }
    trial
}

fn subject(arguments: &[&str]) -> Subject {
    Subject {
        kind: SubjectKind::Command,
        arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
    }
}

fn of(trials: &[Trial]) -> Result<Baseline, Fault> {
    let profile = Tuning {
        name: "glibc-default".to_owned(),
        knobs: BTreeMap::from([("mmap_threshold".to_owned(), "1 MiB".to_owned())]),
    };
    Baseline::of(
        subject(&["./server", "--once"]),
        profile,
        Machine::here("glibc 2.36"),
        vec!["retained=10%,4MiB".parse().unwrap()],
        trials,
        1_700_000_000_000,
    )
}

fn some() -> Baseline {
    let runs = [(5.0, 0.25), (7.0, 1.0 / 3.0), (6.0, 2.0)];
    let runs = runs.map(|(bytes, cpu)| trial(&[(Measure::Retained, bytes), (Measure::Cpu, cpu)]));
    of(&runs).unwrap()
}

fn fault(path: &Path) -> Fault {
    Baseline::read(path).unwrap_err().fault
}

#[test]
fn a_baseline_is_a_number_a_line_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baseline.json");
    let baseline = some();
    baseline.write(&path).unwrap();
    assert_eq!(Baseline::read(&path).unwrap(), baseline);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("{\n  \"schema\": 1,\n  \"plimsoll\": \""),
        "{text}"
    );
    let values = "\"retained\": {\n      \"grade\": \"exact\",\n      \"values\": [\n        5,\n        7,\n        6\n      ]";
    assert!(text.contains(values), "{text}");
    // Without digits that mean nothing.
    assert!(text.contains("\n        0.333333,\n        2\n"), "{text}");
    assert!(text.ends_with("}\n"));
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "the temporary file is gone");
}

#[test]
fn writing_keeps_the_mode_and_follows_links() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    some().write(&at("real")).unwrap();
    fs::set_permissions(at("real"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real", at("link")).unwrap();
    symlink(at("link"), at("link-to-link")).unwrap();
    let mut other = some();
    other.taken_unix_ms += 1;
    other.write(&at("link-to-link")).unwrap();
    assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
    assert!(
        fs::symlink_metadata(at("link-to-link"))
            .unwrap()
            .is_symlink()
    );
    assert_eq!(Baseline::read(&at("real")).unwrap(), other);
    let mode = fs::metadata(at("real")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    symlink("nothing", at("dangling")).unwrap();
    other.write(&at("dangling")).unwrap();
    assert_eq!(Baseline::read(&at("nothing")).unwrap(), other);

    symlink("round", at("round")).unwrap();
    let error = other.write(&at("round")).unwrap_err();
    assert!(matches!(error.fault, Fault::Io { .. }), "{error}");
}

#[test]
fn what_is_no_baseline_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    let large = " ".repeat(LARGEST_FILE as usize + 1);
    for precious in [
        "fn main() {}",
        "{\"name\": \"package\"}",
        "[1]",
        "7",
        &large,
    ] {
        fs::write(&path, precious).unwrap();
        let error = some().write(&path).unwrap_err();
        assert!(matches!(error.fault, Fault::Occupied { .. }), "{error}");
        assert!(error.to_string().contains("precious"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), precious);
    }
    let error = some().write(folder.path()).unwrap_err();
    assert!(matches!(
        error.fault,
        Fault::NotRegular { kind: "directory" }
    ));
    // An empty file, and a baseline of another version, are there to be replaced.
    for replaced in ["", "{\"schema\": 0, \"of\": \"another form\"}"] {
        fs::write(&path, replaced).unwrap();
        some().write(&path).unwrap();
        assert_eq!(Baseline::read(&path).unwrap(), some());
    }
    let nowhere = folder.path().join("no-such-folder/baseline.json");
    let error = some().write(&nowhere).unwrap_err().to_string();
    assert!(error.contains("no-such-folder"), "{error}");
}

#[test]
fn nothing_is_waited_for_and_nothing_endless_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(fault(&at("absent")), Fault::Absent);
    assert_eq!(
        fault(folder.path()),
        Fault::NotRegular { kind: "directory" }
    );
    let zero = Fault::NotRegular {
        kind: "character device",
    };
    assert_eq!(fault(Path::new("/dev/zero")), zero);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), mode).unwrap();
    assert_eq!(fault(&at("fifo")), Fault::NotRegular { kind: "FIFO" });
    let error = some().write(&at("fifo")).unwrap_err();
    assert_eq!(error.fault, Fault::NotRegular { kind: "FIFO" });
    let file = fs::File::create(at("huge")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert_eq!(fault(&at("huge")), Fault::TooLarge { bytes: 1 << 40 });
    // It has no size, and is not empty.
    assert!(matches!(
        fault(Path::new("/proc/self/status")),
        Fault::Broken { .. }
    ));
}

#[test]
fn what_is_broken_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("baseline.json");
    let json = some().to_json();
    let with = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        fs::write(&path, json.replacen(from, to, 1)).unwrap();
        fault(&path)
    };
    let place = |fault: Fault| match fault {
        Fault::Broken { line, reason, .. } => (line, reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(place(with("\"plimsoll\"", "plimsoll")).0, 3);
    let (_, reason) = place(with("{\n  \"schema\"", "<<<<<<< HEAD\n{\n  \"schema\""));
    assert!(reason.contains("merge conflict"), "{reason}");
    let (_, reason) = place(with("\"retained\": {", "\"retaned\": {"));
    assert!(reason.contains("did you mean `retained`"), "{reason}");
    let (_, reason) = place(with("\"retained\": {", "\"cpu\": {"));
    assert!(reason.contains("cpu is there twice"), "{reason}");
    let (_, reason) = place(with("\"subject\"", "\"sub\\u001bject\""));
    assert!(reason.contains("\\u{1b}"), "{reason}");
    let (_, reason) = place(with("        5,", "        1e999,"));
    assert!(reason.contains("number out of range"), "{reason}");
    place(with("retained=10%,4MiB", "retained=10,4MiB"));

    assert_eq!(
        with("\"schema\": 1,", "\"schema\": 2,"),
        Fault::Schema { found: 2 }
    );
    let newer = Fault::Schema { found: 2 }.to_string();
    let older = Fault::Schema { found: 0 }.to_string();
    assert!(newer.contains("newer") && !older.contains("newer"));
    assert_eq!(with("\"schema\": 1,", ""), Fault::NoBaseline);
    let impossible = |measure, number, why| Fault::Impossible {
        measure,
        number,
        why,
    };
    assert_eq!(
        with("        0.333333,", "        -0.5,"),
        impossible(Measure::Cpu, 2, "negative")
    );
    assert_eq!(
        with("        5,", "        -1e15,"),
        impossible(Measure::Retained, 1, "1e15 or more")
    );
    with_no_values(&with);
    fs::write(&path, " \n").unwrap();
    assert_eq!(fault(&path), Fault::Empty);
    fs::write(&path, "[".repeat(100_000)).unwrap();
    place(fault(&path));
    let many = format!("[{}1]", "1,".repeat(10_000));
    let cpu = "[\n        0.25,\n        0.333333,\n        2\n      ]";
    assert_eq!(
        with(cpu, &many),
        Fault::TooMany {
            measure: Measure::Cpu,
            count: 10_001
        }
    );
}

fn with_no_values(with: &dyn Fn(&str, &str) -> Fault) {
    let none = Fault::NoValues {
        measure: Measure::Cpu,
    };
    let values = "[\n        0.25,\n        0.333333,\n        2\n      ]";
    assert_eq!(with(values, "[]"), none);
    let retained = "\"grade\": \"exact\",\n      \"values\": [\n        5";
    let fault = with(retained, &retained.replace("exact", "unavailable"));
    assert!(matches!(fault, Fault::NoValues { .. }));
}

#[test]
fn runs_that_say_nothing_make_no_baseline() {
    assert_eq!(of(&[]), Err(Fault::NoMeasures));
    assert_eq!(of(&[Trial::default()]), Err(Fault::NoMeasures));
    let mut refused = trial(&[(Measure::Peak, 1.0)]);
    refused.refused = true;
    let both = [trial(&[(Measure::Peak, 1.0)]), refused];
    let fault = Fault::Refused {
        refused: 1,
        runs: 2,
    };
    assert_eq!(of(&both), Err(fault));
    let by = |allocator: &str| Trial {
        allocator: allocator.into(),
        ..trial(&[(Measure::Peak, 1.0)])
    };
    assert!(matches!(of(&[by("a"), by("b")]), Err(Fault::Mixed { .. })));
    assert!(of(&[by("a"), by("")]).is_ok());
}

#[test]
fn another_subject_or_profile_is_a_difference() {
    let baseline = some();
    let here = Machine::here("glibc 2.36");
    let (same, profile) = (baseline.subject.clone(), baseline.profile.clone());
    assert_eq!(baseline.differences(&same, &profile, &here), []);
    let other = subject(&["./server", "it's \x1b[2J"]);
    let bare = Tuning {
        knobs: BTreeMap::new(),
        ..profile
    };
    let differences = baseline.differences(&other, &bare, &here);
    let text = Across::default()
        .admit(differences)
        .unwrap_err()
        .to_string();
    let subject = r"subject: ./server --once then, ./server 'it'\''s \u{1b}[2J' now";
    assert!(text.contains(subject), "{text}");
    let profile = "profile: glibc-default (mmap_threshold=1 MiB) then, glibc-default now";
    assert!(text.contains(profile), "{text}");
    assert!(text.contains("--across subject,profile"), "{text}");
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        values in prop::collection::vec((0..12_usize, -1e15..1e15_f64, 0..40_i32), 1..60),
        words in any::<[String; 3]>(),
    ) {
        let mut measures: BTreeMap<Measure, Vec<f64>> = BTreeMap::new();
        for (at, value, power) in values {
            let value = value / 2_f64.powi(power);
            let measure = Measure::ALL[at];
            let may_fall = !matches!(at, 4 | 6 | 9..);
            let value = if may_fall { value } else { value.abs() };
            measures.entry(measure).or_default().push(value);
        }
        let mut baseline = some();
        baseline.subject.arguments = words.to_vec();
        baseline.machine.thp.clone_from(&words[0]);
        baseline.profile.knobs.insert(words[1].clone(), words[2].clone());
        baseline.measures = measures
            .into_iter()
            .map(|(measure, values)| (measure, Kept { grade: Grade::Upper, values }))
            .collect();
        // Reading rounds; then all digits are kept.
        let read = Baseline::parse(baseline.to_json().as_bytes()).unwrap();
        prop_assert_eq!(Baseline::parse(read.to_json().as_bytes()).unwrap(), read.clone());
        for (measure, kept) in &read.measures {
            for (value, was) in kept.values.iter().zip(&baseline.measures[measure].values) {
                prop_assert!((value - was).abs() <= 0.5 + was.abs() * 1e-15, "{value} {was}");
            }
        }
    }

    #[test]
    fn any_bytes_are_a_baseline_or_an_error_that_is_safe_to_print(
        junk in prop::collection::vec(any::<u8>(), 0..64),
        cut in 0..3000_usize,
        at in 0..3000_usize,
    ) {
        let mut bytes = some().to_json().into_bytes();
        let at = at.min(bytes.len());
        let end = (at + cut % 40).min(bytes.len());
        bytes.splice(at..end, junk.iter().copied());
        for bytes in [&junk[..], &bytes[..], &bytes[..cut.min(bytes.len())]] {
            if let Err(fault) = Baseline::parse(bytes) {
                prop_assert!(!fault.to_string().contains(char::is_control), "{fault}");
            }
        }
    }
}

#[test]
fn what_only_some_runs_have_by_luck_is_no_baseline() {
    let with = |count: usize| {
        let run = |at: usize| match at < count {
            true => trial(&[(Measure::Peak, 5.0), (Measure::Waste, 1.0)]),
            false => {
                let mut trial = trial(&[(Measure::Peak, 5.0)]);
                trial.miss(Measure::Waste, "it ended\x1b too soon");
                trial
            }
        };
        (0..5).map(run).collect::<Vec<Trial>>()
    };
    let has = |count| {
        let measures = of(&with(count)).unwrap().measures;
        measures.contains_key(&Measure::Waste)
    };
    assert!(has(5) && has(4) && !has(3) && !has(1) && !has(0));
    let reason = "waste is left out: 3 of 5 runs have it (it ended\\u{1b} too soon)";
    assert_eq!(Baseline::left_out(&with(3)), [reason]);
    for all_or_none in [0, 4, 5] {
        assert!(Baseline::left_out(&with(all_or_none)).is_empty());
    }
}
