//! What a scan says, of folders made for it and of machines made up.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use malloc_stats::{Metric, Vram};
use plimsoll_tui::paint::Paint;
use serde_json::{Map, Value, json};
use tempfile::{TempDir, tempdir};

use super::fit::Fit;
use super::*;
use crate::cli::{BAD_INPUT, FAILED};
use crate::synthetic::{Set, plan};

fn room(ram: Metric, vram: Option<Metric>) -> Room {
    let vram = vram.map(|free| Vram {
        free,
        name: "GPU".to_owned(),
        ..Vram::default()
    });
    Room {
        ram,
        ram_bound: Some("the host's available memory".to_owned()),
        vram_unavailable: vram.is_none().then(|| "no NVIDIA driver".to_owned()),
        vram: vram.into_iter().collect(),
    }
}

/// A model of one tensor of 512 bytes.
fn model() -> Vec<u8> {
    let json = r#"{"t":{"dtype":"F16","shape":[256],"data_offsets":[0,512]}} "#;
    let header = format!(
        "{json}{}",
        " ".repeat(json.len().next_multiple_of(8) - json.len())
    );
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &[0; 512]].concat()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn scan(paths: &[&Path], room: Room) -> Report {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
    Report::of(&paths, room)
}

fn plain(report: &Report) -> String {
    table::text(report, &Paint::plain(), false)
}

/// A file with this header and so many bytes of nothing behind it.
fn sparse(path: &Path, header: &Value, bytes: u64) {
    let json = header.to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
    file.write_all(json.as_bytes()).unwrap();
    file.set_len(8 + json.len() as u64 + bytes).unwrap();
}

fn code(report: &Report) -> String {
    format!("{:?}", report.exit_code())
}

#[test]
fn a_fit_is_no_surer_than_the_number_it_rests_on() {
    let text = |bytes, free| Fit::of(bytes, free).text();
    assert_eq!(text(5, Metric::Exact(5)), "yes");
    assert_eq!(text(6, Metric::Exact(5)), "no");
    assert_eq!(text(5, Metric::Estimated(5)), "~yes");
    assert_eq!(text(6, Metric::Estimated(5)), "~no");
    assert_eq!(text(5, Metric::Upper(5)), "maybe");
    assert_eq!(text(6, Metric::Upper(5)), "no");
    assert_eq!(text(5, Metric::Unavailable), "n/a");
}

#[test]
fn models_are_listed_in_aligned_columns_with_what_is_free() {
    let one = model();
    let folder = folder(&[
        ("unet.safetensors", &one),
        ("a/long-name.safetensors", &one),
    ]);
    let page = rustix::param::page_size() as u64;
    let report = scan(
        &[folder.path()],
        room(Metric::Estimated(page), Some(Metric::Exact(100))),
    );
    let text = plain(&report);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("model      what     params  dtypes  bytes  in place  cached  RAM"),
        "{text}"
    );
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(
        words[..7],
        ["long-name", "unknown", "256", "F16", "512", "B", "100%"]
    );
    assert_eq!(words[8..], ["~yes", "no"], "{text}");
    assert!(lines[2].starts_with("unet       unknown"), "{text}");
    assert!(text.contains("2 models, 1.0 KiB"), "{text}");
    let free = format!("free RAM:  {}, by the host's", Metric::Estimated(page));
    assert!(text.contains(&free), "{text}");
    assert!(text.contains("free VRAM: 100 B on GPU 0, GPU"), "{text}");
    assert_eq!(code(&report), format!("{:?}", ExitCode::SUCCESS));
}

#[test]
fn what_was_just_written_is_in_the_page_cache_or_it_is_said_why_that_is_not_known() {
    let folder = folder(&[("m.safetensors", &model())]);
    let report = scan(&[folder.path()], room(Metric::Unavailable, None));
    let cached = &report.models[0].page_cache;
    match cached.cached.bytes() {
        Some(bytes) => assert_eq!((bytes, &cached.unavailable), (cached.of, &None)),
        None => assert!(plain(&report).contains(cached.unavailable.as_deref().unwrap())),
    }
}

#[test]
fn bytes_that_are_not_aligned_are_not_in_place() {
    let tensors = json!({
        "a": { "dtype": "U8", "shape": [3], "data_offsets": [0, 3] },
        "b": { "dtype": "F32", "shape": [1], "data_offsets": [3, 7] },
    });
    let folder = folder(&[]);
    sparse(&folder.path().join("m.safetensors"), &tensors, 7);
    let report = scan(&[folder.path()], room(Metric::Unavailable, None));
    assert_eq!(report.models[0].in_place_bytes, 3);
    assert!(plain(&report).contains("43%"));
}

/// The sizes and names of the real ones, in files that take no room.
#[test]
fn synthetic_models_are_what_they_imitate() {
    let folder = folder(&[]);
    let of = |set: Set, scale: f64| {
        for model in plan(set, scale).unwrap().models {
            let (mut offset, mut tensors) = (0, Map::new());
            for tensor in &model.tensors {
                let end = offset + tensor.bytes();
                let described = json!({
                    "dtype": tensor.dtype.to_string(),
                    "shape": tensor.shape,
                    "data_offsets": [offset, end],
                });
                tensors.insert(tensor.name.clone(), described);
                offset = end;
            }
            let name = format!("{}.safetensors", model.file_stem);
            sparse(&folder.path().join(name), &Value::Object(tensors), offset);
        }
        let report = scan(&[folder.path()], room(Metric::Unavailable, None));
        let models = report.models.into_iter();
        let what = models.map(|model| format!("{}: {}", model.name, model.what));
        what.collect::<Vec<_>>()
    };
    // Widths and vocabularies are those of nothing that was published: CLIP's size cannot be told.
    let scaled = of(Set::Sdxl, 1.0);
    assert_eq!(
        scaled,
        [
            "clip-l: CLIP text encoder",
            "lora: ~SDXL LoRA, rank 14",
            "openclip-bigg: CLIP text encoder",
            "sdxl-unet: ~SDXL UNet",
            "sdxl-vae: Stable Diffusion VAE",
        ]
    );
    // At this scale the text encoders have the sizes of their originals.
    let real = of(Set::Sdxl, 4.6);
    assert_eq!(real[0], "clip-l: CLIP-L text encoder");
    assert_eq!(real[2], "openclip-bigg: OpenCLIP bigG text encoder");
    let language = of(Set::Llm, 1.0);
    for expected in [
        "llama-1b-like: ~Llama language model",
        "llama-7b-like: ~Llama language model",
        "t5-encoder: T5 text encoder",
    ] {
        assert!(language.contains(&expected.to_owned()), "{language:?}");
    }
}

#[test]
fn more_columns_and_the_evidence_are_there_for_who_asks() {
    let folder = folder(&[("m.safetensors", &model())]);
    let report = scan(&[folder.path()], room(Metric::Unavailable, None));
    let text = table::text(&report, &Paint::plain(), true);
    for word in [
        "safetensors",
        "alignment",
        "misaligned",
        "anonymous",
        "mapped",
    ] {
        assert!(text.contains(word), "{text}");
    }
    assert!(
        text.contains("m: unknown; its names are those of no architecture"),
        "{text}"
    );
    assert!(!plain(&report).contains("alignment"));
}

#[test]
fn numbers_of_parameters_are_said_in_four_digits_and_shares_are_not_rounded_away() {
    let counts = [
        (0, "0"),
        (999, "999"),
        (1000, "1.0 K"),
        (999_949, "999.9 K"),
        (999_950, "1.0 M"),
        (1_100_000_000, "1.1 B"),
        (u64::MAX, "18446744.1 T"),
    ];
    for (number, text) in counts {
        assert_eq!(table::count(number), text);
    }
    assert_eq!(table::share(0, 0), "-");
    assert_eq!(table::share(0, 5), "0%");
    assert_eq!(table::share(1, 1000), "<1%");
    assert_eq!(table::share(999, 1000), ">99%");
    assert_eq!(table::share(5, 5), "100%");
}

#[test]
fn models_of_all_paths_are_sorted_by_path() {
    let folder = folder(&[("b/m.safetensors", &model()), ("a/m.safetensors", &model())]);
    let at = |name: &str| folder.path().join(name);
    let report = scan(&[&at("b"), &at("a")], room(Metric::Unavailable, None));
    let paths: Vec<&Path> = report.models.iter().map(|model| &*model.path).collect();
    assert_eq!(paths, [at("a/m.safetensors"), at("b/m.safetensors")]);
}

#[test]
fn bad_files_are_listed_under_the_models_they_lie_beside() {
    let folder = folder(&[
        ("a.safetensors", &[]),
        ("b.safetensors", &model()),
        ("c.onnx", b"ONNX"),
    ]);
    let report = scan(&[folder.path()], room(Metric::Unavailable, None));
    let text = plain(&report);
    assert!(
        text.contains("cannot be read\n  ") && text.contains("a.safetensors: is empty, 0 bytes")
    );
    assert!(
        text.contains("c.onnx: an ONNX file, 4 B") && text.contains("no NVIDIA driver"),
        "{text}"
    );
    assert_eq!(code(&report), format!("{:?}", ExitCode::from(FAILED)));
}

#[test]
fn a_path_that_cannot_be_used_is_bad_input() {
    let folder = folder(&[
        ("a.safetensors", &[]),
        ("b.safetensors", &model()),
        ("c.gguf", b"GGUF"),
        ("empty/x", b""),
    ]);
    let at = |name: &str| folder.path().join(name);
    for (path, word) in [
        (at("a.safetensors"), "is empty"),
        (at("missing"), "no such file"),
        (at("c.gguf"), "GGUF"),
        (at("empty"), "no models here"),
    ] {
        let report = scan(
            &[&at("b.safetensors"), &path],
            room(Metric::Unavailable, None),
        );
        assert_eq!(
            report.models.len(),
            1,
            "the other path is listed all the same"
        );
        let [unusable] = &report.unusable[..] else {
            panic!("{report:?}")
        };
        assert!(unusable.error.contains(word) && unusable.error.contains(path.to_str().unwrap()));
        assert_eq!(code(&report), format!("{:?}", ExitCode::from(BAD_INPUT)));
    }
}

#[test]
fn models_of_one_name_are_told_apart_by_their_paths() {
    let one = model();
    let folders = [
        folder(&[("m.safetensors", &one)]),
        folder(&[("m.safetensors", &one)]),
    ];
    let paths = folders.each_ref().map(|folder| folder.path());
    let text = plain(&scan(&paths, room(Metric::Unavailable, None)));
    for path in paths {
        assert!(
            text.contains(path.join("m.safetensors").to_str().unwrap()),
            "{text}"
        );
    }
}

#[test]
fn the_report_is_one_json_object_whatever_the_names_are() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder(&[("b.safetensors", &model())]);
    let odd = folder
        .path()
        .join(std::ffi::OsStr::from_bytes(b"\xff\n.safetensors"));
    fs::write(odd, model()).unwrap();
    let page = rustix::param::page_size() as u64;
    let report = scan(&[folder.path()], room(Metric::Estimated(page), None));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["models"].as_array().unwrap().len(), 2);
    let model = &json["models"][0];
    assert_eq!(model["name"], "b");
    assert_eq!(
        (&model["bytes"], &model["ram"]["fits"]),
        (&512.into(), &true.into())
    );
    assert_eq!(model["ram"]["grade"], "estimated");
    assert_eq!(model["vram"], serde_json::json!({ "grade": "unavailable" }));
    assert_eq!(model["kind"]["role"], "unknown",);
    assert_eq!(
        (&model["parameters"], &model["in_place_bytes"]),
        (&256.into(), &512.into())
    );
    assert_eq!(
        (&model["format"], &model["shards"]),
        (&"safetensors".into(), &1.into())
    );
    assert_eq!(model["storage"]["anonymous"], page);
    assert!(model["page_cache"]["cached"]["grade"].is_string());
    assert_eq!(
        model["dtypes"],
        serde_json::json!([{ "dtype": "F16", "tensors": 1, "bytes": 512 }])
    );
    assert!(!plain(&report).contains('\u{ff}'));
}
