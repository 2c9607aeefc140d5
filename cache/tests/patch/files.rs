//! Files of models and patches with numbers in them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use plimsoll_cache::Model;
use plimsoll_cache::patch::{Fit, Patch, Strictness};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

/// A safetensors file in the making.
#[derive(Debug, Clone, Default)]
pub struct File {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

pub fn encode(dtype: Dtype, numbers: &[f64]) -> Vec<u8> {
    let each = |number: &f64| match dtype {
        Dtype::F16 => f16::from_f64(*number).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f64(*number).to_le_bytes().to_vec(),
        Dtype::F32 => (*number as f32).to_le_bytes().to_vec(),
        Dtype::F64 => number.to_le_bytes().to_vec(),
        Dtype::I64 => (*number as i64).to_le_bytes().to_vec(),
        Dtype::U8 => vec![*number as u8],
        other => panic!("{other:?}"),
    };
    numbers.iter().flat_map(each).collect()
}

pub fn decode(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        Dtype::F16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f16::from_le_bytes(*b).to_f64())
            .collect(),
        Dtype::BF16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| bf16::from_le_bytes(*b).to_f64())
            .collect(),
        Dtype::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b).into())
            .collect(),
        Dtype::F64 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect(),
        other => panic!("{other:?}"),
    }
}

impl File {
    pub fn new() -> File {
        File::default()
    }

    pub fn with(mut self, name: &str, dtype: Dtype, shape: &[usize], numbers: &[f64]) -> File {
        assert_eq!(shape.iter().product::<usize>(), numbers.len(), "{name}");
        self.tensors.push((
            name.to_owned(),
            dtype,
            shape.to_vec(),
            encode(dtype, numbers),
        ));
        self
    }

    /// Tensors of both, the first of a name.
    pub fn and(mut self, other: File) -> File {
        let others = other.tensors.into_iter();
        let known = |name: &str| self.tensors.iter().any(|(known, ..)| known == name);
        let new: Vec<_> = others.filter(|(name, ..)| !known(name)).collect();
        self.tensors.extend(new);
        self
    }

    /// A tensor of zeros.
    pub fn zeros(self, name: &str, shape: &[usize]) -> File {
        let numbers = vec![0.0; shape.iter().product()];
        self.with(name, Dtype::F32, shape, &numbers)
    }

    /// Two factors under names that end so.
    pub fn pair(self, module: &str, endings: [&str; 2], down: &[usize], up: &[usize]) -> File {
        self.zeros(&format!("{module}{}", endings[0]), down)
            .zeros(&format!("{module}{}", endings[1]), up)
    }

    pub fn said(mut self, key: &str, value: &str) -> File {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn save(&self, folder: &Path, name: &str) -> PathBuf {
        let views = self.tensors.iter().map(|(name, dtype, shape, bytes)| {
            (
                name.clone(),
                TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
            )
        });
        let metadata = (!self.metadata.is_empty()).then(|| self.metadata.clone());
        let path = folder.join(format!("{name}.safetensors"));
        std::fs::write(&path, safetensors::serialize(views, metadata).unwrap()).unwrap();
        path
    }

    pub fn model(&self, folder: &TempDir, name: &str) -> Model {
        Model::open(self.save(folder.path(), name)).unwrap()
    }

    pub fn patch(&self, folder: &TempDir, name: &str) -> Patch {
        Patch::open(self.save(folder.path(), name)).unwrap()
    }

    /// What is said of it when it is opened as a patch.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) -> String {
        let folder = folder();
        let path = self.save(folder.path(), "patch");
        let error = Patch::open(&path).unwrap_err().to_string();
        let path = path.display().to_string();
        says(&error, words);
        says(&error, &[&path]);
        error
    }
}

pub const KOHYA: [&str; 2] = [".lora_down.weight", ".lora_up.weight"];
pub const PEFT: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The names of the tensors that a patch changes, where all of it has to fit.
#[track_caller]
pub fn targets(patch: &Patch, base: &Model) -> Vec<String> {
    names(&patch.fit(base, Strictness::Strict).unwrap(), base)
}

pub fn names(fit: &Fit, base: &Model) -> Vec<String> {
    let targets = fit
        .edits
        .iter()
        .map(|edit| &base.tensors()[edit.target].name);
    targets.map(ToString::to_string).collect()
}

#[track_caller]
pub fn says(message: &str, words: &[&str]) {
    assert!(!message.contains(char::is_control), "{message:?}");
    for word in words {
        assert!(message.contains(word), "no {word:?}: {message}");
    }
}

/// Small tensors under the names of a UNet of Stable Diffusion in diffusers.
pub fn unet(prefix: &str) -> File {
    let attention = "down_blocks.0.attentions.0.transformer_blocks.0";
    [
        ("conv_in", &[8, 4, 3, 3][..]),
        ("down_blocks.0.resnets.0.conv1", &[8, 8, 3, 3]),
        ("down_blocks.0.attentions.0.proj_in", &[8, 8, 1, 1]),
        (&format!("{attention}.attn1.to_q"), &[8, 8]),
        (&format!("{attention}.attn1.to_out.0"), &[8, 8]),
        (&format!("{attention}.attn2.to_k"), &[8, 6]),
        (&format!("{attention}.ff.net.0.proj"), &[64, 8]),
    ]
    .into_iter()
    .fold(File::new(), |file, (name, shape)| {
        file.zeros(&format!("{prefix}{name}.weight"), shape)
    })
    .zeros(&format!("{prefix}conv_in.bias"), &[8])
}

/// Small tensors under the names of a CLIP text encoder of that width.
pub fn clip(width: usize) -> File {
    let layer = "text_model.encoder.layers.0";
    File::new()
        .zeros("text_model.embeddings.token_embedding.weight", &[50, width])
        .zeros(&format!("{layer}.self_attn.q_proj.weight"), &[width, width])
        .zeros(
            &format!("{layer}.self_attn.out_proj.weight"),
            &[width, width],
        )
        .zeros(&format!("{layer}.mlp.fc1.weight"), &[4 * width, width])
}
