//! Language models that write from left to right.

use super::outline::{Outline, View};
use super::{Family, Kind, Role};

pub(super) fn detect(view: &View<'_>, outline: &Outline) -> Option<Kind> {
    let mut kind = gated(view)
        .or_else(|| older(view))
        .or_else(|| packed(view))?;
    let sees = [
        "visual.",
        "vision_tower.",
        "vision_model.",
        "model.visual.",
        "model.vision_tower.",
    ];
    if outline.begins(&sees) {
        kind.evidence += "; with a vision encoder";
    }
    // Transformers saves the body alone without its name, and heads at the root.
    if view.prefix.is_empty() && view.has("embed_tokens.weight") {
        kind.role = Role::EmbeddingModel;
        kind.evidence += "; saved without a head, as sentence encoders are";
    } else if outline.begins(&["score."]) {
        kind.role = Role::Classifier;
        kind.evidence += "; with a head that classifies";
    }
    Some(kind)
}

fn language(family: Family, evidence: &str) -> Kind {
    Kind::new(Role::LanguageModel, family, evidence)
}

/// Llama and what came after it, by the names of transformers.
fn gated(view: &View<'_>) -> Option<Kind> {
    let layer = |module: &str| view.matrix(&format!("layers.#.{module}"));
    let has = |name: &str| view.has(&format!("layers.#.{name}"));
    if layer("self_attn.kv_a_proj_with_mqa") {
        return Some(language(
            Family::DeepSeek2,
            "keys and values are compressed",
        ));
    }
    if layer("self_attn.qkv_proj") && layer("mlp.gate_up_proj") {
        return Some(language(
            Family::Phi3,
            "qkv_proj and gate_up_proj are one matrix each",
        ));
    }
    if layer("self_attn.dense") && layer("mlp.fc1") {
        return Some(language(Family::Phi2, "self_attn.dense and mlp.fc1"));
    }
    if !layer("self_attn.q_proj") || !layer("self_attn.k_proj") {
        return None;
    }
    if layer("block_sparse_moe.experts.#.w1") {
        return Some(language(Family::Mixtral, "block_sparse_moe"));
    }
    let normed = has("self_attn.q_norm.weight");
    if has("pre_feedforward_layernorm.weight") {
        return Some(match normed {
            true => language(
                Family::Gemma3,
                "four norms a layer, and norms of queries and keys",
            ),
            false => language(Family::Gemma2, "four norms a layer"),
        });
    }
    if normed && has("post_feedforward_layernorm.weight") && !has("input_layernorm.weight") {
        return Some(language(Family::Olmo2, "norms behind and not before"));
    }
    let has_experts = layer("mlp.experts.#.gate_proj");
    if normed {
        // Per head: of 128 in all sizes. Others norm all heads at once.
        let norm = view.rows("layers.#.self_attn.q_norm.weight");
        let family = match (norm, has_experts) {
            (Some(128), false) => Family::Qwen3,
            (Some(128), true) => Family::Qwen3Moe,
            _ => {
                let evidence = "norms of queries and keys, as in no family that is known here";
                return Some(Kind::of_no_family(Role::LanguageModel, evidence));
            }
        };
        return Some(language(family, "norms of queries and keys, 128 wide"));
    }
    if !layer("mlp.gate_proj") && !has_experts {
        return None;
    }
    let biased = |name: &str| has(&format!("self_attn.{name}.bias"));
    if biased("q_proj") && biased("k_proj") && biased("v_proj") && !biased("o_proj") {
        if has("input_layernorm.bias") {
            let evidence = "biases of queries and of norms, as in no family that is known here";
            return Some(Kind::of_no_family(Role::LanguageModel, evidence));
        }
        return Some(match has_experts {
            true => language(
                Family::Qwen2Moe,
                "biases of queries, keys and values; experts",
            ),
            false => language(Family::Qwen2, "biases of queries, keys and values alone"),
        });
    }
    if has_experts {
        let evidence = "experts, as in no family that is known here";
        return Some(Kind::of_no_family(Role::LanguageModel, evidence));
    }
    Some(plain(view))
}

/// What has Llama's names and nothing besides is told by its words, or is not.
fn plain(view: &View<'_>) -> Kind {
    // Command R has as many words as Gemma, and one norm a layer.
    let two_norms = view.has("layers.#.post_attention_layernorm.weight");
    match view.rows("embed_tokens.weight") {
        Some(128_256) => language(Family::Llama, "Llama 3's 128256 words"),
        Some(256_000) if two_norms => {
            language(Family::Gemma, "Llama's form with Gemma's 256000 words").likely()
        }
        _ => language(Family::Llama, "its form, which Mistral and others have too").likely(),
    }
}

/// GPT and its kin.
fn older(view: &View<'_>) -> Option<Kind> {
    if let Some(joined) = view.get("h.#.attn.c_attn.weight") {
        // GPT-2 keeps its matrices transposed; StarCoder has one key for all heads.
        return Some(match joined.shape[..] {
            [inputs, outputs] if outputs == inputs.saturating_mul(3) => {
                language(Family::Gpt2, "c_attn, transposed")
            }
            _ => language(Family::StarCoder, "c_attn of one key for all heads"),
        });
    }
    let queries = "attention.query_key_value";
    if view.matrix(&format!("layers.#.{queries}")) && view.matrix("embed_in") {
        return Some(language(Family::GptNeoX, "query_key_value and embed_in"));
    }
    if view.matrix("h.#.self_attention.query_key_value") {
        return Some(match view.has("word_embeddings_layernorm.weight") {
            true => language(Family::Bloom, "query_key_value, and a norm of the words"),
            false => language(Family::Falcon, "query_key_value"),
        });
    }
    if view.matrix("h.#.attn.q_proj") && view.matrix("h.#.mlp.fc_in") {
        return Some(language(Family::GptJ, "q_proj and fc_in"));
    }
    if view.matrix("decoder.layers.#.self_attn.q_proj")
        && view.has("decoder.embed_positions.weight")
        && !view.matrix("encoder.layers.#.self_attn.q_proj")
    {
        return Some(language(
            Family::Opt,
            "a decoder alone, with learnt positions",
        ));
    }
    view.has("layers.#.mixer.A_log")
        .then(|| language(Family::Mamba, "state spaces in place of attention"))
}

/// Files that say nothing of themselves but have llama.cpp's names, or Meta's.
fn packed(view: &View<'_>) -> Option<Kind> {
    if view.has("blk.#.attn_q.weight") || view.has("blk.#.attn_qkv.weight") {
        let evidence = "llama.cpp's names, without an architecture";
        return Some(Kind::of_no_family(Role::LanguageModel, evidence));
    }
    let meta = view.matrix("layers.#.attention.wq") && view.matrix("layers.#.feed_forward.w1");
    meta.then(|| language(Family::Llama, "Meta's names, which Mistral has too").likely())
}
