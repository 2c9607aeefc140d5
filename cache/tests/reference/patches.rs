//! A model that there is a patch for, and the patch.

use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use plimsoll_cache::Model;
use plimsoll_cache::patch::{Base, Factors, Patch, Strictness, Term, merged};
use safetensors::tensor::{Dtype, TensorView};

use crate::patch_files::encode;
use crate::support::{Folder, content};
use crate::world::{BASE, CHANGED, PAGE};
use crate::written::{F32, Gguf};

/// What the patch changes is a page of numbers.
const SIDE: usize = 32;

/// A model of content by its name, as others are, whose second tensor the patch changes.
pub fn base(path: &Path, name: &str) {
    let rest = ((1 + BASE as u64) * PAGE - 1234) as usize / 4 - SIDE * SIDE;
    let shapes = [("t000", vec![rest]), (CHANGED, vec![SIDE, SIDE])];
    let contents: Vec<Vec<u8>> = shapes
        .iter()
        .zip(0..)
        .map(|((_, shape), at)| content(name, at, 4 * shape.iter().product::<usize>()))
        .collect();
    let views = shapes.into_iter().zip(&contents);
    let views = views
        .map(|((name, shape), bytes)| (name, TensorView::new(Dtype::F32, shape, bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

pub fn patch(folder: &Folder) -> Patch {
    let path = folder.path().join("patch.gguf");
    if !path.exists() {
        let header = Gguf::new()
            .key("general.type", &Value::String("adapter".to_owned()))
            .key("adapter.lora.alpha", &Value::F32(1.0))
            .tensor(format!("{CHANGED}.lora_a"), &[SIDE as u64, 1], F32, 0)
            .tensor(format!("{CHANGED}.lora_b"), &[1, SIDE as u64], F32, 128);
        let numbers = encode(Dtype::F32, &[1.0; 2 * SIDE]);
        std::fs::write(&path, [header.bytes(), numbers].concat()).unwrap();
    }
    Patch::open(path).unwrap()
}

/// What the patch makes of the tensor.
pub fn changed(model: &Model, patch: &Patch) -> Vec<u8> {
    let fit = patch.fit(model, Strictness::Strict).unwrap();
    let factors = Factors::read(patch, &fit.edits[0].change).unwrap();
    let tensor = &model.tensors()[1];
    let base = Base {
        dtype: tensor.dtype,
        shape: &tensor.shape,
        bytes: &content(model.name(), 1, tensor.bytes as usize),
    };
    let term = Term {
        factors: &factors,
        strength: 1.0,
    };
    merged(base, &[term]).unwrap().bytes
}
