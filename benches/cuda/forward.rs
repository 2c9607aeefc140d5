//! A forward pass with everything on the device, and with half of the bytes streamed.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{D, DType, Device as Candle, Tensor};
use malloc_stats::Size;
use plimsoll_cache::device::{Cuda, Device};
use plimsoll_cache::observe::Trace;
use plimsoll_cache::{Cache, Lease, Model, Partial, Storage};
use plimsoll_tui::table::{Align, Table};
use serde_json::json;

use crate::Failure;
use crate::ours::{Ours, Way, ways};
use crate::report::Report;
use crate::samples::{Samples, Threshold, ratio, shown};

/// What computing with a byte is to take, in what the link takes for it.
const COMPUTE: f64 = 1.15;

/// Rows of the input, least and most.
const ROWS: (usize, usize) = (128, 16384);

/// What bf16 rounds to, of one: results that differ by more differ by more than rounding.
const ROUNDING: f32 = 1.0 / 256.0;

/// The model, in a cache of its own.
struct Leased {
    cache: Cache,
    lease: Lease,
    trace: Arc<Trace>,
    budget: u64,
}

impl Leased {
    fn new(gpu: &Arc<Cuda>, model: &Model, share: u64) -> Result<Leased, Failure> {
        let best = ways().into_iter().flatten().next();
        let storage = match best {
            Some(Way::Kept(storage)) => storage,
            _ => Storage::default(),
        };
        let trace = Arc::new(Trace::new());
        let slack = if share == 100 { 1 << 20 } else { 0 };
        let budget = gpu.charge(model) * share / 100 + slack;
        let cache = Cache::builder()
            .ram(storage.charge(model) + (256 << 20))
            .storage(storage)
            .device(Arc::clone(gpu), budget)
            .observer(trace.clone())
            .build()?;
        let lease = match share {
            100 => cache.lease([model.on(&**gpu)])?,
            _ => {
                let order = names(model);
                let partial = Partial::default().in_order(order);
                cache.lease([model.on(&**gpu).partial(partial)])?
            }
        };
        Ok(Leased {
            cache,
            lease,
            trace,
            budget,
        })
    }

    /// One pass: the result, and seconds until the device had it.
    fn pass(
        &self,
        model: &Model,
        input: &Tensor,
        candle: &Candle,
    ) -> Result<(Tensor, f64), Failure> {
        self.go_through(model, input, candle, false)
    }

    /// One pass of which the trace tells what was computed when. The device is waited for after each
    /// product, as only then it says so: its time is not that of a pass.
    fn watched(&self, model: &Model, input: &Tensor, candle: &Candle) -> Result<(), Failure> {
        self.go_through(model, input, candle, true).map(drop)
    }

    fn go_through(
        &self,
        model: &Model,
        input: &Tensor,
        candle: &Candle,
        is_watched: bool,
    ) -> Result<(Tensor, f64), Failure> {
        let leased = self.lease.get(model)?;
        let began = Instant::now();
        let mut x = input.clone();
        for layer in 0..model.tensors().len() / 3 {
            let weight = |name: &str| leased.tensor(&format!("layers.{layer}.{name}.weight"));
            let times = |name: &str, x: &Tensor, then: &dyn Fn(Tensor) -> Product| {
                let weight = weight(name)?;
                let span = is_watched.then(|| self.trace.span("compute", name));
                let product = then(x.matmul(&weight.t()?)?)?;
                if span.is_some() {
                    candle.synchronize()?;
                }
                Ok::<Tensor, Failure>(product)
            };
            let normal = normalised(&x)?;
            let gate = times("gate_proj", &normal, &|gate| gate.silu())?;
            let both = times("up_proj", &normal, &|up| normalised(&(up * &gate)?))?;
            x = times("down_proj", &both, &|down| &x + down)?;
        }
        candle.synchronize()?;
        Ok((x, began.elapsed().as_secs_f64()))
    }
}

type Product = candle_core::Result<Tensor>;

/// Of unit root mean square: weights that mean nothing would have it grow beyond numbers.
fn normalised(x: &Tensor) -> Product {
    let x = x.to_dtype(DType::F32)?;
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?;
    x.broadcast_div(&scale)?.to_dtype(DType::BF16)
}

/// The tensors in the order in which a pass uses them.
fn names(model: &Model) -> Vec<String> {
    let layers = 0..model.tensors().len() / 3;
    let names = layers.flat_map(|layer| {
        ["gate_proj", "up_proj", "down_proj"].map(|name| format!("layers.{layer}.{name}.weight"))
    });
    names.collect()
}

/// Measures both, in turns.
///
/// # Errors
/// The cache's, or candle's.
pub fn measure(
    report: &mut Report,
    gpu: &Arc<Cuda>,
    model: &Model,
    rounds: usize,
    trace: Option<&Path>,
) -> Result<(), Failure> {
    let candle = gpu.candle().ok_or("no candle device")?;
    let whole = Leased::new(gpu, model, 100)?;
    let half = Leased::new(gpu, model, 50)?;
    let inner = model
        .tensor("layers.0.up_proj.weight")
        .ok_or("no layers")?
        .1;
    let hidden = inner.shape[1];
    let input =
        |rows: usize| Tensor::randn(0_f32, 1.0, (rows, hidden), &candle)?.to_dtype(DType::BF16);
    let rows = calibrated(gpu, model, &whole, &input, &candle)?;
    let input = input(rows)?;
    let (expected, _) = whole.pass(model, &input, &candle)?;
    let (found, _) = half.pass(model, &input, &candle)?;
    let largest = largest(&expected)?;
    let apart = self::largest(&(&found - &expected)?)? / largest;
    drop((expected, found));

    let before = half.lease.get(model)?.residency();
    let (mut whole_passes, mut half_passes) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        whole_passes.push(whole.pass(model, &input, &candle)?.1);
        half_passes.push(half.pass(model, &input, &candle)?.1);
    }
    let after = half.lease.get(model)?.residency();
    let seen = Leased::new(gpu, model, 50)?;
    for _ in 0..2 {
        seen.watched(model, &input, &candle)?;
    }
    let overlap = seen.trace.overlap();
    let slowdown = ratio(half_passes.median(), whole_passes.median());
    let streamed = (after.streamed_bytes - before.streamed_bytes) / rounds as u64;
    let waited = (after.waited - before.waited).as_secs_f64() / rounds as f64;
    let used = half.cache.usage_of(&**gpu).unwrap_or_default().used_bytes;

    report.say(format!(
        "\na forward pass over {} of bf16 in {} matrices, {rows} rows, ms",
        Size(model.bytes()),
        model.tensors().len()
    ));
    let mut table = Table::new([
        ("share", Align::Right),
        ("n", Align::Right),
        ("budget", Align::Right),
        ("counted", Align::Right),
        ("there", Align::Right),
        ("pool", Align::Right),
        ("pass", Align::Right),
        ("min..max", Align::Right),
        ("slowdown", Align::Right),
        ("streamed a pass", Align::Right),
        ("waited a pass", Align::Right),
        ("transfers hidden", Align::Right),
        ("results apart", Align::Right),
    ]);
    let size = |bytes: u64| Size(bytes).to_string();
    for (share, passes) in [("100 %", &whole_passes), ("50 %", &half_passes)] {
        let [pass, range] = passes.shown();
        let row = [share.to_owned(), passes.0.len().to_string()];
        let row: Vec<String> = match share {
            "100 %" => row
                .into_iter()
                .chain([
                    size(whole.budget),
                    size(gpu.charge(model)),
                    size(model.bytes()),
                    size(0),
                    pass,
                    range,
                ])
                .collect(),
            _ => row
                .into_iter()
                .chain([
                    size(half.budget),
                    size(used),
                    size(after.resident_bytes),
                    size(after.pool_bytes),
                    pass,
                    range,
                    shown(slowdown, 3),
                    size(streamed),
                    format!("{:.1}", waited * 1e3),
                    format!("{:.0} %", overlap.share() * 100.0),
                    format!("{apart:e} of {largest}"),
                ])
                .collect(),
        };
        table.row(row);
    }
    report.say(table);
    report.put(
        &["forward"],
        json!({
            "bytes": model.bytes(),
            "rows": rows,
            "whole": whole_passes.json(),
            "half": half_passes.json(),
            "slowdown": slowdown,
            "streamed_bytes": streamed,
            "waited_s": waited,
            "transfers_s": overlap.transfers.as_secs_f64(),
            "hidden_s": overlap.hidden.as_secs_f64(),
            "apart": f64::from(apart),
            "resident_bytes": after.resident_bytes,
            "pool_bytes": after.pool_bytes,
        }),
    );
    report.threshold(Threshold::new(
        "forward pass at 50 %, right to rounding",
        Some(apart <= ROUNDING && largest.is_finite() && largest > 0.0),
        format!("{apart:e} of the largest apart, at most {ROUNDING}"),
    ));
    report.threshold(Threshold::new(
        "forward pass at 50 %, within its budget, and streamed",
        Some(used <= half.budget && streamed > 0),
        format!(
            "{} of {}, {} a pass",
            size(used),
            size(half.budget),
            size(streamed)
        ),
    ));
    report.say(format!(
        "slowdown at 50 %: {}; {:.0} % of the transfers' time lies under computing",
        shown(slowdown, 3),
        overlap.share() * 100.0
    ));
    if let Some(path) = trace {
        seen.trace.write(File::create(path)?)?;
    }
    Ok(())
}

/// So many rows that computing with a weight takes as long as is wanted, by a load and by passes
/// over few and over more rows.
fn calibrated(
    gpu: &Arc<Cuda>,
    model: &Model,
    whole: &Leased,
    input: &dyn Fn(usize) -> Product,
    candle: &Candle,
) -> Result<usize, Failure> {
    let ways = ways().into_iter().flatten().next().ok_or("no storage")?;
    let ours = Ours::new(gpu, std::slice::from_ref(model), ways)?;
    ours.unload(ours.load()?.0)?;
    let (lease, link) = ours.load()?;
    ours.unload(lease)?;
    let mut rows = ROWS.0;
    while rows < ROWS.1 {
        let input = input(rows)?;
        whole.pass(model, &input, candle)?;
        if whole.pass(model, &input, candle)?.1 >= link * COMPUTE {
            break;
        }
        rows *= 2;
    }
    Ok(rows)
}

fn largest(x: &Tensor) -> Result<f32, Failure> {
    let all = x.to_dtype(DType::F32)?.abs()?.flatten_all()?;
    Ok(all.max(0)?.to_scalar::<f32>()?)
}
