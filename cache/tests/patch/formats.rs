//! Names that programs give to the parts of a patch.

use std::fs;

use plimsoll_cache::Model;
use plimsoll_cache::patch::{Alpha, Change, Component, Patch, Scale, Strictness};
use safetensors::Dtype;

use super::files::{File, KOHYA, PEFT, folder, targets, unet};
use super::written::{F32, Gguf, Q8_0};

const ATTENTION: &str = "down_blocks.0.attentions.0.transformer_blocks.0";

fn scales(patch: &Patch, base: &Model) -> Vec<Scale> {
    let edits = patch.fit(base, Strictness::Strict).unwrap().edits;
    let scales = edits.into_iter().map(|edit| match edit.change {
        Change::LowRank { scale, .. } => scale,
        other => panic!("{other:?}"),
    });
    scales.collect()
}

#[test]
fn kohyas_modules_are_found_whatever_the_model_prefixes() {
    let flat = ATTENTION.replace('.', "_");
    let patch = File::new()
        .pair(
            &format!("lora_unet_{flat}_attn1_to_q"),
            KOHYA,
            &[2, 8],
            &[8, 2],
        )
        .zeros(&format!("lora_unet_{flat}_attn1_to_q.alpha"), &[])
        .pair(
            &format!("lora_unet_{flat}_attn1_to_out_0"),
            KOHYA,
            &[2, 8],
            &[8, 2],
        )
        .pair(
            &format!("lora_unet_{flat}_ff_net_0_proj"),
            KOHYA,
            &[2, 8],
            &[64, 2],
        )
        // A linear layer where the model has a convolution of one point.
        .pair(
            "lora_unet_down_blocks_0_attentions_0_proj_in",
            KOHYA,
            &[2, 8],
            &[8, 2],
        )
        .pair("lora_unet_conv_in", KOHYA, &[3, 4, 3, 3], &[8, 3, 1, 1])
        // Tucker's form.
        .pair(
            "lora_unet_down_blocks_0_resnets_0_conv1",
            KOHYA,
            &[2, 8, 1, 1],
            &[8, 2, 1, 1],
        )
        .zeros(
            "lora_unet_down_blocks_0_resnets_0_conv1.lora_mid.weight",
            &[2, 2, 3, 3],
        );
    let folder = folder();
    let patch = patch.patch(&folder, "lora");
    assert_eq!(patch.parts(), 6);
    assert_eq!(patch.components(), [Component::Denoiser]);
    for prefix in [
        "",
        "model.diffusion_model.",
        "diffusion_model.",
        "unet.",
        "transformer.",
    ] {
        let base = unet(prefix).model(&folder, "unet");
        let mut found = targets(&patch, &base);
        found.sort_unstable();
        let mut expected = [
            "conv_in",
            "down_blocks.0.resnets.0.conv1",
            "down_blocks.0.attentions.0.proj_in",
            &format!("{ATTENTION}.attn1.to_q"),
            &format!("{ATTENTION}.attn1.to_out.0"),
            &format!("{ATTENTION}.ff.net.0.proj"),
        ]
        .map(|name| format!("{prefix}{name}.weight"));
        expected.sort_unstable();
        assert_eq!(found, expected, "{prefix}");
    }
    let base = unet("").model(&folder, "unet");
    let edits = patch.fit(&base, Strictness::Strict).unwrap().edits;
    let alphas = edits.iter().filter(|edit| match &edit.change {
        Change::LowRank { scale, .. } => matches!(scale.alpha, Alpha::Tensor(_)),
        _ => false,
    });
    assert_eq!(alphas.count(), 1);
    let mids = edits
        .iter()
        .filter(|edit| matches!(&edit.change, Change::LowRank { mid: Some(_), .. }));
    assert_eq!(mids.count(), 1);
    for edit in &edits {
        assert_eq!(edit.shape, base.tensors()[edit.target].shape);
        assert!(!edit.is_beside_only);
    }
}

#[test]
fn diffusers_names_of_every_age_are_the_same_modules() {
    let folder = folder();
    let base = unet("").model(&folder, "unet");
    let to_q = format!("{ATTENTION}.attn1.to_q.weight");
    let to_out = format!("{ATTENTION}.attn1.to_out.0.weight");
    for (module, endings, expected) in [
        (format!("unet.{ATTENTION}.attn1.to_q"), PEFT, &to_q),
        (
            format!("unet.{ATTENTION}.attn1.to_q"),
            [".lora_A.default.weight", ".lora_B.default.weight"],
            &to_q,
        ),
        (
            format!("unet.{ATTENTION}.attn1.to_q"),
            [".lora.down.weight", ".lora.up.weight"],
            &to_q,
        ),
        (
            format!("unet.{ATTENTION}.attn1.processor.to_q"),
            ["_lora.down.weight", "_lora.up.weight"],
            &to_q,
        ),
        (
            format!("{ATTENTION}.attn1.processor.to_out"),
            ["_lora.down.weight", "_lora.up.weight"],
            &to_out,
        ),
        (
            format!("diffusion_model.{ATTENTION}.attn1.to_out.0"),
            PEFT,
            &to_out,
        ),
        (
            format!("base_model.model.{ATTENTION}.attn1.to_q"),
            PEFT,
            &to_q,
        ),
        (
            format!("lycoris_{}_attn1_to_q", ATTENTION.replace('.', "_")),
            KOHYA,
            &to_q,
        ),
    ] {
        let patch = File::new().pair(&module, endings, &[2, 8], &[8, 2]);
        let patch = patch.patch(&folder, "lora");
        assert_eq!(targets(&patch, &base), [expected.as_str()], "{module}");
    }
}

#[test]
fn modules_of_unets_are_found_by_either_of_their_names() {
    let folder = folder();
    let diffusers = [
        "down_blocks.1.attentions.0.proj_in",
        "up_blocks.0.resnets.2.conv1",
    ];
    let theirs = ["input_blocks.4.1.proj_in", "output_blocks.2.0.in_layers.2"];
    let base = |file: File, names: [&str; 2], prefix: &str| {
        let add = |file: File, name| file.zeros(&format!("{prefix}{name}.weight"), &[8, 8]);
        names.into_iter().fold(file, add).model(&folder, "unet")
    };
    let small = File::new().zeros("down_blocks.0.resnets.1.conv1.weight", &[4, 4]);
    let old = File::new().zeros("model.diffusion_model.input_blocks.3.0.op.weight", &[4, 4]);
    for (names, base) in [
        (diffusers, base(small, diffusers, "")),
        (theirs, base(old, theirs, "model.diffusion_model.")),
    ] {
        for of_patch in [diffusers, theirs] {
            let flat = of_patch.map(|name| format!("lora_unet_{}", name.replace('.', "_")));
            let dotted = of_patch.map(|name| format!("diffusion_model.{name}"));
            for (modules, endings) in [(flat, KOHYA), (dotted, PEFT)] {
                let pair =
                    |file: File, module: &String| file.pair(module, endings, &[2, 8], &[8, 2]);
                let patch = modules
                    .iter()
                    .fold(File::new(), pair)
                    .patch(&folder, "lora");
                let found = targets(&patch, &base);
                for name in names {
                    let ending = format!("{name}.weight");
                    assert!(
                        found.iter().any(|found| found.ends_with(&ending)),
                        "{found:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn peft_says_alpha_beside_the_file_and_diffusers_in_it() {
    let folder = folder();
    let q = "model.layers.0.self_attn.q_proj";
    let base = File::new()
        .zeros(&format!("{q}.weight"), &[8, 6])
        .model(&folder, "llama");
    let plain = File::new().pair(&format!("base_model.model.{q}"), PEFT, &[2, 6], &[8, 2]);
    let unsaid = plain.patch(&folder, "adapter_model");
    assert_eq!(scales(&unsaid, &base)[0].alpha, Alpha::Unsaid);
    fs::write(
        folder.path().join("adapter_config.json"),
        r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 16, "use_rslora": false}"#,
    )
    .unwrap();
    let said = plain.patch(&folder, "adapter_model");
    let scale = scales(&said, &base)[0];
    assert_eq!(
        (scale.alpha, scale.factor(Some(16.0))),
        (Alpha::Said(16.0), 8.0)
    );
    let inside = plain.clone().said(
        "lora_adapter_metadata",
        r#"{"lora_alpha": 4, "use_rslora": true}"#,
    );
    let scale = scales(&inside.patch(&folder, "adapter_model"), &base)[0];
    assert_eq!(scale.alpha, Alpha::Said(4.0));
    assert_eq!(scale.factor(Some(4.0)), 4.0 / 2.0_f64.sqrt());
    // As long as where every module is listed.
    let modules = vec![format!("\"{q}\""); 300].join(",");
    let long = format!(r#"{{"lora_alpha": 6, "target_modules": [{modules}]}}"#);
    let long = plain.said("lora_adapter_metadata", &long);
    let scale = scales(&long.patch(&folder, "adapter_model"), &base)[0];
    assert_eq!(scale.alpha, Alpha::Said(6.0));
}

#[test]
fn gguf_adapters_name_tensors_and_quantised_ones_are_beside_only() {
    use candle_core::quantized::gguf_file::Value;
    let folder = folder();
    let adapter = Gguf::new()
        .key("general.type", &Value::String("adapter".to_owned()))
        .key("adapter.lora.alpha", &Value::F32(8.0))
        .tensor("blk.0.attn_q.weight.lora_a", &[32, 4], F32, 0)
        .tensor("blk.0.attn_q.weight.lora_b", &[4, 2], F32, 512)
        .data(544);
    let base = Gguf::new()
        .tensor("blk.0.attn_q.weight", &[32, 2], Q8_0, 0)
        .data(68 + 28);
    let at = |name: &str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let patch = Patch::open(at("lora.gguf", adapter.bytes())).unwrap();
    let base = Model::open(at("base.gguf", base.bytes())).unwrap();
    let fit = patch.fit(&base, Strictness::Strict).unwrap();
    assert!(fit.edits[0].is_beside_only);
    let scale = scales(&patch, &base)[0];
    assert_eq!((scale.alpha, scale.rank), (Alpha::Said(8.0), 4));
}

#[test]
fn differences_change_weights_and_biases() {
    let folder = folder();
    let base = unet("").zeros("blocks.0.modulation", &[1, 6, 8]);
    let base = base.model(&folder, "unet");
    let patch = File::new()
        .with(
            "diffusion_model.conv_in.diff",
            Dtype::BF16,
            &[8, 4, 3, 3],
            &[0.5; 288],
        )
        .zeros("diffusion_model.conv_in.diff_b", &[8])
        .zeros("diffusion_model.blocks.0.modulation.diff", &[1, 6, 8])
        .pair(
            "diffusion_model.conv_in",
            PEFT,
            &[2, 4, 3, 3],
            &[8, 2, 1, 1],
        )
        .patch(&folder, "diff");
    let mut found = targets(&patch, &base);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "blocks.0.modulation",
            "conv_in.bias",
            "conv_in.weight",
            "conv_in.weight"
        ]
    );
}

#[test]
fn opening_reads_headers_alone() {
    let folder = folder();
    let header = r#"{"a.lora_A.weight":{"dtype":"F32","shape":[4,4194304],"data_offsets":[0,67108864]},"a.lora_B.weight":{"dtype":"F32","shape":[4,4],"data_offsets":[67108864,67108928]}}"#;
    let path = folder.path().join("large.safetensors");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    fs::write(&path, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64 + 67_108_928).unwrap();
    let read = || {
        let io = fs::read_to_string("/proc/thread-self/io").ok()?;
        let line = io.lines().find_map(|line| line.strip_prefix("rchar: "))?;
        line.parse::<u64>().ok()
    };
    let Some(before) = read() else {
        eprintln!("skipped: the kernel does not count what a thread reads");
        return;
    };
    let patch = Patch::open(&path).unwrap();
    let base = unet("").model(&folder, "unet");
    assert!(patch.fit(&base, Strictness::Lenient).is_err());
    let read = read().unwrap() - before;
    assert!(read < 1 << 20, "{read} bytes");
}
