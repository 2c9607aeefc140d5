//! What metadata says of a model: GGUF's architecture, and the base that trainers note.

use super::super::escape;
use super::super::metadata::Metadata;
use super::adapter;
use super::outline::Outline;
use super::{Family, Kind, Role};

/// Names that a file gives itself are cut to so many characters.
const LONGEST: usize = 32;

/// What a GGUF file says it is. `general.architecture` decides: without it llama.cpp loads nothing,
/// and its tensors have one set of names for all.
pub(super) fn architecture(metadata: &Metadata, outline: &Outline) -> Option<Kind> {
    let claimed = metadata.get("general.architecture")?;
    let (role, family) = match ARCHITECTURES.iter().find(|(name, ..)| *name == claimed) {
        Some((_, role, family)) => (*role, Some(family.clone())),
        None if claimed == "clip" => (Role::VisionEncoder, None),
        None if claimed.is_empty() => return None,
        None => {
            let cut: String = claimed.chars().take(LONGEST).collect();
            (Role::LanguageModel, Some(Family::Named(cut.into())))
        }
    };
    let is_known = !matches!(family, Some(Family::Named(_)));
    let evidence = format!("general.architecture is {}", escape(claimed));
    let mut kind = Kind {
        family,
        ..Kind::of_no_family(role, evidence)
    };
    if metadata.get("general.type") == Some("adapter") {
        kind.role = Role::Lora;
        kind.rank = adapter::ranks(outline).map(|(_, most)| most);
    } else if !is_known && !outline.begins(&["blk.#."]) {
        // llama.cpp's names are not there, so it may be of another program.
        kind.role = Role::Unknown;
    }
    if claimed == "llama" {
        kind.evidence += ", which Mistral's files say too";
        kind = kind.likely();
    }
    Some(kind)
}

/// The names of `gguf-py/gguf/constants.py`, and those of ComfyUI-GGUF for diffusion models. What
/// is in none of them is called a language model under its own name, as most are.
const ARCHITECTURES: &[(&str, Role, Family)] = {
    use Family::*;
    use Role::{DiffusionTransformer, EmbeddingModel, LanguageModel, TextEncoder, Unet};
    &[
        ("llama", LanguageModel, Llama),
        ("llama4", LanguageModel, Llama4),
        ("qwen2", LanguageModel, Qwen2),
        ("qwen2vl", LanguageModel, Qwen2),
        ("qwen2moe", LanguageModel, Qwen2Moe),
        ("qwen3", LanguageModel, Qwen3),
        ("qwen3moe", LanguageModel, Qwen3Moe),
        ("gemma", LanguageModel, Gemma),
        ("gemma2", LanguageModel, Gemma2),
        ("gemma3", LanguageModel, Gemma3),
        ("gemma3n", LanguageModel, Gemma3),
        ("gemma-embedding", EmbeddingModel, Gemma3),
        ("phi2", LanguageModel, Phi2),
        ("phi3", LanguageModel, Phi3),
        ("phimoe", LanguageModel, Phi3),
        ("deepseek2", LanguageModel, DeepSeek2),
        ("olmo2", LanguageModel, Olmo2),
        ("gpt2", LanguageModel, Gpt2),
        ("gptneox", LanguageModel, GptNeoX),
        ("gptj", LanguageModel, GptJ),
        ("starcoder", LanguageModel, StarCoder),
        ("falcon", LanguageModel, Falcon),
        ("bloom", LanguageModel, Bloom),
        ("mamba", LanguageModel, Mamba),
        ("mamba2", LanguageModel, Mamba),
        ("t5", LanguageModel, T5),
        ("t5encoder", TextEncoder, T5),
        ("bert", EmbeddingModel, Bert),
        ("modern-bert", EmbeddingModel, ModernBert),
        ("nomic-bert", EmbeddingModel, NomicBert),
        ("nomic-bert-moe", EmbeddingModel, NomicBert),
        ("sd1", Unet, Sd1),
        ("sdxl", Unet, Sdxl),
        ("sd3", DiffusionTransformer, Sd3),
        ("flux", DiffusionTransformer, Flux),
        ("aura", DiffusionTransformer, AuraFlow),
        ("hidream", DiffusionTransformer, HiDream),
        ("cosmos", DiffusionTransformer, Cosmos),
        ("ltxv", DiffusionTransformer, LtxVideo),
        ("hyvid", DiffusionTransformer, HunyuanVideo),
        ("wan", DiffusionTransformer, Wan),
        ("lumina2", DiffusionTransformer, Lumina2),
        ("qwen_image", DiffusionTransformer, QwenImage),
    ]
};

/// The base that a trainer noted, and where it did: `modelspec.architecture` (Stability's model
/// specification), `ss_base_model_version` (kohya-ss's scripts).
pub(super) fn base(metadata: &Metadata) -> Option<(Family, String)> {
    ["modelspec.architecture", "ss_base_model_version"]
        .into_iter()
        .find_map(|key| {
            let value = metadata.get(key)?;
            let lower = value.to_ascii_lowercase();
            let known = BASES.iter().find(|(prefix, _)| lower.starts_with(prefix));
            let (_, family) = known?;
            Some((family.clone(), format!("{key} is {}", escape(value))))
        })
}

/// How the names of bases begin, the longer of two before the shorter.
const BASES: &[(&str, Family)] = {
    use Family::*;
    &[
        ("stable-diffusion-v1", Sd1),
        ("stable-diffusion-v2", Sd2),
        ("stable-diffusion-xl-v1-refiner", SdxlRefiner),
        ("stable-diffusion-xl", Sdxl),
        ("stable-diffusion-3", Sd3),
        ("flux-1", Flux),
        ("flux-2", Flux2),
        ("chroma", Chroma),
        ("lumina-2", Lumina2),
        ("sd_v1", Sd1),
        ("sd_v2", Sd2),
        ("sdxl_refiner", SdxlRefiner),
        ("sdxl", Sdxl),
        ("sd3", Sd3),
        ("flux2", Flux2),
        ("flux1", Flux),
        ("lumina2", Lumina2),
        ("wan", Wan),
        ("qwen_image", QwenImage),
        ("hunyuan_video", HunyuanVideo),
    ]
};
