//! Checks that come to no verdict: exit code 2, and the ways out.

use crate::check::{SUBJECT, check, edit, runs, was_better, with_baseline};

#[test]
fn another_subject_is_not_compared_unless_that_is_asked_for() {
    let world = with_baseline();
    let other = ["sh", "-c", "echo ran >> runs; exec $PLIMSOLL mark dropped"];
    let line = "check --baseline memory.json --warm-up 0 --only --gate peak=20%,256KiB";
    world.run(line, &other).ends(2).tells(&[
        "subject",
        "exec $PLIMSOLL",
        "--across subject",
        "--update",
    ]);
    assert_eq!(runs(&world), 0, "nothing is run for that");
    let line = format!("{line} --across subject");
    world.run(&line, &other).ends(0).tells(&["compared across"]);
}

#[test]
fn another_profile_is_not_compared_unless_that_is_asked_for() {
    let world = with_baseline();
    check(&world, "--profile glibc-mmap-1m")
        .ends(2)
        .tells(&["glibc-mmap-1m", "--across profile"]);
    assert_eq!(runs(&world), 0);
    check(&world, "--profile glibc-mmap-1m --across profile").ends(0);
}

#[test]
fn another_machine_is_not_compared_unless_that_is_asked_for() {
    let machine = [
        ("kernel", serde_json::json!("2.6.32-754"), "kernel"),
        ("libc", serde_json::json!("glibc 2.12"), "libc"),
        ("arch", serde_json::json!("riscv128"), "arch"),
        ("cores", serde_json::json!(1000), "cores"),
        ("page_bytes", serde_json::json!(65536), "page_size"),
        ("thp", serde_json::json!("sometimes"), "thp"),
    ];
    let world = with_baseline();
    for (key, value, across) in machine {
        let before = world.read("memory.json");
        edit(&world, |baseline| baseline["machine"][key] = value);
        let way_out = format!("--across {across}");
        check(&world, "").ends(2).tells(&[&way_out, "--update"]);
        assert_eq!(runs(&world), 0, "nothing is run for that");
        check(&world, &way_out).ends(0).tells(&["compared across"]);
        check(&world, "--across any").ends(0);
        runs(&world);
        world.write("memory.json", before);
    }
    // Only known after a run: who serves.
    edit(&world, |baseline| {
        baseline["machine"]["allocator"] = "jemalloc 5.3.0".into();
    });
    check(&world, "")
        .ends(2)
        .tells(&["jemalloc", "--across allocator"]);
    check(&world, "--across allocator").ends(0);
    check(&world, "--across weather")
        .ends(2)
        .tells(&["weather"]);
}

#[test]
fn too_few_runs_say_how_many_it_takes() {
    let world = with_baseline();
    was_better(&world, "peak", 4.0);
    // Run twice, as one did not tell.
    check(&world, "-n 1").ends(2).tells(&[
        "too few runs",
        "fewer than 4",
        "running as often again",
    ]);
    assert_eq!(runs(&world), 2);
    check(&world, "-n 2").ends(1);
    assert_eq!(runs(&world), 4);
}

#[test]
fn gates_that_make_no_sense_are_refused_before_anything_runs() {
    let world = with_baseline();
    for (gates, words) in [
        ("--gate peak=3%,1MiB --gate peak=5%,1MiB", "contradict"),
        ("--gate peak=3%,1MiB --gate peak=off", "contradict"),
        ("--gate peek=3%,1MiB", "peak"),
        ("--gate peak=3,1MiB", "percent"),
        ("--gate peak=-3%,1MiB", "negative"),
        ("--gate peak=0%,0B", "both floors are zero"),
        ("--gate peak=3%,1", "MiB"),
        ("--gate peak=NaN%,1MiB", "no number"),
        ("--only", "--gate"),
    ] {
        for update in ["", "--update"] {
            let line = format!("check --baseline memory.json {gates} {update}");
            world.run(&line, &SUBJECT).ends(2).tells(&[words]);
            assert_eq!(runs(&world), 0, "{line}");
        }
    }
    // One more that is told alike is no contradiction.
    check(&world, "--gate peak=20%,256KiB").ends(0);
}

#[test]
fn measures_that_come_and_go_are_named() {
    let world = with_baseline();
    // The program marks no cycles, and what was asked for must not look like a pass.
    check(&world, "--gate leak=0%,1KiB")
        .ends(2)
        .tells(&["leak", "missing"]);
    // The baseline had them once.
    edit(&world, |baseline| {
        let peak = baseline["measures"]["peak"].clone();
        baseline["measures"]["growth"] = peak;
    });
    let line = "check --baseline memory.json --warm-up 0 --gate peak=off";
    world
        .run(line, &SUBJECT)
        .ends(2)
        .tells(&["growth", "missing"]);
    // It has a measure no more that runs have.
    edit(&world, |baseline| {
        let measures = baseline["measures"].as_object_mut().unwrap();
        measures.remove("growth");
        measures.remove("retained");
    });
    let line = "check --baseline memory.json --warm-up 0";
    world
        .run(line, &SUBJECT)
        .ends(0)
        .tells(&["retained", "--update"]);
}

#[test]
fn what_is_too_noisy_is_run_again_and_then_said() {
    let world = with_baseline();
    // A baseline that is now below, now above what the program takes.
    edit(&world, |baseline| {
        let values = baseline["measures"]["peak"]["values"].as_array_mut();
        for (at, value) in values.unwrap().iter_mut().enumerate() {
            let times = if at < 3 { 0.25 } else { 4.0 };
            *value = (value.as_f64().unwrap() * times).into();
        }
    });
    let ran = check(&world, "").ends(2);
    ran.tells(&["too noisy", "peak"]);
    assert!(runs(&world) >= 5);
}
