//! The shapes of Stable Diffusion XL: its UNet, its VAE, and LoRAs for the UNet.
//!
//! Names and shapes are those of diffusers' `UNet2DConditionModel` and `AutoencoderKL` with the
//! configuration of `stabilityai/stable-diffusion-xl-base-1.0`, and of LoRAs as kohya-ss's
//! sd-scripts write them.

use super::table::{Table, multiple};

/// The UNet, by the widths that vary.
pub struct Unet {
    /// Channels of the first level; the second has twice as many, the third four times.
    channels: usize,
    /// Transformer blocks in each attention of the second and third level.
    depths: [usize; 2],
    /// Width of the text that the cross attention looks at.
    text: usize,
    /// Width of pooled text and sizes of the picture.
    added: usize,
}

impl Unet {
    /// The real one at 1 and 1; narrower or wider, flatter or deeper otherwise.
    pub fn scaled(width: f64, depth: f64) -> Self {
        // Its heads have 64 channels; a narrow one would be configured with smaller ones.
        let step = if width * 320.0 < 96.0 { 16 } else { 64 };
        Self {
            channels: multiple(step, 320.0 * width),
            depths: [multiple(1, 2.0 * depth), multiple(1, 10.0 * depth)],
            text: multiple(64, 2048.0 * width),
            added: multiple(64, 2816.0 * width),
        }
    }

    /// Width of the embedded time step.
    fn time(&self) -> usize {
        4 * self.channels
    }

    fn level(&self, level: usize) -> usize {
        self.channels << level
    }

    /// Puts its tensors into `table`.
    pub fn fill(&self, table: &mut Table) {
        table.conv("conv_in", self.level(0), 4, 3);
        for (name, inputs) in [
            ("time_embedding", self.channels),
            ("add_embedding", self.added),
        ] {
            table.within(format_args!("{name}"), |table| {
                table.linear("linear_1", self.time(), inputs);
                table.linear("linear_2", self.time(), self.time());
            });
        }
        for level in 0..3 {
            table.within(format_args!("down_blocks.{level}"), |table| {
                self.down(table, level)
            });
        }
        table.within(format_args!("mid_block"), |table| {
            let width = self.level(2);
            self.resnets(table, &[width, width], width);
            self.attentions(table, 1, 2);
        });
        for block in 0..3 {
            table.within(format_args!("up_blocks.{block}"), |table| {
                self.up(table, 2 - block)
            });
        }
        table.norm("conv_norm_out", self.level(0));
        table.conv("conv_out", 4, self.level(0), 3);
    }

    fn down(&self, table: &mut Table, level: usize) {
        let width = self.level(level);
        self.resnets(table, &[self.level(level.saturating_sub(1)), width], width);
        self.attentions(table, 2, level);
        if level < 2 {
            table.conv("downsamplers.0.conv", width, width, 3);
        }
    }

    /// A level on the way up takes what came up and what was kept on the way down.
    fn up(&self, table: &mut Table, level: usize) {
        let width = self.level(level);
        let from = self.level((level + 1).min(2));
        let kept = self.level(level.saturating_sub(1));
        self.resnets(table, &[from + width, width + width, width + kept], width);
        self.attentions(table, 3, level);
        if level > 0 {
            table.conv("upsamplers.0.conv", width, width, 3);
        }
    }

    fn resnets(&self, table: &mut Table, inputs: &[usize], outputs: usize) {
        for (number, &inputs) in inputs.iter().enumerate() {
            table.within(format_args!("resnets.{number}"), |table| {
                resnet(table, inputs, outputs, Some(self.time()));
            });
        }
    }

    /// Transformer blocks in each attention of a level: none in the first.
    fn depth(&self, level: usize) -> usize {
        level.checked_sub(1).map_or(0, |at| self.depths[at])
    }

    fn attentions(&self, table: &mut Table, count: usize, level: usize) {
        if self.depth(level) == 0 {
            return;
        }
        let width = self.level(level);
        for number in 0..count {
            table.within(format_args!("attentions.{number}"), |table| {
                table.norm("norm", width);
                table.linear("proj_in", width, width);
                for block in 0..self.depth(level) {
                    table.within(format_args!("transformer_blocks.{block}"), |table| {
                        self.transformer(table, width);
                    });
                }
                table.linear("proj_out", width, width);
            });
        }
    }

    fn transformer(&self, table: &mut Table, width: usize) {
        for (name, looked_at) in [("attn1", width), ("attn2", self.text)] {
            table.within(format_args!("{name}"), |table| {
                table.matrix("to_q", width, width);
                table.matrix("to_k", width, looked_at);
                table.matrix("to_v", width, looked_at);
                table.linear("to_out.0", width, width);
            });
        }
        table.linear("ff.net.0.proj", 8 * width, width);
        table.linear("ff.net.2", width, 4 * width);
        for name in ["norm1", "norm2", "norm3"] {
            table.norm(name, width);
        }
    }
}

fn resnet(table: &mut Table, inputs: usize, outputs: usize, time: Option<usize>) {
    table.norm("norm1", inputs);
    table.conv("conv1", outputs, inputs, 3);
    if let Some(time) = time {
        table.linear("time_emb_proj", outputs, time);
    }
    table.norm("norm2", outputs);
    table.conv("conv2", outputs, outputs, 3);
    if inputs != outputs {
        table.conv("conv_shortcut", outputs, inputs, 1);
    }
}

/// The VAE at `width` times its real 128 channels. It has no depth that could vary.
pub fn vae(table: &mut Table, width: f64) {
    // Its norms have 32 groups; a narrow one would be configured with fewer.
    let step = if width * 128.0 < 96.0 { 8 } else { 32 };
    let channels = multiple(step, 128.0 * width);
    let levels = [channels, 2 * channels, 4 * channels, 4 * channels];
    let deepest = levels[3];
    let resnets = |table: &mut Table, first: usize, outputs: usize, count: usize| {
        for number in 0..count {
            let inputs = if number == 0 { first } else { outputs };
            table.within(format_args!("resnets.{number}"), |table| {
                resnet(table, inputs, outputs, None);
            });
        }
    };
    let mid = |table: &mut Table| {
        table.within(format_args!("mid_block"), |table| {
            table.within(format_args!("attentions.0"), |table| {
                table.norm("group_norm", deepest);
                for name in ["to_q", "to_k", "to_v", "to_out.0"] {
                    table.linear(name, deepest, deepest);
                }
            });
            resnets(table, deepest, deepest, 2);
        });
    };
    table.within(format_args!("encoder"), |table| {
        table.conv("conv_in", channels, 3, 3);
        for (number, &outputs) in levels.iter().enumerate() {
            table.within(format_args!("down_blocks.{number}"), |table| {
                resnets(table, levels[number.saturating_sub(1)], outputs, 2);
                if number < 3 {
                    table.conv("downsamplers.0.conv", outputs, outputs, 3);
                }
            });
        }
        mid(table);
        table.norm("conv_norm_out", deepest);
        table.conv("conv_out", 8, deepest, 3);
    });
    table.within(format_args!("decoder"), |table| {
        table.conv("conv_in", deepest, 4, 3);
        mid(table);
        for number in 0..4 {
            let outputs = levels[3 - number];
            table.within(format_args!("up_blocks.{number}"), |table| {
                resnets(table, levels[(4 - number).min(3)], outputs, 3);
                if number < 3 {
                    table.conv("upsamplers.0.conv", outputs, outputs, 3);
                }
            });
        }
        table.norm("conv_norm_out", channels);
        table.conv("conv_out", 3, channels, 3);
    });
    table.conv("quant_conv", 8, 8, 1);
    table.conv("post_quant_conv", 4, 4, 1);
}

/// The rank of the LoRA that [`lora`] makes at 1 and 1.
const RANK: f64 = 16.0;

/// A LoRA of the UNet of the same width and depth: for each matrix of its attentions two thin ones
/// and a number.
pub fn lora(table: &mut Table, width: f64, depth: f64) {
    let unet = Unet::scaled(width, depth);
    let rank = multiple(1, RANK * width.min(4.0));
    let mut whole = Table::keeping();
    unet.fill(&mut whole);
    for (name, shape) in whole.into_rows() {
        let (Some(module), &[outputs, inputs]) = (name.strip_suffix(".weight"), &shape[..]) else {
            continue;
        };
        if module.contains("attentions.") {
            table.within(
                format_args!("lora_unet_{}", module.replace('.', "_")),
                |table| {
                    table.put("alpha", &[]);
                    table.put("lora_down.weight", &[rank, inputs]);
                    table.put("lora_up.weight", &[outputs, rank]);
                },
            );
        }
    }
}
