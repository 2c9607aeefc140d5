//! Baselines that are no good, and those that cannot be written.

use std::os::unix::fs::symlink;

use crate::check::{SUBJECT, check, edit, runs, with_baseline};
use crate::world::{World, finish};

#[test]
fn without_a_baseline_it_is_said_how_to_take_one() {
    let world = World::new();
    check(&world, "")
        .ends(2)
        .tells(&["memory.json", "--update"]);
    assert_eq!(runs(&world), 0);
}

#[test]
fn files_that_are_no_baseline_are_refused_and_left_alone() {
    let deep = "[".repeat(200_000);
    let large = format!("{{\"schema\":1,\"x\":\"{}\"}}", "x".repeat(2 << 20));
    for (bytes, word) in [
        ("", "empty"),
        ("{", "line 1"),
        ("\u{1b}[2Jnothing", "line 1"),
        ("{\"name\":\"a package\"}", "schema"),
        ("{\"schema\":99}", "99"),
        ("{\"schema\":1,\"measures\":7}", "memory.json"),
        (deep.as_str(), "memory.json"),
        (large.as_str(), "bytes"),
    ] {
        let world = World::new();
        world.write("memory.json", bytes);
        let ran = check(&world, "").ends(2).tells(&["memory.json", word]);
        assert!(!ran.said.contains('\u{1b}'), "{}", ran.said);
        assert_eq!(runs(&world), 0, "nothing is run for that");
        // What has a schema is a baseline of some version, and is replaced.
        if !bytes.is_empty() && !bytes.starts_with("{\"schema\"") {
            check(&world, "--update").ends(2).tells(&["memory.json"]);
            assert_eq!(world.read("memory.json"), bytes, "it is left alone");
        }
    }
}

#[test]
fn numbers_that_no_run_comes_to_are_refused() {
    for (number, word) in [("1e300", "peak"), ("-1e300", "peak"), ("\"7\"", "line")] {
        let world = with_baseline();
        edit(&world, |baseline| {
            baseline["measures"]["peak"]["values"] = serde_json::json!([4.25]);
        });
        let text = world.read("memory.json").replace("4.25", number);
        world.write("memory.json", text);
        check(&world, "").ends(2).tells(&["memory.json", word]);
        assert_eq!(runs(&world), 0);
    }
    let world = with_baseline();
    edit(&world, |baseline| {
        baseline["measures"]["peak"]["values"] = serde_json::json!([]);
    });
    check(&world, "").ends(2).tells(&["peak", "no values"]);
}

#[test]
fn what_is_no_file_is_no_baseline_and_nobody_waits_for_it() {
    let world = World::new();
    std::fs::create_dir(world.path("folder")).unwrap();
    symlink("memory.json", world.path("memory.json")).unwrap();
    assert!(finish(&mut world.shell("mkfifo pipe")).code == Some(0));
    for name in ["folder", "pipe", "memory.json", "/dev/zero"] {
        for update in ["", "--update"] {
            let line = format!("check --baseline {name} -n 1 --warm-up 0 {update}");
            world.run(&line, &SUBJECT).ends(2).tells(&[name]);
        }
    }
}

#[test]
fn a_baseline_that_cannot_be_written_leaves_the_old_one_whole() {
    let world = with_baseline();
    let before = world.read("memory.json");
    // No file may grow beyond so many blocks of 512 bytes, which is less than a baseline has.
    let script = "ulimit -f 1; $PLIMSOLL check --baseline memory.json --update -n 1 --warm-up 0 -- \
                  sleep 0.1";
    finish(&mut world.shell(script))
        .ends(2)
        .tells(&["memory.json"]);
    assert_eq!(world.read("memory.json"), before);
    assert_eq!(
        world.files(),
        ["memory.json", "runs"],
        "nothing is left behind"
    );
    let line = "check --baseline no-such-folder/memory.json --update -n 1 --warm-up 0";
    world.run(line, &SUBJECT).ends(2).tells(&["no-such-folder"]);
}
