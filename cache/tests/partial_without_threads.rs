//! A process that can have no more threads: what a partial lease asks for it fetches itself.

#![allow(clippy::unwrap_used)]

#[path = "patch/files.rs"]
#[allow(dead_code)]
mod files;

use std::sync::Arc;

use files::{File, folder};
use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Partial};
use safetensors::Dtype;

/// Lets no more address space be had than there is and a little, so that no stack of a thread fits.
fn limit_address_space() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let bytes = (kib << 10) + (1800 << 10);
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: reads a structure of this function's own.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(set, 0);
}

#[test]
fn who_asks_fetches_where_no_thread_can_be_had() {
    let folder = folder();
    let numbers: Vec<f64> = (0..20_480).map(|at| f64::from(at % 97)).collect();
    let file = (0..12).fold(File::new(), |file, at| {
        file.with(&format!("l{at:02}"), Dtype::F32, &[128, 160], &numbers)
    });
    let model = file.model(&folder, "m");
    let wanted = std::fs::read(model.path()).unwrap();
    let gpu = Arc::new(Simulated::new(64 << 20));
    let cache = Cache::builder()
        .ram(32 << 20)
        .device(Arc::clone(&gpu), gpu.charge(&model) / 2)
        .build()
        .unwrap();
    // Its copy in RAM and its parts are there, from a lease that had a thread.
    drop(cache.lease([&model]).unwrap());
    limit_address_space();
    if std::thread::Builder::new().spawn(|| {}).is_ok() {
        println!("skipped: a thread fits wherever it is put");
        return;
    }
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    let leased = lease.get(&model).unwrap();
    for _ in 0..3 {
        for tensor in model.tensors() {
            let begin = tensor.offset as usize;
            let wanted = &wanted[begin..begin + tensor.bytes as usize];
            assert!(
                *leased.bytes(&tensor.name).unwrap() == *wanted,
                "{}",
                tensor.name
            );
        }
    }
    assert!(leased.residency().streamed_bytes > model.bytes());
    drop(lease);
    cache.clear();
    assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
}
