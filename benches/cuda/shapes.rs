//! The tensors of the models that are measured: Stable Diffusion XL's four, FLUX.1-dev's
//! transformer, Llama 3.1 8B. Names and shapes are those of diffusers and transformers.

#[allow(dead_code, reason = "shared with the synthetic sets, which have more")]
#[path = "../../src/synthetic/diffusion.rs"]
mod diffusion;
#[allow(dead_code, reason = "as above")]
#[path = "../../src/synthetic/language.rs"]
mod language;
#[allow(dead_code, reason = "as above")]
#[path = "../../src/synthetic/table.rs"]
mod table;

use std::str::FromStr;

use safetensors::Dtype;

use diffusion::Unet;
use language::{CLIP_L, Llama, OPEN_CLIP_BIG_G};
use table::Table;

/// Models that are loaded together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    Sdxl,
    Flux,
    Llama,
}

impl Set {
    pub const ALL: [Set; 3] = [Set::Sdxl, Set::Flux, Set::Llama];

    pub fn name(self) -> &'static str {
        match self {
            Set::Sdxl => "sdxl",
            Set::Flux => "flux",
            Set::Llama => "llama",
        }
    }

    /// Its models, at their real sizes, or scaled down to try the program out.
    pub fn models(self, is_quick: bool) -> Vec<Planned> {
        let (width, depth) = if is_quick { (0.25, 0.25) } else { (1.0, 1.0) };
        match self {
            Set::Sdxl => vec![
                Planned::new("unet", Dtype::F16, |table| {
                    Unet::scaled(width, depth).fill(table);
                }),
                Planned::new("clip-l", Dtype::F16, |table| {
                    CLIP_L.fill(table, width, depth);
                }),
                Planned::new("clip-g", Dtype::F16, |table| {
                    OPEN_CLIP_BIG_G.fill(table, width, depth);
                }),
                Planned::new("vae", Dtype::F16, |table| diffusion::vae(table, width)),
            ],
            Set::Flux => {
                let flux = if is_quick { FLUX_SMALL } else { FLUX_DEV };
                vec![Planned::new("flux", Dtype::BF16, |table| flux.fill(table))]
            }
            Set::Llama => vec![Planned::new("llama-8b", Dtype::BF16, |table| {
                LLAMA_8B.fill(table, width, depth);
            })],
        }
    }
}

impl FromStr for Set {
    type Err = String;

    fn from_str(name: &str) -> Result<Set, String> {
        let found = Set::ALL.into_iter().find(|set| set.name() == name);
        found.ok_or_else(|| {
            let name = name.escape_debug();
            format!("no models `{name}`: sdxl, flux or llama")
        })
    }
}

/// A model that is to be a file.
#[derive(Debug, Clone)]
pub struct Planned {
    pub name: &'static str,
    pub dtype: Dtype,
    pub tensors: Vec<(String, Vec<usize>)>,
}

impl Planned {
    fn new(name: &'static str, dtype: Dtype, fill: impl FnOnce(&mut Table)) -> Planned {
        let mut table = Table::keeping();
        fill(&mut table);
        Planned {
            name,
            dtype,
            tensors: table.into_rows(),
        }
    }

    /// What a forward pass is measured on: the second part of each layer of a Llama, which is
    /// three quarters of its bytes.
    pub fn mlp(hidden: usize, inner: usize, layers: usize) -> Planned {
        Planned::new("mlp", Dtype::BF16, |table| {
            for layer in 0..layers {
                table.within(format_args!("layers.{layer}"), |table| {
                    table.matrix("gate_proj", inner, hidden);
                    table.matrix("up_proj", inner, hidden);
                    table.matrix("down_proj", hidden, inner);
                });
            }
        })
    }

    pub fn parameters(&self) -> u64 {
        let elements = |shape: &[usize]| shape.iter().map(|size| *size as u64).product::<u64>();
        self.tensors.iter().map(|(_, shape)| elements(shape)).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.parameters() * self.dtype.bitsize() as u64 / 8
    }
}

/// Llama 3.1 8B.
const LLAMA_8B: Llama = Llama {
    head: 128,
    heads: 32.0,
    inner: 14336.0,
    layers: 32.0,
    words: 128_256.0,
    tied: false,
};

/// The transformer of FLUX.1, by diffusers' `FluxTransformer2DModel`.
#[derive(Clone, Copy)]
struct Flux {
    hidden: usize,
    /// Blocks that have text and picture apart.
    double: usize,
    /// Blocks that have both together.
    single: usize,
}

const FLUX_DEV: Flux = Flux {
    hidden: 3072,
    double: 19,
    single: 38,
};

const FLUX_SMALL: Flux = Flux {
    hidden: 768,
    double: 3,
    single: 6,
};

/// Widths that do not follow the hidden one: a head, latent channels, T5's text, CLIP's pooled text,
/// the embedded time step.
const HEAD: usize = 128;
const LATENT: usize = 64;
const TEXT: usize = 4096;
const POOLED: usize = 768;
const STEP: usize = 256;

impl Flux {
    fn fill(self, table: &mut Table) {
        let hidden = self.hidden;
        table.linear("x_embedder", hidden, LATENT);
        table.linear("context_embedder", hidden, TEXT);
        table.within(format_args!("time_text_embed"), |table| {
            for (name, inputs) in [
                ("timestep_embedder", STEP),
                ("guidance_embedder", STEP),
                ("text_embedder", POOLED),
            ] {
                table.within(format_args!("{name}"), |table| {
                    table.linear("linear_1", hidden, inputs);
                    table.linear("linear_2", hidden, hidden);
                });
            }
        });
        for block in 0..self.double {
            table.within(format_args!("transformer_blocks.{block}"), |table| {
                table.linear("norm1.linear", 6 * hidden, hidden);
                table.linear("norm1_context.linear", 6 * hidden, hidden);
                table.within(format_args!("attn"), |table| {
                    for name in ["to_q", "to_k", "to_v", "to_out.0"] {
                        table.linear(name, hidden, hidden);
                    }
                    for name in ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"] {
                        table.linear(name, hidden, hidden);
                    }
                    for name in ["norm_q", "norm_k", "norm_added_q", "norm_added_k"] {
                        table.scale_norm(name, HEAD);
                    }
                });
                for name in ["ff", "ff_context"] {
                    table.within(format_args!("{name}"), |table| {
                        table.linear("net.0.proj", 4 * hidden, hidden);
                        table.linear("net.2", hidden, 4 * hidden);
                    });
                }
            });
        }
        for block in 0..self.single {
            table.within(format_args!("single_transformer_blocks.{block}"), |table| {
                table.linear("norm.linear", 3 * hidden, hidden);
                table.linear("proj_mlp", 4 * hidden, hidden);
                table.linear("proj_out", hidden, 5 * hidden);
                table.within(format_args!("attn"), |table| {
                    for name in ["to_q", "to_k", "to_v"] {
                        table.linear(name, hidden, hidden);
                    }
                    for name in ["norm_q", "norm_k"] {
                        table.scale_norm(name, HEAD);
                    }
                });
            });
        }
        table.linear("norm_out.linear", 2 * hidden, hidden);
        table.linear("proj_out", LATENT, hidden);
    }
}
