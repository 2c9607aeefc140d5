//! The main job.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use xxhash_rust::xxh3::Xxh3;

use crate::world::{World, text};

#[test]
fn run_makes_models_holds_them_and_evicts() {
    let world = World::new();
    let report = world.json(&["run", "--scale", "0.02", "--json"]);
    assert_eq!(report["schema"], 2);
    assert_eq!(report["complete"], true);
    assert!(report["loads"].as_u64().unwrap() > 0);
    assert!(
        report["evictions_for_room"].as_u64().unwrap() > 0,
        "the budget is smaller than the set"
    );
    for field in [
        "profile",
        "allocator",
        "storage",
        "budget_bytes",
        "baseline_rss_bytes",
        "live_peak_bytes",
        "rss_peak_bytes",
        "excess_bytes",
        "retained_bytes",
        "freed_bytes",
        "returned_bytes",
        "hits",
        "refusals",
        "bytes_loaded",
        "minor_faults",
        "load_seconds",
        "wall_seconds",
    ] {
        assert!(!report[field].is_null(), "{field} is absent");
    }
    let again = world.run(&["run", "--scale", "0.02"]);
    let said = text(&again.stdout);
    assert!(again.status.success());
    assert!(!said.contains("made "), "the models are reused: {said}");
    assert!(said.contains("verdict:"), "{said}");
    let removed = text(&world.run(&["run", "--clean"]).stdout);
    assert!(removed.contains("removed 9 files"), "{removed}");
}

#[test]
fn checksums_are_those_of_the_safetensors_library_whatever_the_storage() {
    let world = World::new();
    let folder = world.models(&[("one", 3_000_001), ("two", 77_777), ("three", 500_000)]);
    for off in [0, 1, 4] {
        mixed(&folder.join(format!("mixed-{off}.safetensors")), off);
    }
    let folder = folder.to_str().unwrap();
    let mut runs = Vec::new();
    for storage in [
        &["heap"][..],
        &["anonymous"],
        &["anonymous", "--huge-pages"],
        &["mapped"],
        &["mapped", "--page-cache", "drop", "--advise", "populate"],
    ] {
        for profile in ["glibc-default", "jemalloc-default"] {
            let mut arguments = vec!["run", "--models", folder, "--touch", "checksum"];
            arguments.extend(["--profile", profile, "--ram", "3200kB", "--steps", "24"]);
            arguments.extend(["--json", "--storage"]);
            arguments.extend(storage);
            runs.push(world.json(&arguments));
        }
    }
    for run in &runs {
        assert_eq!(run["checksum"], runs[0]["checksum"]);
        assert_eq!(run["model_checksums"], runs[0]["model_checksums"]);
        assert!(run["evictions_for_room"].as_u64().unwrap() > 0);
    }
    for (name, sum) in runs[0]["model_checksums"].as_object().unwrap() {
        let bytes = std::fs::read(format!("{folder}/{name}.safetensors")).unwrap();
        let library = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors = library.tensors();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let mut hash = Xxh3::new();
        for (_, tensor) in tensors {
            hash.update(tensor.data());
        }
        assert_eq!(sum, &format!("{:016x}", hash.digest()), "{name}");
    }
}

#[test]
fn a_model_larger_than_the_machine_is_refused_and_does_not_exhaust_it() {
    let world = World::new();
    let folder = world.models(&[("small", 1 << 20)]);
    let bytes: u64 = 8 << 40;
    let header = json!({"t": {"dtype": "U8", "shape": [bytes], "data_offsets": [0, bytes]}});
    let header = format!("{:<128}", header.to_string());
    let path = folder.join("larger-than-any.safetensors");
    let start = [&128_u64.to_le_bytes(), header.as_bytes()].concat();
    std::fs::write(&path, start).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    if let Err(error) = file.set_len(136 + bytes) {
        return println!("skipped: no file of 8 TiB here: {error}");
    }
    for storage in ["heap", "anonymous"] {
        let run = world.command(["run", "--models", "models", "--storage", storage, "--json"]);
        // Should it try all the same, it gets no more than that.
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", "ulimit -v 4000000; exec \"$0\" \"$@\""]);
        limited.arg(run.get_program()).args(run.get_args());
        limited.current_dir(world.path("."));
        let output = limited.output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
        assert!(report["refusals"].as_u64().unwrap() > 0, "{report}");
        assert_eq!(report["failed_loads"], 0, "{report}");
        assert!(report["loads"].as_u64().unwrap() > 0, "{report}");
    }
}

/// A file of many element types, whose data begins so many bytes off a multiple of 8.
fn mixed(path: &Path, off: usize) {
    let types = [("U8", 1), ("F16", 2), ("BF16", 2), ("F32", 4), ("I64", 8)];
    let mut data = Vec::new();
    let mut tensors = serde_json::Map::new();
    for (index, (dtype, size)) in types.into_iter().cycle().take(40).enumerate() {
        let (begin, elements) = (data.len(), 1000 + 37 * index);
        data.extend((0..elements * size).map(|at| (at * 7 + index) as u8));
        tensors.insert(
            format!("t{index:02}"),
            json!({"dtype": dtype, "shape": [elements], "data_offsets": [begin, data.len()]}),
        );
    }
    let mut header = serde_json::Value::from(tensors).to_string();
    while header.len() % 8 != off {
        header.push(' ');
    }
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(path, [&length, header.as_bytes(), &data].concat()).unwrap();
}

#[test]
fn a_model_larger_than_the_budget_is_refused_with_the_numbers_and_the_run_goes_on() {
    let world = World::new();
    let folder = world.models(&[("large", 4 << 20), ("small", 1 << 20)]);
    let arguments = [
        "run",
        "--models",
        folder.to_str().unwrap(),
        "--ram",
        "2MiB",
        "--workload",
        "cyclic",
        "--steps",
        "6",
    ];
    let said = text(&world.run(&arguments).stdout);
    assert!(
        said.contains("REFUSE large") && said.contains("budget 2.0 MiB"),
        "{said}"
    );
    let report = world.json(&[&arguments[..], &["--json"]].concat());
    assert_eq!(report["refusals"], 3);
    assert_eq!((&report["loads"], &report["hits"]), (&1.into(), &2.into()));
}

#[test]
fn a_workload_file_says_what_is_leased_when_and_for_how_long() {
    let world = World::new();
    let folder = world.models(&[("a", 600_000), ("b", 600_000), ("c", 600_000)]);
    std::fs::write(
        world.path("steps.jsonl"),
        "{\"lease\":[\"a\"],\"hold_ms\":60,\"at_ms\":0}\n\
         \n\
         {\"lease\":[\"b\"],\"on\":\"cpu\",\"hold_ms\":1,\"at_ms\":10}\n\
         {\"lease\":[\"c\"],\"at_ms\":20}\n",
    )
    .unwrap();
    let report = world.json(&[
        "run",
        "--models",
        folder.to_str().unwrap(),
        "--workload",
        "./steps.jsonl",
        "--ram",
        "1300kB",
        "--json",
    ]);
    // `a` is held while `b` and `c` come, so `b` has to make room.
    assert_eq!(report["loads"], 3);
    let evicted: Vec<_> = report["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| {
            (
                model["name"].as_str().unwrap(),
                model["evictions"].as_u64().unwrap(),
            )
        })
        .collect();
    assert!(evicted.contains(&("b", 1)), "{evicted:?}");
    assert_eq!(report["refusals"], 0);
}

#[test]
fn a_lease_that_waits_for_the_runs_own_release_is_no_refusal() {
    let world = World::new();
    let folder = world.models(&[("a", 600_000), ("b", 600_000)]);
    std::fs::write(
        world.path("steps.jsonl"),
        "{\"lease\":[\"a\"],\"hold_ms\":80,\"at_ms\":0}\n{\"lease\":[\"b\"],\"at_ms\":5}\n",
    )
    .unwrap();
    let folder = folder.to_str().unwrap();
    let report = world.json(&[
        "run",
        "--models",
        folder,
        "--workload",
        "./steps.jsonl",
        "--ram",
        "700kB",
        "--json",
    ]);
    assert_eq!(
        (&report["loads"], &report["refusals"]),
        (&2.into(), &0.into())
    );
}

#[test]
fn churn_counts_as_live_and_its_metadata_outlives_the_models() {
    let world = World::new();
    let folder = world.models(&[("a", 2 << 20), ("b", 2 << 20)]);
    let common = [
        "run",
        "--models",
        folder.to_str().unwrap(),
        "--steps",
        "4",
        "--json",
    ];
    let churned = world.json(&[&common[..], &["--churn"]].concat());
    assert!(churned["live_peak_bytes"].as_u64().unwrap() > 4 << 20);
    let only = world.json(&[&common[..], &["--churn-only"]].concat());
    assert_eq!(only["loads"], 0);
    assert!(only["budget_bytes"].is_null());
    assert!(only["live_peak_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_fresh_start_keeps_arguments_directory_and_descriptors() {
    let world = World::new();
    world.models(&[("a", 100_000)]);
    let record = std::fs::File::create(world.path("inherited")).unwrap();
    // Descriptors made here are closed on exec; a shell hands one on.
    let shell = format!(
        "exec 7<>/proc/{}/fd/{}; exec {} run --models ./models --profile jemalloc-purge --steps 2 \
         --record /dev/fd/../fd/../../tmp-never --json",
        std::process::id(),
        record.as_raw_fd(),
        env!("CARGO_BIN_EXE_plimsoll")
    );
    // The recording's path does not exist, so the error names the argument as it was given.
    let output = std::process::Command::new("sh")
        .args(["-c", &shell])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    assert!(
        text(&output.stderr).contains("/dev/fd/../fd/../../tmp-never"),
        "{}",
        text(&output.stderr)
    );
    let shell = shell.replace(
        "--record /dev/fd/../fd/../../tmp-never",
        "--workload /proc/self/fd/7",
    );
    std::fs::write(world.path("inherited"), "{\"lease\":[\"a\"]}\n").unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", &shell])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert_eq!(report["settings"]["kind"], "jemalloc");
    assert_eq!(report["loads"], 1);
}

#[test]
fn an_interrupted_run_reports_what_it_did_and_exits_130() {
    let world = World::new();
    let folder = world.models(&[("a", 100_000)]);
    std::fs::write(
        world.path("w.jsonl"),
        "{\"lease\":[\"a\"],\"hold_ms\":20}\n".repeat(1000),
    )
    .unwrap();
    let child = world
        .command([
            "run",
            "--models",
            folder.to_str().unwrap(),
            "--workload",
            "./w.jsonl",
            "--json",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["complete"], false);
    assert_eq!(report["loads"], 1);
}

#[test]
fn an_interruption_is_heard_while_a_lease_is_held() {
    let world = World::new();
    let folder = world.models(&[("a", 100_000)]);
    std::fs::write(
        world.path("w.jsonl"),
        "{\"lease\":[\"a\"],\"hold_ms\":80000000}\n",
    )
    .unwrap();
    let mut child = world
        .command([
            "run",
            "--models",
            folder.to_str().unwrap(),
            "--workload",
            "./w.jsonl",
        ])
        .args(["--record", "r.jsonl"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let loaded =
        || std::fs::read_to_string(world.path("r.jsonl")).is_ok_and(|r| r.contains("\"load\""));
    while !loaded() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(world.json(&["replay", "r.jsonl", "--json"])["loads"], 1);
}

#[test]
fn loads_that_fail_are_reported_with_their_errors_and_every_byte_is_accounted_for() {
    let world = World::new();
    let folder = world.models(&[("a", 900_000), ("b", 900_000)]);
    std::fs::write(
        world.path("w.jsonl"),
        "{\"lease\":[\"a\"]}\n{\"lease\":[\"b\"],\"at_ms\":1500}\n{\"lease\":[\"a\"]}\n{\"lease\":[\"b\"]}\n",
    )
    .unwrap();
    let child = world
        .command([
            "run",
            "--models",
            folder.to_str().unwrap(),
            "--workload",
            "./w.jsonl",
            "--json",
        ])
        .args(["--ram", "1MiB", "--record", "r.jsonl"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let loaded =
        || std::fs::read_to_string(world.path("r.jsonl")).is_ok_and(|r| r.contains("\"load\""));
    while !loaded() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(folder.join("b.safetensors"))
        .unwrap();
    file.set_len(1000).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("b.safetensors"),
        "{}",
        text(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["failed_loads"], 2);
    assert_eq!(report["errors"][0]["model"], "b");
    assert_eq!(report["errors"][0]["count"], 2);
    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(
        number("freed_bytes"),
        number("returned_bytes") + number("recycled_bytes")
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let world = World::new();
    let folder = world.models(&[("a", 100_000)]);
    let mut child = world
        .command(["run", "--models", folder.to_str().unwrap(), "--steps", "50"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_limit_of_address_space_means_copies_and_not_failure() {
    let world = World::new();
    world.models(&[("a", 3 << 20)]);
    let shell = format!(
        "ulimit -v 900000; exec {} run --models ./models --steps 2 --ram 64MiB --touch checksum --json",
        env!("CARGO_BIN_EXE_plimsoll")
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &shell])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert_eq!(
        (&report["loads"], &report["failed_loads"]),
        (&1.into(), &0.into())
    );
    assert!(!report["checksum"].is_null());
}
