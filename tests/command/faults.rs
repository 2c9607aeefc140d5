//! Things that go wrong because they were asked to: said once, with numbers, and the run goes on.

use serde_json::Value;

use crate::world::{World, text};

/// Six leases in turn.
fn run(world: &World, options: &[&str]) -> (Option<i32>, Value, String) {
    run_steps(world, "6", options)
}

fn run_steps(world: &World, steps: &str, options: &[&str]) -> (Option<i32>, Value, String) {
    let folder = world.models(&[("a", 600_000), ("b", 600_000), ("c", 600_000)]);
    let common = ["run", "--models", folder.to_str().unwrap(), "--json"];
    let workload = ["--workload", "cyclic", "--ram", "8MiB", "--steps", steps];
    let output = world.run(&[&common[..], &workload, options].concat());
    let said = text(&output.stderr);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{options:?}: {error}: {said}"));
    (output.status.code(), report, said)
}

#[test]
fn faults_of_a_device_fail_its_loads_and_nothing_else() {
    let world = World::new();
    for (fault, words) in [
        (
            "oom",
            &["simulated has no memory for `a`", "(injected)", "8.0 MiB"][..],
        ),
        (
            "transfer",
            &[
                "cannot transfer tensor `layer.",
                "of `a` to simulated",
                "injected",
            ],
        ),
    ] {
        let (code, report, said) = run(&world, &["--device", "simulated:8MiB", "--inject", fault]);
        assert_eq!(code, Some(1), "{fault}: {said}");
        assert_eq!(report["complete"], true, "{fault}");
        assert_eq!(report["failed_loads"], 6, "{fault}");
        assert_eq!(report["loads"], 3, "the copies in RAM, with {fault}");
        let of_a: Vec<&str> = said.lines().filter(|line| line.contains("`a`")).collect();
        assert_eq!(of_a.len(), 1, "{fault} is said once: {said}");
        for word in words {
            assert!(of_a[0].contains(word), "`{word}` is not in: {said}");
        }
        assert!(of_a[0].contains("(2 times)"), "{said}");
        assert!(report["retained_bytes"].as_i64().unwrap() < 1 << 20);
        assert_eq!(report["options"]["inject"], format!("{fault}:1"));
    }
}

#[test]
fn a_device_that_has_no_memory_once_is_asked_again_after_an_eviction() {
    let world = World::new();
    let (code, report, said) = run(&world, &["--device", "simulated:8MiB", "--inject", "oom:3"]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(
        report["evictions_by_reason"]["device_full"].as_u64(),
        Some(1)
    );
    assert_eq!(report["refusals"], 0);
    let tiers = report["tiers"].as_array().unwrap();
    assert_eq!(tiers[1]["tier"], "simulated");
    assert!(tiers[1]["loads"].as_u64().unwrap() >= 3, "{tiers:?}");
}

#[test]
fn a_slow_device_is_slow_and_no_failure() {
    let world = World::new();
    let (code, report, said) = run(
        &world,
        &["--device", "simulated:8MiB", "--inject", "slow:2"],
    );
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(report["failed_loads"], 0);
}

#[test]
fn a_transfer_that_stands_still_is_given_up_and_goes_on_without_its_lease() {
    let world = World::new();
    let (code, report, said) = run(
        &world,
        &["--device", "simulated:8MiB", "--inject", "stuck:3"],
    );
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(report["complete"], true);
    let refused = report["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["reason"], "timeout");
    assert_eq!(refused[0]["models"][0], "c");
    // The load came to its end, and the next lease of that model found it there.
    assert_eq!(report["tiers"][1]["loads"], 3);
    assert_eq!(report["hits"], 3);
    // A transfer that stands still in the last step does not outlast the run either.
    let stuck = ["--device", "simulated:8MiB", "--inject", "stuck:3"];
    let (code, report, _) = run_steps(&world, "3", &stuck);
    assert_eq!(code, Some(0));
    assert_eq!(report["tiers"][1]["loads"], 3);
    assert_eq!(report["tiers"][1]["evictions"], 3);
}

#[test]
fn reads_that_fail_name_the_file_and_the_byte_on_any_device() {
    let world = World::new();
    for device in ["cpu", "simulated:8MiB"] {
        for keep in ["yes", "no"] {
            let options = [
                "--device",
                device,
                "--keep-ram-copy",
                keep,
                "--inject",
                "read:1",
            ];
            let (code, report, said) = run(&world, &options);
            assert_eq!(code, Some(1), "{device}: {said}");
            assert_eq!(report["complete"], true);
            assert_eq!(report["loads"], 0, "{device}");
            assert_eq!(report["failed_loads"], 6, "{device}");
            for model in ["a", "b", "c"] {
                let file = format!("models/{model}.safetensors at byte ");
                let lines: Vec<&str> = said.lines().filter(|line| line.contains(&file)).collect();
                assert_eq!(lines.len(), 1, "{said}");
                assert!(lines[0].contains("input/output error (injected)"), "{said}");
            }
        }
        let (code, report, _) = run(&world, &["--device", device, "--inject", "read:2"]);
        assert_eq!(code, Some(1), "{device}");
        let [loads, failed] = ["loads", "failed_loads"].map(|name| report[name].as_u64().unwrap());
        assert!(
            loads > 0 && failed > 0,
            "{device}: {loads} loads, {failed} failed"
        );
    }
}

#[test]
fn faults_are_shown_in_full_once_and_then_as_before() {
    let world = World::new();
    let folder = world.models(&[("a", 60_000)]);
    let arguments = ["run", "--models", folder.to_str().unwrap(), "--steps", "3"];
    let fault = ["--device", "simulated:8MiB", "--inject", "transfer"];
    let said = text(&world.run(&[&arguments[..], &fault].concat()).stdout);
    let failed: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("FAILED"))
        .collect();
    assert_eq!(failed.len(), 3, "{said}");
    assert!(
        failed.iter().all(|line| line.contains("simulated")),
        "{said}"
    );
    assert!(failed[0].contains("cannot transfer"), "{said}");
    assert!(
        failed[1..].iter().all(|line| line.ends_with("as before")),
        "{said}"
    );
}
