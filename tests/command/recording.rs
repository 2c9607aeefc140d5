//! Recordings: whole lines whatever happens to the process.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::world::{World, text};

#[test]
fn a_replay_gives_the_report_of_the_run() {
    let world = World::new();
    let folder = world.models(&[("a", 900_000), ("b", 900_000)]);
    let run = world.json(&[
        "run",
        "--models",
        folder.to_str().unwrap(),
        "--ram",
        "1MiB",
        "--record",
        "r.jsonl",
        "--json",
        "--touch",
        "checksum",
    ]);
    let replayed = world.json(&["replay", "r.jsonl", "--json"]);
    assert_eq!(run, replayed);
    assert!(text(&world.run(&["replay", "r.jsonl"]).stdout).contains("verdict:"));
}

#[test]
fn a_run_killed_at_any_moment_leaves_a_recording_that_replays() {
    let world = World::new();
    let folder = world.models(&[("a", 900_000), ("b", 900_000)]);
    for round in 0..20_u64 {
        let file = format!("r{round}.jsonl");
        let mut child = world
            .command([
                "run",
                "--models",
                folder.to_str().unwrap(),
                "--ram",
                "1MiB",
                "--workload",
                "cyclic",
                "--steps",
                "1000000",
                "--record",
                &file,
                "--json",
            ])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let path = world.path(&file);
        while std::fs::metadata(&path).map_or(0, |meta| meta.len()) < 20_000 {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(round * 731));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let lines = std::fs::read(&path)
            .unwrap()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        let report = world.json(&["replay", &file, "--json"]);
        assert_eq!(report["complete"], false);
        assert_eq!(report["missing_events"], 0);
        let loads = report["loads"].as_u64().unwrap() as usize;
        assert!(loads > 0 && loads < lines, "{loads} loads in {lines} lines");
    }
}

#[test]
fn a_line_cut_off_at_the_end_is_left_out_and_said() {
    let world = World::new();
    let folder = world.models(&[("a", 1000)]);
    world.run(&[
        "run",
        "--models",
        folder.to_str().unwrap(),
        "--record",
        "r.jsonl",
    ]);
    let whole = std::fs::read(world.path("r.jsonl")).unwrap();
    std::fs::write(world.path("cut.jsonl"), &whole[..whole.len() - 5]).unwrap();
    let said = text(&world.run(&["replay", "cut.jsonl"]).stdout);
    assert!(said.contains("cut off"), "{said}");
}

#[test]
fn a_recording_is_never_overwritten() {
    let world = World::new();
    let folder = world.models(&[("a", 1000)]);
    std::fs::write(world.path("mine"), "precious").unwrap();
    let said = world.refused(&[
        "run",
        "--models",
        folder.to_str().unwrap(),
        "--record",
        "mine",
    ]);
    assert!(said.contains("never overwritten"), "{said}");
    assert_eq!(std::fs::read(world.path("mine")).unwrap(), b"precious");
}

#[test]
fn a_later_version_and_what_is_no_recording_are_refused_by_line() {
    let world = World::new();
    std::fs::write(
        world.path("later"),
        "{\"v\":4,\"seq\":0,\"at_us\":0,\"event\":\"x\"}\n",
    )
    .unwrap();
    assert!(
        world
            .refused(&["replay", "later"])
            .contains("line 1: version 4")
    );
    std::fs::write(world.path("text"), "hello\n").unwrap();
    assert!(world.refused(&["replay", "text"]).contains("line 1"));
    std::fs::write(world.path("empty"), "").unwrap();
    assert!(world.refused(&["replay", "empty"]).contains("0 bytes"));
    std::fs::write(world.path("long"), vec![b'x'; 20 << 20]).unwrap();
    assert!(world.refused(&["replay", "long"]).contains("longer than"));
    assert!(world.refused(&["replay", "."]).contains("directory"));
}

#[test]
fn a_kind_of_event_from_the_future_is_skipped() {
    let world = World::new();
    std::fs::write(
        world.path("r"),
        "{\"v\":1,\"seq\":0,\"at_us\":5,\"event\":\"teleport\",\"to\":\"moon\"}\n\
         {\"v\":1,\"seq\":1,\"at_us\":9,\"event\":\"closed\"}\n",
    )
    .unwrap();
    let report = world.json(&["replay", "r", "--json"]);
    assert_eq!(report["complete"], true);
}

#[test]
fn a_recording_of_version_1_still_replays() {
    let world = World::new();
    let recording = include_str!("recordings/version-1.jsonl");
    std::fs::write(world.path("r.jsonl"), recording).unwrap();
    let report = world.json(&["replay", "r.jsonl", "--json"]);
    assert_eq!(report["complete"], true);
    assert_eq!(
        (&report["loads"], &report["evictions"]),
        (&3.into(), &3.into())
    );
    assert_eq!(report["freed_bytes"], 3 * 40_960);
    assert_eq!(report["recycled_bytes"], 2 * 40_960);
    assert_eq!(report["returned_bytes"], 40_960);
    assert_eq!(report["budget_bytes"], 50_000);
    assert_eq!(report["tiers"][0]["resident_peak_bytes"], 40_960);
    assert_eq!(report["transfers"][0]["from"], "file");
    let said = text(&world.run(&["replay", "r.jsonl"]).stdout);
    assert!(
        said.contains("evict  b                        ram "),
        "{said}"
    );
}
