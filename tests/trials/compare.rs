//! What `compare` runs, and what it writes.

use crate::world::{World, finish};

/// Under which threshold each run was, in the order of the runs.
const TURNS: [&str; 3] = [
    "sh",
    "-c",
    "echo ${GLIBC_TUNABLES:-none} >> turns; $PLIMSOLL mark dropped",
];

/// A program whose memory is read however slow the machine is, as it waits for that.
const MARKS: [&str; 3] = ["sh", "-c", "$PLIMSOLL mark dropped"];

#[test]
fn profiles_take_turns_and_the_warm_up_does_not_count() {
    let world = World::new();
    let line = "compare --profile glibc-default --profile glibc-mmap-128k -n 3 --warm-up 2 --json";
    let ran = world.run(line, &TURNS).ends(0);
    let turns = world.read("turns");
    let turns: Vec<&str> = turns.lines().collect();
    let (a, b) = ("none", "glibc.malloc.mmap_threshold=131072");
    assert_eq!(turns, [a, a, a, b, a, b, a, b]);
    let json = ran.json();
    let names = json["profiles"].as_array().unwrap();
    let names: Vec<&str> = names
        .iter()
        .map(|profile| profile["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["glibc-default", "glibc-mmap-128k"]);
}

#[test]
fn without_profiles_all_that_can_be_applied_take_part() {
    let world = World::new();
    let ran = world.run("compare -n 1 --warm-up 0", &MARKS);
    ran.ends(0)
        .tells(&["glibc-default", "glibc-mmap-128k", "glibc-mmap-1m"]);
}

#[test]
fn a_table_for_people_and_a_picture() {
    let world = World::new();
    let line = "compare --profile glibc-default --profile glibc-mmap-1m -n 2 --svg trade.svg";
    world.run(line, &MARKS).ends(0).tells(&[
        "mark dropped",
        "glibc-default",
        "glibc-mmap-1m",
        "peak",
        "cpu",
    ]);
    let svg = world.read("trade.svg");
    assert!(svg.trim_start().starts_with("<svg"), "{svg}");
    assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.contains("glibc-mmap-1m"), "{svg}");
}

#[test]
fn where_a_picture_cannot_be_drawn_nothing_is_run() {
    let world = World::new();
    let line = "compare --profile glibc-default -n 1 --warm-up 0 --svg nowhere/trade.svg";
    let ran = world.run(line, &TURNS).ends(2);
    assert!(ran.said.contains("nowhere/trade.svg"), "{}", ran.said);
    assert_eq!(world.read("turns"), "", "it ran");
}

#[test]
fn a_comparison_that_fails_leaves_pictures_as_they_were() {
    let world = World::new();
    world.write("old.svg", "an older picture");
    for svg in ["old.svg", "new.svg"] {
        let line = format!("compare --profile glibc-default -n 1 --warm-up 0 --svg {svg}");
        world.run(&line, &["sh", "-c", "exit 3"]).ends(1);
    }
    assert_eq!(world.read("old.svg"), "an older picture");
    std::os::unix::fs::symlink("nowhere.svg", world.path("link.svg")).unwrap();
    let line = "compare --profile glibc-default -n 1 --warm-up 0 --svg link.svg";
    world.run(line, &["sh", "-c", "exit 3"]).ends(1);
    assert!(world.path("link.svg").is_symlink(), "a link of somebody's");
    assert!(!world.files().contains(&"new.svg".to_owned()));
}

#[test]
fn what_is_wrong_with_the_command_line_is_said_before_anything_runs() {
    let world = World::new();
    for (line, word) in [
        (
            "compare --profile glibc-default --profile glibc-default",
            "twice",
        ),
        ("compare --profile no-such-profile", "no-such-profile"),
        ("compare --memory no-such-metric", "no-such-metric"),
        ("compare --search no_such_knob", "no_such_knob"),
        (
            "compare --search decay_ms --profile glibc-default",
            "decay_ms",
        ),
        ("compare --ram 1GiB", "--ram"),
        ("compare -n 0", "0"),
        ("compare --price -3%", "-3"),
        (
            "check --baseline memory.json --profile no-such-profile",
            "no-such-profile",
        ),
    ] {
        world.run(line, &TURNS).ends(2).tells(&[word]);
        assert_eq!(world.read("turns"), "", "{line}");
    }
    world.run("compare", &["no-such-command-anywhere"]).ends(2);
    world.write("not-executable", "true");
    world.run("compare", &["./not-executable"]).ends(2);
}

#[test]
fn standard_input_is_left_to_whoever_started_it() {
    let world = World::new();
    world.write("words", "still here\n");
    let script = "$PLIMSOLL compare --profile glibc-default -n 1 -- cat >/dev/null; cat";
    let mut shell = world.shell(script);
    shell.stdin(std::fs::File::open(world.path("words")).unwrap());
    let ran = finish(&mut shell).ends(0);
    assert_eq!(ran.out, "still here\n");
}

#[test]
fn what_the_command_prints_is_not_part_of_the_answer() {
    let world = World::new();
    let noise = [
        "sh",
        "-c",
        r"printf '\377\000{not json'; echo loud >&2; $PLIMSOLL mark dropped",
    ];
    let ran = world.run("compare --profile glibc-default -n 2 --json", &noise);
    let ran = ran.ends(0);
    ran.json();
    assert!(!ran.said.contains("loud"), "{}", ran.said);
}

#[test]
fn runs_of_the_cache_are_compared_as_well() {
    let world = World::new();
    let line = "compare --profile glibc-default --profile glibc-mmap-128k -n 1 --warm-up 1 --json \
                --synthetic six --scale 0.01 --storage heap --steps 3";
    let json = world.run(line, &[]).ends(0).json();
    let runs = json["profiles"].as_array().unwrap().len();
    assert_eq!(runs, 2);
}
