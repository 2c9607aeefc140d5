//! What merging does at its edges.

use plimsoll_cache::Model;
use plimsoll_cache::model::Dtype as ModelDtype;
use plimsoll_cache::patch::{
    Base, Edit, Factors, Merge, MergeError, Patch, Strictness, Term, merged,
};
use safetensors::Dtype;

use super::files::{File, decode, encode, folder, says};

/// A patch of one low-rank change of numbers that are all the same, and a model of 2 × 2 for it.
fn uniform(folder: &tempfile::TempDir, base: f64, factor: f64) -> (Model, Patch, Edit) {
    let model = File::new()
        .with("a.weight", Dtype::F16, &[2, 2], &[base; 4])
        .model(folder, "base");
    let patch = File::new()
        .with(
            "lora_unet_a.lora_down.weight",
            Dtype::F32,
            &[1, 2],
            &[factor; 2],
        )
        .with("lora_unet_a.lora_up.weight", Dtype::F32, &[2, 1], &[1.0; 2])
        .patch(folder, "lora");
    let edit = patch
        .fit(&model, Strictness::Strict)
        .unwrap()
        .edits
        .remove(0);
    (model, patch, edit)
}

fn base(bytes: &[u8]) -> Base<'_> {
    Base {
        dtype: ModelDtype::F16,
        shape: &[2, 2],
        bytes,
    }
}

#[test]
fn small_changes_are_summed_before_they_are_rounded() {
    let folder = folder();
    // Each is a quarter of a unit in the last place of 1.
    let (_, patch, edit) = uniform(&folder, 1.0, 1.0 / 4096.0);
    let factors = Factors::read(&patch, &edit.change).unwrap();
    let term = |strength| Term {
        factors: &factors,
        strength,
    };
    let bytes = encode(Dtype::F16, &[1.0; 4]);
    assert_eq!(merged(base(&bytes), &[term(1.0)]).unwrap().bytes, bytes);
    let four = merged(base(&bytes), &[term(1.0); 4]).unwrap();
    assert_eq!(decode(Dtype::F16, &four.bytes), [1.0 + 1.0 / 1024.0; 4]);
    let none = merged(base(&bytes), &[term(3.0), term(-3.0)]).unwrap();
    assert_eq!(none.bytes, bytes);
}

#[test]
fn strength_zero_keeps_every_bit_and_what_is_not_finite_is_refused() {
    let folder = folder();
    let (_, patch, edit) = uniform(&folder, 1.0, f64::NAN);
    let factors = Factors::read(&patch, &edit.change).unwrap();
    let term = |strength| Term {
        factors: &factors,
        strength,
    };
    // A negative zero and a number that is none, of an odd kind.
    let bytes = [0x00, 0x80, 0x01, 0x7d, 0xff, 0xff, 0x01, 0x00];
    assert_eq!(
        merged(base(&bytes), &[term(0.0), term(-0.0)])
            .unwrap()
            .bytes,
        bytes
    );
    assert_eq!(merged(base(&bytes), &[]).unwrap().bytes, bytes);
    for strength in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = merged(base(&bytes), &[term(0.0), term(strength)]).unwrap_err();
        assert!(matches!(error, MergeError::Strength { .. }));
        says(&error.to_string(), &["not finite", "0.8"]);
    }
    // Two of them were none before.
    assert_eq!(merged(base(&bytes), &[term(1.0)]).unwrap().non_finite, 2);
}

#[test]
fn what_outgrows_its_type_is_counted() {
    let folder = folder();
    let (_, patch, edit) = uniform(&folder, 1.0, 1e6);
    let factors = Factors::read(&patch, &edit.change).unwrap();
    let term = Term {
        factors: &factors,
        strength: 1.0,
    };
    let bytes = encode(Dtype::F16, &[1.0; 4]);
    assert_eq!(merged(base(&bytes), &[term]).unwrap().non_finite, 4);
}

#[test]
fn bases_and_bytes_that_do_not_fit_are_refused() {
    let folder = folder();
    let (model, patch, edit) = uniform(&folder, 1.0, 1.0);
    let factors = Factors::read(&patch, &edit.change).unwrap();
    assert_eq!(factors.bytes(), 16);
    let terms = [Term {
        factors: &factors,
        strength: 1.0,
    }];
    let bytes = [0; 8];
    let of = |dtype, shape| Base {
        dtype,
        shape,
        bytes: &bytes,
    };
    let refused = |base, words: &[&str]| {
        says(&merged(base, &terms).unwrap_err().to_string(), words);
    };
    refused(of(ModelDtype::Q8_0, &[2, 2]), &["Q8_0", "beside"]);
    refused(of(ModelDtype::F64, &[1, 1]), &["F64", "beside"]);
    refused(of(ModelDtype::F32, &[2, 2]), &["8 bytes instead of 16"]);
    refused(of(ModelDtype::F16, &[4, 1]), &["[2, 2]", "[4, 1]"]);
    let huge = [usize::MAX, usize::MAX];
    refused(of(ModelDtype::F16, &huge), &["larger than any memory"]);
    let none = Merge::new(ModelDtype::F16, &[0, usize::MAX, usize::MAX], &[]).unwrap();
    assert_eq!((none.bytes(), none.run(0, &mut [])), (0, Ok(0)));
    let given = Factors::of(&patch, &edit.change, |_| &bytes[..3]);
    assert!(matches!(given, Err(MergeError::Bytes { bytes: 3, .. })));
    let given = Factors::of(&patch, &edit.change, |_| &bytes).unwrap();
    assert_eq!((given.bytes(), given.scale()), (16, 1.0));
    assert_eq!(model.tensors().len(), 1);
}
