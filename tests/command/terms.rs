//! Runs with patches, and over models that are leased in part.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::world::{World, text};

const WIDTH: usize = 128;
const LAYERS: usize = 20;

fn numbers(seed: usize, count: usize) -> Vec<f32> {
    let each = |at: usize| ((at * 37 + seed * 101) % 199) as f32 / 199.0 - 0.5;
    (0..count).map(each).collect()
}

fn save(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., numbers)| numbers.iter().flat_map(|one| one.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn layer(at: usize) -> String {
    format!("model.layers.{at}.self_attn.q_proj")
}

/// A model, and the same with a LoRA of rank 1 merged by hand at the strength 0.5.
fn model(world: &World) -> PathBuf {
    let folder = world.path("models");
    std::fs::create_dir_all(&folder).unwrap();
    let plain = |at: usize| numbers(at, WIDTH * WIDTH);
    let tensors: Vec<_> = (0..LAYERS)
        .map(|at| {
            (
                format!("{}.weight", layer(at)),
                vec![WIDTH, WIDTH],
                plain(at),
            )
        })
        .collect();
    save(&folder.join("base.safetensors"), &tensors);
    let merged: Vec<_> = tensors
        .iter()
        .enumerate()
        .map(|(at, (name, shape, numbers))| {
            let (down, up) = factors(at);
            let sum = |index: usize| {
                let product = f64::from(up[index / WIDTH]) * f64::from(down[index % WIDTH]);
                (f64::from(numbers[index]) + 0.5 * product) as f32
            };
            (
                name.clone(),
                shape.clone(),
                (0..WIDTH * WIDTH).map(sum).collect(),
            )
        })
        .collect();
    std::fs::create_dir_all(world.path("merged")).unwrap();
    save(&world.path("merged/base.safetensors"), &merged);
    folder
}

fn factors(at: usize) -> (Vec<f32>, Vec<f32>) {
    (numbers(at + 500, WIDTH), numbers(at + 900, WIDTH))
}

fn lora(world: &World) -> String {
    let mut tensors = Vec::new();
    for at in 0..LAYERS {
        let (down, up) = factors(at);
        let name = format!("base_model.model.{}", layer(at));
        tensors.push((format!("{name}.lora_A.weight"), vec![1, WIDTH], down));
        tensors.push((format!("{name}.lora_B.weight"), vec![WIDTH, 1], up));
    }
    let path = world.path("style.safetensors");
    save(&path, &tensors);
    path.to_str().unwrap().to_owned()
}

fn checksum(report: &Value) -> String {
    report["model_checksums"]["base"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn run(world: &World, folder: &Path, options: &[&str]) -> Value {
    let mut arguments = vec!["run", "--models", folder.to_str().unwrap(), "--json"];
    arguments.extend([
        "--workload",
        "cyclic",
        "--touch",
        "checksum",
        "--no-publish",
    ]);
    arguments.extend(options);
    world.json(&arguments)
}

#[test]
fn patches_give_what_merging_by_hand_gives_wherever_and_however_they_come() {
    let world = World::new();
    let folder = model(&world);
    let patch = format!("{}:0.5", lora(&world));
    let by_hand = checksum(&run(&world, &world.path("merged"), &[]));
    let plain = checksum(&run(&world, &folder, &[]));
    assert_ne!(by_hand, plain);
    for device in ["cpu", "simulated:4MiB"] {
        for storage in ["heap", "anonymous", "mapped"] {
            let options = ["--device", device, "--storage", storage, "--patch", &patch];
            let report = run(&world, &folder, &options);
            assert_eq!(checksum(&report), by_hand, "{device} {storage}");
            assert_eq!(report["patched_bytes"], (LAYERS * WIDTH * WIDTH * 4) as u64);
            let beside = [&options[..], &["--patch-as", "beside"]].concat();
            let report = run(&world, &folder, &beside);
            assert_eq!(checksum(&report), plain, "{device} {storage}");
            assert_eq!(report["patched_bytes"], (LAYERS * WIDTH * 2 * 4) as u64);
        }
    }
    let nothing = format!("{}:0", lora(&world));
    assert_eq!(
        checksum(&run(&world, &folder, &["--patch", &nothing])),
        plain
    );
}

#[test]
fn what_is_leased_in_part_reads_the_same_and_says_what_streamed() {
    let world = World::new();
    let folder = model(&world);
    let plain = checksum(&run(&world, &folder, &[]));
    for share in ["--partial=50%", "--partial=600KiB", "--partial"] {
        let options = ["--device", "simulated:1MiB", share, "--steps", "3"];
        let report = run(&world, &folder, &options);
        assert_eq!(checksum(&report), plain, "{share}");
        let streams = report["streams"].as_array().unwrap();
        assert_eq!(streams.len(), 1, "{streams:?}");
        let stream = &streams[0];
        assert_eq!(stream["model"], "base");
        assert_eq!(stream["leases"], 3);
        assert_eq!(stream["out_of_order"], 0, "{share}");
        assert!(stream["streamed_bytes"].as_u64().unwrap() > 0);
        let resident = stream["resident_high_bytes"].as_u64().unwrap();
        let bytes = stream["bytes"].as_u64().unwrap();
        assert!(0 < resident && resident < bytes, "{stream}");
        // It is one model, however many parts come.
        assert_eq!(report["models"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn an_order_that_is_not_kept_is_said_and_changes_nothing() {
    let world = World::new();
    let folder = model(&world);
    let plain = checksum(&run(&world, &folder, &[]));
    let backwards: Vec<String> = (0..LAYERS)
        .rev()
        .map(|at| format!("{}.weight", layer(at)))
        .collect();
    std::fs::write(world.path("order.txt"), backwards.join("\n")).unwrap();
    let order = world.path("order.txt");
    let options = ["--device", "simulated:1MiB", "--partial", "--order"];
    let options = [&options[..], &[order.to_str().unwrap(), "--steps", "1"]].concat();
    let report = run(&world, &folder, &options);
    assert_eq!(checksum(&report), plain);
    assert!(report["streams"][0]["out_of_order"].as_u64().unwrap() > 0);
    let notes = report["notes"].as_array().unwrap();
    let about_order = |note: &&Value| note.as_str().unwrap().contains("order");
    assert_eq!(notes.iter().filter(about_order).count(), 1, "{notes:?}");
    // Touched as it is said, it is kept.
    let pages = [&options[..], &["--touch", "pages"]].concat();
    let mut arguments = vec!["run", "--models", folder.to_str().unwrap(), "--json"];
    arguments.extend(["--workload", "cyclic", "--no-publish"]);
    arguments.extend(&pages);
    assert_eq!(world.json(&arguments)["streams"][0]["out_of_order"], 0);
}

#[test]
fn wrong_patches_and_parts_are_refused_before_anything_is_made() {
    let world = World::new();
    let folder = model(&world);
    let models = folder.to_str().unwrap();
    let patch = lora(&world);
    let other = world
        .models(&[("unrelated", 3000)])
        .join("unrelated.safetensors");
    let other = other.to_str().unwrap();
    std::fs::write(world.path("empty.txt"), "\n\n").unwrap();
    std::fs::write(world.path("wrong.txt"), "no.such\u{1b}[31m.tensor\n").unwrap();
    let nan = format!("{patch}:nan");
    let stuck = [
        "--device",
        "simulated:1MiB",
        "--partial",
        "--inject",
        "stuck:9",
    ];
    let cases: [(&[&str], &str); 13] = [
        (&stuck, "does not go with --partial"),
        (&["--patch", "missing.safetensors"], "missing.safetensors"),
        (&["--patch", other], "none of its"),
        (&["--patch", &nan], "no strength"),
        (&["--patch-as", "beside"], "says nothing without --patch"),
        (&["--patch-lenient"], "says nothing without --patch"),
        (&["--partial=101%"], "no share"),
        (&["--at-least", "x"], "says nothing without --partial"),
        (&["--order", "order.txt"], "says nothing without --partial"),
        (
            &["--partial", "--at-least", "x"],
            "no model has such a tensor",
        ),
        (&["--partial", "--order", "missing.txt"], "missing.txt"),
        (&["--partial", "--order", "empty.txt"], "no name in it"),
        (
            &["--partial", "--order", "wrong.txt"],
            "no model has a tensor",
        ),
    ];
    for (options, wanted) in cases {
        let mut arguments = vec!["run", "--models", models, "--no-publish"];
        arguments.extend(options);
        let said = world.refused(&arguments);
        assert!(said.contains(wanted), "{options:?}: {said}");
        assert!(!said.contains('\u{1b}'), "{options:?}: {said}");
    }
    // A patch that fits none of the models here, and no other reason.
    let only = world.path("only");
    std::fs::create_dir_all(&only).unwrap();
    std::fs::copy(other, only.join("u.safetensors")).unwrap();
    let said = world.refused(&["run", "--models", only.to_str().unwrap(), "--patch", &patch]);
    assert!(said.contains("changes nothing of u"), "{said}");
}

#[test]
fn a_part_that_is_too_small_fails_the_run_and_says_what_it_needs() {
    let world = World::new();
    let folder = model(&world);
    let models = folder.to_str().unwrap();
    let arguments = ["run", "--models", models, "--no-publish", "--partial=1KiB"];
    let output = world.run(&arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("may take 1.0 KiB"), "{said}");
    assert_eq!(said.matches("may take").count(), 1, "{said}");
}

#[test]
fn a_reader_sees_what_was_there_what_streamed_and_what_patches_brought() {
    let world = World::new();
    let folder = model(&world);
    let patch = lora(&world);
    let mut arguments = vec!["run", "--models", folder.to_str().unwrap(), "--no-publish"];
    arguments.extend(["--device", "simulated:1MiB", "--partial", "--steps", "1"]);
    arguments.extend(["--patch", &patch, "--patch-as", "beside"]);
    let output = world.run(&arguments);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line = shown.lines().find(|line| line.contains("stream ")).unwrap();
    assert!(
        line.contains("base") && line.contains("streamed in"),
        "{line}"
    );
    assert!(shown.contains("there in part"), "{shown}");
    assert!(shown.contains("patches 20.0 KiB loaded"), "{shown}");
    assert!(shown.contains("partial auto"), "{shown}");
    // Parts that came are no lines of their own.
    assert!(
        !shown.lines().any(|line| line.contains("load   base [part")),
        "{shown}"
    );
}

#[test]
fn a_patch_is_for_the_models_that_it_fits_wholly() {
    let world = World::new();
    let folder = model(&world);
    let patch = lora(&world);
    // Of the same family, with half the layers: the patch fits it in part.
    let half: Vec<_> = (0..LAYERS / 2)
        .map(|at| {
            let name = format!("{}.weight", layer(at));
            (name, vec![WIDTH, WIDTH], numbers(at, WIDTH * WIDTH))
        })
        .collect();
    save(&folder.join("half.safetensors"), &half);
    let report = run(
        &world,
        &folder,
        &["--patch", &patch, "--patch-as", "merged"],
    );
    let loads = |name: &str| {
        let mut models = report["models"].as_array().unwrap().iter();
        models.any(|model| model["name"] == name)
    };
    assert!(
        loads("base + style×1") && !loads("half + style×1"),
        "{report}"
    );
    // Alone it is refused, with the way out, which then does.
    let alone = world.path("alone");
    std::fs::create_dir_all(&alone).unwrap();
    std::fs::rename(
        folder.join("half.safetensors"),
        alone.join("half.safetensors"),
    )
    .unwrap();
    let models = alone.to_str().unwrap();
    let said = world.refused(&["run", "--models", models, "--patch", &patch]);
    assert!(said.contains("10 of its parts do not fit half"), "{said}");
    assert!(said.contains("--patch-lenient"), "{said}");
    let report = run(&world, &alone, &["--patch", &patch, "--patch-lenient"]);
    assert_eq!(
        report["patched_bytes"],
        (LAYERS / 2 * WIDTH * WIDTH * 4) as u64
    );
}
