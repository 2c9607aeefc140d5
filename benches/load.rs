//! Loading every tensor of a warm file, beside what a candle program would use otherwise.
//!
//! Each sample is a fresh process under a named allocator, and the loaders take turns, so that what
//! changes on the machine changes for all. Printed are medians, and ratios to the faster peer.
//!
//! `cargo bench --bench load` (2 GiB files, 5 rounds), `cargo bench --bench load -- 256 3`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{Device, Tensor};
use malloc_stats::{Metric, Reader, Size, page_cache};
use plimsoll_cache::storage::{Advice, Mapping, PageCache};
use plimsoll_cache::{Cache, Leased, Model, Storage};
use plimsoll_tui::table::{Align, Table};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

type Failure = Box<dyn std::error::Error>;

const LOADERS: [&str; 11] = [
    "plimsoll mapped, ready",
    "plimsoll mapped, every page read",
    "plimsoll mapped, populated, every page read",
    "plimsoll mapped, dropped at unload",
    "plimsoll anonymous, recycled",
    "plimsoll anonymous, first",
    "plimsoll huge pages, recycled",
    "plimsoll huge pages, first",
    "plimsoll heap",
    MAPPED_BY_CANDLE,
    READ_BY_CANDLE,
];

const MAPPED_BY_CANDLE: &str = "candle MmapedSafetensors";
const READ_BY_CANDLE: &str = "candle safetensors::load";

/// What one load took: seconds, and bytes.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    /// New resident memory at its highest.
    peak: f64,
    /// New anonymous memory, with everything loaded.
    anonymous: f64,
    /// New resident memory, with everything dropped.
    left: f64,
    /// What of the file is in the page cache then.
    cached: f64,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [what, loader, one, two] = &arguments[..]
        && what == "sample"
    {
        return sample(loader, Path::new(one), Path::new(two));
    }
    let mib: u64 = arguments.first().map_or(Ok(2048), |text| text.parse())?;
    let rounds: usize = arguments.get(1).map_or(Ok(5), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("plimsoll-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = compare(&folder, mib << 20, rounds);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn compare(folder: &Path, bytes: u64, rounds: usize) -> Result<(), Failure> {
    let files = [
        folder.join("one.safetensors"),
        folder.join("two.safetensors"),
    ];
    for (seed, file) in files.iter().enumerate() {
        make(file, bytes, seed as u64)?;
        // Read once, so that it is in the page cache.
        std::io::copy(&mut File::open(file)?, &mut std::io::sink())?;
    }
    println!(
        "{} in tensors of 64 KiB to 64 MiB, f16, page cache warm, {rounds} rounds",
        Size(bytes)
    );
    for allocator in ["glibc", "jemalloc"] {
        let mut samples: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
        for _ in 0..rounds {
            for loader in LOADERS {
                samples
                    .entry(loader)
                    .or_default()
                    .push(spawn(allocator, loader, &files)?);
            }
        }
        let median = |loader: &str, pick: fn(&Sample) -> f64| {
            let mut values: Vec<f64> = samples[loader].iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let peers = [MAPPED_BY_CANDLE, READ_BY_CANDLE].map(|peer| median(peer, |s| s.seconds));
        let peer = peers[0].min(peers[1]);
        let mut table = Table::new([
            ("loader", Align::Left),
            ("ms", Align::Right),
            ("min", Align::Right),
            ("max", Align::Right),
            ("x faster peer", Align::Right),
            ("peak - file", Align::Right),
            ("anonymous", Align::Right),
            ("left", Align::Right),
            ("cached", Align::Right),
        ]);
        for loader in LOADERS {
            let seconds = median(loader, |s| s.seconds);
            let (mut low, mut high) = (f64::MAX, 0.0_f64);
            for sample in &samples[loader] {
                low = low.min(sample.seconds);
                high = high.max(sample.seconds);
            }
            let mib = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
            table.row([
                loader.to_owned(),
                format!("{:.2}", seconds * 1e3),
                format!("{:.2}", low * 1e3),
                format!("{:.2}", high * 1e3),
                format!("{:.2}", peer / seconds),
                mib(median(loader, |s| s.peak) - bytes as f64),
                mib(median(loader, |s| s.anonymous)),
                mib(median(loader, |s| s.left)),
                mib(median(loader, |s| s.cached)),
            ]);
        }
        println!("\nallocator {allocator}\n{table}");
    }
    Ok(())
}

fn spawn(allocator: &str, loader: &str, files: &[PathBuf; 2]) -> Result<Sample, Failure> {
    if loader.starts_with("plimsoll mapped") {
        // The sample before may have dropped it.
        std::io::copy(&mut File::open(&files[0])?, &mut std::io::sink())?;
    }
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(["sample", loader])
        .args(files)
        .env(plimsoll_profiles::ALLOCATOR_VARIABLE, allocator)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers.as_deref() {
        Ok(&[seconds, peak, anonymous, left, cached]) if output.status.success() => Ok(Sample {
            seconds,
            peak,
            anonymous,
            left,
            cached,
        }),
        _ => Err(format!("{loader}: {}: {text}", output.status).into()),
    }
}

/// Loads once and prints what it took. What is resident of a file's own mapping counts as resident.
fn sample(loader: &str, one: &Path, two: &Path) -> Result<(), Failure> {
    let reader = Reader::new(malloc_stats::Allocator {
        kind: plimsoll_profiles::serving(),
        ..malloc_stats::Allocator::default()
    })?;
    let cache = |storage| {
        Cache::builder()
            .ram(std::fs::metadata(one)?.len() + (1 << 20))
            .storage(storage)
            .huge_pages(loader.contains("huge pages"))
            .mapping(Mapping {
                page_cache: if loader.ends_with("dropped at unload") {
                    PageCache::Drop
                } else {
                    PageCache::Keep
                },
                advice: if loader.contains("populated") {
                    Advice::Populate
                } else {
                    Advice::None
                },
                guard: true,
                ..Mapping::default()
            })
            .build()
            .map_err(Failure::from)
    };
    let cache = cache(match loader {
        "plimsoll heap" => Storage::Heap,
        _ if loader.starts_with("plimsoll mapped") => Storage::Mapped,
        _ => Storage::Anonymous,
    })?;
    let recycled = loader.ends_with("recycled");
    if recycled {
        drop(cache.lease([&Model::open(one)?])?);
    }
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = reader.bracket().process;
    let started = Instant::now();
    let (tensors, lease): (Vec<Tensor>, _) = match loader {
        _ if loader.starts_with("plimsoll") => {
            let model = Model::open(if recycled { two } else { one })?;
            let lease = cache.lease([&model])?;
            let weights = lease.get(&model)?;
            // Under `heap`, tensors would be copies; its bytes are what a server would hold.
            let names = weights.tensors().iter().map(|tensor| &tensor.name);
            let tensors = if loader == "plimsoll heap" {
                Vec::new()
            } else {
                names
                    .map(|name| weights.tensor(name))
                    .collect::<Result<_, _>>()?
            };
            if loader.ends_with("every page read") {
                read_every_page(&weights)?;
            }
            (tensors, Some(lease))
        }
        MAPPED_BY_CANDLE => {
            // SAFETY: nobody changes the file while it is mapped.
            let mapped = unsafe { candle_core::safetensors::MmapedSafetensors::new(one)? };
            let names: Vec<String> = mapped.tensors().into_iter().map(|(name, _)| name).collect();
            let tensors = names
                .iter()
                .map(|name| mapped.load(name, &Device::Cpu))
                .collect::<Result<_, _>>()?;
            (tensors, None)
        }
        _ => {
            let tensors = candle_core::safetensors::load(one, &Device::Cpu)?;
            (tensors.into_values().collect(), None)
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    let after = reader.bracket().process;
    let peak = after
        .hwm
        .bytes()
        .unwrap_or(0)
        .max(after.rss.bytes().unwrap_or(0));
    // A recycled load replaces the memory of the model before it.
    let base = if recycled {
        before.rss.bytes().unwrap_or(0) - std::fs::metadata(one)?.len()
    } else {
        before.rss.bytes().unwrap_or(0)
    };
    let grown = |after: Metric, before: Metric| {
        after.bytes().unwrap_or(0) as f64 - before.bytes().unwrap_or(0) as f64
    };
    let anonymous = grown(after.anon, before.anon);
    drop((tensors, lease));
    cache.clear();
    let rss = reader.bracket().process.rss.bytes().unwrap_or(0);
    let left = rss as f64 - base as f64;
    let size = std::fs::metadata(one)?.len();
    let cached = page_cache::cached(&File::open(one)?, size)?;
    let peak = peak.saturating_sub(base);
    println!("{seconds} {peak} {anonymous} {left} {cached}");
    Ok(())
}

fn read_every_page(weights: &Leased<'_>) -> Result<(), Failure> {
    let mut sum = 0_u64;
    for tensor in weights.tensors() {
        let bytes = weights.bytes(&tensor.name)?;
        for byte in bytes.iter().step_by(4096) {
            sum = sum.wrapping_add(u64::from(*byte));
        }
    }
    std::hint::black_box(sum);
    Ok(())
}

/// Writes a safetensors file of f16 tensors with the given bytes in all.
fn make(path: &Path, bytes: u64, seed: u64) -> Result<(), Failure> {
    let mut sizes = Vec::new();
    let mut left = bytes;
    let mut state = seed + 1;
    while left > 0 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let size = (1_u64 << (16 + (state >> 33) % 11)).min(left);
        sizes.push(size);
        left -= size;
    }
    let mut offset = 0;
    let entries: Vec<String> = sizes
        .iter()
        .enumerate()
        .map(|(index, size)| {
            let begin = offset;
            offset += size;
            format!("\"layer.{index}.weight\":{{\"dtype\":\"F16\",\"shape\":[{}],\"data_offsets\":[{begin},{offset}]}}", size / 2)
        })
        .collect();
    let mut header = format!("{{{}}}", entries.join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let block: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|n| (n.wrapping_mul(2_654_435_761) & 0x3bff_3bff).to_le_bytes())
        .collect();
    let mut left = bytes as usize;
    while left > 0 {
        let part = left.min(block.len());
        file.write_all(&block[..part])?;
        left -= part;
    }
    file.flush()?;
    Ok(())
}
