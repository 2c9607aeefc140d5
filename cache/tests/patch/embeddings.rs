//! Rows for the embedding of a text encoder.

use plimsoll_cache::patch::{Base, Change, Factors, Strictness, Term, merged};
use safetensors::Dtype;

use super::files::{File, clip, decode, folder, says, unet};

const EMBEDDING: &str = "text_model.embeddings.token_embedding.weight";

#[test]
fn rows_go_to_the_embedding_of_their_width() {
    let folder = folder();
    let base = clip(8).model(&folder, "clip");
    let count = |file: File| {
        let patch = file.patch(&folder, "embedding");
        let fit = patch.fit(&base, Strictness::Strict).unwrap();
        assert_eq!(super::files::names(&fit, &base), [EMBEDDING]);
        let edit = &fit.edits[0];
        let Change::Rows { rows, from } = &edit.change else {
            panic!("{edit:?}");
        };
        assert_eq!(*edit.shape, [50 + rows, 8]);
        (*rows, from.len())
    };
    assert_eq!(count(File::new().zeros("emb_params", &[3, 8])), (3, 1));
    assert_eq!(count(File::new().zeros("<cat-toy>", &[8])), (1, 1));
    let words = File::new().zeros("<a>", &[8]).zeros("<b>", &[2, 8]);
    assert_eq!(count(words), (3, 2));
    // One file for two encoders.
    let both = File::new()
        .zeros("clip_l", &[2, 8])
        .zeros("clip_g", &[2, 16]);
    assert_eq!(count(both), (2, 1));
}

#[test]
fn rows_of_another_width_and_of_no_embedding_say_what_they_need() {
    let folder = folder();
    let patch = File::new()
        .zeros("emb_params", &[2, 12])
        .patch(&folder, "embedding");
    let clip = clip(8).model(&folder, "clip");
    let error = patch
        .fit(&clip, Strictness::Lenient)
        .unwrap_err()
        .to_string();
    says(&error, &["emb_params", EMBEDDING, "[50, 8]", "[words, 12]"]);
    let unet = unet("").model(&folder, "unet");
    let error = patch
        .fit(&unet, Strictness::Strict)
        .unwrap_err()
        .to_string();
    says(&error, &["emb_params", "has no target"]);
}

#[test]
fn of_two_embeddings_of_one_width_the_caller_names_one() {
    let folder = folder();
    let base = File::new()
        .zeros("a.token_embedding.weight", &[5, 8])
        .zeros("b.token_embedding.weight", &[6, 8])
        .model(&folder, "two");
    let patch = File::new().zeros("<w>", &[8]).patch(&folder, "embedding");
    let error = patch
        .fit(&base, Strictness::Strict)
        .unwrap_err()
        .to_string();
    says(&error, &["several", "Patch::with_embedding"]);
    let patch = patch.with_embedding("b.token_embedding.weight");
    let fit = patch.fit(&base, Strictness::Strict).unwrap();
    assert_eq!(
        super::files::names(&fit, &base),
        ["b.token_embedding.weight"]
    );
    let nowhere = patch.with_embedding("c\u{1b}[2J");
    let error = nowhere
        .fit(&base, Strictness::Strict)
        .unwrap_err()
        .to_string();
    says(&error, &[r"c\u{1b}[2J"]);
}

#[test]
fn rows_are_appended_behind_weights_that_stay_as_they_are() {
    let folder = folder();
    let old: Vec<f64> = (0..6).map(f64::from).collect();
    let base = File::new().with("token_embedding.weight", Dtype::F16, &[3, 2], &old);
    let base = base.model(&folder, "base");
    let first = File::new()
        .with("<a>", Dtype::F32, &[2], &[0.1, 7.0])
        .with("<b>", Dtype::BF16, &[2, 2], &[1.0, 2.0, 3.0, 4.0])
        .patch(&folder, "first");
    let second = File::new().with("emb_params", Dtype::F16, &[1, 2], &[8.0, 16.0]);
    let second = second.patch(&folder, "second");
    let factors = [&first, &second].map(|patch| {
        let fit = patch.fit(&base, Strictness::Strict).unwrap();
        Factors::read(patch, &fit.edits[0].change).unwrap()
    });
    let tensor = &base.tensors()[0];
    let bytes = super::files::encode(Dtype::F16, &old);
    let base = Base {
        dtype: tensor.dtype,
        shape: &tensor.shape,
        bytes: &bytes,
    };
    let merge = |strengths: [f64; 2]| {
        let terms = [0, 1].map(|at| Term {
            factors: &factors[at],
            strength: strengths[at],
        });
        merged(base, &terms).unwrap()
    };
    let both = merge([1.0, 0.5]);
    assert_eq!(both.shape, [7, 2]);
    assert_eq!(both.bytes[..12], bytes);
    let tenth = half::f16::from_f32(0.1).to_f64();
    assert_eq!(
        decode(Dtype::F16, &both.bytes[12..]),
        [tenth, 7.0, 1.0, 2.0, 3.0, 4.0, 4.0, 8.0]
    );
    let one = merge([0.0, 1.0]);
    assert_eq!(one.shape, [4, 2]);
    assert_eq!(decode(Dtype::F16, &one.bytes[12..]), [8.0, 16.0]);
}
