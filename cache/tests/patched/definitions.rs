//! Models and patches with the names that upstream programs give, and what one makes of the other:
//! once in double precision by the definition, and once as [`merged`] has it, bit for bit.

use plimsoll_cache::Model;
use plimsoll_cache::patch::{Base as Weights, Factors, Patch, Strictness, Term, merged};
use safetensors::Dtype;
use tempfile::TempDir;

use super::files::{File, decode, encode};
use super::support::content;

pub const ATTENTION: &str = "down_blocks.0.attentions.0.transformer_blocks.0";
pub const LAYER: &str = "text_model.encoder.layers.0";
pub const WORDS: &str = "text_model.embeddings.token_embedding.weight";
pub const LLAMA: &str = "model.layers.0.self_attn";

/// Numbers between -1 and 1 as they are once they were written in that type.
pub fn numbers(dtype: Dtype, seed: &str, count: usize) -> Vec<f64> {
    let bytes = content(seed, 1, 2 * count);
    let numbers = bytes.as_chunks().0.iter();
    let numbers = numbers.map(|two| f64::from(i16::from_le_bytes(*two)) / 32768.0);
    decode(dtype, &encode(dtype, &numbers.collect::<Vec<_>>()))
}

/// A tensor of a model, with its numbers.
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub numbers: Vec<f64>,
    pub bytes: Vec<u8>,
}

/// A model to be patched.
pub struct Base {
    pub model: Model,
    pub dtype: Dtype,
    pub tensors: Vec<Tensor>,
}

impl Base {
    pub fn new(folder: &TempDir, name: &str, dtype: Dtype, tensors: &[(&str, &[usize])]) -> Base {
        let mut file = File::new();
        let mut known = Vec::new();
        for (tensor, shape) in tensors {
            let seed = format!("{name} {tensor}");
            let numbers = numbers(dtype, &seed, shape.iter().product());
            file = file.with(tensor, dtype, shape, &numbers);
            known.push(Tensor {
                name: (*tensor).to_owned(),
                shape: shape.to_vec(),
                bytes: encode(dtype, &numbers),
                numbers,
            });
        }
        Base {
            model: file.model(folder, name),
            dtype,
            tensors: known,
        }
    }

    /// A UNet of diffusers.
    pub fn unet(folder: &TempDir, dtype: Dtype) -> Base {
        let at = |name: &str| format!("{ATTENTION}.{name}.weight");
        Base::new(
            folder,
            &format!("unet-{dtype:?}"),
            dtype,
            &[
                ("conv_in.weight", &[8, 4, 3, 3]),
                ("conv_in.bias", &[8]),
                ("down_blocks.0.resnets.0.conv1.weight", &[8, 8, 3, 3]),
                ("down_blocks.0.attentions.0.proj_in.weight", &[8, 8, 1, 1]),
                (&at("attn1.to_q"), &[8, 8]),
                (&at("attn2.to_k"), &[8, 6]),
                (&at("ff.net.0.proj"), &[64, 8]),
            ],
        )
    }

    /// A text encoder of CLIP.
    pub fn clip(folder: &TempDir, dtype: Dtype) -> Base {
        let at = |name: &str| format!("{LAYER}.{name}.weight");
        Base::new(
            folder,
            &format!("clip-{dtype:?}"),
            dtype,
            &[
                (WORDS, &[50, 8]),
                (&at("self_attn.q_proj"), &[8, 8]),
                (&at("self_attn.out_proj"), &[8, 8]),
                (&at("mlp.fc1"), &[32, 8]),
            ],
        )
    }

    /// A language model, with the names of its own program or those of llama.cpp.
    pub fn llama(folder: &TempDir, dtype: Dtype) -> Base {
        Base::new(
            folder,
            &format!("llama-{dtype:?}"),
            dtype,
            &[
                (&format!("{LLAMA}.q_proj.weight"), &[8, 6]),
                (&format!("{LLAMA}.v_proj.weight"), &[4, 6]),
                ("blk.0.attn_q.weight", &[2, 32]),
                ("lm_head.weight", &[10, 6]),
            ],
        )
    }

    pub fn tensor(&self, name: &str) -> &Tensor {
        let mut tensors = self.tensors.iter();
        tensors.find(|tensor| tensor.name == name).unwrap()
    }

    /// A tensor with patches, in double precision: each number, and the sum of absolute values in
    /// it. With it how many numbers were rounded on the way.
    pub fn exact(&self, name: &str, with: &[(&Lora, f64)]) -> (Vec<(f64, f64)>, usize) {
        let tensor = self.tensor(name);
        let mut all: Vec<(f64, f64)> = tensor.numbers.iter().map(|x| (*x, x.abs())).collect();
        let mut roundings = 4;
        for (lora, strength) in with {
            for change in lora.of(name) {
                roundings += change.roundings();
                change.make(&tensor.shape, *strength, &mut all);
            }
        }
        (all, roundings)
    }

    /// A tensor with patches as [`merged`] makes it, with its shape.
    pub fn merged(&self, name: &str, with: &[(&Lora, f64)]) -> (Vec<u8>, Vec<usize>) {
        let mut factors = Vec::new();
        let (at, info) = self.model.tensor(name).unwrap();
        for (lora, strength) in with.iter().filter(|(_, strength)| *strength != 0.0) {
            let fit = lora.patch.fit(&self.model, Strictness::Strict).unwrap();
            for edit in fit.edits.iter().filter(|edit| edit.target == at) {
                let read = Factors::read(&lora.patch, &edit.change).unwrap();
                factors.push((read, *strength));
            }
        }
        let terms = factors.iter().map(|(factors, strength)| Term {
            factors,
            strength: *strength,
        });
        let base = Weights {
            dtype: info.dtype,
            shape: &info.shape,
            bytes: &self.tensor(name).bytes,
        };
        let merged = merged(base, &terms.collect::<Vec<_>>()).unwrap();
        (merged.bytes, merged.shape)
    }
}

/// What a patch does to one tensor.
#[derive(Debug)]
pub struct Change {
    pub target: String,
    pub form: Form,
}

#[derive(Debug)]
pub enum Form {
    LowRank {
        rank: usize,
        alpha: Option<f64>,
        down: Vec<f64>,
        up: Vec<f64>,
        /// With its number of points.
        mid: Option<(Vec<f64>, usize)>,
    },
    Difference(Vec<f64>),
    Rows(Vec<f64>),
}

impl Change {
    fn roundings(&self) -> usize {
        match &self.form {
            Form::LowRank { rank, mid, .. } => 2 * rank * (1 + usize::from(mid.is_some())) + 4,
            Form::Difference(_) | Form::Rows(_) => 2,
        }
    }

    fn make(&self, shape: &[usize], strength: f64, all: &mut Vec<(f64, f64)>) {
        let mut add = |at: usize, what: f64, size: f64| {
            all[at].0 += strength * what;
            all[at].1 += (strength * size).abs();
        };
        match &self.form {
            Form::Difference(numbers) => {
                numbers
                    .iter()
                    .enumerate()
                    .for_each(|(at, x)| add(at, *x, *x));
            }
            Form::Rows(_) if strength == 0.0 => {}
            Form::Rows(numbers) => {
                let numbers = numbers.iter().map(|x| strength * x);
                all.extend(numbers.map(|x| (x, x.abs())));
            }
            Form::LowRank {
                rank,
                alpha,
                down,
                up,
                mid,
            } => {
                let by = alpha.map_or(1.0, |alpha| alpha / *rank as f64);
                let columns: usize = shape[1..].iter().product();
                let inner = |p: usize, column: usize| match mid {
                    None => down[p * columns + column],
                    Some((core, points)) => {
                        let (i, k) = (column / points, column % points);
                        let inputs = columns / points;
                        let terms = (0..*rank)
                            .map(|q| core[(p * rank + q) * points + k] * down[q * inputs + i]);
                        terms.sum()
                    }
                };
                for at in 0..shape[0] * columns {
                    let terms =
                        (0..*rank).map(|p| up[at / columns * rank + p] * inner(p, at % columns));
                    let (sum, size) =
                        terms.fold((0.0, 0.0), |(sum, size), x: f64| (sum + x, size + x.abs()));
                    add(at, by * sum, by * size);
                }
            }
        }
    }
}

/// A patch, and what it does by its definition.
pub struct Lora {
    pub patch: Patch,
    pub changes: Vec<Change>,
}

impl Lora {
    pub fn of(&self, name: &str) -> impl Iterator<Item = &Change> {
        self.changes
            .iter()
            .filter(move |change| change.target == name)
    }
}

/// Half a unit in the last place of that type at that number.
pub fn half_ulp(dtype: Dtype, number: f64) -> f64 {
    let (digits, least) = match dtype {
        Dtype::F16 => (10, -14),
        Dtype::BF16 => (7, -126),
        _ => (23, -126),
    };
    let exponent = (number.abs().log2().floor() as i32).max(least);
    f64::from(exponent - digits - 1).exp2()
}

/// Whether numbers of that type are exact ones, rounded once.
#[track_caller]
pub fn rounded_once(dtype: Dtype, found: &[f64], exact: &[(f64, f64)], roundings: usize) {
    assert_eq!(found.len(), exact.len());
    for (at, (found, (exact, size))) in found.iter().zip(exact).enumerate() {
        let bound = half_ulp(dtype, *exact).max(half_ulp(dtype, *found))
            + size * (2 * roundings) as f64 / (1_u64 << 53) as f64;
        let away = (found - exact).abs();
        assert!(
            away <= bound,
            "{at}: {found} and not {exact}: {away} > {bound}"
        );
    }
}
