//! VAEs: their decoders begin with a convolution of the latent's channels.

use super::outline::View;
use super::{Family, Kind, Role};

pub(super) fn detect(view: &View<'_>) -> Option<Kind> {
    // Wan's is the only one of these names: `gamma` of a norm over time.
    if view.has("decoder.middle.#.residual.#.gamma") {
        return Some(Kind::new(
            Role::Vae,
            Family::Wan,
            "its residual blocks are Wan's",
        ));
    }
    // Diffusers' names, and those of CompVis.
    let blocks = [
        "decoder.up_blocks.#.resnets.#.conv1.weight",
        "decoder.up.#.block.#.conv1.weight",
    ];
    let input = view.get("decoder.conv_in.weight")?;
    if !blocks.iter().any(|blocks| view.has(blocks)) {
        return None;
    }
    let channels = *input.shape.get(1)?;
    let evidence = format!("a decoder of {channels} latent channels");
    Some(match (channels, input.shape.len()) {
        (4, 4) => Kind::new(
            Role::Vae,
            Family::StableDiffusion,
            format!("{evidence}: the form of versions 1, 2 and XL alike"),
        ),
        (16, 4) => Kind::of_no_family(
            Role::Vae,
            format!("{evidence}, as SD 3 and Flux have it alike"),
        ),
        _ => Kind::of_no_family(Role::Vae, evidence),
    })
}
