//! A forward pass with patched weights is that with weights that were merged by hand.

#[path = "../../examples/embed/bert.rs"]
#[allow(dead_code)]
mod bert;

use std::path::{Path, PathBuf};

use bert::Bert;
use candle_core::{D, Device, Tensor};
use plimsoll_cache::device::{Device as _, Simulated};
use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Cache, Cpu, Leased, Model, Storage, Tier};
use safetensors::Dtype;

use super::definitions::numbers;
use super::files::{File, PEFT, decode, folder};
use super::support::MIB;

const RANK: usize = 8;
const ALPHA: f64 = 16.0;
const STRENGTH: f64 = 0.75;

/// Factors for a layer of that width, of about the size that training gives.
fn factors(module: &str, width: usize) -> (Vec<f64>, Vec<f64>) {
    let small = |seed: &str, by: f64| -> Vec<f64> {
        let numbers = numbers(Dtype::F32, &format!("{module} {seed}"), RANK * width);
        let numbers = numbers.iter().map(|x| f64::from((x * by) as f32));
        numbers.collect()
    };
    (small("down", 0.05), small("up", 0.05))
}

/// An adapter of PEFT for these layers.
fn adapter(folder: &Path, modules: &[String], width: usize) -> Patch {
    let said = format!(r#"{{"lora_alpha": {ALPHA}, "use_rslora": false}}"#);
    let file = modules.iter().fold(File::new(), |file, module| {
        let (down, up) = factors(module, width);
        let [of_down, of_up] = PEFT.map(|ending| format!("base_model.model.{module}{ending}"));
        file.with(&of_down, Dtype::F32, &[RANK, width], &down).with(
            &of_up,
            Dtype::F32,
            &[width, RANK],
            &up,
        )
    });
    let file = file.said("lora_adapter_metadata", &said);
    Patch::open(file.save(folder, "adapter_model")).unwrap()
}

/// The same model in a new file, with the layers merged in double precision.
fn by_hand(model: &Model, modules: &[String], width: usize, folder: &Path) -> Model {
    let bytes: Vec<Vec<u8>> = model
        .files()
        .iter()
        .map(|file| std::fs::read(&file.path).unwrap())
        .collect();
    let mut file = File::new();
    for tensor in model.tensors() {
        let from = tensor.offset as usize;
        let there = &bytes[tensor.file as usize][from..from + tensor.bytes as usize];
        let dtype = match tensor.dtype.to_string().as_str() {
            "F32" => Dtype::F32,
            // Positions of tokens, which this transformer does not read.
            _ => continue,
        };
        let mut all = decode(dtype, there);
        let is_changed = |module: &&String| *tensor.name == format!("{module}.weight");
        if let Some(module) = modules.iter().find(is_changed) {
            let (down, up) = factors(module, width);
            let by = STRENGTH * ALPHA / RANK as f64;
            for (at, sum) in all.iter_mut().enumerate() {
                let (row, column) = (at / width, at % width);
                let terms = (0..RANK).map(|p| up[row * RANK + p] * down[p * width + column]);
                *sum += by * terms.sum::<f64>();
            }
        }
        file = file.with(&tensor.name, dtype, &tensor.shape, &all);
    }
    Model::open(file.save(folder, "by-hand")).unwrap()
}

fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    let pairs = one.iter().zip(other);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

const WIDTH: usize = 32;
const HEADS: usize = 4;

/// A transformer of two layers with made-up weights.
struct Net<'a> {
    leased: Leased<'a>,
}

impl Net<'_> {
    fn tensor(&self, name: &str) -> Tensor {
        let tensor = self.leased.tensor(name).unwrap();
        tensor.to_device(&Device::Cpu).unwrap()
    }

    /// With what lies beside the weights.
    fn linear(&self, x: &Tensor, name: &str) -> candle_core::Result<Tensor> {
        let name = format!("{name}.weight");
        let mut y = x.broadcast_matmul(&self.tensor(&name).t()?)?;
        for beside in self.leased.beside(&name).unwrap() {
            y = (y + beside.linear(x)?)?;
        }
        Ok(y)
    }

    fn forward(&self, tokens: &[u32]) -> candle_core::Result<Vec<f32>> {
        let words = self.tensor("embeddings.weight");
        let mut state = words.index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)?;
        for layer in 0..2 {
            let heads = |part: &str| -> candle_core::Result<Tensor> {
                let all = self.linear(&state, &format!("layers.{layer}.attention.{part}"))?;
                let heads = all.reshape((tokens.len(), HEADS, WIDTH / HEADS))?;
                heads.transpose(0, 1)?.contiguous()
            };
            let (query, key, value) = (heads("query")?, heads("key")?, heads("value")?);
            let scores = (query.matmul(&key.t()?)? / ((WIDTH / HEADS) as f64).sqrt())?;
            let highest = scores.max_keepdim(D::Minus1)?;
            let powers = scores.broadcast_sub(&highest)?.exp()?;
            let shares = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
            let context = shares.matmul(&value)?.transpose(0, 1)?;
            let context = context.reshape((tokens.len(), WIDTH))?;
            state =
                (&state + self.linear(&context, &format!("layers.{layer}.attention.output"))?)?;
            let inner = self
                .linear(&state, &format!("layers.{layer}.inner"))?
                .gelu_erf()?;
            state = (&state + self.linear(&inner, &format!("layers.{layer}.outer"))?)?;
            let length = state.sqr()?.mean_keepdim(D::Minus1)?.sqrt()?;
            state = state.broadcast_div(&length)?;
        }
        state.flatten_all()?.to_vec1()
    }
}

#[test]
fn a_small_transformer_gives_what_merging_by_hand_gives() {
    let folder = folder();
    let mut file = File::new().with(
        "embeddings.weight",
        Dtype::F32,
        &[50, WIDTH],
        &numbers(Dtype::F32, "words", 50 * WIDTH),
    );
    let mut modules = Vec::new();
    for layer in 0..2 {
        let mut add = |name: &str, shape: [usize; 2]| {
            let name = format!("layers.{layer}.{name}");
            let all = numbers(Dtype::F32, &name, shape[0] * shape[1]);
            let all: Vec<f64> = all.iter().map(|x| x * 0.2).collect();
            let file_now = std::mem::take(&mut file);
            file = file_now.with(&format!("{name}.weight"), Dtype::F32, &shape, &all);
            name
        };
        for part in ["query", "key", "value", "output"] {
            modules.push(add(&format!("attention.{part}"), [WIDTH, WIDTH]));
        }
        add("inner", [2 * WIDTH, WIDTH]);
        add("outer", [WIDTH, 2 * WIDTH]);
    }
    let model = file.model(&folder, "net");
    let patch = adapter(folder.path(), &modules, WIDTH);
    let hand = by_hand(&model, &modules, WIDTH, folder.path());
    let tokens = [3, 14, 15, 9, 26, 5, 35];
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        let gpu = std::sync::Arc::new(Simulated::new(4 * MIB));
        let cache = Cache::builder()
            .ram(4 * MIB)
            .storage(storage)
            .device(std::sync::Arc::clone(&gpu), 4 * MIB)
            .build()
            .unwrap();
        let pass = |wanted: plimsoll_cache::Wanted<'_>, of: &Model| {
            let lease = cache.lease([wanted]).unwrap();
            let leased = lease.get(of).unwrap();
            Net { leased }.forward(&tokens).unwrap()
        };
        let wanted = pass(hand.on(Cpu), &hand);
        let before = pass(model.on(Cpu), &model);
        assert!(
            largest_difference(&before, &wanted) > 0.01,
            "it changes nothing"
        );
        for tier in [Tier::RAM, gpu.tier()] {
            let patched = || model.on(tier).with(&patch, STRENGTH);
            let merged = pass(patched().merged(), &model);
            let away = largest_difference(&merged, &wanted);
            assert!(away <= 1e-6, "{storage}: merged is {away} away");
            let beside = pass(patched().beside(), &model);
            let away = largest_difference(&beside, &wanted);
            assert!(away <= 1e-5, "{storage}: beside is {away} away");
            assert_eq!(pass(model.on(tier), &model), before, "{storage}: the base");
        }
    }
}

#[test]
fn the_example_transformer_gives_what_merging_by_hand_gives() {
    let Some(minilm) = std::env::var_os("PLIMSOLL_MINILM").map(PathBuf::from) else {
        println!("skipped: PLIMSOLL_MINILM names no folder that scripts/fetch-minilm has filled");
        return;
    };
    let folder = folder();
    let model = Model::open(minilm.join("model.safetensors")).unwrap();
    let width = 384;
    let modules: Vec<String> = (0..6)
        .flat_map(|layer| {
            let parts = ["self.query", "self.key", "self.value", "output.dense"];
            parts.map(|part| format!("encoder.layer.{layer}.attention.{part}"))
        })
        .collect();
    let patch = adapter(folder.path(), &modules, width);
    let hand = by_hand(&model, &modules, width, folder.path());
    // A sentence in the model's own vocabulary.
    let tokens = [101, 1996, 4633, 2003, 8403, 2651, 1012, 102];
    let cache = Cache::builder().ram(512 * MIB).build().unwrap();
    let embed = |wanted: plimsoll_cache::Wanted<'_>, of: &Model| {
        let lease = cache.lease([wanted]).unwrap();
        let bert = Bert::new(&lease.get(of).unwrap(), &minilm).unwrap();
        bert.embed(&tokens).unwrap()
    };
    let before = embed(model.on(Cpu), &model);
    let wanted = embed(hand.on(Cpu), &hand);
    assert!(
        largest_difference(&before, &wanted) > 1e-3,
        "it changes nothing"
    );
    let merged = embed(model.on(Cpu).with(&patch, STRENGTH).merged(), &model);
    let away = largest_difference(&merged, &wanted);
    println!("the largest difference is {away:e}");
    assert!(away <= 1e-6, "{away}");
    assert_eq!(embed(model.on(Cpu), &model), before);
}
