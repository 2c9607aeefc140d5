//! What denoises: UNets, diffusion transformers, and the ControlNets that steer them.

use super::outline::View;
use super::{Family, Kind, Role};

pub(super) fn detect(view: &View<'_>) -> Option<Kind> {
    control(view)
        .or_else(|| diffusers_unet(view))
        .or_else(|| original_unet(view))
        .or_else(|| transformer(view))
}

/// What tells UNets apart.
struct Unet {
    /// Numbers a word of text that the cross attention looks at.
    context: Option<usize>,
    /// Numbers of pooled text and sizes that are added to the time.
    added: Option<usize>,
    /// Whether pictures are looked at by attention at their full size: in 1.x and 2.x, not in XL.
    attends_at_once: bool,
    levels: usize,
    inputs: Option<usize>,
}

impl Unet {
    fn family(&self) -> (Option<Family>, bool) {
        let Some(added) = self.added else {
            return match self.context {
                Some(768) => (Some(Family::Sd1), true),
                Some(1024) => (Some(Family::Sd2), true),
                _ => (None, true),
            };
        };
        if self.attends_at_once {
            return (None, true);
        }
        let family = match self.levels {
            3 => Family::Sdxl,
            4 => Family::SdxlRefiner,
            _ => return (None, true),
        };
        // 1280 of the pooled text, and six sizes, or five, of 256 numbers each.
        let real = match family {
            Family::Sdxl => (Some(2048), 2816),
            _ => (Some(1280), 2560),
        };
        (Some(family), (self.context, added) == real)
    }

    fn kind(&self, role: Role) -> Kind {
        let (family, is_sure) = self.family();
        let mut evidence = match self.context {
            Some(context) => format!("cross attention to text {context} wide"),
            None => "no cross attention to text".to_owned(),
        };
        if let Some(added) = self.added {
            evidence += &format!(", {added} added to the time, {} levels", self.levels);
        }
        match self.inputs {
            Some(9) if role == Role::Unet => evidence += "; 9 input channels, for inpainting",
            Some(8) if role == Role::Unet => evidence += "; 8 input channels, for editing",
            _ => {}
        }
        Kind {
            family,
            is_sure,
            ..Kind::of_no_family(role, evidence)
        }
    }
}

/// Diffusers' `UNet2DConditionModel`.
fn diffusers_unet(view: &View<'_>) -> Option<Kind> {
    let unet = diffusers_form(view)?;
    view.has("conv_out.weight").then(|| unet.kind(Role::Unet))
}

fn diffusers_form(view: &View<'_>) -> Option<Unet> {
    let input = view.get("conv_in.weight")?;
    let blocks = view.get("down_blocks.#.resnets.#.conv1.weight")?;
    if !view.has("time_embedding.linear_1.weight") {
        return None;
    }
    let attention = view.get("down_blocks.#.attentions.#.norm.weight");
    let context = "down_blocks.#.attentions.#.transformer_blocks.#.attn2.to_k.weight";
    Some(Unet {
        context: view.columns(context),
        added: view.columns("add_embedding.linear_1.weight"),
        attends_at_once: attention.is_some_and(|form| form.first.0 == 0),
        levels: (blocks.first.1 as usize).saturating_add(1),
        inputs: input.shape.get(1).copied(),
    })
}

/// The UNet of CompVis and Stability, whose blocks are counted through.
fn original_unet(view: &View<'_>) -> Option<Kind> {
    let unet = original_form(view)?;
    view.has("out.#.weight").then(|| unet.kind(Role::Unet))
}

fn original_form(view: &View<'_>) -> Option<Unet> {
    let input = view.get("input_blocks.#.#.weight")?;
    let blocks = view.get("input_blocks.#.#.in_layers.#.weight")?;
    if !view.has("time_embed.#.weight") {
        return None;
    }
    let attention = view.get("input_blocks.#.#.norm.weight");
    let context = "input_blocks.#.#.transformer_blocks.#.attn2.to_k.weight";
    Some(Unet {
        context: view.columns(context),
        added: view.columns("label_emb.#.#.weight"),
        attends_at_once: attention.is_some_and(|form| form.first.0 < 3),
        // Two residual blocks a level, and one to halve it.
        levels: (blocks.first.1 as usize).saturating_add(1) / 3,
        inputs: input.shape.get(1).copied(),
    })
}

fn control(view: &View<'_>) -> Option<Kind> {
    if view.has("controlnet_cond_embedding.conv_in.weight") {
        let unet = diffusers_form(view)?;
        return Some(unet.kind(Role::ControlNet));
    }
    if view.has_all(&["input_hint_block.#.weight", "zero_convs.#.#.weight"]) {
        return Some(original_form(view)?.kind(Role::ControlNet));
    }
    if view.has("controlnet_x_embedder.weight") {
        let evidence = "controlnet_x_embedder";
        return Some(Kind::new(Role::ControlNet, Family::Flux, evidence).likely());
    }
    if view.has_all(&[
        "controlnet_blocks.#.weight",
        "transformer_blocks.#.attn.to_q.weight",
    ]) {
        return Some(Kind::of_no_family(
            Role::ControlNet,
            "controlnet_blocks of a diffusion transformer",
        ));
    }
    None
}

fn transformer(view: &View<'_>) -> Option<Kind> {
    let found = TRANSFORMERS.iter().find(|(_, forms)| view.has_all(forms));
    let (family, forms) = found?;
    let mut evidence = forms.join(" and ");
    let role = match family {
        // Its convolutions have attention between them.
        Family::StableCascade => Role::Unet,
        _ => Role::DiffusionTransformer,
    };
    if *family == Family::Flux {
        let guidance = [
            "guidance_in.in_layer.weight",
            "time_text_embed.guidance_embedder.linear_1.weight",
        ];
        // Schnell has none, and is otherwise the same.
        evidence += if guidance.iter().any(|form| view.has(form)) {
            "; with guidance, as dev"
        } else {
            "; without guidance, as schnell"
        };
    }
    let kind = Kind::new(role, family.clone(), evidence);
    Some(match family {
        Family::Lumina2 => Kind {
            evidence: format!("{}, which Z-Image has too", kind.evidence),
            ..kind.likely()
        },
        _ => kind,
    })
}

/// What only these have; the special case before the one it was made from. The first line of each
/// is the names of its authors, others those of diffusers.
const TRANSFORMERS: &[(Family, &[&str])] = &[
    (
        Family::Chroma,
        &[
            "double_blocks.#.img_attn.norm.key_norm.scale",
            "distilled_guidance_layer.norms.#.scale",
        ],
    ),
    (Family::Chroma, &["distilled_guidance_layer.norms.#.weight"]),
    (Family::Flux2, &["double_stream_modulation_img.lin.weight"]),
    (
        Family::Flux2,
        &["double_stream_modulation_img.linear.weight"],
    ),
    (
        Family::HunyuanVideo,
        &["txt_in.individual_token_refiner.blocks.#.adaLN_modulation.#.weight"],
    ),
    (
        Family::HunyuanVideo,
        &["context_embedder.token_refiner.refiner_blocks.#.attn.to_q.weight"],
    ),
    (
        Family::Flux,
        &[
            "double_blocks.#.img_attn.proj.weight",
            "single_blocks.#.linear1.weight",
        ],
    ),
    (
        Family::Flux,
        &[
            "transformer_blocks.#.attn.norm_added_k.weight",
            "single_transformer_blocks.#.attn.norm_k.weight",
        ],
    ),
    (Family::Sd3, &["joint_blocks.#.x_block.attn.qkv.weight"]),
    (
        Family::QwenImage,
        &["transformer_blocks.#.img_mod.#.weight", "txt_norm.weight"],
    ),
    (
        Family::Sd3,
        &[
            "transformer_blocks.#.attn.add_q_proj.weight",
            "pos_embed.proj.weight",
        ],
    ),
    (
        Family::PixArt,
        &["t_block.#.weight", "y_embedder.y_embedding"],
    ),
    (
        Family::PixArt,
        &[
            "adaln_single.linear.weight",
            "pos_embed.proj.weight",
            "caption_projection.linear_1.weight",
        ],
    ),
    (
        Family::LtxVideo,
        &[
            "patchify_proj.weight",
            "transformer_blocks.#.scale_shift_table",
        ],
    ),
    (
        Family::LtxVideo,
        &[
            "proj_in.weight",
            "time_embed.emb.timestep_embedder.linear_1.weight",
            "transformer_blocks.#.scale_shift_table",
        ],
    ),
    (
        Family::Wan,
        &["head.modulation", "blocks.#.cross_attn.norm_k.weight"],
    ),
    (
        Family::Wan,
        &[
            "condition_embedder.text_embedder.linear_1.weight",
            "blocks.#.attn2.norm_k.weight",
        ],
    ),
    (Family::AuraFlow, &["double_layers.#.attn.w1q.weight"]),
    (
        Family::AuraFlow,
        &["joint_transformer_blocks.#.ff_context.out_projection.weight"],
    ),
    (Family::HunyuanDit, &["mlp_t5.#.weight"]),
    (Family::Mochi, &["blocks.#.attn.qkv_x.weight"]),
    (
        Family::HiDream,
        &["double_stream_blocks.#.block.ff_i.shared_experts.w3.weight"],
    ),
    (
        Family::Cosmos,
        &[
            "blocks.#.mlp.layer1.weight",
            "blocks.#.adaln_modulation_cross_attn.#.weight",
        ],
    ),
    (
        Family::Lumina2,
        &[
            "cap_embedder.#.weight",
            "context_refiner.#.attention.qkv.weight",
        ],
    ),
    (
        Family::StableCascade,
        &["clip_txt_mapper.weight", "clf.#.weight"],
    ),
];
