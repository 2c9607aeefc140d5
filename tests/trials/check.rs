//! `check` from the first baseline to the reports.

use serde_json::Value;

use crate::world::{Ran, World, finish};

/// What these check: a program that leaves a line each time, and waits at a mark, so that its memory
/// is read however slow the machine is.
pub const SUBJECT: [&str; 3] = ["sh", "-c", "echo ran >> runs; $PLIMSOLL mark dropped"];

/// On so small a program the usual floors are large.
pub const GATE: &str = "--only --gate peak=20%,256KiB";

/// A world with a baseline of [`SUBJECT`].
pub fn with_baseline() -> World {
    let world = World::new();
    let line = "check --baseline memory.json --update --warm-up 0";
    world.run(line, &SUBJECT).ends(0).tells(&["memory.json"]);
    assert_eq!(runs(&world), 5);
    world
}

/// How often it was run since this was last asked.
pub fn runs(world: &World) -> usize {
    let runs = world.read("runs").lines().count();
    world.write("runs", "");
    runs
}

/// Checks, with the usual line and what is added to it.
pub fn check(world: &World, more: &str) -> Ran {
    let line = format!("check --baseline memory.json --warm-up 0 {GATE} {more}");
    world.run(&line, &SUBJECT)
}

/// Changes the baseline.
pub fn edit(world: &World, change: impl FnOnce(&mut Value)) {
    let mut baseline = world.json("memory.json");
    change(&mut baseline);
    world.write("memory.json", baseline.to_string());
}

/// As if it had once been so many times as good.
pub fn was_better(world: &World, measure: &str, times: f64) {
    edit(world, |baseline| {
        for value in baseline["measures"][measure]["values"]
            .as_array_mut()
            .unwrap()
        {
            *value = (value.as_f64().unwrap() / times).into();
        }
    });
}

#[test]
fn a_baseline_holds_what_and_where_it_was_taken() {
    let world = with_baseline();
    let baseline = world.json("memory.json");
    assert_eq!(baseline["schema"], 1);
    assert_eq!(baseline["subject"]["kind"], "command");
    assert_eq!(baseline["subject"]["arguments"][2], SUBJECT[2]);
    assert_eq!(baseline["profile"]["name"], "glibc-default");
    for key in [
        "allocator",
        "libc",
        "arch",
        "kernel",
        "cores",
        "page_bytes",
        "thp",
    ] {
        assert!(!baseline["machine"][key].is_null(), "{key}");
    }
    let peaks = baseline["measures"]["peak"]["values"].as_array().unwrap();
    assert_eq!(peaks.len(), 5);
    assert_eq!(world.files(), ["memory.json", "runs"]);
}

#[test]
fn the_same_program_passes_and_a_worse_one_fails_by_name() {
    let world = with_baseline();
    check(&world, "").ends(0).tells(&["no regression", "peak"]);
    was_better(&world, "peak", 4.0);
    let before = world.read("memory.json");
    check(&world, "").ends(1).tells(&["1 regression", "peak"]);
    assert_eq!(world.read("memory.json"), before, "a check writes nothing");
    check(&world, "--update").ends(0);
    check(&world, "").ends(0);
}

#[test]
fn what_is_better_passes_and_is_said() {
    let world = with_baseline();
    was_better(&world, "peak", 0.25);
    check(&world, "").ends(0).tells(&["improved", "--update"]);
}

#[test]
fn gates_that_a_baseline_was_taken_with_are_its_own() {
    let world = World::new();
    let line = "check --baseline memory.json --update --warm-up 0 --gate peak=20%,256KiB";
    world.run(line, &SUBJECT).ends(0);
    was_better(&world, "peak", 4.0);
    let check = "check --baseline memory.json --warm-up 0";
    world.run(check, &SUBJECT).ends(1).tells(&["peak"]);
    let off = format!("{check} --gate peak=off");
    world.run(&off, &SUBJECT).ends(0);
}

#[test]
fn a_program_that_sets_its_own_threshold_is_checked_with_it() {
    let world = World::new();
    let own = "GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072 $PLIMSOLL mark dropped";
    let own = ["sh", "-c", own];
    let line = "check --baseline memory.json --warm-up 0 -n 1";
    world.run(&format!("{line} --update"), &own).ends(0);
    // Asked for by name, the profile is not what the program runs under.
    let named = format!("{line} --update --profile glibc-mmap-1m");
    world.run(&named, &own).ends(2).tells(&["not in force"]);
}

#[test]
fn runs_of_the_cache_are_checked_as_well() {
    let world = World::new();
    let line = "check --baseline memory.json --synthetic six --scale 0.01 --cycles 4 --steps 3";
    world.run(&format!("{line} --update"), &[]).ends(0);
    let baseline = world.json("memory.json");
    assert_eq!(baseline["subject"]["kind"], "run");
    for measure in ["retained", "peak", "excess", "structural", "leak", "growth"] {
        assert!(baseline["measures"][measure].is_object(), "{measure}");
    }
    was_better(&world, "peak", 4.0);
    world.run(line, &[]).ends(1).tells(&["peak"]);
}

#[test]
fn reports_for_machines_say_the_same() {
    let world = with_baseline();
    was_better(&world, "peak", 4.0);
    let more = "--junit memory.xml --markdown summary.md --json";
    world.write("summary.md", "# Before\n");
    let json = check(&world, more).ends(1).json();
    assert_eq!(json["verdict"], "regression");
    assert_eq!(json["rows"][0]["measure"], "peak");
    assert_eq!(json["rows"][0]["verdict"], "regression");
    let junit = world.read("memory.xml");
    assert!(junit.starts_with("<?xml"), "{junit}");
    assert_eq!(junit.matches("<failure").count(), 1, "{junit}");
    let summary = world.read("summary.md");
    assert!(summary.starts_with("# Before\n"), "{summary}");
    assert!(summary.contains("| peak"), "{summary}");
    // A summary is added to, a test report is of one check.
    check(&world, more).ends(1);
    assert_eq!(world.read("memory.xml").matches("<?xml").count(), 1);
    assert_eq!(
        world.read("summary.md").matches("plimsoll check:").count(),
        2
    );
}

#[test]
fn github_gets_annotations_where_it_listens() {
    let world = with_baseline();
    was_better(&world, "peak", 4.0);
    let words = format!("check --baseline memory.json --warm-up 0 {GATE}");
    let words = words.split(' ').chain(["--"]).chain(SUBJECT);
    let mut command = world.command(words.clone());
    let ran = finish(command.env("GITHUB_ACTIONS", "true")).ends(1);
    assert!(ran.out.contains("\n::error title=peak"), "{}", ran.out);
    let ran = finish(&mut world.command(words)).ends(1);
    assert!(!ran.out.contains("::error"), "{}", ran.out);
}

#[test]
fn a_report_that_cannot_be_written_is_said_before_anything_runs() {
    let world = with_baseline();
    was_better(&world, "peak", 4.0);
    for option in ["--junit", "--markdown"] {
        let ran = check(&world, &format!("{option} no-such-folder/memory.xml")).ends(2);
        let ran = ran.tells(&["no-such-folder/memory.xml"]);
        assert!(!ran.out.contains("regression"), "{}", ran.out);
    }
}
