//! Any bytes as a patch, or as what a sound file of factors is made of: never a panic, what fits a
//! model merges into the shape that was said, cut anywhere to the same bits, and what is said of the
//! rest is safe to print.
//!
//! `cargo +nightly fuzz run patch`

#![no_main]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use plimsoll_cache::Model;
use plimsoll_cache::patch::{Component, Edit, Factors, Merge, MergeError, Patch, Strictness, Term};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Modules of models, with the shapes of their weights.
const MODELS: [&[(&str, &[usize])]; 4] = [
    &[
        ("conv_in", &[4, 4, 3, 3]),
        ("down_blocks.0.resnets.0.conv1", &[4, 4, 1, 1]),
        (TO_Q, &[4, 4]),
        (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
            &[4, 6],
        ),
    ],
    &[
        ("text_model.embeddings.token_embedding", &[6, 4]),
        ("text_model.encoder.layers.0.self_attn.q_proj", &[4, 4]),
        ("text_model.encoder.layers.0.mlp.fc1", &[8, 4]),
    ],
    &[
        ("model.embed_tokens", &[6, 4]),
        ("model.layers.0.self_attn.q_proj", &[4, 4]),
        ("model.layers.0.mlp.down_proj", &[4, 8]),
    ],
    &[
        ("model.diffusion_model.input_blocks.0.0", &[4, 4, 3, 3]),
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q",
            &[4, 4],
        ),
        (
            "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1",
            &[8, 4],
        ),
    ],
];
const TO_Q: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const BEFORE: [&str; 16] = [
    "",
    "unet.",
    "transformer.",
    "text_encoder.",
    "text_encoder_2.",
    "base_model.model.",
    "lora_unet_",
    "lora_te_",
    "lora_te1_",
    "lora_te2_",
    "lora_transformer_",
    "diffusion_model.",
    "model.diffusion_model.",
    "<",
    "string_to_param.",
    "\u{1b}\n",
];
/// Those of two factors, as several programs write them.
const PAIRS: [[&str; 2]; 5] = [
    [".lora_down.weight", ".lora_up.weight"],
    [".lora_A.weight", ".lora_B.weight"],
    [".lora_A.default.weight", ".lora_B.default.weight"],
    [".lora.down.weight", ".lora.up.weight"],
    [".weight.lora_a", ".weight.lora_b"],
];
const BEHIND: [&str; 16] = [
    ".alpha",
    ".diff",
    ".diff_b",
    ".lora_mid.weight",
    ".lora_down.weight",
    ".lora_up.weight",
    ".lora_A.weight",
    ".lora_B.weight",
    ".processor.to_q_lora.down.weight",
    ".processor.to_q_lora.up.weight",
    ".dora_scale",
    ".weight",
    ".bias",
    ".lora_B.bias",
    ">",
    "",
];
const DTYPES: [Dtype; 8] = [
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::F64,
    Dtype::I64,
    Dtype::I32,
    Dtype::U8,
    Dtype::F8_E4M3,
];
const STRENGTHS: [f64; 8] = [1.0, 0.0, -0.5, 0.3, 1e300, f64::NAN, 1e-300, 70000.0];
/// No tensor is longer.
const MOST: usize = 1 << 14;

/// The models, each in a file of its own that lies in memory.
static BASES: LazyLock<Vec<(File, Model)>> = LazyLock::new(|| {
    let base = |modules: &&[(&str, &[usize])]| {
        let mut made = Made::default();
        for (at, (module, shape)) in modules.iter().enumerate() {
            // The last of all can be changed beside the weights only.
            let dtype = [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F8_E4M3][at];
            made.add(format!("{module}.weight"), dtype, shape, &mut Bytes(&[]));
            made.add(
                format!("{module}.bias"),
                dtype,
                &shape[..1],
                &mut Bytes(&[]),
            );
        }
        let file = in_memory(&made.file());
        let model = open(&file).expect("a sound file");
        (file, model)
    };
    MODELS.iter().map(base).collect()
});

/// What is left of the input; zeros behind its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> usize {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(*first)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.next() % all.len()]
    }
}

/// A file in the making.
#[derive(Default)]
struct Made {
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

impl Made {
    fn add(&mut self, name: String, dtype: Dtype, shape: &[usize], bytes: &mut Bytes<'_>) {
        let elements: usize = shape.iter().product();
        let length = elements * dtype.bitsize() / 8;
        if length > MOST {
            return;
        }
        // Any bits, of which few are given.
        let mut state = (bytes.next() as u64) << 32 | bytes.next() as u64;
        let numbers = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            (state >> 56) as u8
        });
        let numbers = numbers.take(length).collect();
        self.tensors.insert(name, (dtype, shape.to_vec(), numbers));
    }

    /// Factors that belong together, and fit but for what a number says.
    fn pair(&mut self, bytes: &mut Bytes<'_>) {
        let model = bytes.of(&MODELS);
        let (module, shape) = bytes.of(model);
        let before = bytes.of(&BEFORE);
        let flat = before.starts_with("lora_");
        let module = match flat {
            true => format!("{before}{}", module.replace('.', "_")),
            false => format!("{before}{module}"),
        };
        let endings = bytes.of(&PAIRS);
        let dtype = bytes.of(&DTYPES);
        let rank = bytes.next() % 6 + bytes.next() / 200 * 130;
        let form = bytes.next();
        let [mut down, mut up] = [shape.to_vec(), shape.to_vec()];
        (down[0], up[1]) = (rank, rank);
        up[2..].fill(1);
        if form & 1 == 1 {
            let mut mid = shape.to_vec();
            mid[..2].fill(rank);
            down[2..].fill(1);
            self.add(format!("{module}.lora_mid.weight"), dtype, &mid, bytes);
        }
        if form & 2 == 2 {
            self.add(format!("{module}.alpha"), Dtype::F32, &[], bytes);
        }
        if form & 12 == 12 {
            let wrong = if form & 16 == 0 { &mut down } else { &mut up };
            let place = form >> 5;
            match wrong.get_mut(place) {
                Some(size) => *size = bytes.next() % 8,
                None => wrong.truncate(1),
            }
        }
        self.add(format!("{module}{}", endings[0]), dtype, &down, bytes);
        self.add(format!("{module}{}", endings[1]), dtype, &up, bytes);
    }

    /// A tensor of any name and shape.
    fn other(&mut self, bytes: &mut Bytes<'_>) {
        let model = bytes.of(&MODELS);
        let (module, shape) = bytes.of(model);
        let module = bytes.of(&[module, "", "emb_params", "clip_l", "word", TO_Q]);
        let name = format!("{}{module}{}", bytes.of(&BEFORE), bytes.of(&BEHIND));
        let dtype = bytes.of(&DTYPES);
        let mut shape = shape.to_vec();
        match bytes.next() % 4 {
            0 => {}
            1 => shape.truncate(bytes.next() % 4),
            2 => shape[0] = bytes.next(),
            _ => shape = (0..bytes.next() % 5).map(|_| bytes.next() % 9).collect(),
        }
        self.add(name, dtype, &shape, bytes);
    }

    fn said(&mut self, bytes: &mut Bytes<'_>) {
        let key = bytes.of(&["lora_alpha", "use_rslora", "lora_adapter_metadata"]);
        let value = bytes.of(&[
            "4",
            "true",
            "nan",
            "1e400",
            r#"{"unet.lora_alpha": 8, "text_encoder.use_rslora": true}"#,
            r#"{"lora_alpha": 0.5, "alpha_pattern": {"conv_in": "inf"}}"#,
            r#"{"transformer.alpha_pattern": {"a.*": 1e308}}"#,
            "[",
        ]);
        self.metadata.insert(key.to_owned(), value.to_owned());
    }

    fn file(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            let view = TensorView::new(*dtype, shape.clone(), bytes);
            (name, view.expect("as many bytes"))
        });
        let metadata = (!self.metadata.is_empty()).then(|| self.metadata.clone());
        safetensors::serialize(views, metadata).expect("a sound file")
    }
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let file = match bytes.next() {
        0 => bytes.0.to_vec(),
        _ => {
            let mut made = Made::default();
            for _ in 0..16 {
                match bytes.next() % 8 {
                    0 if bytes.0.is_empty() => break,
                    0 | 1 => made.other(&mut bytes),
                    2 => made.said(&mut bytes),
                    _ => made.pair(&mut bytes),
                }
            }
            made.file()
        }
    };
    let memory = in_memory(&file);
    let patch = match open(&memory).map(|model| Patch::of(&model)) {
        Ok(Ok(patch)) => patch,
        Ok(Err(error)) => return is_printable(&error.to_string()),
        Err(error) => return is_printable(&error),
    };
    assert!(patch.components().len() <= patch.parts());
    let strength = STRENGTHS[file.len() % STRENGTHS.len()];
    for (_, base) in BASES.iter() {
        check(&patch, base, strength);
        check(&patch.only(Component::TextEncoder(1)), base, 1.0);
    }
});

fn check(patch: &Patch, base: &Model, strength: f64) {
    let strict = patch.fit(base, Strictness::Strict);
    let fit = match patch.fit(base, Strictness::Lenient) {
        Ok(fit) => fit,
        Err(error) => return is_printable(&error.to_string()),
    };
    assert_eq!(strict.is_ok(), fit.unmatched_count == 0);
    for unmatched in &fit.unmatched {
        is_printable(&unmatched.to_string());
    }
    for edit in &fit.edits {
        match Factors::read(patch, &edit.change) {
            Ok(factors) => merge(edit, base, &factors, strength),
            Err(error) => is_printable(&error.to_string()),
        }
    }
}

/// The same change twice, whole and in pieces.
fn merge(edit: &Edit, base: &Model, factors: &Factors<'_>, strength: f64) {
    let tensor = &base.tensors()[edit.target];
    let terms = [strength, 1.0].map(|strength| Term { factors, strength });
    let merge = match Merge::new(tensor.dtype, &tensor.shape, &terms[1..]) {
        Ok(merge) => merge,
        Err(MergeError::Base { .. }) => return assert!(edit.is_beside_only),
        Err(error) => panic!("{error}"),
    };
    assert!(!edit.is_beside_only);
    assert!(merge.is_identity() || *merge.shape() == *edit.shape);
    let merge = match Merge::new(tensor.dtype, &tensor.shape, &terms) {
        Ok(merge) => merge,
        Err(error) => return is_printable(&error.to_string()),
    };
    let mut whole = vec![0x3c; merge.bytes() as usize];
    let mut pieces = whole.clone();
    let count = merge.run(0, &mut whole).expect("a stretch within it");
    let (mut start, mut sum) = (0, 0);
    for piece in pieces.chunks_mut(20) {
        sum += merge.run(start, piece).expect("a stretch within it");
        start += piece.len() as u64;
    }
    assert_eq!((pieces, sum), (whole, count));
}

fn in_memory(bytes: &[u8]) -> File {
    // SAFETY: the name is a C string, and the descriptor is the file's alone.
    let memory = unsafe { File::from_raw_fd(libc::memfd_create(c"patch".as_ptr(), 0)) };
    memory.write_all_at(bytes, 0).expect("memory for it");
    memory
}

fn open(file: &File) -> Result<Model, String> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Model::open(path).map_err(|error| error.to_string())
}

fn is_printable(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}
