//! Diffusion models and their parts.

use super::*;

pub(super) const SD1_UNET: &str = "
    conv_in.weight 320 4 3 3
    conv_out.weight 4 320 3 3
    time_embedding.linear_1.weight 1280 320
    down_blocks.0.attentions.0.norm.weight 320
    down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight 320 768
    down_blocks.0.resnets.0.conv1.weight 320 320 3 3
    down_blocks.3.resnets.1.conv1.weight 1280 1280 3 3";

pub(super) const SDXL_UNET: &str = "
    conv_in.weight 320 4 3 3
    conv_out.weight 4 320 3 3
    time_embedding.linear_1.weight 1280 320
    add_embedding.linear_1.weight 1280 2816
    down_blocks.0.resnets.0.conv1.weight 320 320 3 3
    down_blocks.1.attentions.0.norm.weight 640
    down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight 640 2048
    down_blocks.2.resnets.1.conv1.weight 1280 1280 3 3";

pub(super) const SDXL_ORIGINAL: &str = "
    input_blocks.0.0.weight 320 4 3 3
    input_blocks.1.0.in_layers.2.weight 320 320 3 3
    input_blocks.4.1.norm.weight 640
    input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight 640 2048
    input_blocks.8.0.in_layers.2.weight 1280 1280 3 3
    label_emb.0.0.weight 1280 2816
    label_emb.0.2.weight 1280 1280
    out.2.weight 4 320 3 3
    time_embed.0.weight 1280 320";

pub(super) const SD1_ORIGINAL: &str = "
    input_blocks.0.0.weight 320 9 3 3
    input_blocks.1.0.in_layers.2.weight 320 320 3 3
    input_blocks.1.1.norm.weight 320
    input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight 320 768
    input_blocks.11.0.in_layers.2.weight 1280 1280 3 3
    out.2.weight 4 320 3 3
    time_embed.0.weight 1280 320";

pub(super) const REFINER_ORIGINAL: &str = "
    input_blocks.0.0.weight 384 4 3 3
    input_blocks.1.0.in_layers.2.weight 384 384 3 3
    input_blocks.4.1.norm.weight 768
    input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight 768 1280
    input_blocks.11.0.in_layers.2.weight 1536 1536 3 3
    label_emb.0.0.weight 1536 2560
    out.2.weight 4 384 3 3
    time_embed.0.weight 1536 384";

pub(super) const VAE_ORIGINAL: &str = "
    decoder.conv_in.weight 512 4 3 3
    decoder.up.0.block.0.conv1.weight 128 256 3 3
    encoder.conv_in.weight 128 3 3 3
    post_quant_conv.weight 4 4 1 1";

pub(super) const CLIP_L: &str = "
    text_model.embeddings.position_embedding.weight 77 768
    text_model.embeddings.token_embedding.weight 49408 768
    text_model.encoder.layers.11.mlp.fc1.weight 3072 768";

pub(super) const OPEN_CLIP_BIGG: &str = "
    token_embedding.weight 49408 1280
    text_projection 1280 1280
    transformer.resblocks.31.attn.in_proj_weight 3840 1280";

pub(super) const SD3: &str = "
    joint_blocks.0.context_block.attn.qkv.weight 4608 1536
    joint_blocks.0.x_block.attn.qkv.weight 4608 1536
    x_embedder.proj.weight 1536 16 2 2";

pub(super) const FLUX: &str = "
    double_blocks.0.img_attn.norm.key_norm.scale 128
    double_blocks.0.img_attn.proj.weight 3072 3072
    guidance_in.in_layer.weight 3072 256
    img_in.weight 3072 64
    single_blocks.0.linear1.weight 21504 3072";

#[test]
fn what_denoises_is_known_by_what_it_attends_to() {
    assert_kinds(&[
        ("SD 1.x UNet", SD1_UNET),
        ("SD 2.x UNet", &SD1_UNET.replace(" 768", " 1024")),
        ("SDXL UNet", SDXL_UNET),
        ("SD 1.x UNet", SD1_ORIGINAL),
        ("SDXL UNet", &under("model.diffusion_model.", SDXL_ORIGINAL)),
        ("SDXL refiner UNet", REFINER_ORIGINAL),
        ("SD 3 DiT", &under("model.diffusion_model.", SD3)),
        ("Flux DiT", FLUX),
        (
            "Flux DiT",
            "transformer_blocks.0.attn.norm_added_k.weight 128
             transformer_blocks.0.attn.add_q_proj.weight 3072 3072
             single_transformer_blocks.0.attn.norm_k.weight 128
             x_embedder.weight 3072 64",
        ),
        (
            "Chroma DiT",
            &format!("{FLUX}\n distilled_guidance_layer.norms.0.scale 5120"),
        ),
        (
            "Wan DiT",
            "blocks.0.cross_attn.norm_k.weight 1536
             head.modulation 1 2 1536
             patch_embedding.weight 1536 16 1 2 2",
        ),
        (
            "PixArt DiT",
            "adaln_single.linear.weight 6912 1152
             caption_projection.linear_1.weight 1152 4096
             pos_embed.proj.weight 1152 4 2 2",
        ),
        (
            "LTX-Video DiT",
            "patchify_proj.weight 2048 128
             adaln_single.linear.weight 12288 2048
             transformer_blocks.27.scale_shift_table 6 2048",
        ),
        (
            "HunyuanVideo DiT",
            "double_blocks.0.img_attn_qkv.weight 9216 3072
             txt_in.individual_token_refiner.blocks.1.adaLN_modulation.1.weight 6144 3072",
        ),
        (
            "Qwen-Image DiT",
            "transformer_blocks.0.attn.add_q_proj.weight 3072 3072
             transformer_blocks.0.img_mod.1.weight 18432 3072
             txt_norm.weight 3584",
        ),
        (
            "SDXL ControlNet",
            &format!(
                "{SDXL_UNET}\n controlnet_cond_embedding.conv_in.weight 16 3 3 3
                 controlnet_down_blocks.0.weight 320 320 1 1"
            ),
        ),
        (
            "SD 1.x ControlNet",
            &under(
                "control_model.",
                &format!(
                    "{SD1_ORIGINAL}\n input_hint_block.0.weight 16 3 3 3
                     zero_convs.0.0.weight 320 320 1 1"
                ),
            ),
        ),
    ]);
    assert!(kind(SD1_ORIGINAL).evidence.contains("inpainting"));
    assert!(kind(FLUX).evidence.contains("as dev"));
    let schnell: String = FLUX.replace("guidance_in", "x");
    assert!(kind(&schnell).evidence.contains("as schnell"));
}

#[test]
fn vaes_and_text_encoders_say_as_much_as_their_forms_do() {
    assert_kinds(&[
        ("Stable Diffusion VAE", VAE_ORIGINAL),
        (
            "Stable Diffusion VAE",
            "decoder.conv_in.weight 512 4 3 3
             decoder.up_blocks.0.resnets.0.conv1.weight 512 512 3 3",
        ),
        ("VAE", &VAE_ORIGINAL.replace("512 4", "512 16")),
        (
            "Wan VAE",
            "decoder.middle.0.residual.0.gamma 384 1 1 1
             encoder.conv1.weight 96 3 3 3 3",
        ),
        ("CLIP-L text encoder", CLIP_L),
        ("OpenCLIP-H text encoder", &CLIP_L.replace(" 768", " 1024")),
        ("OpenCLIP bigG text encoder", OPEN_CLIP_BIGG),
        ("CLIP text encoder", &CLIP_L.replace(" 768", " 448")),
        ("CLIP text encoder", &CLIP_L.replace("49408", "20000")),
        (
            "T5 text encoder",
            "shared.weight 32128 4096
             encoder.block.0.layer.0.SelfAttention.q.weight 4096 4096
             encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight 32 64
             encoder.block.0.layer.1.DenseReluDense.wi_0.weight 10240 4096",
        ),
        (
            "UMT5 text encoder",
            "shared.weight 256384 4096
             encoder.block.0.layer.0.SelfAttention.q.weight 4096 4096
             encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight 32 64
             encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight 32 64",
        ),
        (
            "T5 language model",
            "encoder.block.0.layer.0.SelfAttention.q.weight 512 512
             decoder.block.0.layer.1.EncDecAttention.q.weight 512 512",
        ),
    ]);
}

#[test]
fn a_file_of_several_parts_is_a_checkpoint_of_the_one_that_denoises() {
    let clip = "cond_stage_model.transformer.";
    let parts = [
        under("model.diffusion_model.", SD1_ORIGINAL),
        under("first_stage_model.", VAE_ORIGINAL),
        under(clip, CLIP_L),
    ];
    let whole = kind(&parts.concat());
    assert_eq!(whole.to_string(), "SD 1.x checkpoint");
    assert!(
        whole
            .evidence
            .contains("CLIP-L text encoder under cond_stage_model.transformer")
    );
    let parts = [
        under("model.diffusion_model.", SDXL_ORIGINAL),
        under("first_stage_model.", VAE_ORIGINAL),
        under("conditioner.embedders.0.transformer.", CLIP_L),
        under("conditioner.embedders.1.model.", OPEN_CLIP_BIGG),
    ];
    let whole = kind(&parts.concat());
    assert_eq!(whole.to_string(), "SDXL checkpoint");
    assert!(whole.evidence.contains("OpenCLIP bigG"), "{whole:?}");
    let two = [
        under("text_encoders.clip_l.transformer.", CLIP_L),
        under(
            "text_encoders.clip_g.transformer.",
            &CLIP_L.replace(" 768", " 1280"),
        ),
    ];
    assert_eq!(kind(&two.concat()).to_string(), "text encoder");
}
