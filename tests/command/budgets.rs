//! Budgets that follow the machine, models that nobody leases, and options that make no sense.

use crate::world::{World, text};

#[test]
fn a_budget_that_follows_the_machine_says_what_bounds_it() {
    let world = World::new();
    let folder = world.models(&[("a", 600_000)]);
    let arguments = ["run", "--models", folder.to_str().unwrap(), "--ram", "auto"];
    let output = world.run(&[&arguments[..], &["--record", "r.jsonl"]].concat());
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = said
        .lines()
        .find(|line| line.contains("budget ram"))
        .unwrap();
    for word in ["unused", "counted 0 B", "- reserve", "bound: "] {
        assert!(line.contains(word), "`{word}` is not in: {line}");
    }
    // The columns are named first, and the stream begins with who writes it.
    assert!(said.trim_start().starts_with("time "), "{said}");
    let recording = std::fs::read_to_string(world.path("r.jsonl")).unwrap();
    assert!(
        recording
            .lines()
            .next()
            .unwrap()
            .contains("\"event\":\"opened\"")
    );
    let report = world.json(&[&arguments[..], &["--json"]].concat());
    let ram = &report["tiers"][0];
    assert_eq!(ram["tier"], "ram");
    let bytes = |name: &str| report[name].as_u64().unwrap();
    assert!(bytes("budget_low_bytes") <= bytes("budget_bytes"));
    assert!(bytes("budget_bytes") <= bytes("budget_high_bytes"));
    assert_eq!(ram["budget_bytes"], report["budget_bytes"]);
    assert!(!ram["budget_bound"].as_str().unwrap().is_empty());
    assert_eq!(report["options"]["ram"], "auto");
    let fixed = world.json(&[&arguments[..3], &["--json"]].concat());
    assert!(fixed["budget_low_bytes"].is_null());
    assert!(fixed["tiers"][0]["budget_bound"].is_null());
}

#[test]
fn a_devices_budget_can_follow_what_it_says() {
    let world = World::new();
    let folder = world.models(&[("a", 600_000), ("b", 600_000)]);
    let arguments = ["run", "--models", folder.to_str().unwrap(), "--json"];
    let device = ["--device", "simulated:8MiB", "--vram", "auto"];
    let report = world.json(&[&arguments[..], &device, &["--working-memory", "1MiB"]].concat());
    let device = &report["tiers"][1];
    assert_eq!(device["budget_bytes"].as_u64(), Some(7 << 20));
    assert_eq!(device["budget_bound"], "the memory of simulated");
    assert_eq!(report["refusals"], 0);
}

#[test]
fn models_that_nobody_leased_for_long_go_and_say_why() {
    let world = World::new();
    let folder = world.models(&[("a", 600_000), ("b", 60_000)]);
    // The second lease is held until long after the first model was to go.
    std::fs::write(
        world.path("w.jsonl"),
        "{\"lease\":[\"a\"]}\n{\"lease\":[\"b\"],\"hold_ms\":1500}\n",
    )
    .unwrap();
    for device in ["cpu", "simulated:8MiB"] {
        let arguments = [
            "run",
            "--models",
            folder.to_str().unwrap(),
            "--workload",
            "./w.jsonl",
        ];
        let idle = ["--keep-alive", "50ms", "--ram", "8MiB", "--device", device];
        let output = world.run(&[&arguments[..], &idle].concat());
        let said = text(&output.stdout);
        let tier = if device == "cpu" { "ram" } else { "simulated" };
        let is_idle = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(1..4) == Some(&["evict", "a", tier][..]) && line.ends_with("idle for 0.05 s")
        };
        assert!(said.lines().any(is_idle), "{said}");
        let report = world.json(&[&arguments[..], &idle, &["--json"]].concat());
        assert!(report["evictions_by_reason"]["idle"].as_u64().unwrap() > 0);
        assert_eq!(report["options"]["keep-alive"], "0.05 s");
    }
}

#[test]
fn options_that_make_no_sense_are_refused_by_name_before_anything_is_made() {
    let world = World::new();
    for (options, words) in [
        (
            &["--device", "gpu"][..],
            &["--device", "no device `gpu`", "simulated:SIZE"][..],
        ),
        (&["--device", "simulated:"], &["--device", "simulated:8GiB"]),
        (
            &["--device", "simulated:lots"],
            &["--device", "simulated:lots"],
        ),
        (
            &["--device", "simulated:1GiB,0"],
            &["--device", "simulated:8GiB,25"],
        ),
        (&["--ram", "most"], &["--ram", "most", "auto"]),
        (&["--vram", "most"], &["--vram", "most", "auto"]),
        (&["--vram", "1GiB"], &["--vram", "1.00 GiB", "--device"]),
        (&["--working-memory", "some"], &["--working-memory", "some"]),
        (
            &["--working-memory", "2GiB", "--device", "simulated:1GiB"],
            &["--working-memory", "2.00 GiB", "1.00 GiB"],
        ),
        (
            &["--keep-ram-copy", "maybe"],
            &["--keep-ram-copy", "maybe", "yes"],
        ),
        (&["--keep-alive", "30"], &["--keep-alive", "`30`", "30s"]),
        (&["--keep-alive=-1s"], &["--keep-alive", "`-1s`"]),
        (&["--keep-alive", "25h"], &["--keep-alive", "24h"]),
        (
            &["--inject", "fire"],
            &["--inject", "`fire`", "oom", "read"],
        ),
        (&["--inject", "read:0"], &["--inject", "read:0"]),
        (
            &["--inject", "oom:0", "--device", "simulated:1GiB"],
            &["--inject", "oom:0"],
        ),
        (&["--inject", "oom"], &["--inject oom:1", "simulated:SIZE"]),
        (
            &["--inject", "read:2", "--inject", "stuck"],
            &["--inject stuck:1", "simulated:SIZE"],
        ),
    ] {
        let said = world.refused(&[&["run", "--record", "r"], options].concat());
        for word in words {
            assert!(
                said.contains(word),
                "{options:?}: `{word}` is not in: {said}"
            );
        }
        assert!(!world.path("r").exists(), "{options:?}");
    }
    assert!(!world.path("cache").exists(), "nothing was made");
}
