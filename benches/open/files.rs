//! The files of a model of 400 GB: headers as programs write them, and sparse data.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use crate::Failure;

/// Writes a model into a folder and gives the bytes of its tensors.
pub type Write = fn(&Path, &[Planned]) -> Result<u64, Failure>;

/// The name of the index of a safetensors model.
pub const INDEX: &str = "model.safetensors.index.json";

const SHARDS: u64 = 160;

/// What GGUF offsets are multiples of.
const ALIGNMENT: u64 = 32;

/// Words of the vocabulary in the first part of a GGUF model: as Llama 3 has them.
const WORDS: u32 = 128_256;

/// A tensor to be.
pub struct Planned {
    name: String,
    /// Its name in GGUF, where it has one: scales are inside blocks there.
    gguf: Option<String>,
    dtype: Dtype,
    shape: Vec<u64>,
}

#[derive(Clone, Copy)]
enum Dtype {
    Bf16,
    /// Q8_0 in GGUF, which has none.
    Fp8,
    F32,
}

impl Planned {
    fn bytes(&self) -> u64 {
        let element = match self.dtype {
            Dtype::Fp8 => 1,
            Dtype::Bf16 => 2,
            Dtype::F32 => 4,
        };
        self.shape.iter().product::<u64>() * element
    }

    fn gguf_bytes(&self) -> u64 {
        match self.dtype {
            // 32 elements and a scale.
            Dtype::Fp8 => self.bytes() / 32 * 34,
            Dtype::Bf16 | Dtype::F32 => self.bytes(),
        }
    }
}

/// A plan in the making.
struct Plan(Vec<Planned>);

impl Plan {
    fn add(&mut self, name: String, gguf: Option<String>, dtype: Dtype, shape: &[u64]) {
        self.0.push(Planned {
            name,
            gguf,
            dtype,
            shape: shape.to_vec(),
        });
    }

    /// What of a layer is not its experts.
    fn attention(&mut self, layer: u64, hidden: u64, heads: [u64; 2]) {
        let [queries, keys] = heads.map(|heads| heads * 128);
        let parts: [(&str, &str, &[u64]); 8] = [
            ("input_layernorm", "attn_norm", &[hidden]),
            ("post_attention_layernorm", "ffn_norm", &[hidden]),
            ("self_attn.q_norm", "attn_q_norm", &[128]),
            ("self_attn.k_norm", "attn_k_norm", &[128]),
            ("self_attn.q_proj", "attn_q", &[queries, hidden]),
            ("self_attn.k_proj", "attn_k", &[keys, hidden]),
            ("self_attn.v_proj", "attn_v", &[keys, hidden]),
            ("self_attn.o_proj", "attn_output", &[hidden, queries]),
        ];
        for (safetensors, gguf, shape) in parts {
            let safetensors = format!("model.layers.{layer}.{safetensors}.weight");
            let gguf = format!("blk.{layer}.{gguf}.weight");
            self.add(safetensors, Some(gguf), Dtype::Bf16, shape);
        }
    }

    fn ends(&mut self, hidden: u64) {
        let words = u64::from(WORDS);
        let ends: [(&str, &str, &[u64]); 3] = [
            ("model.embed_tokens", "token_embd", &[words, hidden]),
            ("lm_head", "output", &[words, hidden]),
            ("model.norm", "output_norm", &[hidden]),
        ];
        for (safetensors, gguf, shape) in ends {
            let (safetensors, gguf) = (format!("{safetensors}.weight"), format!("{gguf}.weight"));
            self.add(safetensors, Some(gguf), Dtype::Bf16, shape);
        }
    }
}

const PROJECTIONS: [(&str, &str); 3] = [
    ("gate_proj", "ffn_gate"),
    ("up_proj", "ffn_up"),
    ("down_proj", "ffn_down"),
];

/// Two dimensions of a projection: the last goes back to the model's own width.
fn projected(part: usize, hidden: u64, inner: u64) -> [u64; 2] {
    if part == 2 {
        [hidden, inner]
    } else {
        [inner, hidden]
    }
}

/// 200 billion parameters in 118 layers of a Llama.
pub fn dense() -> Vec<Planned> {
    let (hidden, inner) = (12_288, 36_864);
    let mut plan = Plan(Vec::new());
    for layer in 0..118 {
        plan.attention(layer, hidden, [96, 8]);
        for (part, (safetensors, gguf)) in PROJECTIONS.iter().enumerate() {
            plan.add(
                format!("model.layers.{layer}.mlp.{safetensors}.weight"),
                Some(format!("blk.{layer}.{gguf}.weight")),
                Dtype::Bf16,
                &projected(part, hidden, inner),
            );
        }
    }
    plan.ends(hidden);
    plan.0
}

/// 400 billion parameters of one byte in 58 layers of 256 experts with scales, the shape of
/// DeepSeek-V3. Programs of today write the experts of a layer as one tensor into GGUF; one each is
/// what older ones wrote.
pub fn experts() -> Vec<Planned> {
    let (hidden, inner) = (5120, 1792);
    let mut plan = Plan(Vec::new());
    for layer in 0..58 {
        plan.attention(layer, hidden, [64, 8]);
        plan.add(
            format!("model.layers.{layer}.mlp.gate.weight"),
            Some(format!("blk.{layer}.ffn_gate_inp.weight")),
            Dtype::F32,
            &[256, hidden],
        );
        for expert in 0..256 {
            for (part, (safetensors, gguf)) in PROJECTIONS.iter().enumerate() {
                let shape = projected(part, hidden, inner);
                let of = format!("model.layers.{layer}.mlp.experts.{expert}.{safetensors}");
                plan.add(
                    format!("{of}.weight"),
                    Some(format!("blk.{layer}.{gguf}.{expert}.weight")),
                    Dtype::Fp8,
                    &shape,
                );
                plan.add(
                    format!("{of}.weight_scale_inv"),
                    None,
                    Dtype::F32,
                    &shape.map(|dimension| dimension / 128),
                );
            }
        }
    }
    plan.ends(hidden);
    plan.0
}

/// Runs of tensors for files of about the same size.
fn shards(model: &[Planned]) -> Vec<Range<usize>> {
    let total: u64 = model.iter().map(Planned::bytes).sum();
    let mut shards: Vec<Range<usize>> = Vec::new();
    let (mut before, mut shard) = (0, u64::MAX);
    for (position, tensor) in model.iter().enumerate() {
        let at = (before * SHARDS).checked_div(total).unwrap_or(0);
        match shards.last_mut() {
            Some(range) if at == shard => range.end = position + 1,
            _ => shards.push(position..position + 1),
        }
        shard = at;
        before += tensor.bytes();
    }
    shards
}

/// A file of a header and nothing but holes behind it.
fn sparse(path: &Path, header: &[u8], data: u64) -> Result<(), Failure> {
    let mut file = File::create(path)?;
    file.write_all(header)?;
    file.set_len(header.len() as u64 + data)?;
    Ok(())
}

/// Shards and an index, as transformers' `save_pretrained` writes them.
pub fn safetensors(folder: &Path, model: &[Planned]) -> Result<u64, Failure> {
    let shards = shards(model);
    let mut map: Vec<String> = Vec::with_capacity(model.len());
    let mut total = 0;
    for (number, range) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        let mut header = String::from(r#"{"__metadata__":{"format":"pt"}"#);
        let mut data = 0;
        for tensor in &model[range.clone()] {
            let (name, begin) = (&tensor.name, data);
            data += tensor.bytes();
            let dtype = match tensor.dtype {
                Dtype::Bf16 => "BF16",
                Dtype::Fp8 => "F8_E4M3",
                Dtype::F32 => "F32",
            };
            let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
            header.push_str(&format!(
                r#","{name}":{{"dtype":"{dtype}","shape":[{}],"data_offsets":[{begin},{data}]}}"#,
                shape.join(",")
            ));
            map.push(format!("    \"{name}\": \"{file}\""));
        }
        header.push('}');
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let length = (header.len() as u64).to_le_bytes();
        let header = [&length, header.as_bytes()].concat();
        sparse(&folder.join(file), &header, data)?;
        total += data;
    }
    map.sort_unstable();
    let index = format!(
        "{{\n  \"metadata\": {{\n    \"total_size\": {total}\n  }},\n  \"weight_map\": {{\n{}\n  }}\n}}\n",
        map.join(",\n")
    );
    std::fs::write(folder.join(INDEX), index)?;
    Ok(total)
}

/// Parts, as `llama-gguf-split` writes them: the first has a vocabulary, and all that is said of the
/// model.
pub fn gguf(folder: &Path, model: &[Planned]) -> Result<u64, Failure> {
    let shards = shards(model);
    let tensors = model.iter().filter(|tensor| tensor.gguf.is_some()).count();
    let mut total = 0;
    for (number, range) in shards.iter().enumerate() {
        let mut keys = Keys::default();
        if number == 0 {
            keys.text("general.architecture", "llama");
            keys.words("tokenizer.ggml.tokens");
            keys.words("tokenizer.ggml.merges");
        }
        // u16, u16, i32.
        keys.key("split.no", 2)
            .extend((number as u16).to_le_bytes());
        keys.key("split.count", 2)
            .extend((shards.len() as u16).to_le_bytes());
        keys.key("split.tensors.count", 5)
            .extend((tensors as u32).to_le_bytes());

        let named = || {
            let tensors = model[range.clone()].iter();
            tensors.filter_map(|tensor| Some((tensor.gguf.as_ref()?, tensor)))
        };
        let mut header = b"GGUF\x03\0\0\0".to_vec();
        header.extend((named().count() as u64).to_le_bytes());
        header.extend(keys.count.to_le_bytes());
        header.extend(keys.bytes);
        let mut data = 0_u64;
        for (name, tensor) in named() {
            text(&mut header, name);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            for dimension in tensor.shape.iter().rev() {
                header.extend(dimension.to_le_bytes());
            }
            let dtype: u32 = match tensor.dtype {
                Dtype::F32 => 0,
                Dtype::Fp8 => 8,
                Dtype::Bf16 => 30,
            };
            header.extend(dtype.to_le_bytes());
            header.extend(data.to_le_bytes());
            data += tensor.gguf_bytes().next_multiple_of(ALIGNMENT);
            total += tensor.gguf_bytes();
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        let file = format!("model-{:05}-of-{:05}.gguf", number + 1, shards.len());
        sparse(&folder.join(file), &header, data)?;
    }
    Ok(total)
}

/// Keys and their values.
#[derive(Default)]
struct Keys {
    bytes: Vec<u8>,
    count: u64,
}

impl Keys {
    /// Begins one, of a type by its number in `gguf_metadata_value_type`.
    fn key(&mut self, key: &str, value: u32) -> &mut Vec<u8> {
        self.count += 1;
        text(&mut self.bytes, key);
        self.bytes.extend(value.to_le_bytes());
        &mut self.bytes
    }

    fn text(&mut self, key: &str, value: &str) {
        text(self.key(key, 8), value);
    }

    /// An array of as many texts as a vocabulary has.
    fn words(&mut self, key: &str) {
        let bytes = self.key(key, 9);
        bytes.extend(8_u32.to_le_bytes());
        bytes.extend(u64::from(WORDS).to_le_bytes());
        for word in 0..WORDS {
            text(bytes, &format!("word{word}"));
        }
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
