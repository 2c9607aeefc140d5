//! Gates and differences as people write them: what is read, and what is refused with a way out.

#![allow(clippy::unwrap_used)]

use plimsoll_trials::gate::Floor;
use plimsoll_trials::machine::What;
use plimsoll_trials::measure::Unit;
use plimsoll_trials::{Across, Choice, Gate, GateError, Gates, Machine, Measure};
use proptest::prelude::*;

fn choice(text: &str) -> Choice {
    text.parse().unwrap()
}

fn refused(text: &str) -> GateError {
    text.parse::<Choice>().unwrap_err()
}

#[test]
fn a_gate_is_two_floors_in_the_unit_of_its_measure() {
    let gate = |text| choice(text).gate.unwrap();
    let retained = gate("retained=10%,4MiB");
    assert_eq!(retained.percent(), 10.0);
    assert_eq!(retained.absolute(), Floor::Bytes(4 << 20));
    assert_eq!(gate("cpu=15%,0.5s").absolute(), Floor::Seconds(0.5));
    assert_eq!(gate("faults=20%,1000").absolute(), Floor::Count(1000));
    assert_eq!(gate("leak=0%,16KiB").absolute(), Floor::Bytes(16 << 10));
    assert_eq!(gate(" wall = 2.5 % , 0 ").absolute(), Floor::Seconds(0.0));
    assert_eq!(choice("peak=off").gate, None);
}

#[test]
fn both_floors_have_to_be_passed_and_a_slope_below_zero_counts_without_its_sign() {
    let gate = choice("growth=10%,1KiB").gate.unwrap();
    let past = |baseline, change| Gate::is_past(&gate, baseline, change);
    assert!(past(0.0, 1025.0) && past(0.0, -1025.0));
    assert!(!past(0.0, 1024.0), "at the floor is not past it");
    assert!(!past(-100_000.0, 9_999.0) && past(-100_000.0, 10_001.0));
}

#[test]
fn what_is_no_gate_is_refused_with_a_reason_and_a_way_out() {
    use GateError::*;
    let text = |error: GateError| error.to_string();
    assert!(matches!(refused("retained"), Malformed { .. }));
    assert!(matches!(refused("retained=10%"), Malformed { .. }));
    assert!(matches!(refused("retained=10,4MiB"), NoPercent { .. }));
    assert!(matches!(refused("retained=-1%,4MiB"), Negative { .. }));
    assert!(matches!(refused("retained=-0%,4MiB"), Negative { .. }));
    assert!(matches!(refused("retained=10%,-4MiB"), Negative { .. }));
    assert!(matches!(refused("retained=NaN%,4MiB"), NoNumber { .. }));
    assert!(matches!(refused("retained=ten%,4MiB"), NoNumber { .. }));
    assert!(matches!(refused("retained=1001%,4MiB"), TooLarge { .. }));
    assert!(matches!(refused("retained=inf%,4MiB"), TooLarge { .. }));
    assert!(matches!(refused("retained=0%,0MiB"), BothZero { .. }));
    assert!(matches!(refused("cpu=0%,0s"), BothZero { .. }));
    for wrong in [
        "retained=1%,4",
        "retained=1%,4s",
        "retained=1%,99999EiB",
        "cpu=1%,0.5",
        "cpu=1%,4MiB",
        "cpu=1%,infs",
        "faults=1%,4MiB",
        "faults=1%,1.5",
        "leak=1%,",
    ] {
        assert!(matches!(refused(wrong), Absolute { .. }), "{wrong}");
    }
    assert!(text(refused("retained=1%,4")).contains("4MiB, or 4B"));
    let unknown = text(refused("retaned=1%,4MiB"));
    assert!(unknown.contains("did you mean `retained`"), "{unknown}");
    assert!(unknown.contains("trim_gap, structural, leak"), "{unknown}");
    let hostile = text(refused("a\x1b[2J\u{202e}=1%,4MiB"));
    assert!(!hostile.contains(['\x1b', '\u{202e}']), "{hostile}");
    let long = "x".repeat(1 << 20);
    assert!(text(refused(&long)).len() < 500);
}

#[test]
fn what_is_given_stands_in_place_of_the_default_and_contradictions_name_both() {
    let gates = Gates::default();
    assert_eq!(gates.iter().count(), 6);
    assert!(gates.iter().all(|(_, gated)| !gated.given));
    let given = [
        choice("retained=1%,1MiB"),
        choice("peak=off"),
        choice("cpu=15%,0.5s"),
        choice("retained=1%,1MiB"),
    ];
    let gates = gates.with(&given).unwrap();
    assert_eq!(gates.get(Measure::Peak), None);
    assert!(gates.get(Measure::Cpu).unwrap().given);
    let retained = gates.get(Measure::Retained).unwrap();
    assert!(retained.given && retained.gate.percent() == 1.0);
    assert!(!gates.get(Measure::Leak).unwrap().given);
    // What was stored with the baseline gives way to what is given now.
    let gates = gates.with(&[choice("retained=2%,1MiB")]).unwrap();
    assert_eq!(gates.get(Measure::Retained).unwrap().gate.percent(), 2.0);

    for other in ["leak=0%,2KiB", "leak=off"] {
        let both = [choice("leak=0%,1KiB"), choice(other)];
        let error = Gates::default().with(&both).unwrap_err().to_string();
        let named = error.contains("leak=0%,1KiB") && error.contains(other);
        assert!(named, "{error}");
    }
    let only = Gates::only(&[choice("wall=50%,1s")]).unwrap();
    let measures: Vec<Measure> = only.iter().map(|(measure, _)| measure).collect();
    assert_eq!(measures, [Measure::Wall]);
    assert!(Gates::only(&[choice("wall=off")]).unwrap().is_empty());
}

#[test]
fn machines_differ_in_what_moves_numbers_and_not_in_patch_levels() {
    let then = Machine {
        allocator: "glibc 2.36-9+deb12u13".into(),
        libc: "glibc 2.36".into(),
        arch: "x86_64".into(),
        kernel: "6.1.0-18-amd64".into(),
        cores: Some(4),
        page_bytes: 4096,
        thp: "madvise".into(),
    };
    let patched = Machine {
        allocator: "glibc 2.36".into(),
        kernel: "6.1.128".into(),
        ..then.clone()
    };
    assert_eq!(then.differences(&patched), []);
    let other = Machine {
        allocator: "jemalloc (preloaded, /usr/lib/libjemalloc.so.2)".into(),
        libc: String::new(),
        arch: "aarch64".into(),
        kernel: "6.10.0".into(),
        cores: None,
        page_bytes: 65536,
        thp: "a\u{1b}[2J".into(),
    };
    let differences = then.differences(&other);
    let what: Vec<What> = differences.iter().map(|it| it.what).collect();
    assert_eq!(what, What::ALL[2..]);
    let differs = Across::default().admit(differences.clone()).unwrap_err();
    let text = differs.to_string();
    assert!(text.contains("; cores: 4 then, unknown now; "), "{text}");
    assert!(!text.contains('\x1b'));
    let way_out = "--across allocator,libc,arch,kernel,cores,page_size,thp";
    assert!(
        text.contains(way_out) && text.contains("--update"),
        "{text}"
    );

    let some: Across = "kernel, cores".parse().unwrap();
    let refused = some.admit(differences.clone()).unwrap_err().refused;
    assert_eq!(refused.len(), 5);
    assert_eq!(
        "any".parse::<Across>().unwrap().admit(differences.clone()),
        Ok(differences)
    );
}

#[test]
fn versions_of_an_allocator_count_up_to_the_minor_one() {
    let served = |words: &str| Machine {
        allocator: words.into(),
        ..Machine::default()
    };
    let same = |a, b| served(a).differences(&served(b)).is_empty();
    assert!(same("jemalloc 5.3.0-0-g54eaed1d", "jemalloc 5.3.1"));
    assert!(!same("jemalloc 5.2.1", "jemalloc 5.3.1"));
    assert!(!same("jemalloc 5.3.0", "mimalloc 5.3.0"));
    assert!(!same("glibc 2.36", ""));
    assert!(same(
        "mimalloc (preloaded, /a.so)",
        "mimalloc (preloaded, /b.so)"
    ));
}

#[test]
fn differences_that_do_not_exist_are_refused_with_the_nearest() {
    let error = "kernal".parse::<Across>().unwrap_err().to_string();
    assert!(error.contains("did you mean `kernel`"), "{error}");
    assert!(error.contains("thp, any"), "{error}");
    assert!("".parse::<Across>().is_err());
    assert!("cores,".parse::<Across>().is_err());
}

#[test]
fn this_machine_is_like_itself() {
    let here = Machine::here("glibc 2.36");
    assert_eq!(here.differences(&Machine::here("glibc 2.36")), []);
    assert!(!here.kernel.is_empty() && !here.arch.is_empty());
    assert!(here.page_bytes >= 4096 && here.page_bytes.is_power_of_two());
    assert!(here.cores.is_none_or(|cores| cores > 0));
    let json = serde_json::to_string(&here).unwrap();
    assert_eq!(serde_json::from_str::<Machine>(&json).unwrap(), here);
}

fn any_choice() -> impl Strategy<Value = Choice> {
    let percents = prop_oneof![0.0..=1000.0, Just(0.0), 1e-300..1e-3];
    let seconds = prop_oneof![0.0..1e9, Just(0.0), 1e-300..1e-3];
    let numbers = (any::<u64>(), 0..64_u32).prop_map(|(n, shift)| n >> shift << (shift / 2));
    let measures = prop::sample::select(Measure::ALL.to_vec());
    (
        measures,
        prop::option::weighted(0.9, (percents, seconds, numbers)),
    )
        .prop_filter_map("both floors are zero", |(measure, gate)| {
            let Some((percent, seconds, number)) = gate else {
                return Some(choice(&format!("{measure}=off")));
            };
            let absolute = match measure.unit() {
                Unit::Bytes | Unit::BytesPerCycle => Floor::Bytes(number),
                Unit::Count => Floor::Count(number),
                Unit::Seconds => Floor::Seconds(seconds),
            };
            let is_gate = percent > 0.0 || absolute.value() > 0.0;
            is_gate.then(|| {
                let read = choice(&format!("{measure}={percent}%,{absolute}"));
                let gate = read.gate.unwrap();
                assert_eq!((gate.percent(), gate.absolute()), (percent, absolute));
                read
            })
        })
}

proptest! {
    #[test]
    fn gates_print_as_they_parse(choice in any_choice()) {
        prop_assert_eq!(choice.to_string().parse::<Choice>().unwrap(), choice);
        let json = serde_json::to_string(&choice).unwrap();
        prop_assert_eq!(serde_json::from_str::<Choice>(&json).unwrap(), choice);
    }

    #[test]
    fn any_text_is_a_gate_or_an_error_that_is_safe_to_print(
        text in "[a-z=%,0-9.\\-\\PC\\x00-\\x1f]{0,40}|(leak|cpu|faults)=.{0,8}%,.{0,12}",
    ) {
        if let Err(error) = text.parse::<Choice>() {
            prop_assert!(!error.to_string().contains(char::is_control), "{error}");
        }
        let _ = text.parse::<Across>();
    }
}
