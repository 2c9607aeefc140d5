//! The shapes of language models and text encoders: CLIP, T5, Llama.
//!
//! Names and shapes are those of Hugging Face's transformers. Each has its real size at width 1 and
//! depth 1; elsewhere, vocabularies shrink and grow with width × depth, as the layers' part of the
//! model does relative to their width, so that embeddings keep their share.

use super::table::{Table, multiple};

/// Rows of a vocabulary of `real` rows.
fn vocabulary(real: f64, width: f64, depth: f64) -> usize {
    multiple(64, real * width * depth)
}

/// A text encoder of CLIP.
pub struct Clip {
    hidden: f64,
    layers: f64,
    projected: bool,
}

/// CLIP ViT-L/14, the first text encoder of Stable Diffusion XL.
pub const CLIP_L: Clip = Clip {
    hidden: 768.0,
    layers: 12.0,
    projected: false,
};

/// OpenCLIP ViT-bigG/14, the second.
pub const OPEN_CLIP_BIG_G: Clip = Clip {
    hidden: 1280.0,
    layers: 32.0,
    projected: true,
};

impl Clip {
    /// Puts its tensors into `table`.
    pub fn fill(&self, table: &mut Table, width: f64, depth: f64) {
        let hidden = multiple(64, self.hidden * width);
        table.within(format_args!("text_model"), |table| {
            let words = vocabulary(49408.0, width, depth);
            table.matrix("embeddings.token_embedding", words, hidden);
            table.matrix("embeddings.position_embedding", 77, hidden);
            for layer in 0..multiple(1, self.layers * depth) {
                table.within(format_args!("encoder.layers.{layer}"), |table| {
                    for name in ["k_proj", "v_proj", "q_proj", "out_proj"] {
                        table.within(format_args!("self_attn"), |table| {
                            table.linear(name, hidden, hidden);
                        });
                    }
                    table.norm("layer_norm1", hidden);
                    table.linear("mlp.fc1", 4 * hidden, hidden);
                    table.linear("mlp.fc2", hidden, 4 * hidden);
                    table.norm("layer_norm2", hidden);
                });
            }
            table.norm("final_layer_norm", hidden);
        });
        if self.projected {
            table.matrix("text_projection", hidden, hidden);
        }
    }
}

/// The encoder of T5 v1.1 XL.
pub fn t5_encoder(table: &mut Table, width: f64, depth: f64) {
    let hidden = multiple(64, 2048.0 * width);
    let inner = multiple(64, 5120.0 * width);
    let heads = hidden / 64;
    table.matrix("shared", vocabulary(32128.0, width, depth), hidden);
    table.within(format_args!("encoder"), |table| {
        for block in 0..multiple(1, 24.0 * depth) {
            table.within(format_args!("block.{block}.layer.0"), |table| {
                table.within(format_args!("SelfAttention"), |table| {
                    for name in ["q", "k", "v", "o"] {
                        table.matrix(name, hidden, hidden);
                    }
                    if block == 0 {
                        table.matrix("relative_attention_bias", 32, heads);
                    }
                });
                table.scale_norm("layer_norm", hidden);
            });
            table.within(format_args!("block.{block}.layer.1"), |table| {
                table.matrix("DenseReluDense.wi_0", inner, hidden);
                table.matrix("DenseReluDense.wi_1", inner, hidden);
                table.matrix("DenseReluDense.wo", hidden, inner);
                table.scale_norm("layer_norm", hidden);
            });
        }
        table.scale_norm("final_layer_norm", hidden);
    });
}

/// A model of the Llama family, with grouped-query attention.
pub struct Llama {
    /// Width of a head.
    pub head: usize,
    /// Heads of the queries.
    pub heads: f64,
    /// Width between the matrices of the second part of a layer.
    pub inner: f64,
    /// Layers.
    pub layers: f64,
    /// Rows of the vocabulary.
    pub words: f64,
    /// Whether the last matrix is that of the embedding.
    pub tied: bool,
}

/// Mistral 7B v0.1, the model of that size that has Llama's form with grouped queries.
pub const LLAMA_7B: Llama = Llama {
    head: 128,
    heads: 32.0,
    inner: 14336.0,
    layers: 32.0,
    words: 32000.0,
    tied: false,
};

/// Llama 3.2 1B.
pub const LLAMA_1B: Llama = Llama {
    head: 64,
    heads: 32.0,
    inner: 8192.0,
    layers: 16.0,
    words: 128_256.0,
    tied: true,
};

impl Llama {
    /// Puts its tensors into `table`.
    pub fn fill(&self, table: &mut Table, width: f64, depth: f64) {
        let heads = multiple(1, self.heads * width);
        // Four queries share a key where the number of heads allows it, as in the real ones.
        let groups = (1..=(heads / 4).max(1))
            .rev()
            .find(|groups| heads.is_multiple_of(*groups));
        let shared = groups.unwrap_or(1) * self.head;
        let hidden = heads * self.head;
        let inner = multiple(64, self.inner * width);
        let words = vocabulary(self.words, width, depth);
        table.within(format_args!("model"), |table| {
            table.matrix("embed_tokens", words, hidden);
            for layer in 0..multiple(1, self.layers * depth) {
                table.within(format_args!("layers.{layer}"), |table| {
                    table.scale_norm("input_layernorm", hidden);
                    table.matrix("mlp.down_proj", hidden, inner);
                    table.matrix("mlp.gate_proj", inner, hidden);
                    table.matrix("mlp.up_proj", inner, hidden);
                    table.scale_norm("post_attention_layernorm", hidden);
                    table.matrix("self_attn.k_proj", shared, hidden);
                    table.matrix("self_attn.o_proj", hidden, hidden);
                    table.matrix("self_attn.q_proj", hidden, hidden);
                    table.matrix("self_attn.v_proj", shared, hidden);
                });
            }
            table.scale_norm("norm", hidden);
        });
        if !self.tied {
            table.matrix("lm_head", words, hidden);
        }
    }
}
