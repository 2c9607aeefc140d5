//! A model of which a part is on the device, beside the same model with all of it there: what
//! streaming costs a program whose computing takes as long as the transfers, or longer.
//!
//! `cargo bench --bench partial` (1 GiB, 5 passes a share), `cargo bench --bench partial -- 512 3`;
//! with `--trace FILE` the passes at 50 % are written for a trace viewer. The device is a simulated
//! one of 4 GB/s. One thread computes: sums of products over every weight, as many times that a byte
//! takes 1.15 times what the link takes for it. Printed are medians. The simulated device copies with
//! a core of the machine's: where others want it too, the slowdown in time is more than that in the
//! CPU time of the thread that computes, and says nothing of streaming.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use candle_core::{CpuStorage, Storage, Tensor};
use malloc_stats::{Metric, Size};
use plimsoll_cache::device::{Device, Link, Simulated};
use plimsoll_cache::observe::Trace;
use plimsoll_cache::{Cache, Lease, Model, Partial};
use plimsoll_tui::table::{Align, Table};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

type Failure = Box<dyn std::error::Error>;

const LINK: f64 = 4e9;

/// What a byte's computing takes, in what the link takes for it.
const COMPUTE: f64 = 1.15;

/// How long a pass takes and what it waits for.
struct Passes {
    pass: Vec<f64>,
    /// What the thread that computes had of a core.
    cpu: Vec<f64>,
    waited: Vec<f64>,
    residency: plimsoll_cache::Residency,
    budget: u64,
    high_water: u64,
    trace: Arc<Trace>,
    sum: f64,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let mut trace_to: Option<PathBuf> = None;
    let mut numbers: Vec<u64> = Vec::new();
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--trace" => trace_to = Some(arguments.next().ok_or("--trace FILE")?.into()),
            number => numbers.push(number.parse()?),
        }
    }
    let mib = numbers.first().copied().unwrap_or(1024);
    let passes = numbers.get(1).copied().unwrap_or(5).max(1);
    let folder = std::env::temp_dir().join(format!("plimsoll-partial-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = compare(&folder, mib << 20, passes, trace_to.as_deref());
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn compare(folder: &Path, bytes: u64, passes: u64, trace: Option<&Path>) -> Result<(), Failure> {
    let path = folder.join("model.safetensors");
    make(&path, bytes)?;
    let model = Model::open(&path)?;
    let rounds = calibrate(&model)?;
    println!(
        "{} in {} tensors, f32, {} a second, {rounds:.2} rounds of arithmetic a weight, {passes} passes",
        Size(model.bytes()),
        model.tensors().len(),
        Size(LINK as u64),
    );
    let mut table = Table::new([
        ("share", Align::Right),
        ("budget", Align::Right),
        ("there", Align::Right),
        ("pool", Align::Right),
        ("whole ms", Align::Right),
        ("pass ms", Align::Right),
        ("slowdown", Align::Right),
        ("in cpu time", Align::Right),
        ("waited ms", Align::Right),
        ("streamed", Align::Right),
        ("link ms", Align::Right),
        ("transfers hidden", Align::Right),
        ("device at most", Align::Right),
    ]);
    let mut full = run(&model, 100, passes, rounds)?;
    for share in [75, 50, 25] {
        let run = run(&model, share, passes, rounds)?;
        // All of it there before and after, so that what changes on the machine changes for all.
        let before = full;
        full = self::run(&model, 100, passes, rounds)?;
        if run.sum.to_bits() != full.sum.to_bits() {
            return Err(format!("at {share} % the sum is another").into());
        }
        let pass = median(&run.pass);
        let whole =
            |times: fn(&Passes) -> &[f64]| (median(times(&before)) + median(times(&full))) / 2.0;
        let base = whole(|run| &run.pass);
        let size = |bytes: u64| Size(bytes).to_string();
        let streamed = run.residency.streamed_bytes / (passes + 2);
        table.row([
            format!("{share} %"),
            size(run.budget),
            size(run.residency.resident_bytes),
            size(run.residency.pool_bytes),
            format!("{:.1}", base * 1e3),
            format!("{:.1}", pass * 1e3),
            format!("{:.3}", pass / base),
            format!("{:.3}", median(&run.cpu) / whole(|run| &run.cpu)),
            format!("{:.1}", median(&run.waited) * 1e3),
            size(streamed),
            format!("{:.1}", streamed as f64 / LINK * 1e3),
            format!("{:.0} %", run.trace.overlap().share() * 100.0),
            size(run.high_water),
        ]);
        if run.high_water > run.budget {
            return Err(format!("{} of {}", run.high_water, run.budget).into());
        }
        if let (50, Some(path)) = (share, trace) {
            run.trace.write(File::create(path)?)?;
        }
    }
    print!("{table}");
    Ok(())
}

fn run(model: &Model, share: u64, passes: u64, rounds: f64) -> Result<Passes, Failure> {
    let gpu = Simulated::new(model.bytes() + (64 << 20)).link(Link {
        bytes_per_second: Some(LINK),
        latency: Duration::ZERO,
    });
    let gpu = Arc::new(gpu);
    let trace = Arc::new(Trace::new());
    let budget = gpu.charge(model) * share / 100 + if share == 100 { 1 << 20 } else { 0 };
    let cache = Cache::builder()
        .ram(model.bytes() + (64 << 20))
        .device(Arc::clone(&gpu), budget)
        .observer(trace.clone())
        .build()?;
    let lease = match share {
        100 => cache.lease([model.on(&*gpu)])?,
        _ => cache.lease([model.on(&*gpu).partial(Partial::default())])?,
    };
    let sum = pass(&lease, model, rounds, &trace)?;
    let mut times = Passes {
        pass: Vec::new(),
        cpu: Vec::new(),
        waited: Vec::new(),
        residency: lease.get(model)?.residency(),
        budget,
        high_water: 0,
        trace: Arc::clone(&trace),
        sum,
    };
    for _ in 0..passes {
        let waited = lease.get(model)?.residency().waited;
        let (began, cpu) = (Instant::now(), cpu_seconds());
        pass(&lease, model, rounds, &trace)?;
        times.pass.push(began.elapsed().as_secs_f64());
        times.cpu.push(cpu_seconds() - cpu);
        times.residency = lease.get(model)?.residency();
        let waited = times.residency.waited - waited;
        times.waited.push(waited.as_secs_f64());
    }
    // Once more, with somebody who looks all the time and is not timed.
    let high_water = AtomicU64::new(0);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let memory = gpu.memory();
                if let (Metric::Exact(total), Metric::Exact(free)) = (memory.total, memory.free) {
                    high_water.fetch_max(total - free, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let result = pass(&lease, model, rounds, &trace);
        is_done.store(true, Ordering::Relaxed);
        result
    })?;
    times.residency = lease.get(model)?.residency();
    times.high_water = high_water.into_inner();
    Ok(times)
}

/// Computes with every tensor of a model, in its order.
fn pass(lease: &Lease, model: &Model, rounds: f64, trace: &Trace) -> Result<f64, Failure> {
    let leased = lease.get(model)?;
    let mut sum = 0.0;
    for tensor in model.tensors() {
        let weights = leased.tensor(&tensor.name)?;
        let _span = trace.span("compute", &tensor.name);
        sum += compute(&weights, rounds)?;
    }
    Ok(sum)
}

/// Sums of products, so many times over each weight.
fn compute(weights: &Tensor, rounds: f64) -> Result<f64, Failure> {
    let (storage, _) = weights.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(numbers)) = &*storage else {
        return Err("no numbers on the CPU".into());
    };
    let mut left = (numbers.len() as f64 * rounds) as usize;
    let mut sum = 0.0;
    while left > 0 {
        let now = left.min(numbers.len());
        sum += products(&numbers[..now]);
        left -= now;
    }
    Ok(sum)
}

fn products(numbers: &[f32]) -> f64 {
    let mut sums = [0.0_f32; 16];
    let (chunks, rest) = numbers.as_chunks::<16>();
    for chunk in chunks {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum = sum.mul_add(0.999, *number * *number);
        }
    }
    let rest: f32 = rest.iter().sum();
    f64::from(rest) + sums.iter().map(|sum| f64::from(*sum)).sum::<f64>()
}

/// How many rounds of arithmetic a weight takes as long as is wanted.
fn calibrate(model: &Model) -> Result<f64, Failure> {
    let cache = Cache::builder().ram(model.bytes() + (64 << 20)).build()?;
    let lease = cache.lease([model])?;
    let trace = Trace::new();
    let mut times = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        std::hint::black_box(pass(&lease, model, 1.0, &trace)?);
        times.push(began.elapsed().as_secs_f64());
    }
    let wanted = model.bytes() as f64 / LINK * COMPUTE;
    Ok((wanted / median(&times)).max(0.1))
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Writes a model of layers as transformers have them: four square matrices, two larger ones, and
/// four vectors.
fn make(path: &Path, bytes: u64) -> Result<(), Failure> {
    let layer: [(&str, [u64; 2]); 10] = [
        ("norm1.weight", [1, 2048]),
        ("q.weight", [2048, 1024]),
        ("k.weight", [2048, 1024]),
        ("v.weight", [2048, 1024]),
        ("out.weight", [1024, 2048]),
        ("out.bias", [1, 1024]),
        ("norm2.weight", [1, 2048]),
        ("up.weight", [4096, 1024]),
        ("down.weight", [1024, 4096]),
        ("down.bias", [1, 1024]),
    ];
    let mut end = 0;
    let mut entries = Vec::new();
    for number in 0.. {
        for (name, [rows, columns]) in layer {
            let begin = end;
            end += rows * columns * 4;
            entries.push(format!(
                "\"layer.{number:03}.{name}\":{{\"dtype\":\"F32\",\"shape\":[{rows},{columns}],\
                 \"data_offsets\":[{begin},{end}]}}"
            ));
        }
        if end >= bytes {
            break;
        }
    }
    let mut header = format!("{{{}}}", entries.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let numbers =
        (0..1_u32 << 18).map(|n| (n.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e8 - 0.08);
    let block: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    let mut left = end as usize;
    while left > 0 {
        let part = left.min(block.len());
        file.write_all(&block[..part])?;
        left -= part;
    }
    file.flush()?;
    Ok(())
}
