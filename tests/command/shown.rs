//! A run as live screens find it: by the usual place, by a path, or not at all.

use std::time::Duration;

use plimsoll_events::{Ask, Heard, Kind, Request, connect};

use crate::world::{World, text};

const PATIENCE: Duration = Duration::from_secs(60);

/// A run that goes on until somebody ends it.
const LONG: [&str; 8] = [
    "--ram",
    "1MiB",
    "--workload",
    "cyclic",
    "--steps",
    "1000000",
    "--json",
    "--models",
];

#[test]
fn a_run_is_found_where_live_screens_look_ticks_answers_and_ends_in_order() {
    let world = World::new();
    let folder = world.models(&[("a", 900_000), ("b", 900_000)]);
    let mut child = world
        .command(["run"].iter().chain(&LONG))
        .arg(&folder)
        .env("XDG_RUNTIME_DIR", world.path("."))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let path = world.path(&format!("plimsoll/{}.sock", child.id()));
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut follow = connect(&path).unwrap();
    let asker = follow.asker();
    let mut next = |what: &str| match follow.next_within(PATIENCE).unwrap() {
        Heard::Event(event) => Some(event.kind),
        Heard::Closed => None,
        Heard::Nothing => panic!("no {what} came"),
    };
    let Some(Kind::Opened(opened)) = next("greeting") else {
        panic!("it begins with who it is");
    };
    assert!(opened.program.starts_with("plimsoll ") && !opened.profile.is_empty());
    assert_eq!(opened.options["workload"], "cyclic");
    assert_eq!(opened.models.len(), 2);
    assert_eq!(opened.models[0].groups.len(), 3);
    assert!(matches!(next("sample"), Some(Kind::Sample(_))));
    assert!(matches!(next("picture"), Some(Kind::Picture(_))));
    while !matches!(next("tick"), Some(Kind::Picture(_))) {}
    let request = Request::Trim;
    asker.ask(&Ask { id: 1, request }).unwrap();
    while !matches!(next("answer"), Some(Kind::Answer(answer)) if !answer.refused) {}
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut closed = false;
    while let Some(kind) = next("end") {
        closed |= matches!(kind, Kind::Closed(_));
    }
    assert!(closed, "it says that it ends");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!path.exists());
}

#[test]
fn a_place_that_was_named_has_to_be_had_and_the_usual_one_does_not() {
    let world = World::new();
    let folder = world.models(&[("a", 1000)]);
    let models = folder.to_str().unwrap();
    std::fs::write(world.path("taken"), "mine").unwrap();
    let said = world.refused(&[
        "run",
        "--models",
        models,
        "--publish",
        "taken",
        "--record",
        "r.jsonl",
    ]);
    assert!(said.contains("taken is there, and is no socket"), "{said}");
    assert!(
        !world.path("r.jsonl").exists(),
        "there was no run to record"
    );
    let both = ["run", "--models", models, "--publish", "s", "--no-publish"];
    assert!(world.refused(&both).contains("cannot be used with"));

    // The usual folder is not a folder.
    std::fs::write(world.path("plimsoll"), "").unwrap();
    let usual = |arguments: &[&str]| {
        let mut command = world.command(["run", "--models", models]);
        command
            .args(arguments)
            .env("XDG_RUNTIME_DIR", world.path("."));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let said = usual(&[]);
    assert!(
        said.contains("will not find this run") && said.contains("not a folder"),
        "{said}"
    );
    assert_eq!(usual(&["--no-publish"]), "");
}
