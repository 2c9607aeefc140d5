//! What a scan says, of folders made for it and of machines made up.

#![allow(clippy::unwrap_used)]

use std::fs;

use tempfile::{TempDir, tempdir};

use super::*;

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
    let report = scan(
        &[folder.path()],
        room(Metric::Estimated(600), Some(Metric::Exact(100))),
    );
    let text = report.text(&Paint::plain());
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("model      format       shards  dtypes  tensors  bytes  alignment"),
        "{text}"
    );
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>(),
        [
            "long-name",
            "safetensors",
            "1",
            "F16",
            "1",
            "512",
            "B",
            "8",
            "B",
            "0",
            "~yes",
            "no"
        ]
    );
    assert!(lines[2].starts_with("unet       safetensors"), "{text}");
    assert!(text.contains("2 models, 1.0 KiB"), "{text}");
    assert!(
        text.contains("free RAM:  ~600 B, by the host's available memory"),
        "{text}"
    );
    assert!(text.contains("free VRAM: 100 B on GPU 0, GPU"), "{text}");
    assert_eq!(code(&report), format!("{:?}", ExitCode::SUCCESS));
}

#[test]
fn bad_files_are_listed_under_the_models_they_lie_beside() {
    let folder = folder(&[
        ("a.safetensors", &[]),
        ("b.safetensors", &model()),
        ("c.gguf", b"GGUF"),
    ]);
    let report = scan(&[folder.path()], room(Metric::Unavailable, None));
    let text = report.text(&Paint::plain());
    assert!(
        text.contains("cannot be read\n  ") && text.contains("a.safetensors: is empty, 0 bytes")
    );
    assert!(
        text.contains("c.gguf: a GGUF file, 4 B") && text.contains("no NVIDIA driver"),
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
    let text = scan(&paths, room(Metric::Unavailable, None)).text(&Paint::plain());
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
    let report = scan(&[folder.path()], room(Metric::Estimated(600), None));
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
    assert_eq!(
        model["dtypes"],
        serde_json::json!([{ "dtype": "F16", "tensors": 1, "bytes": 512 }])
    );
    assert!(!report.text(&Paint::plain()).contains('\u{ff}'));
}
