//! Which of several models a part of a patch is for.

use plimsoll_cache::patch::{Change, Component, Strictness};

use super::files::{File, KOHYA, PEFT, clip, folder, names, says, targets, unet};

#[test]
fn parts_for_text_encoders_go_to_the_one_that_they_fit() {
    let layer = "text_model.encoder.layers.0";
    let flat = layer.replace('.', "_");
    let folder = folder();
    let (large, small) = (
        clip(16).model(&folder, "clip_g"),
        clip(8).model(&folder, "clip_l"),
    );
    let denoiser = unet("").model(&folder, "unet");
    let kohya = File::new()
        .pair(
            &format!("lora_te1_{flat}_self_attn_q_proj"),
            KOHYA,
            &[2, 8],
            &[8, 2],
        )
        .pair(
            &format!("lora_te2_{flat}_self_attn_q_proj"),
            KOHYA,
            &[2, 16],
            &[16, 2],
        )
        .pair("lora_unet_conv_in", KOHYA, &[2, 4, 3, 3], &[8, 2, 1, 1]);
    let diffusers = File::new()
        .pair(
            &format!("text_encoder.{layer}.self_attn.to_q"),
            ["_lora.down.weight", "_lora.up.weight"],
            &[2, 8],
            &[8, 2],
        )
        .pair(
            &format!("text_encoder_2.{layer}.self_attn.q_proj"),
            PEFT,
            &[2, 16],
            &[16, 2],
        )
        .pair("unet.conv_in", PEFT, &[2, 4, 3, 3], &[8, 2, 1, 1]);
    for file in [kohya, diffusers] {
        let patch = file.patch(&folder, "lora");
        assert_eq!(
            patch.components(),
            [
                Component::Denoiser,
                Component::TextEncoder(1),
                Component::TextEncoder(2)
            ]
        );
        let q = format!("{layer}.self_attn.q_proj.weight");
        for (base, expected) in [
            (&small, q.as_str()),
            (&large, &q),
            (&denoiser, "conv_in.weight"),
        ] {
            let fit = patch.fit(base, Strictness::Strict).unwrap();
            assert_eq!(names(&fit, base), [expected]);
            assert_eq!((fit.elsewhere, fit.unmatched_count), (2, 0));
        }
        let error = patch
            .only(Component::TextEncoder(2))
            .fit(&small, Strictness::Strict);
        assert!(error.is_err(), "{error:?}");
    }
}

#[test]
fn encoders_that_cannot_be_told_apart_are_asked_for() {
    let flat = "text_model_encoder_layers_0_self_attn_q_proj";
    let folder = folder();
    let base = clip(8).model(&folder, "clip");
    let patch = File::new()
        .pair(&format!("lora_te1_{flat}"), KOHYA, &[2, 8], &[8, 2])
        .pair(&format!("lora_te2_{flat}"), KOHYA, &[3, 8], &[8, 3])
        .patch(&folder, "lora");
    let error = patch
        .fit(&base, Strictness::Lenient)
        .unwrap_err()
        .to_string();
    says(&error, &["text encoder 1", "text encoder 2", "Patch::only"]);
    let second = patch.only(Component::TextEncoder(2));
    let fit = second.fit(&base, Strictness::Strict).unwrap();
    let Change::LowRank { scale, .. } = &fit.edits[0].change else {
        panic!("{fit:?}");
    };
    assert_eq!((second.parts(), scale.rank), (1, 3));
}

#[test]
fn a_checkpoint_takes_parts_for_all_that_it_has() {
    let folder = folder();
    let layer = "text_model.encoder.layers.0.self_attn.q_proj";
    let base = unet("model.diffusion_model.")
        .zeros(
            &format!("cond_stage_model.transformer.{layer}.weight"),
            &[8, 8],
        )
        .zeros("first_stage_model.conv_in.weight", &[8, 4, 3, 3])
        .model(&folder, "checkpoint");
    let patch = File::new()
        .pair(
            &format!("lora_te_{}", layer.replace('.', "_")),
            KOHYA,
            &[2, 8],
            &[8, 2],
        )
        .pair("lora_unet_conv_in", KOHYA, &[2, 4, 3, 3], &[8, 2, 1, 1])
        .patch(&folder, "lora");
    let mut found = targets(&patch, &base);
    found.sort_unstable();
    let text = format!("cond_stage_model.transformer.{layer}.weight");
    assert_eq!(
        found,
        [text.as_str(), "model.diffusion_model.conv_in.weight"]
    );
}

#[test]
fn a_model_without_its_head_is_found_by_an_adapter_with_it_and_the_other_way_round() {
    let folder = folder();
    let names = ["model.layers.0.mlp.up_proj", "layers.0.mlp.up_proj"];
    for of_base in names {
        let base = File::new()
            .zeros(&format!("{of_base}.weight"), &[8, 6])
            .model(&folder, "llama");
        for of_patch in names {
            let patch = File::new().pair(
                &format!("base_model.model.{of_patch}"),
                PEFT,
                &[2, 6],
                &[8, 2],
            );
            let patch = patch.patch(&folder, "lora");
            assert_eq!(targets(&patch, &base), [format!("{of_base}.weight")]);
        }
    }
}

#[test]
fn an_encoder_that_is_named_as_such_is_meant_before_one_that_may_be_any() {
    let folder = folder();
    let base = File::new()
        .zeros("text_encoder_2.a.weight", &[8, 8])
        .zeros("text_model.a.weight", &[8, 8])
        .model(&folder, "two");
    for (module, expected) in [
        ("text_encoder_2.a", "text_encoder_2.a.weight"),
        ("text_encoder.a", "text_model.a.weight"),
    ] {
        let patch = File::new().pair(module, PEFT, &[2, 8], &[8, 2]);
        assert_eq!(targets(&patch.patch(&folder, "lora"), &base), [expected]);
    }
}
