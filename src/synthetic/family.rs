//! The families of models, and how each is brought to a size.

use super::diffusion::{Unet, lora, vae};
use super::language::{CLIP_L, LLAMA_1B, LLAMA_7B, OPEN_CLIP_BIG_G, t5_encoder};
use super::table::Table;

/// An architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The UNet of Stable Diffusion XL.
    SdxlUnet,
    /// Its VAE.
    SdxlVae,
    /// Its first text encoder.
    ClipL,
    /// Its second text encoder.
    OpenClipBigG,
    /// A LoRA for its UNet.
    SdxlLora,
    /// The encoder of T5 v1.1 XL.
    T5Encoder,
    /// Llama's form at 7 billion parameters.
    Llama7b,
    /// Llama's form at 1 billion parameters.
    Llama1b,
}

impl Family {
    /// Puts the tensors of the model that is `width` times as wide and `depth` times as deep as the
    /// real one into `table`.
    pub fn fill(self, table: &mut Table, width: f64, depth: f64) {
        match self {
            Self::SdxlUnet => Unet::scaled(width, depth).fill(table),
            Self::SdxlVae => vae(table, width),
            Self::ClipL => CLIP_L.fill(table, width, depth),
            Self::OpenClipBigG => OPEN_CLIP_BIG_G.fill(table, width, depth),
            Self::SdxlLora => lora(table, width, depth),
            Self::T5Encoder => t5_encoder(table, width, depth),
            Self::Llama7b => LLAMA_7B.fill(table, width, depth),
            Self::Llama1b => LLAMA_1B.fill(table, width, depth),
        }
    }

    fn elements(self, width: f64, depth: f64) -> u64 {
        let mut table = Table::default();
        self.fill(&mut table, width, depth);
        table.elements()
    }

    /// The names and shapes of the model of this family that has about `elements` elements.
    ///
    /// Widths come in steps (a head, a group of a norm), and so does depth. Of some depths around
    /// the one that keeps the real ratio of width to depth, each with the width that then fits
    /// best, the one is taken that comes nearest to the size and, among those near, to that ratio.
    pub fn sized(self, elements: u64) -> Vec<(String, Vec<usize>)> {
        let wanted = elements as f64;
        // Elements grow with the square of the width and with the depth.
        let even = (wanted / self.elements(1.0, 1.0) as f64).cbrt();
        let mut best = (f64::INFINITY, 1.0, 1.0);
        for step in -6..=6 {
            let depth = even * 1.15_f64.powi(step);
            for width in self.widths(wanted, depth, even) {
                let miss = (self.elements(width, depth) as f64 / wanted).ln().abs();
                // A tenth of the size weighs as much as a quarter of the ratio.
                let cost = miss + 0.4 * (width / depth).ln().abs();
                if cost < best.0 {
                    best = (cost, width, depth);
                }
            }
        }
        let mut table = Table::keeping();
        self.fill(&mut table, best.1, best.2);
        table.into_rows()
    }

    /// The largest width that is not too large, and the smallest that is, for a depth.
    fn widths(self, wanted: f64, depth: f64, around: f64) -> [f64; 2] {
        let (mut below, mut above) = (around / 16.0, around * 16.0);
        for _ in 0..14 {
            let middle = (below * above).sqrt();
            if self.elements(middle, depth) as f64 > wanted {
                above = middle;
            } else {
                below = middle;
            }
        }
        [below, above]
    }
}
