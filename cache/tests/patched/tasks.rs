//! Leases with patches for tasks, and with a limit of time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use plimsoll_cache::device::{Device, Fault, Simulated};
use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Cache, Error, Model, Tier};
use safetensors::Dtype;
use tempfile::TempDir;

use super::files::{File, decode, folder};
use super::support::{MIB, until};

const LONG: Duration = Duration::from_secs(20);
const NAME: &str = "lin.weight";

/// 64 KiB.
fn base(folder: &TempDir) -> Model {
    File::new()
        .with(NAME, Dtype::F32, &[128, 128], &[1.0; 128 * 128])
        .model(folder, "base")
}

fn lora(folder: &TempDir) -> Patch {
    File::new()
        .with("lin.lora_A.weight", Dtype::F32, &[1, 128], &[1.0; 128])
        .with("lin.lora_B.weight", Dtype::F32, &[128, 1], &[1.0; 128])
        .patch(folder, "style")
}

fn world(bytes: u64) -> (Cache, Arc<Simulated>) {
    let gpu = Arc::new(Simulated::new(bytes));
    let builder = Cache::builder().ram(MIB).device(Arc::clone(&gpu), bytes);
    (builder.keep_ram_copy(false).build().unwrap(), gpu)
}

/// Nothing is taken any more but what is there.
fn at_rest(cache: &Cache, tier: Tier) {
    until("it is at rest", || {
        let usages = [Tier::RAM, tier].map(|tier| cache.usage_of(tier).unwrap());
        usages
            .iter()
            .all(|usage| usage.pinned_bytes == 0 && usage.staging_bytes == 0)
            && cache.residency().waiting == 0
    });
}

#[test]
fn a_task_leases_patches_every_way() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder));
    let (cache, gpu) = world(MIB);
    for tier in [Tier::RAM, gpu.tier()] {
        for way in 0..3 {
            let wanted = model.on(tier).with(&patch, 0.5);
            let wanted = match way {
                0 => wanted,
                1 => wanted.merged(),
                _ => wanted.beside(),
            };
            let lease = block_on(cache.lease_async([wanted]), LONG)
                .unwrap()
                .unwrap();
            let leased = lease.get(&model).unwrap();
            assert_eq!(leased.is_merged(), Some(way < 2));
            let first = decode(Dtype::F32, &leased.bytes(NAME).unwrap()[..4])[0];
            assert_eq!(first, if way < 2 { 1.5 } else { 1.0 });
        }
    }
    at_rest(&cache, gpu.tier());
}

#[test]
fn a_task_goes_beside_where_there_is_no_room_to_merge() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder));
    let (cache, gpu) = world(100 << 10);
    let wanted = model.on(gpu.tier()).with(&patch, 0.5);
    let lease = block_on(cache.lease_async([wanted]), LONG)
        .unwrap()
        .unwrap();
    assert_eq!(lease.get(&model).unwrap().is_merged(), Some(false));
    drop(lease);
    let wanted = model.on(gpu.tier()).with(&patch, 0.5).merged();
    let error = block_on(cache.lease_async([wanted]), LONG)
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, Error::ExceedsBudget { .. }), "{error}");
    at_rest(&cache, gpu.tier());
}

#[test]
fn a_limit_of_time_holds_while_it_is_tried_to_merge() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder));
    let (cache, gpu) = world(MIB);
    let limit = Duration::from_millis(30);
    // The transfer of the base does not go on, and later that of what is merged.
    for base_is_there in [false, true] {
        if base_is_there {
            drop(cache.lease([model.on(gpu.tier())]).unwrap());
        }
        gpu.inject(Fault::Stuck);
        let (sender, answer) = std::sync::mpsc::channel();
        let (there, model, patch) = (cache.clone(), model.clone(), patch.clone());
        let tier = gpu.tier();
        let thread = std::thread::spawn(move || {
            let wanted = model.on(tier).with(&patch, 0.5);
            sender.send(there.lease_timeout([wanted], limit)).unwrap();
        });
        let answered = answer.recv_timeout(LONG);
        gpu.unstick();
        thread.join().unwrap();
        let error = answered
            .expect("it waits for a transfer that is stuck")
            .unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        at_rest(&cache, gpu.tier());
        cache.clear();
    }
    let wanted = model.on(gpu.tier()).with(&patch, 0.5);
    drop(cache.lease_timeout([wanted], LONG).unwrap());
}

#[test]
fn a_task_that_gives_up_at_any_moment_keeps_nothing() {
    let folder = folder();
    let (model, patch) = (base(&folder), lora(&folder));
    let (cache, gpu) = world(MIB);
    for stuck in [false, true] {
        for merged in [false, true] {
            if stuck {
                gpu.inject(Fault::Stuck);
            }
            let wanted = model.on(gpu.tier()).with(&patch, 0.5);
            let wanted = if merged { wanted.merged() } else { wanted };
            let given = block_on(cache.lease_async([wanted]), Duration::from_millis(3));
            drop(given);
            if stuck {
                until("it is stuck", || gpu.stuck() > 0);
                gpu.unstick();
            }
            at_rest(&cache, gpu.tier());
            cache.clear();
            assert_eq!(cache.usage().used_bytes, 0);
            assert_eq!(gpu.memory().free.bytes(), Some(MIB));
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls by hand until it is ready; gives it up after so long.
pub fn block_on<T>(future: impl Future<Output = T>, most: Duration) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    let until = Instant::now() + most;
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
        let left = until.checked_duration_since(Instant::now())?;
        std::thread::park_timeout(left);
    }
}
