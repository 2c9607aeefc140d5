//! A transformer's forward pass over leased weights: several BERT-like encoders take turns on a
//! device and in RAM that are both too small for all of them. Every result is compared with the
//! same pass over weights that candle read by itself.
//!
//! `cargo run -p plimsoll-cache --example transformer`

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use candle_core::{CpuStorage, D, Device as Place, Storage, Tensor};
use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Budget, Cache, Cpu, Lease, Leased, Model, Tier};
use plimsoll_events::{Event, EvictReason, Kind, Sink, Stream};

/// Lets tensors be views of the cache's memory. Without it they are copies.
#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LAYERS: usize = 3;
const HEADS: usize = 4;
const HIDDEN: usize = 128;
const INTERMEDIATE: usize = 512;
const VOCABULARY: usize = 1000;
const POSITIONS: usize = 64;

/// What the pass itself allocates at most: scores of all heads, and a few rows of activations.
const WORKING: u64 = 1 << 20;

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut models = Vec::new();
    for (seed, name) in ["bert-en", "bert-de", "bert-fr", "bert-it", "bert-es"]
        .iter()
        .enumerate()
    {
        models.push(Model::open(write_weights(
            folder.path(),
            name,
            seed as u64,
        )?)?);
    }
    let bytes = models[0].bytes();

    // Room for two models on the device, and for three in RAM. The reserve is what the budget
    // leaves to working memory: declared up to there, it takes no room from weights.
    let device = Simulated::new(3 * bytes);
    let gpu = device.tier();
    let on_device = Budget::fixed(2 * bytes + bytes / 2 + 2 * WORKING).reserve(2 * WORKING);
    let cache = Cache::builder()
        .ram(Budget::fixed(3 * bytes + bytes / 2))
        .device(device, on_device)
        .stream(Stream::new(Told))
        .build()?;

    let tokens: Vec<u32> = (0..24).map(|at| at * 37 % VOCABULARY as u32).collect();
    let mut worst = 0.0_f32;
    for turn in [0, 1, 2, 3, 4, 4, 0, 2] {
        let model = &models[turn];
        let lease = cache.lease([model.on(gpu).or_on(Cpu).working_memory(WORKING)])?;
        worst = worst.max(check(&lease, model, gpu, &tokens)?);
    }

    println!("two leases fill the device; the third goes to its second choice at once");
    let long = cache.lease([models[0].on(gpu), models[1].on(gpu)])?;
    let lease = cache.lease([models[2].on(gpu).or_on(Cpu).working_memory(WORKING)])?;
    if lease.get(&models[2])?.tier() != Tier::RAM {
        return Err("it was granted on a device that leases fill".into());
    }
    worst = worst.max(check(&lease, &models[2], gpu, &tokens)?);
    drop((long, lease));

    println!("a tensor may outlive its lease, and even the eviction of its model");
    let lease = cache.lease([models[3].on(gpu)])?;
    let kept = lease
        .get(&models[3])?
        .tensor("embeddings.word_embeddings.weight")?;
    drop(lease);
    if !cache.evict(&models[3]) {
        return Err("a tensor alone keeps no model from being evicted".into());
    }
    let held = cache.usage_of(gpu).unwrap_or_default().held_bytes;
    println!("  evicted; {held} bytes still count on the device, for as long as the tensor lives");
    let same = distance(
        &kept,
        &reference(&models[3])?["embeddings.word_embeddings.weight"],
    )?;
    drop(kept);
    let after = cache.usage_of(gpu).unwrap_or_default().held_bytes;
    println!("  dropped; {after} bytes count");
    if held == 0 || after != 0 || same != 0.0 {
        return Err("held memory was not counted, or did not keep its content".into());
    }

    println!("largest difference to candle's own loading: {worst:e}");
    if worst > 1e-5 {
        return Err("leased weights give other results".into());
    }
    Ok(())
}

/// Runs the model, and says where and how far from the reference the result is.
fn check(lease: &Lease, model: &Model, gpu: Tier, tokens: &[u32]) -> Result<f32> {
    let weights = lease.get(model)?;
    is_a_view(&weights, "encoder.layer.0.attention.self.query.weight")?;
    let there = encode(|name| Ok(weights.tensor(name)?), tokens)?;
    let own = reference(model)?;
    let here = encode(
        |name| own.get(name).cloned().ok_or_else(|| name.into()),
        tokens,
    )?;
    let difference = distance(&there, &here)?;
    let place = if weights.tier() == gpu {
        "device"
    } else {
        "ram"
    };
    println!(
        "{} on {place}: {:?}, difference {difference:e}",
        model.name(),
        there.dims()
    );
    Ok(difference)
}

/// The weights as candle reads them.
fn reference(model: &Model) -> Result<HashMap<String, Tensor>> {
    Ok(candle_core::safetensors::load(model.path(), &Place::Cpu)?)
}

fn distance(one: &Tensor, other: &Tensor) -> Result<f32> {
    Ok((one - other)?.abs()?.flatten_all()?.max(0)?.to_scalar()?)
}

/// The encoder. `weight` is all it knows of where weights come from.
fn encode(weight: impl Fn(&str) -> Result<Tensor>, tokens: &[u32]) -> Result<Tensor> {
    let linear = |input: &Tensor, name: &str| -> Result<Tensor> {
        let product = input.matmul(&weight(&format!("{name}.weight"))?.t()?)?;
        Ok(product.broadcast_add(&weight(&format!("{name}.bias"))?)?)
    };
    let norm = |input: &Tensor, name: &str| -> Result<Tensor> {
        let centred = input.broadcast_sub(&input.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let scaled = centred.broadcast_div(&(variance + 1e-12)?.sqrt()?)?;
        let scaled = scaled.broadcast_mul(&weight(&format!("{name}.weight"))?)?;
        Ok(scaled.broadcast_add(&weight(&format!("{name}.bias"))?)?)
    };

    let count = tokens.len();
    let ids = Tensor::new(tokens, &Place::Cpu)?;
    let words = weight("embeddings.word_embeddings.weight")?.index_select(&ids, 0)?;
    let positions = weight("embeddings.position_embeddings.weight")?.narrow(0, 0, count)?;
    let kind = weight("embeddings.token_type_embeddings.weight")?.narrow(0, 0, 1)?;
    let sum = (words + positions)?.broadcast_add(&kind)?;
    let mut state = norm(&sum, "embeddings.LayerNorm")?;

    let width = HIDDEN / HEADS;
    for layer in 0..LAYERS {
        let at = |part: &str| format!("encoder.layer.{layer}.{part}");
        let heads = |part: &str| -> Result<Tensor> {
            let all = linear(&state, &at(part))?.reshape((count, HEADS, width))?;
            Ok(all.transpose(0, 1)?.contiguous()?)
        };
        let query = heads("attention.self.query")?;
        let key = heads("attention.self.key")?;
        let value = heads("attention.self.value")?;
        let scores = (query.matmul(&key.t()?)? / (width as f64).sqrt())?;
        let context = softmax(&scores)?.matmul(&value)?;
        let context = context.transpose(0, 1)?.reshape((count, HIDDEN))?;
        let attended = linear(&context, &at("attention.output.dense"))?;
        state = norm(&(attended + &state)?, &at("attention.output.LayerNorm"))?;
        let inner = linear(&state, &at("intermediate.dense"))?.gelu_erf()?;
        let outer = linear(&inner, &at("output.dense"))?;
        state = norm(&(outer + &state)?, &at("output.LayerNorm"))?;
    }
    Ok(state)
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let powers = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
        .exp()?;
    Ok(powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?)
}

/// Makes sure that a tensor lies where the leased bytes lie: nothing was copied.
fn is_a_view(weights: &Leased<'_>, name: &str) -> Result<()> {
    let address = weights.bytes(name)?.as_ptr().addr();
    let tensor = weights.tensor(name)?;
    let (storage, _) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        return Err(format!("{name} is no f32 tensor on the CPU").into());
    };
    if values.as_ptr().addr() != address {
        return Err(format!("{name} was copied").into());
    }
    Ok(())
}

/// Says what the cache does.
struct Told;

impl Sink for Told {
    fn event(&self, event: &Event) {
        match &event.kind {
            Kind::Load(load) => {
                println!("  + {} into {} from {:?}", load.model, load.tier, load.from);
            }
            Kind::Evict(evict) => {
                let why = match &evict.reason {
                    EvictReason::Room { wanted_for, .. } => {
                        format!("for {}", wanted_for.join(", "))
                    }
                    other => format!("{other:?}"),
                };
                println!("  - {} from {} ({why})", evict.model, evict.tier);
            }
            _ => {}
        }
    }
}

/// A file of small random weights, the same for the same seed.
fn write_weights(folder: &Path, name: &str, seed: u64) -> Result<PathBuf> {
    let mut made = Made {
        state: seed,
        tensors: HashMap::new(),
    };
    made.add("embeddings.word_embeddings.weight", &[VOCABULARY, HIDDEN])?;
    made.add(
        "embeddings.position_embeddings.weight",
        &[POSITIONS, HIDDEN],
    )?;
    made.add("embeddings.token_type_embeddings.weight", &[2, HIDDEN])?;
    made.norm("embeddings.LayerNorm")?;
    for layer in 0..LAYERS {
        let at = |part: &str| format!("encoder.layer.{layer}.{part}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            made.linear(&at(&format!("attention.{part}")), HIDDEN, HIDDEN)?;
        }
        made.norm(&at("attention.output.LayerNorm"))?;
        made.linear(&at("intermediate.dense"), INTERMEDIATE, HIDDEN)?;
        made.linear(&at("output.dense"), HIDDEN, INTERMEDIATE)?;
        made.norm(&at("output.LayerNorm"))?;
    }
    let path = folder.join(format!("{name}.safetensors"));
    safetensors::serialize_to_file(&made.tensors, None, &path)?;
    Ok(path)
}

struct Made {
    state: u64,
    tensors: HashMap<String, Tensor>,
}

impl Made {
    fn add(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| self.next() * 0.1)
            .collect();
        let tensor = Tensor::from_vec(values, shape, &Place::Cpu)?;
        self.tensors.insert(name.to_owned(), tensor);
        Ok(())
    }

    fn linear(&mut self, name: &str, out: usize, into: usize) -> Result<()> {
        self.add(&format!("{name}.weight"), &[out, into])?;
        self.add(&format!("{name}.bias"), &[out])
    }

    fn norm(&mut self, name: &str) -> Result<()> {
        let around_one = (0..HIDDEN).map(|_| 1.0 + self.next() * 0.1).collect();
        let scale = Tensor::from_vec(around_one, HIDDEN, &Place::Cpu)?;
        self.tensors.insert(format!("{name}.weight"), scale);
        self.add(&format!("{name}.bias"), &[HIDDEN])
    }

    /// The next number between -1 and 1 (splitmix64).
    fn next(&mut self) -> f32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
