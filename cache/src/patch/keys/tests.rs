//! Names of every writer.

use super::*;
use Component::{Any, Denoiser, TextEncoder};
use Naming::{Dotted, Exact, Flat};

#[track_caller]
fn is(name: &str, component: Component, naming: Naming, module: &str, slot: Slot) {
    let key = Key::parse(name);
    let expected = Key {
        component,
        naming,
        module: module.to_owned(),
        slot,
    };
    assert_eq!(key, Some(expected), "{name}");
}

#[test]
fn names_of_every_writer_are_taken_apart() {
    let q = "layers.0.self_attn.q_proj";
    is(
        &format!("base_model.model.model.{q}.lora_A.weight"),
        Any,
        Dotted,
        &format!("model.{q}"),
        Slot::Down,
    );
    is(
        &format!("base_model.model.model.{q}.lora_B.default.weight"),
        Any,
        Dotted,
        &format!("model.{q}"),
        Slot::Up,
    );
    let gpt = "transformer.h.0.attn.c_attn";
    is(
        &format!("base_model.model.{gpt}.lora_A.weight"),
        Any,
        Dotted,
        gpt,
        Slot::Down,
    );
    is(
        "unet.mid_block.attentions.0.proj_in.lora.down.weight",
        Denoiser,
        Dotted,
        "mid_block.attentions.0.proj_in",
        Slot::Down,
    );
    is(
        "transformer.transformer_blocks.0.attn.to_q.lora_B.weight",
        Denoiser,
        Dotted,
        "transformer_blocks.0.attn.to_q",
        Slot::Up,
    );
    is(
        "diffusion_model.blocks.0.self_attn.q.lora_A.weight",
        Denoiser,
        Dotted,
        "blocks.0.self_attn.q",
        Slot::Down,
    );
    is(
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
        TextEncoder(2),
        Dotted,
        "text_model.encoder.layers.0.mlp.fc1",
        Slot::Down,
    );
    is(
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight",
        TextEncoder(1),
        Dotted,
        "text_model.encoder.layers.0.self_attn.q_proj",
        Slot::Up,
    );
    is(
        "lora_unet_conv_in.lora_mid.weight",
        Denoiser,
        Flat,
        "conv_in",
        Slot::Mid,
    );
    is(
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
        TextEncoder(2),
        Flat,
        "text_model_encoder_layers_0_mlp_fc1",
        Slot::Alpha,
    );
    is(
        "blk.0.attn_q.weight.lora_b",
        Any,
        Exact,
        "blk.0.attn_q.weight",
        Slot::Up,
    );
    is(
        "diffusion_model.img_in.diff_b",
        Denoiser,
        Dotted,
        "img_in",
        Slot::BiasDifference,
    );
    is("<cat>", Any, Exact, "<cat>", Slot::Rows);
    is("clip_g", TextEncoder(2), Exact, "clip_g", Slot::Rows);
}

#[test]
fn matrices_of_processors_are_their_attentions() {
    is(
        "unet.down_blocks.0.attn1.processor.to_q_lora.down.weight",
        Denoiser,
        Dotted,
        "down_blocks.0.attn1.to_q",
        Slot::Down,
    );
    is(
        "mid_block.attn2.processor.to_out_lora.up.weight",
        Any,
        Dotted,
        "mid_block.attn2.to_out.0",
        Slot::Up,
    );
    is(
        "text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight",
        TextEncoder(1),
        Dotted,
        "text_model.encoder.layers.0.self_attn.out_proj",
        Slot::Up,
    );
}

#[test]
fn kinds_that_are_not_applied_have_a_name() {
    for (name, kind) in [
        ("lora_unet_a.dora_scale", "DoRA"),
        ("base_model.model.a.lora_magnitude_vector", "DoRA"),
        (
            "base_model.model.a.lora_magnitude_vector.default.weight",
            "DoRA",
        ),
        ("lora_unet_a.hada_w1_a", "LoHa"),
        ("lora_unet_a.lokr_w2_b", "LoKr"),
        ("lora_unet_a.oft_blocks", "OFT"),
        ("base_model.model.a.oft_R.default.weight", "OFT"),
        ("base_model.model.a.ia3_l", "(IA)³"),
        (
            "base_model.model.wte.lora_embedding_A",
            "LoRA of an embedding",
        ),
        ("base_model.model.a.lora_B.bias", "LoRA with biases"),
    ] {
        match Key::parse(name).map(|key| key.slot) {
            Some(Slot::Unsupported(found)) => assert_eq!(found.name(), kind, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn names_of_models_are_none_of_patches() {
    for name in [
        "",
        ".",
        "<>",
        "model.layers.0.mlp.up_proj.weight",
        "upsampler.up.weight",
        "alpha",
        "a.bias",
    ] {
        assert_eq!(Key::parse(name), None, "{name}");
    }
}
