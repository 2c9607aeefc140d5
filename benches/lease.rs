//! Leasing and releasing a resident model, beside `get` of two caches for values that need no
//! pinning: what a hit costs; and what 100 000 known models cost, in memory and in time.
//!
//! `cargo bench --bench lease [-- MODELS]`. Times are of batches, so that reading the clock is no part of them;
//! printed is the batch's time per operation.

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use plimsoll_cache::{Cache, Model};
use plimsoll_tui::table::{Align, Table};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const BATCH: usize = 32;
const BATCHES: usize = 20_000;
const MODELS: usize = 20;

/// Nanoseconds per operation at the median and at p99, for each thread together.
fn measure(threads: usize, batches: usize, operation: &(dyn Fn(usize) + Sync)) -> (f64, f64) {
    let barrier = Barrier::new(threads);
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    for _ in 0..batches.min(1000) {
                        operation(thread);
                    }
                    barrier.wait();
                    (0..batches)
                        .map(|_| {
                            let started = Instant::now();
                            for _ in 0..BATCH {
                                operation(thread);
                            }
                            started.elapsed().as_nanos() as f64 / BATCH as f64
                        })
                        .collect::<Vec<f64>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    });
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// Makes models of one small tensor each.
fn make(folder: &Path, count: usize) -> Result<Vec<Model>, Box<dyn std::error::Error>> {
    (0..count)
        .map(|index| {
            let path = folder.join(format!("m{index}.safetensors"));
            if !path.exists() {
                let mut bytes = Vec::new();
                let header = r#"{"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}     "#;
                bytes.extend((header.len() as u64).to_le_bytes());
                bytes.extend(header.as_bytes());
                bytes.extend([index as u8; 64]);
                std::fs::write(&path, bytes)?;
            }
            Ok(Model::open(&path)?)
        })
        .collect()
}

/// Bytes that the allocator has given out.
fn in_use() -> f64 {
    malloc_stats::glibc::mallinfo().map_or(f64::NAN, |info| (info.uordblks + info.hblkhd) as f64)
}

/// What many known models cost: memory for each, and the time to lease ten hot ones among them,
/// resident ones and, in a budget of five, absent ones.
fn many(folder: &Path, count: usize) -> Result<Table, Box<dyn std::error::Error>> {
    let mut table = Table::new([
        ("known models", Align::Right),
        ("handle B", Align::Right),
        ("in the cache B", Align::Right),
        ("hit p50 ns", Align::Right),
        ("miss p50 us", Align::Right),
    ]);
    for known in [10, count] {
        let empty = in_use();
        let models = make(folder, known)?;
        let opened = in_use();
        let roomy = Cache::builder().ram(1 << 30).build()?;
        let tight = Cache::builder().ram(5 * 4096).build()?;
        let before = in_use();
        for model in &models {
            // Nothing is evicted, but from here on the cache knows the model.
            let _ = roomy.evict(model);
        }
        let after = in_use();
        models.iter().for_each(|model| {
            let _ = tight.evict(model);
        });
        let hot = &models[known / 2 - 5..known / 2 + 5];
        let (hit, _) = measure(1, BATCHES, &|_| {
            for model in hot {
                drop(std::hint::black_box(roomy.lease([model])));
            }
        });
        let (miss, _) = measure(1, 200, &|_| {
            for model in hot {
                drop(std::hint::black_box(tight.lease([model])));
            }
        });
        table.row([
            known.to_string(),
            format!("{:.0}", (opened - empty) / known as f64),
            format!("{:.0}", (after - before) / known as f64),
            format!("{:.0}", hit / 10.0),
            format!("{:.1}", miss / 10.0 / 1e3),
        ]);
    }
    Ok(table)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let many_models = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(100_000);
    let folder = std::env::temp_dir().join(format!("plimsoll-lease-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let models = make(&folder, MODELS)?;
    let cache = Cache::builder().ram(1 << 30).build()?;
    let quick = quick_cache::sync::Cache::<u64, Arc<Model>>::new(100);
    let moka = moka::sync::Cache::<u64, Arc<Model>>::new(100);
    for (index, model) in models.iter().enumerate() {
        drop(cache.lease([model])?);
        quick.insert(index as u64, Arc::new(model.clone()));
        moka.insert(index as u64, Arc::new(model.clone()));
    }
    let mut table = Table::new([
        ("what", Align::Left),
        ("threads", Align::Right),
        ("models", Align::Left),
        ("p50 ns", Align::Right),
        ("p99 ns", Align::Right),
    ]);
    for (threads, same) in [(1, true), (2, true), (2, false)] {
        let pick = |thread: usize| if same { 0 } else { thread };
        let lease = |thread: usize| {
            drop(std::hint::black_box(cache.lease([&models[pick(thread)]])));
        };
        let from_quick = |thread: usize| {
            drop(std::hint::black_box(quick.get(&(pick(thread) as u64))));
        };
        let from_moka = |thread: usize| {
            drop(std::hint::black_box(moka.get(&(pick(thread) as u64))));
        };
        let contenders: [(&str, &(dyn Fn(usize) + Sync)); 3] = [
            ("plimsoll lease + release", &lease),
            ("quick_cache get", &from_quick),
            ("moka get", &from_moka),
        ];
        for (name, operation) in contenders {
            let (median, p99) = measure(threads, BATCHES, operation);
            table.row([
                name.to_owned(),
                threads.to_string(),
                if same { "same" } else { "different" }.to_owned(),
                format!("{median:.0}"),
                format!("{p99:.0}"),
            ]);
        }
    }
    print!("{table}");
    print!("\n{}", many(&folder, many_models)?);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
