//! Files that are broken, or made to harm.

use std::fs;

use plimsoll_cache::Model;
use plimsoll_cache::patch::{Factors, Patch, PatchError, Strictness};
use safetensors::Dtype;

use super::files::{File, KOHYA, PEFT, folder, says, unet};

#[test]
fn factors_that_do_not_belong_together_are_refused() {
    let pair = |down: &[usize], up: &[usize]| File::new().pair("lora_unet_a", KOHYA, down, up);
    pair(&[4, 8], &[8, 3]).refused(&[
        "ranks that disagree",
        "rank 4",
        "rank 3",
        "lora_unet_a.lora_down",
    ]);
    pair(&[0, 8], &[8, 0]).refused(&["rank 0"]);
    pair(&[4], &[8, 4]).refused(&["[4]", "[rank, in]"]);
    pair(&[4, 8], &[8, 4, 3, 3]).refused(&["[8, 4, 3, 3]", "[out, rank]"]);
    File::new()
        .zeros("lora_unet_a.lora_down.weight", &[4, 8])
        .refused(&["no second factor"]);
    File::new()
        .zeros("x.lora_B.weight", &[8, 4])
        .refused(&["no first factor"]);
    pair(&[4, 8, 1, 1], &[8, 4, 1, 1])
        .zeros("lora_unet_a.lora_mid.weight", &[4, 5, 3, 3])
        .refused(&["[4, 5, 3, 3]", "rank 4"]);
    pair(&[4, 8], &[8, 4])
        .pair("lora_unet_a", PEFT, &[4, 8], &[8, 4])
        .refused(&["twice"]);
    pair(&[4, 8], &[8, 4])
        .zeros("lora_unet_a.alpha", &[2])
        .refused(&["alpha of one number"]);
    File::new()
        .with("a.lora_A.weight", Dtype::U8, &[2, 2], &[1.0; 4])
        .zeros("a.lora_B.weight", &[2, 2])
        .refused(&["U8", "F16"]);
    File::new()
        .with("a.diff", Dtype::I64, &[2], &[1.0; 2])
        .refused(&["I64"]);
}

#[test]
fn no_more_than_eight_broken_parts_are_named() {
    let mut file = File::new();
    for number in 0..30 {
        file = file.pair(&format!("lora_unet_{number}"), KOHYA, &[4, 8], &[8, 3]);
    }
    let error = file.refused(&["30 of its parts", "and 22 more"]);
    assert_eq!(error.matches("ranks that disagree").count(), 8);
}

#[test]
fn kinds_that_are_not_applied_are_refused_by_name() {
    let pair = || File::new().pair("lora_unet_a", KOHYA, &[4, 8], &[8, 4]);
    pair().zeros("lora_unet_a.dora_scale", &[8, 1]).refused(&[
        "is DoRA",
        "lora_unet_a.dora_scale",
        "merge it",
    ]);
    File::new()
        .pair("base_model.model.a", PEFT, &[4, 8], &[8, 4])
        .zeros("base_model.model.a.lora_magnitude_vector", &[8])
        .refused(&["is DoRA"]);
    File::new()
        .zeros("lora_unet_a.hada_w1_a", &[8, 4])
        .refused(&["is LoHa"]);
    File::new()
        .zeros("lora_unet_a.lokr_w1", &[2, 2])
        .refused(&["is LoKr"]);
    File::new()
        .zeros("lora_unet_a.oft_blocks", &[2, 2, 2])
        .refused(&["is OFT"]);
}

#[test]
fn a_whole_model_is_no_patch() {
    let error = unet("").refused(&["none of its 8 tensors", "lease a whole model"]);
    assert!(
        error.contains(".weight") || error.contains(".bias"),
        "{error}"
    );
    File::new().refused(&["none of its 0 tensors"]);
}

#[test]
fn names_cannot_forge_lines_or_repaint_a_screen() {
    let name = "a\n\u{1b}[2J\u{202e}";
    let error = File::new()
        .zeros(&format!("{name}.lora_A.weight"), &[4, 8])
        .refused(&[r"a\n\u{1b}[2J\u{202e}"]);
    assert!(!error.contains(['\u{1b}', '\u{202e}', '\n']), "{error:?}");
    let folder = folder();
    let patch = File::new()
        .pair(name, PEFT, &[2, 2], &[2, 2])
        .patch(&folder, "lora");
    let base = unet("").model(&folder, "unet");
    let error = patch
        .fit(&base, Strictness::Strict)
        .unwrap_err()
        .to_string();
    says(&error, &[r"\u{1b}"]);
}

/// A patch of `conv_in.bias`-sized modules with that alpha, and a model for it.
fn with_alpha(folder: &tempfile::TempDir, dtype: Dtype, alpha: f64) -> (Patch, Model) {
    let base = File::new().zeros("a.weight", &[8, 8]).model(folder, "base");
    let patch = File::new()
        .pair("lora_unet_a", KOHYA, &[4, 8], &[8, 4])
        .with("lora_unet_a.alpha", dtype, &[], &[alpha]);
    (patch.patch(folder, "lora"), base)
}

fn read(patch: &Patch, base: &Model) -> Result<Factors<'static>, PatchError> {
    let fit = patch.fit(base, Strictness::Strict).unwrap();
    Factors::read(patch, &fit.edits[0].change)
}

#[test]
fn an_alpha_that_is_not_finite_is_an_error_before_anything_is_merged() {
    let folder = folder();
    for (dtype, alpha, shown) in [
        (Dtype::F32, f64::NAN, "NaN"),
        (Dtype::F16, f64::INFINITY, "inf"),
        (Dtype::BF16, f64::NEG_INFINITY, "-inf"),
    ] {
        let (patch, base) = with_alpha(&folder, dtype, alpha);
        let error = read(&patch, &base).unwrap_err().to_string();
        says(
            &error,
            &["lora.safetensors", "lora_unet_a.alpha", shown, "not finite"],
        );
    }
    for (dtype, alpha, scale) in [
        (Dtype::I64, 16.0, 4.0),
        (Dtype::BF16, 1.0, 0.25),
        (Dtype::F32, 0.0, 0.0),
        (Dtype::F16, -2.0, -0.5),
    ] {
        let (patch, base) = with_alpha(&folder, dtype, alpha);
        assert_eq!(read(&patch, &base).unwrap().scale(), scale);
    }
    File::new()
        .pair("a", PEFT, &[4, 8], &[8, 4])
        .said("lora_alpha", "NaN")
        .refused(&["the alpha", "NaN", "metadata"]);
}

#[test]
fn a_file_that_vanishes_or_changes_after_it_was_opened_is_an_error() {
    let folder = folder();
    let (patch, base) = with_alpha(&folder, Dtype::F32, 1.0);
    let path = patch.model().path().to_owned();
    let longer = [fs::read(&path).unwrap(), vec![0]].concat();
    fs::write(&path, longer).unwrap();
    let error = read(&patch, &base).unwrap_err();
    assert!(matches!(error, PatchError::Open(_)), "{error:?}");
    fs::remove_file(&path).unwrap();
    let error = read(&patch, &base).unwrap_err();
    says(&error.to_string(), &["lora.safetensors"]);
}

#[test]
fn a_patch_larger_than_its_base_is_refused_by_shape() {
    let folder = folder();
    let base = File::new()
        .zeros("a.weight", &[2, 2])
        .model(&folder, "base");
    let patch = File::new().pair("lora_unet_a", KOHYA, &[64, 1000], &[1000, 64]);
    let patch = patch.patch(&folder, "lora");
    let error = patch
        .fit(&base, Strictness::Lenient)
        .unwrap_err()
        .to_string();
    says(&error, &["[2, 2]", "[1000, 1000]"]);
    // A rank above the size of what it changes is odd, and right.
    let patch = File::new()
        .pair("lora_unet_a", KOHYA, &[64, 2], &[2, 64])
        .patch(&folder, "lora");
    assert_eq!(patch.fit(&base, Strictness::Strict).unwrap().edits.len(), 1);
}

#[test]
fn a_product_beyond_any_memory_is_refused_at_opening() {
    let folder = folder();
    let path = folder.path().join("sparse.safetensors");
    let size = 1_u64 << 41;
    let header = format!(
        r#"{{"a.lora_A.weight":{{"dtype":"F16","shape":[1,{n}],"data_offsets":[0,{size}]}},"a.lora_B.weight":{{"dtype":"F16","shape":[{n},1],"data_offsets":[{size},{end}]}}}}"#,
        n = size / 2,
        end = 2 * size,
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    fs::write(&path, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    if let Err(error) = file.set_len(bytes.len() as u64 + 2 * size) {
        eprintln!("skipped: no sparse file of 4 TiB: {error}");
        return;
    }
    let error = Patch::open(&path).unwrap_err().to_string();
    says(
        &error,
        &["1099511627776 × 1099511627776", "more than memory"],
    );
}

#[test]
fn a_configuration_beside_the_file_that_is_no_file_or_too_large_is_not_read() {
    let folder = folder();
    let config = folder.path().join("adapter_config.json");
    rustix::fs::mkfifoat(rustix::fs::CWD, &config, rustix::fs::Mode::RUSR).unwrap();
    let file = File::new().pair("a", PEFT, &[4, 8], &[8, 4]);
    assert_eq!(file.patch(&folder, "lora").parts(), 1);
    fs::remove_file(&config).unwrap();
    fs::write(&config, vec![b' '; 2 << 20]).unwrap();
    assert_eq!(file.patch(&folder, "lora").parts(), 1);
}
