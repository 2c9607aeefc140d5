//! What a set of synthetic models will consist of, before a byte is written.

use std::collections::HashMap;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::error::Error;
use super::family::Family;
use super::six;

/// The scales that can be asked for. At 0.01 models stop looking like what they imitate, at 100 a
/// set has 150 GiB.
pub const SCALES: std::ops::RangeInclusive<f64> = 0.01..=100.0;

/// Changes whenever the same name, shape and type would get other bytes, so that files of before
/// are not taken for files of after.
const RECIPE: u32 = 1;

/// The key and the beginning of the value that mark a file as made here.
pub(super) const MARK: (&str, &str) = ("plimsoll", "synthetic weights, recipe ");

/// A set of synthetic models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Set {
    /// Stable Diffusion XL: UNet, VAE, two text encoders, a LoRA; real sizes at scale 4.6
    Sdxl,
    /// Language models: Llama-like of two sizes, a T5 encoder; real sizes of the largest at 13
    Llm,
    /// Some of each, of very different sizes
    Mixed,
    /// The fragmentation trace: six models with tensors from 4 KiB to 48 MiB
    Six,
}

impl Set {
    /// Its name on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Sdxl => "sdxl",
            Self::Llm => "llm",
            Self::Mixed => "mixed",
            Self::Six => "six",
        }
    }

    /// File stem, family, element type and MiB at scale 1 of each model; 1536 MiB in all.
    fn models(self) -> &'static [(&'static str, Family, Dtype, u64)] {
        use Family::{
            ClipL, Llama1b, Llama7b, OpenClipBigG, SdxlLora, SdxlUnet, SdxlVae, T5Encoder,
        };
        match self {
            Self::Sdxl => &[
                ("sdxl-unet", SdxlUnet, Dtype::F16, 1104),
                ("sdxl-vae", SdxlVae, Dtype::F16, 36),
                ("clip-l", ClipL, Dtype::F16, 52),
                ("openclip-bigg", OpenClipBigG, Dtype::F16, 296),
                ("lora", SdxlLora, Dtype::F16, 48),
            ],
            Self::Llm => &[
                ("llama-7b-like", Llama7b, Dtype::BF16, 1088),
                ("llama-1b-like", Llama1b, Dtype::BF16, 192),
                ("t5-encoder", T5Encoder, Dtype::BF16, 256),
            ],
            Self::Mixed => &[
                ("sdxl-unet", SdxlUnet, Dtype::F16, 480),
                ("sdxl-vae", SdxlVae, Dtype::F32, 64),
                ("clip-l", ClipL, Dtype::F16, 64),
                ("openclip-bigg", OpenClipBigG, Dtype::F16, 160),
                ("t5-encoder", T5Encoder, Dtype::BF16, 224),
                ("llama-7b-like", Llama7b, Dtype::BF16, 320),
                ("llama-1b-like", Llama1b, Dtype::BF16, 128),
                ("lora-style", SdxlLora, Dtype::F16, 64),
                ("lora-detail", SdxlLora, Dtype::F16, 32),
            ],
            Self::Six => &[],
        }
    }
}

/// The models of a set, by name and shape of every tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The set.
    pub set: Set,
    /// The factor on its bytes.
    pub scale: f64,
    /// The models in the order in which they are written.
    pub models: Vec<PlannedModel>,
}

/// A model that is to be a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedModel {
    /// The name of the file, without `.safetensors`.
    pub file_stem: String,
    /// Its tensors in the order in which the file has them: by element type, then by name, as the
    /// safetensors crate writes them.
    pub tensors: Vec<PlannedTensor>,
    /// The bytes of all its tensors.
    pub bytes: u64,
}

/// A tensor of a [`PlannedModel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

impl PlannedTensor {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        let elements: u64 = self
            .shape
            .iter()
            .map(|&dimension| dimension as u64)
            .product();
        elements * self.dtype.bitsize() as u64 / 8
    }

    /// What its values are drawn from.
    pub(super) fn seed(&self, file_stem: &str) -> u64 {
        xxh3_64_with_seed(
            self.name.as_bytes(),
            xxh3_64_with_seed(file_stem.as_bytes(), u64::from(RECIPE)),
        )
    }
}

impl Plan {
    /// A name for the folder of this set: `mixed-1`, `six-0.25`.
    pub(super) fn folder_name(&self) -> String {
        format!("{}-{}", self.set.name(), self.scale)
    }
}

impl PlannedModel {
    fn new(file_stem: &str, dtype: Dtype, rows: Vec<(String, Vec<usize>)>) -> Self {
        let mut tensors: Vec<PlannedTensor> = rows
            .into_iter()
            .map(|(name, shape)| PlannedTensor { name, dtype, shape })
            .collect();
        tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        Self {
            file_stem: file_stem.to_owned(),
            bytes: tensors.iter().map(PlannedTensor::bytes).sum(),
            tensors,
        }
    }

    /// The beginning of its file: the header's length and the header, as the safetensors crate
    /// writes them, padded to 8 bytes.
    pub(super) fn header(&self) -> Result<Vec<u8>, Error> {
        let mut begin = 0;
        let table = self.tensors.iter().map(|tensor| {
            let end = begin + tensor.bytes() as usize;
            let info = TensorInfo {
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                data_offsets: (begin, end),
            };
            begin = end;
            (tensor.name.clone(), info)
        });
        let table = table.collect();
        // One key only: a map of more would be written in another order each time.
        let mark = HashMap::from([(MARK.0.to_owned(), format!("{}{RECIPE}", MARK.1))]);
        let unwritable = |reason: String| Error::Header {
            model: self.file_stem.clone(),
            reason,
        };
        let metadata =
            Metadata::new(Some(mark), table).map_err(|error| unwritable(error.to_string()))?;
        let mut json =
            serde_json::to_vec(&metadata).map_err(|error| unwritable(error.to_string()))?;
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.append(&mut json);
        Ok(header)
    }
}

/// Plans a set whose bytes are about `scale` times those at scale 1.
///
/// # Errors
/// [`Error::Scale`] if `scale` is not in [`SCALES`].
pub fn plan(set: Set, scale: f64) -> Result<Plan, Error> {
    if !SCALES.contains(&scale) {
        return Err(Error::Scale { given: scale });
    }
    let mut models: Vec<PlannedModel> = set
        .models()
        .iter()
        .map(|&(file_stem, family, dtype, mib)| {
            let bytes = (mib << 20) as f64 * scale;
            let rows = family.sized((bytes * 8.0 / dtype.bitsize() as f64) as u64);
            PlannedModel::new(file_stem, dtype, rows)
        })
        .collect();
    if set == Set::Six {
        models.extend((0..six::TOTALS.len()).map(|number| {
            PlannedModel::new(
                &format!("m{number}"),
                Dtype::F16,
                six::tensors(number, scale),
            )
        }));
    }
    Ok(Plan { set, scale, models })
}
