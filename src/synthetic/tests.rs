//! Synthetic models have the shapes of real ones, the sizes that were asked for, and are whole or
//! not there.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plimsoll_cache::model::Model;
use safetensors::{Dtype, SafeTensors};
use tempfile::tempdir;

use super::error::Error;
use super::family::Family;
use super::fill::fill;
use super::folder::Removed;
use super::folder::{cache_dir_of, clean_in};
use super::plan::Plan;
use super::table::Table;
use super::write::{Output, make_in, require_space, write};
use super::{Set, make, plan};

const SETS: [Set; 4] = [Set::Sdxl, Set::Llm, Set::Mixed, Set::Six];

fn bytes(plan: &Plan) -> u64 {
    plan.models.iter().map(|model| model.bytes).sum()
}

fn real(family: Family) -> (u64, BTreeMap<String, Vec<usize>>) {
    let mut table = Table::keeping();
    family.fill(&mut table, 1.0, 1.0);
    let elements = table.elements();
    let rows = table.into_rows();
    let count = rows.len();
    let rows: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(rows.len(), count, "{family:?} names a tensor twice");
    (elements, rows)
}

/// The counts are those of the published models, as their cards and `sum(p.numel())` give them.
#[test]
fn at_full_size_every_family_has_the_parameters_of_its_original() {
    let published = [
        (Family::SdxlUnet, 2_567_463_684, 1680),
        (Family::SdxlVae, 83_653_863, 248),
        (Family::ClipL, 123_060_480, 196),
        (Family::OpenClipBigG, 694_659_840, 517),
        (Family::T5Encoder, 1_223_527_424, 219),
        (Family::Llama7b, 7_241_732_096, 291),
        (Family::Llama1b, 1_235_814_400, 146),
    ];
    for (family, elements, tensors) in published {
        let (is, rows) = real(family);
        assert_eq!((is, rows.len()), (elements, tensors), "{family:?}");
    }
    // 722 matrices in the attentions of the UNet, each with two thin ones and a number.
    assert_eq!(real(Family::SdxlLora).1.len(), 722 * 3);
}

#[test]
fn tensors_bear_the_names_and_shapes_of_their_originals() {
    let some: [(Family, &str, &[usize]); 12] = [
        (Family::SdxlUnet, "conv_in.weight", &[320, 4, 3, 3]),
        (
            Family::SdxlUnet,
            "add_embedding.linear_1.weight",
            &[1280, 2816],
        ),
        (
            Family::SdxlUnet,
            "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k.weight",
            &[640, 2048],
        ),
        (
            Family::SdxlUnet,
            "mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj.weight",
            &[10240, 1280],
        ),
        (
            Family::SdxlUnet,
            "up_blocks.0.resnets.2.conv_shortcut.weight",
            &[1280, 1920, 1, 1],
        ),
        (
            Family::SdxlVae,
            "decoder.up_blocks.2.resnets.0.conv_shortcut.weight",
            &[256, 512, 1, 1],
        ),
        (
            Family::ClipL,
            "text_model.embeddings.token_embedding.weight",
            &[49408, 768],
        ),
        (
            Family::OpenClipBigG,
            "text_projection.weight",
            &[1280, 1280],
        ),
        (
            Family::T5Encoder,
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            &[32, 32],
        ),
        (
            Family::Llama7b,
            "model.layers.31.self_attn.k_proj.weight",
            &[1024, 4096],
        ),
        (
            Family::Llama1b,
            "model.embed_tokens.weight",
            &[128_256, 2048],
        ),
        (
            Family::SdxlLora,
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
            &[16, 1280],
        ),
    ];
    for (family, name, shape) in some {
        assert_eq!(
            real(family).1.get(name).map(Vec::as_slice),
            Some(shape),
            "{family:?} {name}"
        );
    }
}

#[test]
fn six_has_exactly_its_sizes_and_tensors_from_a_page_to_48_mib() {
    let six = plan(Set::Six, 1.0).unwrap();
    let sizes: Vec<u64> = six.models.iter().map(|model| model.bytes >> 20).collect();
    assert_eq!(sizes, [64, 128, 256, 384, 512, 512]);
    let stems: Vec<&str> = six.models.iter().map(|model| &*model.file_stem).collect();
    assert_eq!(stems, ["m0", "m1", "m2", "m3", "m4", "m5"]);
    assert_ne!(six.models[4].tensors, six.models[5].tensors);
    assert!(six.models.iter().all(|model| model.bytes % (1 << 20) == 0));
    let tensors = || six.models.iter().flat_map(|model| &model.tensors);
    assert!(tensors().all(|tensor| tensor.dtype == Dtype::F16));
    assert!(tensors().all(|tensor| (4 << 10..=48 << 20).contains(&tensor.bytes())));
    assert!(tensors().any(|tensor| tensor.bytes() < 64 << 10));
    assert!(tensors().any(|tensor| tensor.bytes() > 24 << 20));
    assert_eq!(six, plan(Set::Six, 1.0).unwrap(), "the same every time");
}

#[test]
fn sets_have_about_the_bytes_that_their_scale_asks_for() {
    for set in SETS {
        let whole = if set == Set::Six { 1856.0 } else { 1536.0 };
        for (scale, tolerance) in [
            (0.01, 0.35),
            (0.05, 0.15),
            (0.3, 0.1),
            (1.0, 0.05),
            (4.6, 0.05),
            (100.0, 0.05),
        ] {
            let mib = bytes(&plan(set, scale).unwrap()) as f64 / f64::from(1 << 20);
            let miss = mib / (whole * scale) - 1.0;
            assert!(
                miss.abs() < tolerance,
                "{set:?} at {scale}: {mib:.1} MiB, off by {miss:.3}"
            );
        }
    }
}

#[test]
fn scaled_models_keep_the_tensors_names_and_the_multiples_their_kernels_need() {
    for set in [Set::Sdxl, Set::Llm, Set::Mixed] {
        for scale in [0.01, 0.2, 1.0, 7.0] {
            for model in plan(set, scale).unwrap().models {
                assert!(!model.tensors.is_empty());
                let step = match &*model.file_stem {
                    "sdxl-vae" => 8,
                    "sdxl-unet" => 16,
                    _ => 64,
                };
                for tensor in &model.tensors {
                    let lora = tensor.name.starts_with("lora_");
                    let fixed = [1, 3, 4, 8, 32, 77];
                    for &dimension in tensor.shape.iter().take(if lora { 0 } else { 2 }) {
                        let heads = tensor.name.contains("relative_attention_bias");
                        assert!(
                            heads || dimension % step == 0 || fixed.contains(&dimension),
                            "{} {:?}",
                            tensor.name,
                            tensor.shape
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_scale_out_of_range_is_an_error() {
    for scale in [0.0, 0.0099, 100.1, -1.0, f64::NAN, f64::INFINITY] {
        let message = plan(Set::Mixed, scale).unwrap_err().to_string();
        assert!(
            message.contains("0.01") && message.contains("100"),
            "{message}"
        );
    }
}

#[test]
fn what_is_made_is_read_alike_by_the_safetensors_crate_and_by_the_cache() {
    let folder = tempdir().unwrap();
    for set in SETS {
        let plan = plan(set, 0.01).unwrap();
        let paths = make_in(&plan, folder.path(), &|_| {}).unwrap();
        assert_eq!(paths.len(), plan.models.len());
        for (path, planned) in paths.iter().zip(&plan.models) {
            let bytes = fs::read(path).unwrap();
            let theirs = SafeTensors::deserialize(&bytes).unwrap();
            let model = Model::open(path).unwrap();
            assert_eq!(
                (model.bytes(), model.name()),
                (planned.bytes, &*planned.file_stem)
            );
            assert_eq!(theirs.len(), planned.tensors.len());
            for (tensor, planned) in model.tensors().iter().zip(&planned.tensors) {
                let view = theirs.tensor(&planned.name).unwrap();
                assert_eq!(
                    (&*tensor.name, &*tensor.shape),
                    (&*planned.name, &*planned.shape)
                );
                assert_eq!(
                    (view.shape(), view.dtype()),
                    (&*planned.shape, planned.dtype)
                );
                let range = tensor.offset as usize..(tensor.offset + tensor.bytes) as usize;
                assert!(std::ptr::eq(view.data(), &bytes[range]));
            }
            let summary = model.summary();
            assert_eq!(
                (summary.misaligned, summary.alignment >= Some(2)),
                (0, true)
            );
        }
    }
}

#[test]
fn the_header_is_the_one_that_the_safetensors_crate_writes() {
    for model in plan(Set::Mixed, 0.01).unwrap().models {
        let header = model.header().unwrap();
        let length = header.len() - 8;
        let metadata: std::collections::HashMap<String, String> = {
            let json: serde_json::Value = serde_json::from_slice(&header[8..]).unwrap();
            serde_json::from_value(json["__metadata__"].clone()).unwrap()
        };
        let zeros = vec![
            0;
            model
                .tensors
                .iter()
                .map(|tensor| tensor.bytes())
                .max()
                .unwrap() as usize
        ];
        let views = model.tensors.iter().rev().map(|tensor| {
            let data = &zeros[..tensor.bytes() as usize];
            (
                tensor.name.clone(),
                safetensors::tensor::TensorView::new(tensor.dtype, tensor.shape.clone(), data)
                    .unwrap(),
            )
        });
        let theirs = safetensors::serialize(views, Some(metadata)).unwrap();
        assert_eq!(theirs[..8 + length], header[..], "{}", model.file_stem);
        assert_eq!(theirs.len() as u64, header.len() as u64 + model.bytes);
    }
}

#[test]
fn values_are_finite_normal_and_like_weights() {
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        let mut bytes = vec![0; 1 << 16];
        fill(&mut bytes, 7, 0, dtype);
        let values: Vec<f32> = match dtype {
            Dtype::F32 => bytes
                .chunks(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            _ => bytes
                .chunks(2)
                .map(|b| {
                    let bits = u16::from_le_bytes(b.try_into().unwrap());
                    if dtype == Dtype::F16 {
                        half::f16::from_bits(bits).to_f32()
                    } else {
                        half::bf16::from_bits(bits).to_f32()
                    }
                })
                .collect(),
        };
        assert!(
            values
                .iter()
                .all(|value| (0.0078125..2.0).contains(&value.abs())),
            "{dtype}"
        );
        let negative = values.iter().filter(|value| **value < 0.0).count() as f64;
        assert!(
            (0.45..0.55).contains(&(negative / values.len() as f64)),
            "{dtype}"
        );
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.02, "{dtype}: {mean}");
    }
}

#[test]
fn values_do_not_depend_on_the_pieces_they_are_made_in() {
    let mut whole = vec![0; 10_006];
    fill(&mut whole, 99, 0, Dtype::F16);
    let mut pieces = vec![0; 10_006];
    for (begin, end) in [(0, 8), (8, 4096), (4096, 10_000), (10_000, 10_006)] {
        fill(&mut pieces[begin..end], 99, begin as u64, Dtype::F16);
    }
    assert_eq!(whole, pieces);
    let mut other = vec![0; 10_006];
    fill(&mut other, 100, 0, Dtype::F16);
    assert_ne!(whole, other);
}

#[test]
fn making_again_gives_the_same_bytes_and_keeps_files_that_are_right() {
    let folders = [tempdir().unwrap(), tempdir().unwrap()];
    let plan = plan(Set::Mixed, 0.01).unwrap();
    let paths = folders
        .each_ref()
        .map(|folder| make_in(&plan, folder.path(), &|_| {}).unwrap());
    for (first, second) in paths[0].iter().zip(&paths[1]) {
        assert_eq!(fs::read(first).unwrap(), fs::read(second).unwrap());
    }
    let identity = |path: &Path| Model::open(path).unwrap().files()[0].identity;
    let (kept, cut) = (&paths[0][0], &paths[0][1]);
    let before = identity(kept);
    let right = fs::read(cut).unwrap();
    fs::write(cut, &right[..right.len() - 1]).unwrap();
    make_in(&plan, folders[0].path(), &|_| {}).unwrap();
    assert_eq!(identity(kept), before, "what was right is untouched");
    assert_eq!(
        fs::read(cut).unwrap(),
        right,
        "what was wrong is made again"
    );
    assert_eq!(
        fs::read_dir(folders[0].path()).unwrap().count(),
        plan.models.len()
    );
}

#[test]
fn progress_tells_of_every_byte_that_is_written_and_of_no_other() {
    let folder = tempdir().unwrap();
    let plan = plan(Set::Six, 0.02).unwrap();
    let made = || {
        let seen = std::cell::Cell::new(0);
        let paths = make_in(&plan, folder.path(), &|bytes| seen.set(seen.get() + bytes)).unwrap();
        (paths, seen.get())
    };
    let (paths, first) = made();
    assert_eq!(first, bytes(&plan));
    assert_eq!(made().1, 0);
    fs::remove_file(&paths[2]).unwrap();
    assert_eq!(made().1, plan.models[2].bytes);
}

#[test]
fn a_file_system_without_room_is_refused_before_anything_is_written() {
    let folder = tempdir().unwrap();
    let error = require_space(folder.path(), u64::MAX).unwrap_err();
    let message = error.to_string();
    assert!(matches!(
        error,
        Error::NoSpace {
            needs: u64::MAX,
            ..
        }
    ));
    assert!(message.contains(folder.path().to_str().unwrap()) && message.contains("--scale"));
    require_space(folder.path(), 0).unwrap();
}

#[test]
fn files_with_temporary_names_are_whole_too_and_gone_when_dropped() {
    let folder = tempdir().unwrap();
    let plan = plan(Set::Six, 0.01).unwrap();
    let model = &plan.models[0];
    let path = folder.path().join("m0.safetensors");
    let header = model.header().unwrap();
    let count = || fs::read_dir(folder.path()).unwrap().count();
    drop(Output::named(folder.path(), "m0").unwrap());
    assert_eq!(count(), 0);
    for _ in 0..2 {
        let output = Output::named(folder.path(), "m0").unwrap();
        write(output, &path, &header, model, &|_| {}).unwrap();
        assert_eq!(
            (count(), Model::open(&path).unwrap().bytes()),
            (1, model.bytes)
        );
    }
    // What a killed process would have left.
    fs::write(folder.path().join(".m1.12345.plimsoll-part"), "x").unwrap();
    make_in(&plan, folder.path(), &|_| {}).unwrap();
    assert_eq!(count(), plan.models.len());
}

/// What the tests below run in a process of its own; by itself it does nothing.
#[test]
fn child() {
    let Some(folder) = std::env::var_os("PLIMSOLL_TEST_FOLDER") else {
        return;
    };
    let scale = std::env::var("PLIMSOLL_TEST_SCALE")
        .unwrap()
        .parse()
        .unwrap();
    if let Err(error) = make_in(&plan(Set::Six, scale).unwrap(), Path::new(&folder), &|_| {}) {
        eprintln!("{error}");
        std::process::exit(3);
    }
}

/// A process that makes `six` in `folder`, after the shell commands `before`.
fn child_in(folder: &Path, scale: f64, before: &str) -> Command {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!(
            "{before} exec \"$0\" --exact {module}::child --nocapture"
        ))
        .arg(std::env::current_exe().unwrap())
        .env("PLIMSOLL_TEST_FOLDER", folder)
        .env("PLIMSOLL_TEST_SCALE", scale.to_string())
        .stdout(Stdio::null());
    command
}

#[test]
fn nothing_half_made_stays_when_a_write_fails() {
    let folder = tempdir().unwrap();
    // Files of at most 256 blocks, of 512 or 1024 bytes; the smallest model has 640 KiB.
    let mut command = child_in(folder.path(), 0.01, "trap '' XFSZ; ulimit -f 256;");
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(
        message.contains("m0.safetensors: cannot write it: File too large"),
        "{message}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn nothing_half_made_stays_when_the_process_is_ended_or_killed() {
    use rustix::process::{Pid, Signal, kill_process};
    // Not SIGINT: whoever starts tests in the background may have it ignored.
    for signal in [Signal::TERM, Signal::KILL] {
        let folder = tempdir().unwrap();
        let mut child = child_in(folder.path(), 1.0, "").spawn().unwrap();
        let pid = Pid::from_child(&child);
        // Until it is at its first file: an unnamed one shows in its table of descriptors.
        let began = Instant::now();
        let table = format!("/proc/{}/fd", child.id());
        let writes = || {
            fs::read_dir(&table).is_ok_and(|entries| {
                entries.flatten().any(|entry| {
                    let target = fs::read_link(entry.path()).unwrap_or_default();
                    let target = target.to_string_lossy();
                    target.starts_with(&*folder.path().to_string_lossy())
                        && (target.contains("/#") || target.ends_with("plimsoll-part"))
                })
            })
        };
        while !writes() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        kill_process(pid, signal).unwrap();
        assert!(
            !child.wait().unwrap().success(),
            "it was killed in the midst of it"
        );
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            Model::open(&path).unwrap_or_else(|error| panic!("left half made: {error}"));
        }
    }
}

#[test]
fn processes_that_make_the_same_set_at_once_all_find_it_whole() {
    let folder = tempdir().unwrap();
    let mut children: Vec<_> = (0..3)
        .map(|_| child_in(folder.path(), 0.02, "").spawn().unwrap())
        .collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let elsewhere = tempdir().unwrap();
    let plan = plan(Set::Six, 0.02).unwrap();
    for path in make_in(&plan, elsewhere.path(), &|_| {}).unwrap() {
        let same = folder.path().join(path.file_name().unwrap());
        assert_eq!(fs::read(path).unwrap(), fs::read(same).unwrap());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6);
}

#[test]
fn cleaning_removes_what_was_made_and_nothing_else() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("models");
    assert_eq!(clean_in(&dir).unwrap(), Removed::default());
    let plan = plan(Set::Six, 0.01).unwrap();
    let paths = make(&plan, &dir, &|_| {}).unwrap();
    let bytes: u64 = paths
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert_eq!(paths[0], dir.join("six-0.01/m0.safetensors"));
    let kept = dir.join("mine.safetensors");
    let sound = [&2_u64.to_le_bytes()[..], b"{}"].concat();
    fs::write(&kept, sound).unwrap();
    assert_eq!(clean_in(&dir).unwrap(), Removed { files: 6, bytes });
    assert!(kept.exists() && !dir.join("six-0.01").exists());
    fs::remove_file(kept).unwrap();
    clean_in(&dir).unwrap();
    assert!(!dir.exists());
}

#[test]
fn the_cache_folder_follows_the_xdg_rules() {
    let of = |cache: Option<&str>, home: Option<&str>| {
        cache_dir_of(cache.map(Into::into), home.map(Into::into))
            .map(|path| path.display().to_string())
    };
    assert_eq!(of(Some("/c"), Some("/h")).unwrap(), "/c/plimsoll/models");
    assert_eq!(of(None, Some("/h")).unwrap(), "/h/.cache/plimsoll/models");
    assert_eq!(
        of(Some("relative"), Some("/h")).unwrap(),
        "/h/.cache/plimsoll/models"
    );
    assert!(matches!(of(Some(""), None), Err(Error::NoCacheFolder)));
}
