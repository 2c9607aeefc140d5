//! What looks and listens: vision encoders, speech models, upscalers.

use super::outline::{Outline, View};
use super::{Family, Kind, Role};

pub(super) fn detect(view: &View<'_>, outline: &Outline) -> Option<Kind> {
    pairs(view)
        .or_else(|| vision(view, outline))
        .or_else(|| speech(view))
        .or_else(|| upscaler(view))
}

/// Encoders of pictures, by transformers' or OpenCLIP's names, that may have one of text beside
/// them.
fn pairs(view: &View<'_>) -> Option<Kind> {
    let is_siglip = view.has("vision_model.head.probe");
    let is_clip = view.has_all(&[
        "vision_model.embeddings.class_embedding",
        "vision_model.encoder.layers.#.mlp.fc1.weight",
    ]) || view.has("visual.transformer.resblocks.#.attn.in_proj_weight");
    if !is_siglip && !is_clip {
        return None;
    }
    let family = if is_siglip {
        Family::SigLip
    } else {
        Family::Clip
    };
    let reads = [
        "text_model.embeddings.token_embedding.weight",
        "token_embedding.weight",
    ];
    Some(if reads.iter().any(|words| view.has(words)) {
        let evidence = "encoders of pictures and of text";
        Kind::new(Role::EmbeddingModel, family, evidence)
    } else {
        let evidence = if is_siglip {
            "pictures are pooled by attention"
        } else {
            "a class embedding and CLIP's layers"
        };
        Kind::new(Role::VisionEncoder, family, evidence)
    })
}

fn vision(view: &View<'_>, outline: &Outline) -> Option<Kind> {
    let patches = "embeddings.patch_embeddings.projection.weight";
    let family = if view.has_all(&[patches, "encoder.layer.#.layer_scale1.lambda1"]) {
        Family::DinoV2
    } else if view.has_all(&[patches, "encoder.layer.#.attention.attention.query.weight"])
        || view.has_all(&[
            "patch_embed.proj.weight",
            "blocks.#.attn.qkv.weight",
            "cls_token",
        ])
    {
        Family::Vit
    } else {
        return None;
    };
    Some(
        if outline.begins(&["classifier.", "head.weight", "head.fc."]) {
            Kind::new(
                Role::Classifier,
                family,
                "patches of pictures, with a head that classifies",
            )
        } else {
            Kind::new(
                Role::VisionEncoder,
                family,
                "patches of pictures, without a head",
            )
        },
    )
}

fn speech(view: &View<'_>) -> Option<Kind> {
    let listens = view.get("encoder.conv1.weight");
    // Transformers' names, and OpenAI's.
    let decodes = view.has("decoder.layers.#.encoder_attn.k_proj.weight")
        || view.has("decoder.blocks.#.cross_attn.query.weight");
    if let (Some(input), true) = (listens, decodes) {
        let evidence = match input.shape.get(1) {
            Some(bands) => format!("a decoder that looks at {bands} bands of sound"),
            None => "a decoder that looks at sound".to_owned(),
        };
        return Some(Kind::new(Role::Speech, Family::Whisper, evidence));
    }
    let of_wave = view.has("feature_extractor.conv_layers.#.conv.weight")
        && view.has("encoder.layers.#.attention.k_proj.weight");
    of_wave.then(|| Kind::new(Role::Speech, Family::Wav2Vec2, "convolutions over the wave"))
}

fn upscaler(view: &View<'_>) -> Option<Kind> {
    // Its residual blocks, as they were named over the years.
    let dense = [
        "model.#.sub.#.RDB1.conv1.#.weight",
        "RRDB_trunk.#.RDB1.conv1.weight",
        "body.#.rdb1.conv1.weight",
    ];
    if dense.iter().any(|form| view.has(form)) {
        return Some(Kind::new(
            Role::Upscaler,
            Family::Esrgan,
            "dense residual blocks",
        ));
    }
    let window = "layers.#.residual_group.blocks.#.attn.qkv.weight";
    view.has(window)
        .then(|| Kind::new(Role::Upscaler, Family::SwinIr, "residual groups of windows"))
}
