//! Files of any names and shapes: opening and fitting end, say what is wrong on one line, and what fits
//! can be merged.

use plimsoll_cache::Model;
use plimsoll_cache::patch::{Base, Factors, Patch, Strictness, Term, merged};
use proptest::prelude::*;
use safetensors::Dtype;

use super::files::{File, KOHYA, PEFT, folder};

fn name() -> impl Strategy<Value = String> {
    let module = prop_oneof![
        Just("a".to_owned()),
        Just("a.b".to_owned()),
        Just("text_model.a".to_owned()),
        "[a-c._\u{1b}ß]{0,6}"
    ];
    let before = prop::sample::select(vec![
        "",
        "lora_unet_",
        "lora_te_",
        "lora_te2_",
        "unet.",
        "base_model.model.",
        "text_encoder_2.",
        "transformer.",
        "model.",
        "<",
    ]);
    let behind = prop::sample::select(vec![
        ".lora_down.weight",
        ".lora_up.weight",
        ".lora_mid.weight",
        ".alpha",
        ".lora_A.weight",
        ".lora_B.weight",
        ".lora_A.x.weight",
        ".processor.to_q_lora.down.weight",
        "_lora.up.weight",
        ".lora_a",
        ".lora_b",
        ".diff",
        ".diff_b",
        ".dora_scale",
        ".weight",
        ".bias",
        ">",
        "",
    ]);
    (before, module, behind)
        .prop_map(|(before, module, behind)| format!("{before}{module}{behind}"))
}

fn file(least: usize) -> impl Strategy<Value = File> {
    let shape = prop::collection::vec(0..5_usize, 0..5);
    let dtype = prop::sample::select(vec![
        Dtype::F32,
        Dtype::F32,
        Dtype::F16,
        Dtype::BF16,
        Dtype::F64,
        Dtype::I64,
        Dtype::U8,
    ]);
    prop::collection::btree_map(name(), (dtype, shape), least..6).prop_map(|tensors| {
        tensors
            .iter()
            .fold(File::new(), |file, (name, (dtype, shape))| {
                let numbers = vec![1.0; shape.iter().product()];
                file.with(name, *dtype, shape, &numbers)
            })
    })
}

fn is_one_line(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

fn check(patch: &File, base: &File) -> Result<usize, String> {
    let folder = folder();
    let base = Model::open(base.save(folder.path(), "base")).map_err(|error| error.to_string())?;
    let path = patch.save(folder.path(), "patch");
    let patch = Patch::open(path).map_err(|error| error.to_string())?;
    let strict = patch.fit(&base, Strictness::Strict);
    let fit = patch
        .fit(&base, Strictness::Lenient)
        .map_err(|error| error.to_string())?;
    if let Err(error) = strict {
        assert!(fit.unmatched_count > 0, "{error}");
        is_one_line(&error.to_string());
    }
    for unmatched in &fit.unmatched {
        is_one_line(&unmatched.to_string());
    }
    for edit in &fit.edits {
        let factors = Factors::read(&patch, &edit.change).map_err(|error| error.to_string())?;
        let tensor = &base.tensors()[edit.target];
        let bytes = vec![0; tensor.bytes as usize];
        let base = Base {
            dtype: tensor.dtype,
            shape: &tensor.shape,
            bytes: &bytes,
        };
        let terms = [Term {
            factors: &factors,
            strength: 0.5,
        }];
        match merged(base, &terms) {
            Ok(result) => {
                assert!(!edit.is_beside_only);
                // An alpha of 1 over a rank is never 0.
                assert_eq!(*result.shape, *edit.shape);
            }
            Err(error) => assert!(edit.is_beside_only, "{error}"),
        }
    }
    Ok(fit.edits.len())
}

/// Factors that belong together, for one of few modules.
fn pair() -> impl Strategy<Value = File> {
    let module = prop::sample::select(vec![
        "lora_unet_a",
        "lora_unet_a_b",
        "lora_te_a",
        "lora_te2_text_model_a",
        "unet.a",
        "base_model.model.a.b",
        "text_encoder.a",
        "a",
    ]);
    let size = || prop::sample::select(vec![0_usize, 2, 2, 2, 3]);
    let rank = prop::sample::select(vec![1_usize, 2, 2, 3, 70]);
    let endings = prop::sample::select(vec![KOHYA, PEFT]);
    (module, size(), size(), rank, endings, any::<bool>()).prop_map(
        |(module, rows, columns, rank, endings, is_point)| {
            let [mut down, mut up] = [vec![rank, columns], vec![rows, rank]];
            if is_point {
                down.extend([1, 1]);
                up.extend([1, 1]);
            }
            File::new().pair(module, endings, &down, &up)
        },
    )
}

fn base() -> impl Strategy<Value = File> {
    let prefix = prop::sample::select(vec!["", "model.diffusion_model.", "text_model.", "x."]);
    let dtype = prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::U8]);
    (prefix, dtype, file(0)).prop_map(|(prefix, dtype, others)| {
        File::new()
            .with(&format!("{prefix}a.weight"), dtype, &[2, 2], &[1.0; 4])
            .with(&format!("{prefix}a.b.weight"), dtype, &[3, 2], &[1.0; 6])
            .and(others)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_names_and_shapes_end_in_a_fit_that_merges_or_in_an_error_of_one_line(
        patch in file(0),
        base in file(1),
    ) {
        if let Err(error) = check(&patch, &base) {
            is_one_line(&error);
        }
    }

    #[test]
    fn sound_factors_for_any_model_end_in_the_same(
        pairs in prop::collection::vec(pair(), 1..4),
        base in base(),
    ) {
        let patch = pairs.into_iter().reduce(File::and).unwrap();
        if let Err(error) = check(&patch, &base) {
            is_one_line(&error);
        }
    }
}
