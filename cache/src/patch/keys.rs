//! What the names in a patch file mean: which module of which model, and which matrix of it.
//!
//! | names | written by | source |
//! |---|---|---|
//! | `X.lora_A.weight`, `X.lora_B.weight`, with an adapter's name before `weight` | PEFT, diffusers | `peft/utils/save_and_load.py` |
//! | `X.lora.down.weight`, `X.processor.to_q_lora.down.weight`, `X.lora_linear_layer.down.weight` | older diffusers | `diffusers/utils/state_dict_utils.py` |
//! | `lora_unet_X.lora_down.weight`, `.lora_up.weight`, `.lora_mid.weight`, `.alpha` | kohya-ss, LyCORIS | `sd-scripts/networks/lora.py`, `lycoris/modules/locon.py` |
//! | `X.weight.lora_a`, `X.weight.lora_b` | llama.cpp | `src/llama-adapter.cpp` |
//! | `X.diff`, `X.diff_b` | LyCORIS, extractors | ComfyUI's `comfy/lora.py` |
//! | `emb_params`, `string_to_param.*`, `<word>`, `clip_l`, `clip_g` | textual inversion | `diffusers/loaders/textual_inversion.py`, ComfyUI's `sd1_clip.py` |

use super::Component;

/// How a patch writes the name of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Naming {
    /// As the model does, without `.weight`.
    Dotted,
    /// With underscores for dots, which cannot be undone.
    Flat,
    /// The whole name of the tensor.
    Exact,
}

/// What a tensor is to its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// The factor that takes the module's input: `[rank, in…]`.
    Down,
    /// The factor that gives its output: `[out, rank]`.
    Up,
    /// The core between them, of Tucker's form: `[rank, rank, height, width]`.
    Mid,
    Alpha,
    /// What is added to the weight.
    Difference,
    /// What is added to the bias.
    BiasDifference,
    /// Rows for an embedding.
    Rows,
    Unsupported(Unsupported),
}

/// Kinds of patch that are known, and not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unsupported {
    /// Weights kept as direction and magnitude. Programs disagree whose norm is taken, and whether a
    /// strength scales the direction (PEFT) or goes between old and new weight (ComfyUI).
    Dora,
    /// LyCORIS' product by elements.
    Loha,
    /// LyCORIS' Kronecker product.
    Lokr,
    /// Orthogonal rotations.
    Oft,
    /// (IA)³'s vectors.
    Ia3,
    /// Low-rank changes of an embedding, which PEFT keeps transposed.
    EmbeddingLora,
    /// A bias beside low-rank factors.
    LoraBias,
    /// ComfyUI's note that a weight must be padded first.
    Reshape,
}

impl Unsupported {
    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Unsupported::Dora => "DoRA",
            Unsupported::Loha => "LoHa",
            Unsupported::Lokr => "LoKr",
            Unsupported::Oft => "OFT",
            Unsupported::Ia3 => "(IA)³",
            Unsupported::EmbeddingLora => "LoRA of an embedding",
            Unsupported::LoraBias => "LoRA with biases",
            Unsupported::Reshape => "LoRA that pads weights",
        }
    }
}

/// A name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) component: Component,
    pub(super) naming: Naming,
    /// The module, as its naming has it.
    pub(super) module: String,
    pub(super) slot: Slot,
}

const ENDINGS: &[(&str, Slot)] = {
    use Slot::{Alpha, BiasDifference, Difference, Down, Mid, Up};
    &[
        (".lora_down.weight", Down),
        (".lora_up.weight", Up),
        (".lora_mid.weight", Mid),
        (".alpha", Alpha),
        (".lora_A.weight", Down),
        (".lora_B.weight", Up),
        (".lora.down.weight", Down),
        (".lora.up.weight", Up),
        (".lora_linear_layer.down.weight", Down),
        (".lora_linear_layer.up.weight", Up),
        // Mochi's.
        (".lora_A", Down),
        (".lora_B", Up),
        (".diff", Difference),
        (".diff_b", BiasDifference),
    ]
};

const UNSUPPORTED: &[(&str, Unsupported)] = &[
    (".dora_scale", Unsupported::Dora),
    (".lora_magnitude_vector", Unsupported::Dora),
    (".lora_embedding_A", Unsupported::EmbeddingLora),
    (".lora_embedding_B", Unsupported::EmbeddingLora),
    (".lora_up.bias", Unsupported::LoraBias),
    (".lora_B.bias", Unsupported::LoraBias),
    (".reshape_weight", Unsupported::Reshape),
];

/// The last part of a name that begins so is of a kind that is not applied.
const UNSUPPORTED_PARTS: &[(&str, Unsupported)] = &[
    ("hada_", Unsupported::Loha),
    ("lokr_", Unsupported::Lokr),
    ("oft_", Unsupported::Oft),
    ("ia3_", Unsupported::Ia3),
];

const FLAT: &[(&str, Component)] = &[
    ("lora_unet_", Component::Denoiser),
    ("lora_transformer_", Component::Denoiser),
    ("lora_prior_unet_", Component::Denoiser),
    ("lora_te1_", Component::TextEncoder(1)),
    ("lora_te2_", Component::TextEncoder(2)),
    ("lora_te3_", Component::TextEncoder(3)),
    ("lora_te_", Component::TextEncoder(1)),
    ("lycoris_", Component::Any),
];

/// How dotted names begin that say which model they are of.
pub(super) const DOTTED: &[(&str, Component)] = &[
    ("model.diffusion_model.", Component::Denoiser),
    ("diffusion_model.", Component::Denoiser),
    ("unet.", Component::Denoiser),
    ("transformer.", Component::Denoiser),
    ("text_encoder.", Component::TextEncoder(1)),
    ("text_encoder_2.", Component::TextEncoder(2)),
    ("text_encoder_3.", Component::TextEncoder(3)),
    (
        "text_encoders.clip_l.transformer.",
        Component::TextEncoder(1),
    ),
    (
        "text_encoders.clip_g.transformer.",
        Component::TextEncoder(2),
    ),
    (
        "text_encoders.t5xxl.transformer.",
        Component::TextEncoder(3),
    ),
];

impl Key {
    /// Takes a name apart; `None` if it is none of a patch.
    pub(super) fn parse(name: &str) -> Option<Key> {
        if let Some(component) = rows(name) {
            return Some(Key {
                component,
                naming: Naming::Exact,
                module: name.to_owned(),
                slot: Slot::Rows,
            });
        }
        let exact = [(".lora_a", Slot::Down), (".lora_b", Slot::Up)];
        for (ending, slot) in exact {
            if let Some(tensor) = name.strip_suffix(ending) {
                return Some(Key {
                    component: Component::Any,
                    naming: Naming::Exact,
                    module: tensor.to_owned(),
                    slot,
                });
            }
        }
        let (module, slot) = ending(name)?;
        if let Some((component, rest)) = begins(module, FLAT) {
            return Some(Key {
                component,
                naming: Naming::Flat,
                module: rest.replace('.', "_"),
                slot,
            });
        }
        let (component, rest) = match module.strip_prefix("base_model.model.") {
            // What PEFT wraps names itself: `transformer.` is a language model's there.
            Some(rest) => (Component::Any, rest),
            None => begins(module, DOTTED).unwrap_or((Component::Any, module)),
        };
        let module = match rest.strip_suffix("_lora") {
            Some(rest) if is_of_processor(name) => of_processor(rest, component),
            _ => rest.replace(".processor.", "."),
        };
        Some(Key {
            component,
            naming: Naming::Dotted,
            module,
            slot,
        })
    }
}

fn begins<'a>(name: &'a str, with: &[(&str, Component)]) -> Option<(Component, &'a str)> {
    with.iter().find_map(|(prefix, component)| {
        let rest = name.strip_prefix(prefix)?;
        Some((*component, rest))
    })
}

/// Whether a tensor is rows of an embedding, and for what, by its name alone.
fn rows(name: &str) -> Option<Component> {
    match name {
        "clip_l" => Some(Component::TextEncoder(1)),
        "clip_g" => Some(Component::TextEncoder(2)),
        "emb_params" => Some(Component::Any),
        _ => {
            let is_word = name.len() > 2 && name.starts_with('<') && name.ends_with('>');
            (is_word || name.starts_with("string_to_param.")).then_some(Component::Any)
        }
    }
}

fn ending(name: &str) -> Option<(&str, Slot)> {
    for (ending, slot) in ENDINGS {
        if let Some(module) = name.strip_suffix(ending) {
            return Some((module, *slot));
        }
    }
    for (ending, slot) in [(".down.weight", Slot::Down), (".up.weight", Slot::Up)] {
        let module = name.strip_suffix(ending);
        if let Some(module) = module.filter(|module| module.ends_with("_lora")) {
            return Some((module, slot));
        }
    }
    // PEFT keeps the adapter's name where a model was saved and not the adapter.
    let of_adapter = name.strip_suffix(".weight");
    let of_adapter = of_adapter.and_then(|name| name.rsplit_once('.'));
    if let Some((before, _)) = of_adapter {
        for (ending, slot) in [(".lora_A", Slot::Down), (".lora_B", Slot::Up)] {
            if let Some(module) = before.strip_suffix(ending) {
                return Some((module, slot));
            }
        }
    }
    unsupported(name)
}

fn unsupported(name: &str) -> Option<(&str, Slot)> {
    // With or without `.weight`, and an adapter's name before it.
    let bare = name.strip_suffix(".weight").unwrap_or(name);
    let without_adapter = bare.rsplit_once('.').map_or(bare, |(before, _)| before);
    for text in [name, bare, without_adapter] {
        for (ending, kind) in UNSUPPORTED {
            if let Some(module) = text.strip_suffix(ending) {
                return Some((module, Slot::Unsupported(*kind)));
            }
        }
        let Some((module, last)) = text.rsplit_once('.') else {
            continue;
        };
        for (part, kind) in UNSUPPORTED_PARTS {
            if last.starts_with(part) {
                return Some((module, Slot::Unsupported(*kind)));
            }
        }
    }
    None
}

fn is_of_processor(name: &str) -> bool {
    name.ends_with("_lora.down.weight") || name.ends_with("_lora.up.weight")
}

/// The module that an attention processor's matrix belongs to (`UNET_TO_DIFFUSERS` and
/// `DIFFUSERS_OLD_TO_PEFT` in diffusers' `state_dict_utils.py`).
fn of_processor(module: &str, component: Component) -> String {
    let module = module.replace(".processor.", ".");
    let (before, last) = module.rsplit_once('.').unwrap_or(("", &module));
    let is_text = matches!(component, Component::TextEncoder(_)) || before.ends_with("self_attn");
    let last = match (last, is_text) {
        ("to_q", true) => "q_proj",
        ("to_k", true) => "k_proj",
        ("to_v", true) => "v_proj",
        ("to_out", true) => "out_proj",
        ("to_out", false) => "to_out.0",
        (other, _) => other,
    };
    match before {
        "" => last.to_owned(),
        before => format!("{before}.{last}"),
    }
}

#[cfg(test)]
mod tests;
