//! Kinds are told by the names and shapes that public models really have.

use proptest::prelude::*;

mod adapters;
mod diffusion;
mod words;

use super::super::dtype::Dtype;
use super::*;
use diffusion::{CLIP_L, FLUX, OPEN_CLIP_BIGG, SD1_UNET, SDXL_ORIGINAL, VAE_ORIGINAL};
use words::decoder;

fn tensor(name: &str, shape: &[usize]) -> TensorInfo {
    let elements: usize = shape.iter().fold(1, |a, b| a.saturating_mul(*b));
    TensorInfo {
        name: name.into(),
        dtype: Dtype::F16,
        shape: shape.into(),
        file: 0,
        offset: 8,
        bytes: (elements as u64).saturating_mul(2),
        tied_to: None,
    }
}

fn metadata(entries: &[(&str, &str)]) -> Metadata {
    let mut metadata = Metadata::default();
    for (key, value) in entries {
        metadata.note(key, value);
    }
    metadata
}

/// A tensor a line: its name, and its shape behind it.
fn tensors(lines: &str) -> Vec<TensorInfo> {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, shape) = line.split_once(' ').unwrap_or((line, ""));
            let shape: Vec<usize> = shape
                .split_whitespace()
                .filter_map(|dimension| dimension.parse().ok())
                .collect();
            tensor(name, &shape)
        })
        .collect()
}

fn kind(lines: &str) -> Kind {
    Kind::of(&tensors(lines), &Metadata::default())
}

fn said(lines: &str, entries: &[(&str, &str)]) -> Kind {
    Kind::of(&tensors(lines), &metadata(entries))
}

fn under(prefix: &str, lines: &str) -> String {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| format!("{prefix}{line}\n")).collect()
}

/// As they print: `~` where several families have the form.
fn assert_kinds(table: &[(&str, &str)]) {
    for (expected, lines) in table {
        let kind = kind(lines);
        assert_eq!(kind.to_string(), *expected, "{kind:?}");
        assert!(!kind.evidence.is_empty());
    }
}

#[test]
fn what_only_looks_like_something_is_unknown() {
    assert_eq!(kind("").role, Role::Unknown);
    for lines in [
        "t 256",
        "blocks.0.weight 16 2048\n blocks.1.weight 3 2048",
        // Half of a UNet, of a VAE, of a text encoder.
        "conv_in.weight 320 4 3 3\n conv_out.weight 4 320 3 3",
        "decoder.conv_in.weight 512 4 3 3",
        "text_model.embeddings.token_embedding.weight 49408 768",
        // Names that hold others' names.
        "not_double_blocks.0.img_attn.proj.weight 1\n not_single_blocks.0.linear1.weight 1",
        // `alpha` is what many call a number that is learnt.
        "act.0.alpha 512\n act.1.alpha 512",
        "clip_l 8 768\n clip_g 8 999",
        "emb_params 1 2 3",
    ] {
        let kind = kind(lines);
        assert_eq!((kind.role, &kind.family), (Role::Unknown, &None), "{lines}");
    }
    // An adapter that was saved along with its model is not the file's kind.
    let both = format!(
        "{}\n model.layers.1.self_attn.q_proj.lora_A.weight 8 4096",
        decoder(128_256, "")
    );
    assert_eq!(kind(&both).role, Role::LanguageModel);
}

#[test]
fn names_without_their_shapes_say_less() {
    for (expected, lines) in [
        ("UNet", SD1_UNET),
        ("~SDXL UNet", SDXL_ORIGINAL),
        ("unknown", VAE_ORIGINAL),
        ("CLIP text encoder", CLIP_L),
        ("CLIP text encoder", OPEN_CLIP_BIGG),
        ("Flux DiT", FLUX),
        ("LoRA", "a.lora_down.weight\n a.lora_up.weight"),
        ("unknown", "emb_params"),
    ] {
        let without = tensors(lines).into_iter().map(|tensor| TensorInfo {
            shape: Box::default(),
            ..tensor
        });
        let without: Vec<TensorInfo> = without.collect();
        let kind = Kind::of(&without, &Metadata::default());
        assert_eq!(kind.to_string(), expected, "{kind:?}");
    }
}

#[test]
fn parameters_are_elements_also_of_blocks_and_of_tied_tensors_once() {
    let mut tensors = vec![tensor("a", &[256, 100]), tensor("b", &[10])];
    tensors[0].dtype = Dtype::Q4_K;
    tensors[0].bytes = 100 * 144;
    assert_eq!(parameters(&tensors), 25_610);
    tensors.push(TensorInfo {
        tied_to: Some(0),
        ..tensors[0].clone()
    });
    assert_eq!(parameters(&tensors), 25_610);
    tensors.push(tensor("huge", &[usize::MAX, usize::MAX]));
    assert_eq!(parameters(&tensors), u64::MAX);
    assert_eq!(parameters(&[]), 0);
}

#[test]
fn a_million_names_have_no_more_forms_than_are_kept() {
    let letters = |number: usize| -> String {
        let digits = format!("{number}");
        digits.bytes().map(|digit| char::from(digit + 49)).collect()
    };
    let tensors: Vec<TensorInfo> = (0..1_000_000)
        .map(|number| tensor(&letters(number), &[1]))
        .collect();
    assert_eq!(Outline::of(&tensors).iter().count(), 4096);
    assert_eq!(Kind::of(&tensors, &Metadata::default()).role, Role::Unknown);
}

proptest! {
    #[test]
    fn any_names_and_shapes_have_a_kind(
        rows in proptest::collection::vec(
            (
                prop_oneof![
                    any::<String>(),
                    "[a-z_.0-9<>#]{0,40}",
                    "(model\\.|lora_unet_|vae\\.|)(down_blocks[._][0-9]{1,12}[._]|layers.0.|)(attn2[._]to_k|self_attn.q_proj|conv_in|lora_down)\\.(weight|alpha|bias)",
                ],
                proptest::collection::vec(any::<usize>(), 0..4),
            ),
            0..60,
        ),
        architecture in proptest::option::of(any::<String>()),
    ) {
        let tensors: Vec<TensorInfo> = rows
            .iter()
            .map(|(name, shape)| tensor(name, shape))
            .collect();
        let entries: Vec<(&str, &str)> = architecture
            .iter()
            .map(|architecture| ("general.architecture", &**architecture))
            .collect();
        let kind = Kind::of(&tensors, &metadata(&entries));
        prop_assert!(!kind.to_string().is_empty());
        prop_assert!(!kind.to_string().chars().any(char::is_control));
        prop_assert!(!kind.evidence.chars().any(char::is_control));
        // The order of tensors in a file means nothing.
        let reversed: Vec<TensorInfo> = tensors.into_iter().rev().collect();
        let again = Kind::of(&reversed, &metadata(&entries));
        prop_assert_eq!(again.role, kind.role);
    }
}
