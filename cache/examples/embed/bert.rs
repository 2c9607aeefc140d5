//! A sentence's meaning as a vector: BERT's encoder, its last states averaged, and made one long.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use candle_core::{D, Device, Tensor};
use plimsoll_cache::Leased;
use serde::Deserialize;
use serde::de::DeserializeOwned;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The model. Its tensors are views of the leased weights; under storage `heap` they are copies, so
/// each is asked for once.
pub struct Bert {
    tensors: HashMap<String, Tensor>,
    config: Config,
    limits: Limits,
}

/// `config.json`, as far as it matters.
#[derive(Deserialize)]
struct Config {
    model_type: String,
    hidden_act: String,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    layer_norm_eps: f64,
}

/// `sentence_bert_config.json`.
#[derive(Deserialize)]
struct Limits {
    max_seq_length: usize,
}

impl Bert {
    /// The model whose weights are leased, with the settings beside its file.
    ///
    /// # Errors
    /// Where the settings cannot be read or are of another kind of model.
    pub fn new(weights: &Leased<'_>, folder: &Path) -> Result<Bert> {
        let config: Config = read(&folder.join("config.json"))?;
        let (kind, activation) = (&config.model_type, &config.hidden_act);
        if kind != "bert" || activation != "gelu" {
            let folder = folder.display();
            return Err(
                format!("{folder}: {kind:?} with {activation:?} is no bert with gelu").into(),
            );
        }
        let names = weights.tensors().iter().map(|tensor| &tensor.name);
        Ok(Bert {
            tensors: names
                .map(|name| Ok((name.to_string(), weights.tensor(name)?)))
                .collect::<Result<_>>()?,
            config,
            limits: read(&folder.join("sentence_bert_config.json"))?,
        })
    }

    /// The most tokens of a sentence that it reads.
    pub fn longest(&self) -> usize {
        self.limits.max_seq_length
    }

    /// The vector of a sentence. One at a time, so that there is no padding to mask.
    ///
    /// # Errors
    /// Where a tensor is not there, or not of the shape that the settings tell.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let words = self.tensor("embeddings.word_embeddings.weight")?;
        let words = words.index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)?;
        let positions = self.tensor("embeddings.position_embeddings.weight")?;
        let positions = positions.narrow(0, 0, tokens.len())?;
        // A second kind is for a second sentence.
        let kinds = self.tensor("embeddings.token_type_embeddings.weight")?;
        let sum = (words + positions)?.broadcast_add(&kinds.narrow(0, 0, 1)?)?;
        let mut state = self.norm(&sum, "embeddings.LayerNorm")?;
        for layer in 0..self.config.num_hidden_layers {
            let at = |part: &str| format!("encoder.layer.{layer}.{part}");
            let context = self.attention(&state, &at("attention.self"))?;
            let attended = self.linear(&context, &at("attention.output.dense"))?;
            state = self.norm(&(attended + &state)?, &at("attention.output.LayerNorm"))?;
            let inner = self.linear(&state, &at("intermediate.dense"))?.gelu_erf()?;
            let outer = self.linear(&inner, &at("output.dense"))?;
            state = self.norm(&(outer + &state)?, &at("output.LayerNorm"))?;
        }
        let mean = state.mean(0)?;
        let length = mean.sqr()?.sum_all()?.sqrt()?;
        Ok(mean.broadcast_div(&length)?.to_vec1()?)
    }

    fn attention(&self, state: &Tensor, name: &str) -> Result<Tensor> {
        let (tokens, hidden) = state.dims2()?;
        let heads = |part: &str| -> Result<Tensor> {
            let all = self.linear(state, &format!("{name}.{part}"))?;
            let heads = all.reshape((tokens, self.config.num_attention_heads, ()))?;
            Ok(heads.transpose(0, 1)?.contiguous()?)
        };
        let (query, key, value) = (heads("query")?, heads("key")?, heads("value")?);
        let width = query.dim(D::Minus1)? as f64;
        let scores = (query.matmul(&key.t()?)? / width.sqrt())?;
        let highest = scores.max_keepdim(D::Minus1)?;
        let powers = scores.broadcast_sub(&highest)?.exp()?;
        let shares = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
        let context = shares.matmul(&value)?.transpose(0, 1)?;
        Ok(context.reshape((tokens, hidden))?)
    }

    fn linear(&self, state: &Tensor, name: &str) -> Result<Tensor> {
        let product = state.matmul(&self.tensor(&format!("{name}.weight"))?.t()?)?;
        Ok(product.broadcast_add(self.tensor(&format!("{name}.bias"))?)?)
    }

    fn norm(&self, state: &Tensor, name: &str) -> Result<Tensor> {
        let centred = state.broadcast_sub(&state.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let deviation = (variance + self.config.layer_norm_eps)?.sqrt()?;
        let scaled = centred.broadcast_div(&deviation)?;
        let scaled = scaled.broadcast_mul(self.tensor(&format!("{name}.weight"))?)?;
        Ok(scaled.broadcast_add(self.tensor(&format!("{name}.bias"))?)?)
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        let tensor = self.tensors.get(name);
        tensor.ok_or_else(|| format!("the model has no tensor {name}").into())
    }
}

/// How alike two sentences are: the cosine of the angle between their vectors, 1 for the same.
pub fn similarity(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let at = |error: &dyn Error| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| at(&error))?;
    Ok(serde_json::from_str(&text).map_err(|error| at(&error))?)
}
