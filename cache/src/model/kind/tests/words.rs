//! Language models, and encoders of text, pictures and sound.

use super::*;

/// A layer as transformers names it, with what is put in place of `@`.
pub(super) fn decoder(words: usize, more: &str) -> String {
    format!(
        "model.embed_tokens.weight {words} 4096
         model.layers.1.input_layernorm.weight 4096
         model.layers.1.post_attention_layernorm.weight 4096
         model.layers.1.self_attn.q_proj.weight 4096 4096
         model.layers.1.self_attn.k_proj.weight 1024 4096
         model.layers.1.self_attn.o_proj.weight 4096 4096
         model.layers.1.mlp.gate_proj.weight 14336 4096
         lm_head.weight {words} 4096
         {more}"
    )
}

#[test]
fn language_models_are_known_by_what_they_added_to_llama() {
    let biases = "model.layers.1.self_attn.q_proj.bias 4096
        model.layers.1.self_attn.k_proj.bias 1024
        model.layers.1.self_attn.v_proj.bias 1024";
    let norms = "model.layers.1.self_attn.q_norm.weight 128
        model.layers.1.self_attn.k_norm.weight 128";
    let four = "model.layers.1.pre_feedforward_layernorm.weight 2304
        model.layers.1.post_feedforward_layernorm.weight 2304";
    assert_kinds(&[
        ("~Llama language model", &decoder(32_000, "")),
        ("Llama language model", &decoder(128_256, "")),
        ("~Gemma language model", &decoder(256_000, "")),
        ("Qwen 2 language model", &decoder(151_936, biases)),
        // Llama's own option puts a bias on every matrix of the attention.
        (
            "~Llama language model",
            &decoder(
                32_000,
                &format!("{biases}\n model.layers.1.self_attn.o_proj.bias 4096"),
            ),
        ),
        ("Qwen 3 language model", &decoder(151_936, norms)),
        (
            "Qwen 3 MoE language model",
            &decoder(
                151_936,
                &format!("{norms}\n model.layers.1.mlp.experts.0.gate_proj.weight 768 2048"),
            ),
        ),
        ("Gemma 2 language model", &decoder(256_000, four)),
        (
            "Gemma 3 language model",
            &decoder(262_208, &format!("{norms}\n{four}")),
        ),
        (
            "language model",
            &decoder(50_304, "model.layers.1.self_attn.q_norm.weight 2048"),
        ),
        (
            "Mixtral language model",
            &decoder(
                32_000,
                "model.layers.1.block_sparse_moe.experts.0.w1.weight 14336 4096",
            ),
        ),
        (
            "Phi 3 language model",
            "model.layers.0.self_attn.qkv_proj.weight 9216 3072
             model.layers.0.mlp.gate_up_proj.weight 16384 3072",
        ),
        (
            "Phi 2 language model",
            "model.layers.0.self_attn.dense.weight 2560 2560
             model.layers.0.mlp.fc1.weight 10240 2560",
        ),
        (
            "DeepSeek 2 language model",
            "model.layers.0.self_attn.kv_a_proj_with_mqa.weight 576 2048",
        ),
        (
            "GPT-2 language model",
            "h.0.attn.c_attn.weight 768 2304
             wpe.weight 1024 768",
        ),
        (
            "StarCoder language model",
            "transformer.h.0.attn.c_attn.weight 6400 6144",
        ),
        (
            "GPT-NeoX language model",
            "gpt_neox.embed_in.weight 50304 512
             gpt_neox.layers.0.attention.query_key_value.weight 1536 512",
        ),
        (
            "Falcon language model",
            "transformer.h.0.self_attention.query_key_value.weight 4672 4544
             transformer.word_embeddings.weight 65024 4544",
        ),
        (
            "OPT language model",
            "model.decoder.embed_positions.weight 2050 768
             model.decoder.layers.0.self_attn.q_proj.weight 768 768",
        ),
        (
            "Mamba language model",
            "backbone.layers.0.mixer.A_log 1536 16",
        ),
        // GPTQ packs each matrix into several tensors.
        (
            "~Llama language model",
            &decoder(32_000, "").replace("_proj.weight", "_proj.qweight"),
        ),
        (
            "Qwen 2 language model",
            &format!(
                "{}\n visual.blocks.0.attn.qkv.weight 3840 1280",
                decoder(151_936, biases)
            ),
        ),
    ]);
    let body = decoder(32_000, "").replace("model.", "");
    assert_eq!(kind(&body).role, Role::EmbeddingModel);
}

#[test]
fn encoders_are_known_by_their_bodies_and_heads() {
    let bert = |prefix: &str, types: usize, words: usize| {
        format!(
            "{prefix}embeddings.word_embeddings.weight {words} 384
             {prefix}embeddings.token_type_embeddings.weight {types} 384
             {prefix}encoder.layer.0.attention.self.query.weight 384 384"
        )
    };
    let bodies = bert("", 2, 30_522);
    assert_kinds(&[
        // sentence-transformers/all-MiniLM-L6-v2
        ("BERT embedding model", &bodies),
        (
            "BERT language model",
            &format!(
                "{}\n cls.predictions.transform.dense.weight 768 768",
                bert("bert.", 2, 30_522)
            ),
        ),
        (
            "BERT classifier",
            &format!("{}\n classifier.weight 2 384", bert("bert.", 2, 30_522)),
        ),
        (
            "RoBERTa language model",
            &format!(
                "{}\n lm_head.dense.weight 768 768",
                bert("roberta.", 1, 50_265)
            ),
        ),
        ("XLM-RoBERTa embedding model", &bert("", 1, 250_002)),
        (
            "MPNet embedding model",
            "encoder.layer.0.attention.attn.q.weight 768 768
             embeddings.word_embeddings.weight 30527 768",
        ),
        (
            "DistilBERT classifier",
            "distilbert.transformer.layer.0.attention.q_lin.weight 768 768
             pre_classifier.weight 768 768",
        ),
        (
            "SigLIP embedding model",
            "text_model.embeddings.token_embedding.weight 32000 768
             text_model.encoder.layers.0.mlp.fc1.weight 3072 768
             vision_model.head.probe 1 1 768",
        ),
        (
            "CLIP vision encoder",
            "vision_model.embeddings.class_embedding 1280
             vision_model.encoder.layers.0.mlp.fc1.weight 5120 1280
             visual_projection.weight 1024 1280",
        ),
        (
            "DINOv2 vision encoder",
            "embeddings.patch_embeddings.projection.weight 384 3 14 14
             encoder.layer.0.layer_scale1.lambda1 384",
        ),
        (
            "ViT classifier",
            "vit.embeddings.patch_embeddings.projection.weight 768 3 16 16
             vit.encoder.layer.0.attention.attention.query.weight 768 768
             classifier.weight 1000 768",
        ),
        (
            "Whisper speech model",
            "model.encoder.conv1.weight 384 80 3
             model.decoder.layers.0.encoder_attn.k_proj.weight 384 384",
        ),
        (
            "ESRGAN upscaler",
            "model.0.weight 64 3 3 3
             model.1.sub.0.RDB1.conv1.0.weight 32 64 3 3",
        ),
    ]);
}
