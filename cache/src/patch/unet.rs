//! The two names that every module of a Stable Diffusion UNet has: CompVis', by the number of its
//! block from the input on, and diffusers', by level.
//!
//! kohya-ss' adapters of SDXL have the former, most others the latter, whichever the model has. How
//! they correspond follows from the number of levels and of layers in each
//! (`convert_ldm_unet_checkpoint` in diffusers' `single_file_utils.py`, `unet_to_diffusers` in
//! ComfyUI's `utils.py`).

/// More levels, or layers of one, no UNet has.
const MOST: usize = 8;

/// Modules by both names, CompVis' first.
const FIXED: [(&str, &str); 10] = [
    ("input_blocks.0.0", "conv_in"),
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
    ("middle_block.1", "mid_block.attentions.0"),
    ("middle_block.0", "mid_block.resnets.0"),
    ("middle_block.2", "mid_block.resnets.1"),
];

/// The layers of a residual block.
const RESIDUAL: [(&str, &str); 6] = [
    (".in_layers.0", ".norm1"),
    (".in_layers.2", ".conv1"),
    (".emb_layers.1", ".time_emb_proj"),
    (".out_layers.0", ".norm2"),
    (".out_layers.3", ".conv2"),
    (".skip_connection", ".conv_shortcut"),
];

/// The modules of a UNet by both names, CompVis' first.
pub(super) struct Unet {
    pairs: Vec<(String, String)>,
}

impl Unet {
    /// The UNet that has modules of these names, without prefixes; `None` if they are of none.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Option<Unet> {
        let (mut levels, mut layers) = (0, 0);
        // Where CompVis' UNets halve the size.
        let (mut halvings, mut first) = (0, usize::MAX);
        for name in names {
            if let Some((level, rest)) = numbered(name, "down_blocks.") {
                levels = levels.max(level.saturating_add(1));
                if let Some((layer, _)) = numbered(rest, "resnets.") {
                    layers = layers.max(layer.saturating_add(1));
                }
            }
            if let Some((at, "0.op")) = numbered(name, "input_blocks.") {
                halvings += 1;
                first = first.min(at);
            }
        }
        if layers == 0 && halvings > 0 {
            (levels, layers) = (halvings + 1, first.saturating_sub(1));
        }
        let is_some = (1..=MOST).contains(&levels) && (1..=MOST).contains(&layers);
        is_some.then(|| Unet::with(levels, layers))
    }

    fn with(levels: usize, layers: usize) -> Unet {
        let fixed = FIXED.iter();
        let fixed = fixed.map(|(theirs, other)| ((*theirs).to_owned(), (*other).to_owned()));
        let mut pairs: Vec<(String, String)> = fixed.collect();
        let mut pair = |theirs: String, other: String| pairs.push((theirs, other));
        let mut at = 1;
        for level in 0..levels {
            for layer in 0..layers {
                let block = format!("down_blocks.{level}");
                pair(
                    format!("input_blocks.{at}.0"),
                    format!("{block}.resnets.{layer}"),
                );
                pair(
                    format!("input_blocks.{at}.1"),
                    format!("{block}.attentions.{layer}"),
                );
                at += 1;
            }
            if level + 1 < levels {
                let other = format!("down_blocks.{level}.downsamplers.0.conv");
                pair(format!("input_blocks.{at}.0.op"), other);
                at += 1;
            }
        }
        for level in 0..levels {
            for layer in 0..=layers {
                let block = format!("up_blocks.{level}");
                let at = level * (layers + 1) + layer;
                pair(
                    format!("output_blocks.{at}.0"),
                    format!("{block}.resnets.{layer}"),
                );
                pair(
                    format!("output_blocks.{at}.1"),
                    format!("{block}.attentions.{layer}"),
                );
                if layer == layers && level + 1 < levels {
                    // Behind the attention, where the level has one.
                    for place in [1, 2] {
                        let other = format!("{block}.upsamplers.0.conv");
                        pair(format!("output_blocks.{at}.{place}.conv"), other);
                    }
                }
            }
        }
        Unet { pairs }
    }

    /// The other names of a module.
    pub(super) fn others(&self, name: &str) -> impl Iterator<Item = String> {
        self.pairs.iter().filter_map(move |(theirs, other)| {
            if let Some(rest) = under(name, theirs) {
                let is_residual = other.contains("resnets.");
                return Some(format!("{other}{}", inner(rest, is_residual, false)?));
            }
            let rest = under(name, other)?;
            let is_residual = other.contains("resnets.");
            Some(format!("{theirs}{}", inner(rest, is_residual, true)?))
        })
    }
}

/// What follows a module's name in that of one within it.
fn under<'a>(name: &'a str, module: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(module)?;
    (rest.is_empty() || rest.starts_with('.')).then_some(rest)
}

fn inner(rest: &str, is_residual: bool, to_theirs: bool) -> Option<&str> {
    if !is_residual {
        return Some(rest);
    }
    let mut layers = RESIDUAL.iter();
    layers.find_map(|(theirs, other)| match to_theirs {
        true => (*other == rest).then_some(*theirs),
        false => (*theirs == rest).then_some(*other),
    })
}

/// The number behind the beginning of a name, and what follows the dot behind that.
fn numbered<'a>(name: &'a str, before: &str) -> Option<(usize, &'a str)> {
    let (number, rest) = name.strip_prefix(before)?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn are_one(unet: &Unet, theirs: &str, other: &str) {
        let of = |name| unet.others(name).collect::<Vec<_>>();
        assert!(
            of(theirs).contains(&other.to_owned()),
            "{theirs}: {:?}",
            of(theirs)
        );
        assert!(
            of(other).contains(&theirs.to_owned()),
            "{other}: {:?}",
            of(other)
        );
    }

    #[test]
    fn modules_of_sdxl_and_of_the_first_stable_diffusion_have_both_names() {
        let sdxl = [
            "down_blocks.2.attentions.1.proj_in",
            "down_blocks.0.resnets.1.conv1",
        ];
        let sdxl = Unet::of(sdxl.into_iter()).unwrap_or_else(|| panic!("no UNet"));
        for (theirs, other) in [
            ("input_blocks.0.0", "conv_in"),
            ("input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"),
            (
                "input_blocks.4.1.proj_in",
                "down_blocks.1.attentions.0.proj_in",
            ),
            (
                "input_blocks.8.1.transformer_blocks.9.attn2.to_k",
                "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k",
            ),
            (
                "input_blocks.4.0.skip_connection",
                "down_blocks.1.resnets.0.conv_shortcut",
            ),
            (
                "middle_block.1.transformer_blocks.0.attn1.to_q",
                "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
            ),
            (
                "output_blocks.0.1.proj_out",
                "up_blocks.0.attentions.0.proj_out",
            ),
            ("output_blocks.2.2.conv", "up_blocks.0.upsamplers.0.conv"),
            (
                "output_blocks.5.1.proj_in",
                "up_blocks.1.attentions.2.proj_in",
            ),
            (
                "output_blocks.8.0.out_layers.3",
                "up_blocks.2.resnets.2.conv2",
            ),
        ] {
            are_one(&sdxl, theirs, other);
        }
        let first = [
            "input_blocks.3.0.op",
            "input_blocks.6.0.op",
            "input_blocks.9.0.op",
        ];
        let first = Unet::of(first.into_iter()).unwrap_or_else(|| panic!("no UNet"));
        for (theirs, other) in [
            (
                "input_blocks.1.1.proj_in",
                "down_blocks.0.attentions.0.proj_in",
            ),
            (
                "input_blocks.11.0.in_layers.2",
                "down_blocks.3.resnets.1.conv1",
            ),
            ("output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"),
            (
                "output_blocks.3.1.proj_in",
                "up_blocks.1.attentions.0.proj_in",
            ),
            (
                "output_blocks.11.1.proj_in",
                "up_blocks.3.attentions.2.proj_in",
            ),
        ] {
            are_one(&first, theirs, other);
        }
        assert_eq!(sdxl.others("conv_in.x.y").count(), 1);
        assert_eq!(sdxl.others("input_blocks.40.0.in_layers.2").count(), 0);
        assert_eq!(sdxl.others("down_blocks.0.resnets.0.unknown").count(), 0);
    }

    #[test]
    fn names_of_no_unet_or_of_too_many_levels_have_no_others() {
        for names in [
            &["layers.0.mlp"][..],
            &["down_blocks.99999999999999999999.resnets.0.a"],
            &["down_blocks.18446744073709551615.resnets.0.a"],
            &["down_blocks.9.resnets.0.a"],
            &["input_blocks.0.0.op"],
            &["input_blocks.18446744073709551615.0.op"],
        ] {
            assert!(Unet::of(names.iter().copied()).is_none(), "{names:?}");
        }
    }
}
