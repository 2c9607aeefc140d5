//! Parts that a model has no place for.

use plimsoll_cache::patch::{Strictness, Why};

use super::files::{File, KOHYA, PEFT, clip, folder, names, says, unet};

#[test]
fn underscores_are_never_taken_for_dots_by_guess() {
    let folder = folder();
    let base = File::new()
        .zeros("a_b.c.weight", &[4, 4])
        .zeros("a.b_c.weight", &[4, 4])
        .zeros("a_b_d.weight", &[4, 4])
        .model(&folder, "base");
    let patch = File::new()
        .pair("lora_unet_a_b_c", KOHYA, &[2, 4], &[4, 2])
        .pair("lora_unet_a_b_d", KOHYA, &[2, 4], &[4, 2])
        .patch(&folder, "lora");
    let fit = patch.fit(&base, Strictness::Lenient).unwrap();
    assert_eq!(names(&fit, &base), ["a_b_d.weight"]);
    assert_eq!(fit.unmatched[0].why, Why::Several);
}

#[test]
fn strict_names_eight_of_those_that_do_not_fit_and_counts_all() {
    let folder = folder();
    let base = unet("").model(&folder, "unet");
    let mut file = File::new().pair("unet.conv_in", PEFT, &[2, 4, 3, 3], &[8, 2, 1, 1]);
    for number in 0..20 {
        file = file.pair(&format!("unet.none.{number}"), PEFT, &[2, 4], &[8, 2]);
    }
    let patch = file.patch(&folder, "lora");
    let error = patch
        .fit(&base, Strictness::Strict)
        .unwrap_err()
        .to_string();
    says(
        &error,
        &[
            "lora.safetensors",
            "20 of its parts",
            "1 do",
            "unet.none.",
            ".weight` of the denoiser, of shape [8, 4]",
            "and 12 more",
            "lenient",
        ],
    );
    let fit = patch.fit(&base, Strictness::Lenient).unwrap();
    assert_eq!(
        (fit.edits.len(), fit.unmatched.len(), fit.unmatched_count),
        (1, 20, 20)
    );
}

#[test]
fn a_wrong_shape_says_both_and_keys_of_no_patch_are_listed() {
    let folder = folder();
    let base = unet("").model(&folder, "unet");
    let patch = File::new()
        .pair("unet.conv_in", PEFT, &[2, 4, 3, 3], &[16, 2, 1, 1])
        .zeros("unet.conv_in.diff_b", &[8])
        .zeros("stray.weight", &[8])
        .zeros("lora_unet_alone.alpha", &[])
        .patch(&folder, "lora");
    let fit = patch.fit(&base, Strictness::Lenient).unwrap();
    assert_eq!(names(&fit, &base), ["conv_in.bias"]);
    let all = fit.unmatched.iter().map(ToString::to_string);
    let all = all.collect::<Vec<_>>().join("\n");
    for text in [
        "`conv_in.weight` of shape [8, 4, 3, 3], and needs shape [16, 4, 3, 3]",
        "`stray.weight` is no part",
        "`lora_unet_alone.alpha`",
    ] {
        assert!(all.contains(text), "no {text:?}: {all}");
    }
    assert_eq!(fit.unmatched_count, 3);
}

#[test]
fn a_patch_for_another_model_says_what_it_is_for() {
    let folder = folder();
    let patch = File::new()
        .pair(
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
            PEFT,
            &[2, 768],
            &[320, 2],
        )
        .patch(&folder, "lora");
    let text = clip(8).model(&folder, "clip");
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let error = patch.fit(&text, strictness).unwrap_err().to_string();
        says(
            &error,
            &[
                "changes nothing of clip",
                "1 are for other components",
                "SD 1.x LoRA, rank 2",
            ],
        );
    }
}

#[test]
fn weights_that_gpt2_keeps_transposed_are_not_taken_for_square_ones() {
    let folder = folder();
    let base = File::new()
        .zeros("h.0.attn.c_attn.weight", &[8, 24])
        .zeros("h.0.attn.c_proj.weight", &[8, 8])
        .zeros("h.0.mlp.c_fc.weight", &[8, 32])
        .model(&folder, "gpt2");
    let patch = File::new()
        .pair(
            "base_model.model.transformer.h.0.attn.c_attn",
            PEFT,
            &[2, 8],
            &[24, 2],
        )
        .pair(
            "base_model.model.transformer.h.0.attn.c_proj",
            PEFT,
            &[2, 8],
            &[8, 2],
        )
        .patch(&folder, "lora");
    let error = patch
        .fit(&base, Strictness::Lenient)
        .unwrap_err()
        .to_string();
    says(
        &error,
        &["2 of its parts", "c_attn", "c_proj", "kept transposed"],
    );
}

#[test]
fn two_parts_for_one_tensor_are_named_both() {
    let folder = folder();
    let base = unet("").model(&folder, "unet");
    let patch = File::new()
        .pair("unet.conv_in", PEFT, &[2, 4, 3, 3], &[8, 2, 1, 1])
        .pair("lora_unet_conv_in", KOHYA, &[2, 4, 3, 3], &[8, 2, 1, 1])
        .patch(&folder, "lora");
    let error = patch
        .fit(&base, Strictness::Lenient)
        .unwrap_err()
        .to_string();
    says(
        &error,
        &[
            "unet.conv_in.lora_A.weight",
            "lora_unet_conv_in.lora_down.weight",
            "`conv_in.weight`",
        ],
    );
}
