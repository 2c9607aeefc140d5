//! Leases on a device, real runs with a simulated one.

use serde_json::Value;

use crate::world::{World, text};

/// Three models, and a run over them in turn on a device.
fn run(world: &World, options: &[&str]) -> (Option<i32>, Value, String) {
    let folder = world.models(&[("a", 600_000), ("b", 600_000), ("c", 600_000)]);
    let mut arguments = vec!["run", "--models", folder.to_str().unwrap(), "--json"];
    arguments.extend(["--workload", "cyclic", "--touch", "checksum"]);
    arguments.extend(options);
    let output = world.run(&arguments);
    let said = text(&output.stderr);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{options:?}: {error}: {said}"));
    (output.status.code(), report, said)
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn tier<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut tiers = report["tiers"].as_array().unwrap().iter();
    tiers.find(|tier| tier["tier"] == name).unwrap()
}

/// Model, tier, origin and count of every transfer.
fn transfers(report: &Value) -> Vec<(String, String, String, u64)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let all = report["transfers"].as_array().unwrap().iter();
    all.map(|one| {
        (
            word(&one["model"]),
            word(&one["tier"]),
            word(&one["from"]),
            number(&one["count"]),
        )
    })
    .collect()
}

#[test]
fn a_run_on_a_device_says_that_it_is_simulated_wherever_it_says_which() {
    let world = World::new();
    let folder = world.models(&[("a", 600_000), ("b", 600_000)]);
    let arguments = [
        "run",
        "--models",
        folder.to_str().unwrap(),
        "--device",
        "simulated:700kB,10",
        "--workload",
        "cyclic",
        "--record",
        "r.jsonl",
    ];
    let output = world.run(&arguments);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let heading = said.lines().next().unwrap();
    assert!(heading.contains("tier"), "{heading}");
    for (what, words) in [
        ("load   a", "simulated"),
        ("evict  a", "for b"),
        ("device simulated:700kB,10", "keep-ram-copy yes"),
    ] {
        let mut lines = said.lines();
        assert!(
            lines.any(|line| line.contains(what) && line.contains(words)),
            "no `{what}` with `{words}` in: {said}"
        );
    }
    let (_, transfers) = said.split_once("\ntransfers\n").unwrap();
    let mut rows = transfers.lines().map(|line| {
        let cells = line.split_whitespace();
        cells.map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(
        rows.next().unwrap()[..4],
        ["model", "tier", "from", "times"]
    );
    let rows: Vec<_> = rows.take(4).map(|cells| cells[..4].join(" ")).collect();
    assert!(
        rows.iter().any(|row| row == "a simulated ram 4"),
        "{rows:?}"
    );
    // The recording tells the same.
    let replayed = text(&world.run(&["replay", "r.jsonl"]).stdout);
    assert_eq!(replayed, said);
}

#[test]
fn coming_back_to_the_device_costs_no_reading_where_copies_are_kept() {
    let world = World::new();
    let common = [
        "--device",
        "simulated:700kB",
        "--ram",
        "8MiB",
        "--steps",
        "6",
    ];
    let (code, kept, _) = run(&world, &common);
    assert_eq!(code, Some(0));
    let way = |model: &str, tier: &str, from: &str, count| {
        (model.to_owned(), tier.to_owned(), from.to_owned(), count)
    };
    let all = transfers(&kept);
    for model in ["a", "b", "c"] {
        assert!(all.contains(&way(model, "ram", "file", 1)), "{all:?}");
        assert!(all.contains(&way(model, "simulated", "ram", 2)), "{all:?}");
    }
    assert_eq!(all.len(), 6);
    assert_eq!(tier(&kept, "simulated")["simulated"], true);
    assert_eq!(number(&tier(&kept, "ram")["loads"]), 3);
    assert_eq!(number(&tier(&kept, "simulated")["loads"]), 6);

    let not = [&common[..], &["--keep-ram-copy", "no"]].concat();
    let (code, not, _) = run(&world, &not);
    assert_eq!(code, Some(0));
    let all = transfers(&not);
    assert!(
        all.iter()
            .all(|(_, tier, from, _)| tier == "simulated" && from == "file"),
        "{all:?}"
    );
    assert_eq!(all.iter().map(|one| one.3).sum::<u64>(), 6);
    assert_eq!(number(&not["freed_bytes"]), 0, "of RAM nothing was freed");
    assert_eq!(not["options"]["keep-ram-copy"], "no");
    // The same bytes, whichever way they came.
    assert_eq!(kept["checksum"], not["checksum"]);
    let (_, cpu, _) = run(&world, &["--steps", "6"]);
    assert_eq!(kept["checksum"], cpu["checksum"]);
}

#[test]
fn bytes_of_ram_are_told_apart_from_those_of_a_device() {
    let world = World::new();
    let (_, report, _) = run(&world, &["--device", "simulated:8MiB", "--ram", "8MiB"]);
    let ram = tier(&report, "ram");
    let freed = number(&report["freed_bytes"]);
    assert_eq!(
        freed,
        number(&ram["resident_peak_bytes"]),
        "the copies, once"
    );
    assert_eq!(report["returned_bytes"], report["freed_bytes"]);
    assert_eq!(number(&report["budget_bytes"]), 8 << 20);
    let device = tier(&report, "simulated");
    assert_eq!(number(&device["budget_bytes"]), 8 << 20);
    assert_eq!(number(&device["bytes_loaded"]), 1_800_000);
    assert_eq!(
        number(&report["bytes_loaded"]),
        number(&ram["bytes_loaded"]) + number(&device["bytes_loaded"])
    );
    // A simulated device is memory of this host: what is on it is live, and no excess.
    assert!(number(&report["live_peak_bytes"]) >= 3_600_000);
}

#[test]
fn what_never_fits_the_device_is_refused_with_the_numbers_and_is_no_failure() {
    let world = World::new();
    for options in [
        &["--device", "simulated:8MiB", "--vram", "500kB"][..],
        &["--device", "simulated:1MiB", "--working-memory", "800kB"],
        &[
            "--device",
            "simulated:1MiB",
            "--vram",
            "1MiB",
            "--working-memory",
            "800kB",
        ],
    ] {
        let (code, report, _) = run(&world, &[options, &["--steps", "6"]].concat());
        assert_eq!(code, Some(0), "{options:?}");
        assert_eq!(
            (&report["loads"], &report["refusals"]),
            (&0.into(), &6.into())
        );
        let refused = report["refused"].as_array().unwrap();
        assert_eq!(refused.len(), 3, "one for each model");
        for one in refused {
            assert_eq!(one["tier"], "simulated");
            assert_eq!(one["reason"], "exceeds_budget");
            assert_eq!(number(&one["count"]), 2);
            assert!(number(&one["asked_bytes"]) > number(&one["budget_bytes"]));
        }
    }
    let folder = world.path("models");
    let arguments = [
        "run",
        "--models",
        folder.to_str().unwrap(),
        "--workload",
        "cyclic",
    ];
    let device = ["--device", "simulated:8MiB", "--vram", "500kB"];
    let said = text(&world.run(&[&arguments[..], &device].concat()).stdout);
    assert!(said.contains("REFUSE a"), "{said}");
    assert!(
        said.contains("in simulated: exceeds the budget; "),
        "{said}"
    );
}

#[test]
fn working_memory_takes_room_from_weights() {
    let world = World::new();
    let device = [
        "--device",
        "simulated:2MiB",
        "--ram",
        "8MiB",
        "--steps",
        "6",
    ];
    let (_, without, _) = run(&world, &device);
    assert_eq!(number(&without["evictions_for_room"]), 0, "all three fit");
    let (_, with, _) = run(
        &world,
        &[&device[..], &["--working-memory", "800kB"]].concat(),
    );
    assert!(number(&with["evictions_for_room"]) > 0);
    assert_eq!(number(&with["refusals"]), 0);
    let budget = number(&tier(&with, "simulated")["budget_bytes"]);
    assert_eq!(budget, (2 << 20) - 800_000);
}

#[test]
fn a_workload_file_leases_on_the_cpu_or_on_the_device() {
    let world = World::new();
    std::fs::write(
        world.path("w.jsonl"),
        "{\"lease\":[\"a\"],\"on\":\"cpu\"}\n{\"lease\":[\"b\"],\"on\":\"device\"}\n\
         {\"lease\":[\"c\",\"b\"]}\n",
    )
    .unwrap();
    let options = ["--workload", "./w.jsonl", "--device", "simulated:8MiB"];
    let folder = world.models(&[("a", 60_000), ("b", 60_000), ("c", 60_000)]);
    let run = [
        "run",
        "--json",
        "--ram",
        "8MiB",
        "--models",
        folder.to_str().unwrap(),
    ];
    let report = world.json(&[&run[..], &options[..]].concat());
    let on_device: Vec<String> = transfers(&report)
        .into_iter()
        .filter(|one| one.1 == "simulated")
        .map(|one| one.0)
        .collect();
    assert_eq!(on_device, ["b", "c"]);
    // The device of a run without another is the CPU.
    let report = world.json(&[&run[..], &options[..2]].concat());
    assert_eq!(number(&report["loads"]), 3);
}

#[test]
fn a_lease_on_the_device_waits_for_the_runs_own_releases_there() {
    let world = World::new();
    let folder = world.models(&[("a", 600_000), ("b", 600_000)]);
    std::fs::write(
        world.path("w.jsonl"),
        "{\"lease\":[\"a\"],\"hold_ms\":80,\"at_ms\":0}\n{\"lease\":[\"b\"],\"at_ms\":5}\n",
    )
    .unwrap();
    let run = ["run", "--json", "--models", folder.to_str().unwrap()];
    let run = [&run[..], &["--workload", "./w.jsonl"]].concat();
    for options in [
        &["--device", "simulated:700kB"][..],
        &["--device", "simulated:1400kB", "--working-memory", "400kB"],
        &[
            "--device",
            "simulated:8MiB",
            "--vram",
            "1400kB",
            "--working-memory",
            "400kB",
        ],
    ] {
        let report = world.json(&[&run[..], options].concat());
        assert_eq!(report["refusals"], 0, "{options:?}");
        assert_eq!(number(&tier(&report, "simulated")["loads"]), 2);
    }
}

/// Runs on `cuda:0` with this for a driver.
fn with_driver(world: &World, library: &[u8], options: &[&str]) -> String {
    let folder = world.path("driver");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("libcuda.so.1"), library).unwrap();
    let arguments = [&["run", "--device", "cuda:0", "--record", "r"], options].concat();
    let mut command = world.command(&arguments);
    let output = command.env("LD_LIBRARY_PATH", folder).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(!world.path("r").exists() && !world.path("cache").exists());
    said
}

#[cfg(not(feature = "cuda"))]
#[test]
fn without_a_driver_a_run_on_a_gpu_is_refused_plainly_before_anything_is_made() {
    let world = World::new();
    let said = with_driver(&world, b"", &[]);
    let begin = "plimsoll: --device cuda:0: no NVIDIA driver: ";
    assert!(said.starts_with(begin), "{said}");
    assert!(said.contains("libcuda.so.1: file too short"), "{said}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn with_a_driver_a_run_on_a_gpu_says_which_program_has_cuda() {
    let world = World::new();
    let library = world.path("simulated.so");
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/cache/tests/cuda/driver/library.rs"
    );
    let built = std::process::Command::new("rustc")
        .args(["--edition", "2024", "--crate-type", "cdylib", "-o"])
        .args([library.as_os_str(), source.as_ref()])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    let said = with_driver(&world, &std::fs::read(library).unwrap(), &[]);
    assert!(
        said.contains("built without CUDA: use plimsoll-cuda"),
        "{said}"
    );
}
