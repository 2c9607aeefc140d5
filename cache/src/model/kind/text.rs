//! Encoders of text: CLIP, T5, and BERT with its kin.

use super::outline::{Outline, View};
use super::{Family, Kind, Role};

pub(super) fn detect(view: &View<'_>, outline: &Outline) -> Option<Kind> {
    clip(view)
        .or_else(|| t5(view))
        .or_else(|| bert(view, outline))
}

/// The words of CLIP's vocabulary.
const WORDS: usize = 49_408;

/// The width of CLIP's words tells which it is: each size has its own.
fn clip(view: &View<'_>) -> Option<Kind> {
    // The names of transformers, and those of OpenCLIP.
    let words = if view.has("text_model.encoder.layers.#.mlp.fc1.weight") {
        view.get("text_model.embeddings.token_embedding.weight")?
    } else if view.has("transformer.resblocks.#.attn.in_proj_weight") {
        view.get("token_embedding.weight")?
    } else {
        return None;
    };
    let evidence = format!("{} words {} wide", words.rows.1, words.columns);
    let family = match (words.rows.1, words.columns) {
        // Some have learnt words of their own besides.
        (WORDS.., 768) => Family::ClipL,
        (WORDS.., 1024) => Family::OpenClipH,
        (WORDS.., 1280) => Family::OpenClipBigG,
        _ => Family::Clip,
    };
    Some(Kind::new(Role::TextEncoder, family, evidence))
}

fn t5(view: &View<'_>) -> Option<Kind> {
    let queries = "encoder.block.#.layer.#.SelfAttention.q.weight";
    if !view.has(queries) {
        return None;
    }
    let decodes = view.has("decoder.block.#.layer.#.EncDecAttention.q.weight");
    let role = if decodes {
        Role::LanguageModel
    } else {
        Role::TextEncoder
    };
    let bias = "encoder.block.#.layer.#.SelfAttention.relative_attention_bias.weight";
    let family = match view.get(bias) {
        // T5 has it in the first block only.
        Some(form) if form.first.1 > 0 => Family::Umt5,
        _ => Family::T5,
    };
    let gated = view.has("encoder.block.#.layer.#.DenseReluDense.wi_0.weight");
    let version = if gated { "gated, as v1.1" } else { "as v1" };
    let parts = if decodes {
        "encoder and decoder"
    } else {
        "encoder only"
    };
    let evidence = format!("relative attention bias, {parts}, {version}");
    Some(Kind::new(role, family, evidence))
}

fn bert(view: &View<'_>, outline: &Outline) -> Option<Kind> {
    let family = body(view)?;
    let heads = |beginnings: &[&str]| outline.begins(beginnings);
    let (role, head) = if heads(&[
        "cls.predictions.",
        "lm_head.",
        "vocab_transform.",
        "decoder.",
    ]) {
        (Role::LanguageModel, "with a head that predicts words")
    } else if heads(&["classifier.", "score.", "qa_outputs.", "pre_classifier."]) {
        (Role::Classifier, "with a head that classifies")
    } else {
        (
            Role::EmbeddingModel,
            "without a head, as sentence encoders are saved",
        )
    };
    Some(Kind::new(role, family, head))
}

fn body(view: &View<'_>) -> Option<Family> {
    if view.has("encoder.layer.#.attention.attn.q.weight") {
        return Some(Family::Mpnet);
    }
    if view.has("transformer.layer.#.attention.q_lin.weight") {
        return Some(Family::DistilBert);
    }
    if view.has("embeddings.tok_embeddings.weight") && view.has("layers.#.attn.Wqkv.weight") {
        return Some(Family::ModernBert);
    }
    let words = view.get("embeddings.word_embeddings.weight")?;
    if view.has("encoder.layers.#.attn.Wqkv.weight") {
        return Some(Family::NomicBert);
    }
    if !view.has("encoder.layer.#.attention.self.query.weight") {
        return None;
    }
    // BERT tells two sentences apart; RoBERTa has one type, and XLM-RoBERTa words of 100 languages.
    match view.rows("embeddings.token_type_embeddings.weight") {
        Some(1) if words.rows.1 > 200_000 => Some(Family::XlmRoberta),
        Some(1) => Some(Family::Roberta),
        _ => Some(Family::Bert),
    }
}
