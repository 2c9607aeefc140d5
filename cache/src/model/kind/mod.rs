//! What a model is, by the names, shapes and metadata of its tensors.
//!
//! Nothing of the weights is read, and nothing is asked of the file's name. Architectures give
//! their tensors names that no other has, and sizes of a family give some of them shapes that no
//! other size has; the rules are those by which the programs that load such files tell them apart
//! (diffusers' `single_file_utils.py`, ComfyUI's `model_detection.py`, the conversion scripts of
//! transformers and llama.cpp). Where several families have one form, the answer says so.
//!
//! | file | what it knows |
//! |---|---|
//! | `outline.rs` | names without their numbers |
//! | `family.rs` | the families |
//! | `claims.rs` | what metadata says: GGUF's architecture, adapters' base |
//! | `adapter.rs` | LoRAs and embeddings |
//! | `diffusion.rs`, `vae.rs` | UNets, diffusion transformers, ControlNets, VAEs |
//! | `text.rs` | CLIP, T5, BERT |
//! | `language.rs` | decoders: Llama and after, GPT and after |
//! | `senses.rs` | vision, speech, upscalers |

mod adapter;
mod claims;
mod diffusion;
mod family;
mod language;
mod outline;
mod senses;
mod text;
mod vae;

#[cfg(test)]
mod tests;

use std::fmt;

pub use family::Family;

use super::Model;
use super::metadata::Metadata;
use super::tensor::TensorInfo;
use outline::{Outline, View};

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// The part of a diffusion model that denoises, of convolutions and attention.
    Unet,
    /// The same, of attention alone.
    DiffusionTransformer,
    /// Turns text into what a diffusion model looks at.
    TextEncoder,
    /// Turns pictures into latents and back.
    Vae,
    /// Small changes to another model: LoRA, LoHa, LoKr.
    Lora,
    /// Some words for a text encoder: textual inversion.
    Embedding,
    /// Steers a diffusion model by a picture.
    ControlNet,
    /// Predicts text.
    LanguageModel,
    /// Turns sentences, or pictures and sentences, into vectors to compare.
    EmbeddingModel,
    /// Turns pictures into features.
    VisionEncoder,
    /// Sorts texts or pictures into classes.
    Classifier,
    /// Understands speech.
    Speech,
    /// Makes pictures larger.
    Upscaler,
    /// Several of these in one model: a diffusion model with what it needs.
    Checkpoint,
    /// Not known.
    Unknown,
}

impl Role {
    /// Its name, as people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Unet => "UNet",
            Role::DiffusionTransformer => "DiT",
            Role::TextEncoder => "text encoder",
            Role::Vae => "VAE",
            Role::Lora => "LoRA",
            Role::Embedding => "embedding",
            Role::ControlNet => "ControlNet",
            Role::LanguageModel => "language model",
            Role::EmbeddingModel => "embedding model",
            Role::VisionEncoder => "vision encoder",
            Role::Classifier => "classifier",
            Role::Speech => "speech model",
            Role::Upscaler => "upscaler",
            Role::Checkpoint => "checkpoint",
            Role::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a model is, as far as it can be told.
///
/// Prints as `SDXL UNet`, `~Llama language model`, `SDXL LoRA, rank 16`, `unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kind {
    /// What it is for.
    pub role: Role,
    /// Its family; of an adapter that of its base, of several parts that of the one that denoises.
    pub family: Option<Family>,
    /// Whether no other known family has this form. If not, the family is the likeliest of several,
    /// and printed with `~`.
    pub is_sure: bool,
    /// Of an adapter, the greatest rank of its matrices.
    pub rank: Option<usize>,
    /// Why, in a few words; safe to print.
    pub evidence: String,
}

impl Kind {
    fn new(role: Role, family: Family, evidence: impl Into<String>) -> Self {
        Self {
            family: Some(family),
            ..Self::of_no_family(role, evidence)
        }
    }

    fn of_no_family(role: Role, evidence: impl Into<String>) -> Self {
        Self {
            role,
            family: None,
            is_sure: true,
            rank: None,
            evidence: evidence.into(),
        }
    }

    /// The same, if other families can look like this.
    fn likely(self) -> Self {
        Self {
            is_sure: false,
            ..self
        }
    }

    fn unknown(evidence: &str) -> Self {
        Self::of_no_family(Role::Unknown, evidence)
    }

    /// A pure function of the tensor table and the metadata.
    fn of(tensors: &[TensorInfo], metadata: &Metadata) -> Self {
        let outline = Outline::of(tensors);
        if let Some(kind) = claims::architecture(metadata, &outline) {
            return kind;
        }
        if tensors.is_empty() {
            return Self::unknown("it has no tensors");
        }
        if let Some(kind) = adapter::detect(&outline, metadata) {
            return kind;
        }
        let kind = whole(&outline);
        match claims::base(metadata) {
            Some((family, claim)) if kind.family.is_none() && kind.role != Role::Unknown => Self {
                family: Some(family),
                evidence: format!("{}; {claim}", kind.evidence),
                ..kind
            },
            _ => kind,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(family) = &self.family {
            let about = if self.is_sure { "" } else { "~" };
            write!(f, "{about}{family} ")?;
        }
        write!(f, "{}", self.role)?;
        match self.rank {
            Some(rank) => write!(f, ", rank {rank}"),
            None => Ok(()),
        }
    }
}

impl Model {
    /// What it is, by its names, shapes and metadata. Walks the tensor table.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::of(self.tensors(), self.metadata())
    }

    /// How many parameters it has: elements, also where they are packed into blocks, of tied
    /// tensors once. Walks the tensor table.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        parameters(self.tensors())
    }
}

fn parameters(tensors: &[TensorInfo]) -> u64 {
    let counted = tensors.iter().filter(|tensor| tensor.tied_to.is_none());
    // Sparse files can claim more than 64 bits hold.
    counted.fold(0, |sum: u64, tensor| sum.saturating_add(tensor.elements()))
}

/// What may precede the names of a model or of a part of one, as programs save them, with `#` for
/// numbers.
const PREFIXES: &[&str] = &[
    "",
    // Whole checkpoints of diffusion models, by CompVis, Stability and ComfyUI.
    "model.diffusion_model.",
    "diffusion_model.",
    "control_model.",
    "first_stage_model.",
    "vae.",
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "conditioner.embedders.#.transformer.",
    "conditioner.embedders.#.model.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "text_encoders.t5xxl.transformer.",
    "text_encoders.umt5xxl.transformer.",
    "text_encoder.",
    "text_encoder_2.",
    "unet.",
    "net.",
    "module.",
    // Transformers names the body of a model after its family.
    "model.",
    "transformer.",
    "backbone.",
    "gpt_neox.",
    "language_model.",
    "language_model.model.",
    "model.language_model.",
    "bert.",
    "roberta.",
    "distilbert.",
    "mpnet.",
    "vit.",
    "dinov2.",
    "wav2vec2.",
    "hubert.",
];

/// Looks under every prefix, and joins what is found.
fn whole(outline: &Outline) -> Kind {
    let mut parts: Vec<(&str, Kind)> = Vec::new();
    for &prefix in PREFIXES {
        let view = outline.under(prefix);
        if view.is_empty() {
            continue;
        }
        if let Some(kind) = part(&view, outline) {
            parts.push((prefix, kind));
        }
    }
    join(parts)
}

fn part(view: &View<'_>, outline: &Outline) -> Option<Kind> {
    diffusion::detect(view)
        .or_else(|| vae::detect(view))
        .or_else(|| senses::detect(view, outline))
        .or_else(|| text::detect(view, outline))
        .or_else(|| language::detect(view, outline))
}

fn join(mut parts: Vec<(&str, Kind)>) -> Kind {
    let Some(first) = parts.first().map(|(_, kind)| kind.role) else {
        return Kind::unknown("its names are those of no architecture that is known here");
    };
    if parts.len() == 1 {
        return parts.remove(0).1;
    }
    let is_one_role = parts.iter().all(|(_, kind)| kind.role == first);
    let named = parts.iter().map(|(prefix, kind)| match *prefix {
        "" => kind.to_string(),
        prefix => format!("{kind} under {}", prefix.trim_end_matches('.')),
    });
    let evidence = named.collect::<Vec<_>>().join(", ");
    let denoises = |kind: &Kind| matches!(kind.role, Role::Unet | Role::DiffusionTransformer);
    let base = parts.iter().find(|(_, kind)| denoises(kind));
    Kind {
        family: base.and_then(|(_, kind)| kind.family.clone()),
        is_sure: base.is_none_or(|(_, kind)| kind.is_sure),
        ..Kind::of_no_family(if is_one_role { first } else { Role::Checkpoint }, evidence)
    }
}
