//! Somebody who looks all the time whether anything counts, or is there, beyond a budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use malloc_stats::Metric;
use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Cpu, Tier};

pub struct Watch {
    is_done: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
    high_water: Arc<AtomicU64>,
}

/// What the device itself says that it holds.
pub fn on_device(gpu: &Simulated) -> u64 {
    let memory = gpu.memory();
    let (Metric::Exact(total), Metric::Exact(free)) = (memory.total, memory.free) else {
        panic!("{memory:?}");
    };
    total - free
}

impl Watch {
    pub fn new(cache: &Cache, gpu: &Arc<Simulated>) -> Watch {
        let is_done = Arc::new(AtomicBool::new(false));
        let high_water = Arc::new(AtomicU64::new(0));
        let thread = std::thread::spawn({
            let (cache, gpu) = (cache.clone(), Arc::clone(gpu));
            let (is_done, high_water) = (Arc::clone(&is_done), Arc::clone(&high_water));
            move || {
                let mut beyond = 0;
                loop {
                    // Before the look, so that there is one at least.
                    let is_last = is_done.load(Ordering::Relaxed);
                    let there = on_device(&gpu);
                    high_water.fetch_max(there, Ordering::Relaxed);
                    let usage = cache.usage_of(&*gpu).unwrap();
                    beyond = beyond.max(there.saturating_sub(usage.budget_bytes));
                    for tier in [Tier::from(&*gpu), Cpu.into()] {
                        let usage = cache.usage_of(tier).unwrap();
                        let over = usage.used_bytes.saturating_sub(usage.budget_bytes);
                        beyond = beyond.max(over);
                    }
                    if is_last {
                        return beyond;
                    }
                    std::thread::sleep(std::time::Duration::from_micros(100));
                }
            }
        });
        Watch {
            is_done,
            thread: Some(thread),
            high_water,
        }
    }

    /// The most that the device held; fails where anything was beyond a budget.
    #[track_caller]
    pub fn end(mut self) -> u64 {
        self.is_done.store(true, Ordering::Relaxed);
        let beyond = self.thread.take().unwrap().join().unwrap();
        assert_eq!(beyond, 0, "bytes beyond a budget");
        self.high_water.load(Ordering::Relaxed)
    }
}
