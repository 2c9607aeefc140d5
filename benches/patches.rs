//! Patches merged into weights, beside them, and as programs without a cache merge: time and memory,
//! for ranks from 4 to 128 on layers of SDXL's UNet.
//!
//! `cargo bench --bench patches [-- BLOCKS]`. The weights are transformer blocks of its middle: the
//! projections of both attentions (1280 × 1280, and 1280 × 2048 for the text) and of the feed-forward
//! (10240 × 1280 and 1280 × 5120), F16, with a LoRA of F16 on every one of them. Files are in the
//! page cache. Every row is the median of some rounds, its parts in turns.
//!
//! | row | what it does |
//! |---|---|
//! | `candle` | W + s·B·A by candle's own operations on F16 tensors in RAM, as programs write it |
//! | `merged` | `lease([model.on(Cpu).with(&patch, 0.8).merged()])`, the model resident |
//! | `beside` | the same with `.beside()` |
//! | `forward` | one pass of 64 tokens, in F32, through all the layers |

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use half::f16;
use malloc_stats::Size;
use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Budget, Cache, Cpu, Lease, Model};
use plimsoll_tui::table::{Align, Table};
use safetensors::tensor::{Dtype, TensorView};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const RANKS: [usize; 6] = [4, 8, 16, 32, 64, 128];
const ROUNDS: usize = 5;
const TOKENS: usize = 64;
const STRENGTH: f64 = 0.8;

/// The projections of one block: their names, outputs and inputs.
const BLOCK: [(&str, usize, usize); 10] = [
    ("attn1.to_q", 1280, 1280),
    ("attn1.to_k", 1280, 1280),
    ("attn1.to_v", 1280, 1280),
    ("attn1.to_out.0", 1280, 1280),
    ("attn2.to_q", 1280, 1280),
    ("attn2.to_k", 1280, 2048),
    ("attn2.to_v", 1280, 2048),
    ("attn2.to_out.0", 1280, 1280),
    ("ff.net.0.proj", 10240, 1280),
    ("ff.net.2", 1280, 5120),
];

fn layers(blocks: usize) -> impl Iterator<Item = (String, usize, usize)> {
    (0..blocks).flat_map(|block| {
        let prefix = format!("mid_block.attentions.0.transformer_blocks.{block}");
        let layers = BLOCK.iter();
        layers.map(move |(name, rows, columns)| (format!("{prefix}.{name}"), *rows, *columns))
    })
}

/// Numbers of about that size, the same each time.
fn numbers(seed: u64, count: usize, size: f64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let unit = (state >> 11) as f64 / (1_u64 << 53) as f64;
        f16::from_f64((unit * 2.0 - 1.0) * size).to_le_bytes()
    };
    std::iter::repeat_with(next).take(count).flatten().collect()
}

fn save(path: &Path, tensors: Vec<(String, Vec<usize>, Vec<u8>)>) -> Outcome<PathBuf> {
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F16, shape.clone(), bytes);
        view.map(|view| (name.clone(), view))
    });
    let views: Vec<_> = views.collect::<Result<_, _>>()?;
    safetensors::serialize_to_file(views, None, path)?;
    Ok(path.to_owned())
}

fn base(folder: &Path, blocks: usize) -> Outcome<Model> {
    let tensors = layers(blocks)
        .enumerate()
        .map(|(at, (name, rows, columns))| {
            let bytes = numbers(at as u64 + 1, rows * columns, 0.05);
            (format!("{name}.weight"), vec![rows, columns], bytes)
        });
    let path = save(&folder.join("unet.safetensors"), tensors.collect())?;
    Ok(Model::open(path)?)
}

fn lora(folder: &Path, blocks: usize, rank: usize) -> Outcome<Patch> {
    let mut tensors = Vec::new();
    for (at, (name, rows, columns)) in layers(blocks).enumerate() {
        let seed = (at * 2 + 1000) as u64;
        let down = numbers(seed, rank * columns, 0.05);
        tensors.push((
            format!("unet.{name}.lora_A.weight"),
            vec![rank, columns],
            down,
        ));
        let up = numbers(seed + 1, rows * rank, 0.05);
        tensors.push((format!("unet.{name}.lora_B.weight"), vec![rows, rank], up));
    }
    let path = save(&folder.join(format!("rank{rank}.safetensors")), tensors)?;
    Ok(Patch::open(path)?)
}

/// As programs merge: every step rounded to the type of the weights.
fn by_candle(lease: &Lease, model: &Model, patch: &Patch) -> Outcome<Vec<Tensor>> {
    let weights = lease.get(model)?;
    let factors = candle_core::safetensors::load(patch.model().path(), &Device::Cpu)?;
    let mut merged = Vec::new();
    for tensor in model.tensors() {
        let name = tensor.name.trim_end_matches(".weight");
        let factor = |which: &str| {
            let key = format!("unet.{name}.{which}.weight");
            factors.get(&key).cloned().ok_or(key)
        };
        let product = factor("lora_B")?.matmul(&factor("lora_A")?)?;
        merged.push((weights.tensor(&tensor.name)? + (product * STRENGTH)?)?);
    }
    Ok(merged)
}

/// A pass of some tokens through every layer, each on its own.
fn forward(lease: &Lease, model: &Model) -> Outcome<Duration> {
    let leased = lease.get(model)?;
    let mut took = Duration::ZERO;
    for tensor in model.tensors() {
        let input = Tensor::ones((TOKENS, tensor.shape[1]), DType::F32, &Device::Cpu)?;
        let weights = leased.tensor(&tensor.name)?.to_dtype(DType::F32)?;
        let beside = leased.beside(&tensor.name)?;
        let started = Instant::now();
        let mut output = input.matmul(&weights.t()?)?;
        for one in &beside {
            output = (output + one.linear(&input)?)?;
        }
        std::hint::black_box(output);
        took += started.elapsed();
    }
    Ok(took)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|one| !one.starts_with("--"));
    let blocks: usize = arguments.next().map_or(Ok(4), |blocks| blocks.parse())?;
    let folder = tempfile::tempdir()?;
    let model = base(folder.path(), blocks)?;
    println!(
        "{blocks} blocks, {} layers, {} of F16; {ROUNDS} rounds",
        model.tensors().len(),
        Size(model.bytes())
    );
    let mut table = Table::new([
        ("rank", Align::Right),
        ("file", Align::Right),
        ("merged takes", Align::Right),
        ("beside takes", Align::Right),
        ("candle ms", Align::Right),
        ("merged ms", Align::Right),
        ("beside ms", Align::Right),
        ("merged, GB/s of weights", Align::Right),
        ("candle / merged", Align::Right),
        ("forward merged ms", Align::Right),
        ("forward beside ms", Align::Right),
        ("beside / merged", Align::Right),
    ]);
    for rank in RANKS {
        let patch = lora(folder.path(), blocks, rank)?;
        let cache = Cache::builder().ram(Budget::unlimited()).build()?;
        let plain = cache.lease([&model])?;
        let empty = cache.usage().used_bytes;
        let mut all: [Vec<Duration>; 5] = Default::default();
        let (mut merged_bytes, mut beside_bytes) = (0, 0);
        for _ in 0..ROUNDS {
            let started = Instant::now();
            drop(by_candle(&plain, &model, &patch)?);
            all[0].push(started.elapsed());

            let started = Instant::now();
            let wanted = model.on(Cpu).with(&patch, STRENGTH).merged();
            let lease = cache.lease([wanted])?;
            all[1].push(started.elapsed());
            merged_bytes = cache.usage().used_bytes - empty;
            all[3].push(forward(&lease, &model)?);
            drop(lease);
            cache.clear();

            let started = Instant::now();
            let wanted = model.on(Cpu).with(&patch, STRENGTH).beside();
            let lease = cache.lease([wanted])?;
            all[2].push(started.elapsed());
            beside_bytes = cache.usage().used_bytes - empty;
            all[4].push(forward(&lease, &model)?);
            drop(lease);
            cache.clear();
        }
        let [candle, merged, beside, with_merged, with_beside] = all.map(median);
        let ratio = |a: Duration, b: Duration| format!("{:.2}", a.as_secs_f64() / b.as_secs_f64());
        let rate = model.bytes() as f64 / merged.as_secs_f64() / 1e9;
        table.row([
            rank.to_string(),
            Size(patch.model().bytes()).to_string(),
            Size(merged_bytes).to_string(),
            Size(beside_bytes).to_string(),
            milliseconds(candle),
            milliseconds(merged),
            milliseconds(beside),
            format!("{rate:.2}"),
            ratio(candle, merged),
            milliseconds(with_merged),
            milliseconds(with_beside),
            ratio(with_beside, with_merged),
        ]);
    }
    print!("{table}");
    Ok(())
}
