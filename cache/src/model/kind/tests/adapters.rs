//! Adapters, and what metadata says.

use super::*;

#[test]
fn adapters_tell_what_they_are_for_and_their_rank() {
    let key = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k";
    let deep = "lora_unet_down_blocks_2_attentions_0_transformer_blocks_9_attn1_to_k";
    let kohya = |module: &str, rank: usize, inputs: usize| {
        format!(
            "{module}.alpha
             {module}.lora_down.weight {rank} {inputs}
             {module}.lora_up.weight 640 {rank}\n"
        )
    };
    let peft = |module: &str, rank: usize| {
        format!(
            "{module}.lora_A.weight {rank} 3072
             {module}.lora_B.weight 3072 {rank}\n"
        )
    };
    assert_kinds(&[
        ("SD 1.x LoRA, rank 32", &kohya(&format!("lora_unet_{key}"), 32, 768)),
        ("SD 2.x LoRA, rank 4", &kohya(&format!("lora_unet_{key}"), 4, 1024)),
        (
            "SDXL LoRA, rank 16",
            &kohya(&deep.replace("attn1", "attn2"), 16, 2048),
        ),
        ("SDXL LoRA, rank 8", &kohya(deep, 8, 1280)),
        (
            "~SDXL LoRA, rank 8",
            &kohya(&deep.replace("attn1", "attn2"), 8, 640),
        ),
        (
            "Flux LoRA, rank 16",
            &kohya("lora_unet_double_blocks_18_img_attn_qkv", 16, 3072),
        ),
        (
            "HunyuanVideo LoRA, rank 16",
            &kohya("lora_unet_double_blocks_19_img_attn_qkv", 16, 3072),
        ),
        (
            "~Flux LoRA, rank 2",
            &peft("transformer.single_transformer_blocks.37.attn.to_k", 2),
        ),
        (
            "~SD 3 LoRA, rank 4",
            &peft("transformer.transformer_blocks.23.attn.add_k_proj", 4),
        ),
        (
            "Wan LoRA, rank 32",
            &(peft("diffusion_model.blocks.0.self_attn.q", 32)
                + &peft("diffusion_model.blocks.0.cross_attn.k", 32)),
        ),
        (
            "SD 1.x LoRA, rank 4",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight 4 768
             unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.up.weight 320 4",
        ),
        (
            "LoRA, rank 8",
            &peft("base_model.model.model.layers.0.self_attn.q_proj", 8),
        ),
        (
            "LoRA, rank 16",
            "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a 3072 16
             lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_b 16 768
             lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w2_a 3072 16
             lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w2_b 16 768",
        ),
        ("SDXL embedding", "clip_l 8 768\n clip_g 8 1280"),
        ("SD 1.x embedding", "emb_params 4 768"),
        ("SD 2.x embedding", "<cat-toy> 1024"),
    ]);
    let ranks = kohya(deep, 8, 1280) + &kohya(&deep.replace("to_k", "to_v"), 64, 1280);
    let kind = kind(&ranks);
    assert_eq!(kind.rank, Some(64));
    assert!(kind.evidence.contains("ranks 8 to 64"), "{kind:?}");
}

#[test]
fn what_a_trainer_noted_counts_where_names_do_not_tell() {
    let text = "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight 16 768
        lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight 3072 16";
    let noted = |key, value| said(text, &[(key, value)]).to_string();
    assert_eq!(
        noted("ss_base_model_version", "sd_v1"),
        "SD 1.x LoRA, rank 16"
    );
    assert_eq!(
        noted("modelspec.architecture", "stable-diffusion-xl-v1-base/lora"),
        "SDXL LoRA, rank 16"
    );
    assert_eq!(
        noted("modelspec.architecture", "flux-1-dev/lora"),
        "Flux LoRA, rank 16"
    );
    assert_eq!(
        noted("ss_base_model_version", "a\u{1b}[2J"),
        "LoRA, rank 16"
    );
    // Names that do tell are believed, and the other said.
    let unet = text.replace(
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
    );
    let kind = said(&unet, &[("ss_base_model_version", "sdxl_base_v1-0")]);
    assert_eq!(kind.family, Some(Family::Sd1));
    assert!(
        kind.evidence
            .contains("but ss_base_model_version is sdxl_base_v1-0")
    );
}

#[test]
fn the_architecture_of_a_gguf_file_decides() {
    let names = "token_embd.weight 32000 4096\n blk.0.attn_q.weight 4096 4096";
    let of = |architecture| said(names, &[("general.architecture", architecture)]);
    assert_eq!(of("qwen3").to_string(), "Qwen 3 language model");
    assert_eq!(of("llama").to_string(), "~Llama language model");
    assert_eq!(of("bert").to_string(), "BERT embedding model");
    assert_eq!(of("t5encoder").to_string(), "T5 text encoder");
    assert_eq!(of("flux").to_string(), "Flux DiT");
    assert_eq!(of("clip").to_string(), "vision encoder");
    assert_eq!(
        of("granitehybrid").to_string(),
        "granitehybrid language model"
    );
    let adapter = said(
        "blk.0.attn_q.weight.lora_a 16 4096\n blk.0.attn_q.weight.lora_b 4096 16",
        &[
            ("general.architecture", "qwen2"),
            ("general.type", "adapter"),
        ],
    );
    assert_eq!(adapter.to_string(), "Qwen 2 LoRA, rank 16");
    let hostile = "\u{1b}[2J\u{202e}".repeat(500);
    let kind = of(&hostile);
    for text in [kind.to_string(), kind.evidence] {
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        assert!(text.len() < 4096);
    }
    // Without it, names alone say little.
    assert_eq!(kind_without_family(names), Role::LanguageModel);
}

fn kind_without_family(names: &str) -> Role {
    let kind = kind(names);
    assert_eq!(kind.family, None);
    kind.role
}
