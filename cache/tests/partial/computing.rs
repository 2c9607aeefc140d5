//! A consumer that computes gets the same numbers, whatever is where, and no budget is exceeded.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_cache::device::{Device, Link, Simulated};
use plimsoll_cache::{Builder, Cache, Cpu, Lease, Model, Partial, Storage};

use super::files::folder;
use super::models::{compute, in_file_order, layers, shapes, shuffled};
use super::support::MIB;
use super::watch::{Watch, on_device};

const LINK: Link = Link {
    bytes_per_second: Some(4e9),
    latency: Duration::ZERO,
};

fn gpu() -> Arc<Simulated> {
    Arc::new(Simulated::new(64 * MIB).link(LINK))
}

fn with(
    gpu: &Arc<Simulated>,
    budget: u64,
    ram: u64,
    set: impl FnOnce(Builder) -> Builder,
) -> Cache {
    let builder = Cache::builder().ram(ram).device(Arc::clone(gpu), budget);
    set(builder).build().unwrap()
}

/// With all of it there.
fn wanted(model: &Model, order: &[String]) -> Vec<u32> {
    let gpu = gpu();
    let cache = with(&gpu, 64 * MIB, 64 * MIB, |builder| builder);
    let lease = cache.lease([model.on(&*gpu)]).unwrap();
    compute(&lease, model, order)
}

fn least(model: &Model, gpu: &Simulated) -> u64 {
    // Twice the largest, and something that is there.
    let largest = model.tensors().iter().map(|tensor| tensor.bytes).max();
    let largest = largest.unwrap_or(0).max(128 << 10).next_multiple_of(4096);
    (3 * largest + MIB / 4).min(gpu.charge(model))
}

#[test]
fn every_shape_of_model_gives_the_same_in_every_order_at_every_share() {
    let folder = folder();
    for model in shapes(&folder) {
        for order in [in_file_order(&model), shuffled(&model)] {
            let wanted = wanted(&model, &order);
            for share in [25, 50, 75] {
                let gpu = gpu();
                let charge = gpu.charge(&model);
                let budget = (charge * share / 100).max(least(&model, &gpu));
                let cache = with(&gpu, budget, 64 * MIB, |builder| builder);
                let watch = Watch::new(&cache, &gpu);
                let partial = Partial::default().in_order(&order);
                let lease = cache.lease([model.on(&*gpu).partial(partial)]).unwrap();
                for _ in 0..2 {
                    let found = compute(&lease, &model, &order);
                    assert_eq!(found, wanted, "{} at {share} %", model.name());
                }
                let residency = lease.get(&model).unwrap().residency();
                assert_eq!(residency.out_of_order, 0, "{}: {residency:?}", model.name());
                drop(lease);
                let most = watch.end();
                assert!(most > budget / 4, "{most} of {budget}");
                cache.clear();
                assert_eq!(on_device(&gpu), 0);
                assert_eq!(cache.usage().used_bytes, 0);
            }
        }
    }
}

#[test]
fn whatever_it_streams_from_gives_the_same() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let order = in_file_order(&model);
    let wanted = wanted(&model, &order);
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        for (keeps, ram) in [(true, 64 * MIB), (false, 64 * MIB), (true, MIB)] {
            let gpu = gpu();
            let budget = gpu.charge(&model) / 2;
            let cache = with(&gpu, budget, ram, |builder| {
                builder.storage(storage).keep_ram_copy(keeps)
            });
            let watch = Watch::new(&cache, &gpu);
            let partial = Partial::default();
            let lease = cache.lease([model.on(&*gpu).partial(partial)]).unwrap();
            assert_eq!(compute(&lease, &model, &order), wanted, "{storage} {ram}");
            let residency = lease.get(&model).unwrap().residency();
            assert!(
                residency.streamed_bytes > model.bytes() / 3,
                "{residency:?}"
            );
            let in_ram = cache.usage().used_bytes >= model.bytes();
            assert_eq!(in_ram, keeps && ram > MIB, "{storage} {keeps} {ram}");
            drop(lease);
            watch.end();
        }
    }
}

#[test]
fn a_part_in_ram_streams_from_its_file() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let order = shuffled(&model);
    let wanted = wanted(&model, &order);
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        let cache = Cache::builder()
            .ram(model.bytes() / 2)
            .storage(storage)
            .build()
            .unwrap();
        let partial = Partial::default().in_order(&order);
        let lease = cache.lease([model.on(Cpu).partial(partial)]).unwrap();
        for _ in 0..3 {
            assert_eq!(compute(&lease, &model, &order), wanted, "{storage}");
            let usage = cache.usage();
            assert!(usage.used_bytes <= usage.budget_bytes, "{usage:?}");
        }
        lease.check().unwrap();
        drop(lease);
        cache.clear();
        assert_eq!(cache.usage().used_bytes, 0, "{storage}");
    }
}

fn at_once(leases: &[&Lease], model: &Model, order: &[String], wanted: &[u32]) {
    std::thread::scope(|scope| {
        for lease in leases {
            scope.spawn(|| {
                for _ in 0..4 {
                    assert_eq!(compute(lease, model, order), wanted);
                }
            });
        }
    });
}

#[test]
fn two_leases_of_a_model_at_once_and_two_consumers_of_a_lease_are_served() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let order = in_file_order(&model);
    let wanted = wanted(&model, &order);
    for pool in [None, Some(96 << 10)] {
        let gpu = gpu();
        let cache = with(&gpu, gpu.charge(&model) * 6 / 10, 64 * MIB, |builder| {
            builder
        });
        let watch = Watch::new(&cache, &gpu);
        let partial = || match pool {
            None => Partial::default(),
            // For one unit.
            Some(bytes) => Partial::default().pool(bytes),
        };
        let one = cache.lease([model.on(&*gpu).partial(partial())]).unwrap();
        at_once(&[&one, &one], &model, &order, &wanted);
        let two = cache.lease([model.on(&*gpu).partial(partial())]).unwrap();
        at_once(&[&one, &two, &one, &two], &model, &order, &wanted);
        let both = cache.lease([
            model.on(&*gpu).partial(partial()),
            model.on(&*gpu).partial(partial()),
        ]);
        drop((one, both));
        at_once(&[&two], &model, &order, &wanted);
        drop(two);
        watch.end();
        cache.clear();
        assert_eq!(on_device(&gpu), 0);
    }
}
