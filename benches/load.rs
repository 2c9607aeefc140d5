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
use malloc_stats::{Reader, Size};
use plimsoll_cache::{Cache, Model, Storage};
use plimsoll_tui::table::{Align, Table};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

type Failure = Box<dyn std::error::Error>;

const LOADERS: [&str; 5] = [
    "plimsoll anonymous, recycled",
    "plimsoll anonymous, first",
    "plimsoll heap",
    "candle MmapedSafetensors",
    "candle safetensors::load",
];

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
        let mut samples: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for _ in 0..rounds {
            for loader in LOADERS {
                samples
                    .entry(loader)
                    .or_default()
                    .push(spawn(allocator, loader, &files)?);
            }
        }
        let median = |loader: &str, pick: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = samples[loader].iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let peer = median(LOADERS[3], |s| s.0).min(median(LOADERS[4], |s| s.0));
        let mut table = Table::new([
            ("loader", Align::Left),
            ("seconds", Align::Right),
            ("min", Align::Right),
            ("max", Align::Right),
            ("GB/s", Align::Right),
            ("x faster peer", Align::Right),
            ("new memory - file", Align::Right),
        ]);
        for loader in LOADERS {
            let seconds = median(loader, |s| s.0);
            let (mut low, mut high) = (f64::MAX, 0.0_f64);
            for (seconds, _) in &samples[loader] {
                low = low.min(*seconds);
                high = high.max(*seconds);
            }
            let over = median(loader, |s| s.1) - bytes as f64;
            table.row([
                loader.to_owned(),
                format!("{seconds:.3}"),
                format!("{low:.3}"),
                format!("{high:.3}"),
                format!("{:.2}", bytes as f64 / seconds / 1e9),
                format!("{:.2}", peer / seconds),
                format!("{:+.1} MiB", over / f64::from(1 << 20)),
            ]);
        }
        println!("\nallocator {allocator}\n{table}");
    }
    Ok(())
}

fn spawn(allocator: &str, loader: &str, files: &[PathBuf; 2]) -> Result<(f64, f64), Failure> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(["sample", loader])
        .args(files)
        .env(plimsoll_profiles::ALLOCATOR_VARIABLE, allocator)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(seconds)), Some(Ok(bytes))) if output.status.success() => Ok((seconds, bytes)),
        _ => Err(format!("{loader}: {}: {text}", output.status).into()),
    }
}

/// Loads once and prints seconds and bytes of new resident memory at its highest, what was resident
/// of the file's own mapping included.
fn sample(loader: &str, one: &Path, two: &Path) -> Result<(), Failure> {
    let reader = Reader::new(malloc_stats::Allocator {
        kind: plimsoll_profiles::serving(),
        ..malloc_stats::Allocator::default()
    })?;
    let cache = |storage| {
        Cache::builder()
            .ram(std::fs::metadata(one)?.len() + (1 << 20))
            .storage(storage)
            .build()
            .map_err(Failure::from)
    };
    let (anonymous, heap) = (cache(Storage::Anonymous)?, cache(Storage::Heap)?);
    let recycled = loader == LOADERS[0];
    if recycled {
        drop(anonymous.lease([&Model::open(one)?])?);
    }
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = reader.bracket().process;
    let started = Instant::now();
    let (tensors, lease): (Vec<Tensor>, _) = match loader {
        _ if loader.starts_with("plimsoll") => {
            let model = Model::open(if recycled { two } else { one })?;
            let cache = if loader == LOADERS[2] {
                &heap
            } else {
                &anonymous
            };
            let lease = cache.lease([&model])?;
            let weights = lease.get(&model)?;
            // Under `heap`, tensors would be copies; its bytes are what a server would hold.
            let names = weights.tensors().iter().map(|tensor| &tensor.name);
            let tensors = if loader == LOADERS[2] {
                Vec::new()
            } else {
                names
                    .map(|name| weights.tensor(name))
                    .collect::<Result<_, _>>()?
            };
            (tensors, Some(lease))
        }
        "candle MmapedSafetensors" => {
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
    println!("{seconds} {}", peak.saturating_sub(base));
    drop((tensors, lease));
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
