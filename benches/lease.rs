//! Leasing and releasing a resident model, beside `get` of two caches for values that need no
//! pinning: what a hit costs.
//!
//! `cargo bench --bench lease`. Times are of batches, so that reading the clock is no part of them;
//! printed is the batch's time per operation.

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
fn measure(threads: usize, operation: &(dyn Fn(usize) + Sync)) -> (f64, f64) {
    let barrier = Barrier::new(threads);
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        operation(thread);
                    }
                    barrier.wait();
                    (0..BATCHES)
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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("plimsoll-lease-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let models: Vec<Model> = (0..MODELS)
        .map(|index| {
            let path = folder.join(format!("m{index}.safetensors"));
            let mut bytes = Vec::new();
            let header = r#"{"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}     "#;
            bytes.extend((header.len() as u64).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend([index as u8; 64]);
            std::fs::write(&path, bytes)?;
            Ok(Model::open(&path)?)
        })
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
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
            let (median, p99) = measure(threads, operation);
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
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
