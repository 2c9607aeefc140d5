//! The simulated device: what it refuses, how it fails, and what it notices.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use candle_core::Tensor;
use malloc_stats::Metric;
use plimsoll_cache::device::{Device, Fault, Injection, Link, Load, Simulated, Source};
use plimsoll_cache::observe::Unobserved;
use plimsoll_cache::{Cache, Cpu, Error, LoadError, Model, Tier};
use plimsoll_events::{EvictReason, Kind};
use support::{Folder, Kept, MIB, cache, until, verify_on};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

fn free(device: &Simulated) -> u64 {
    match device.memory().free {
        Metric::Exact(free) => free,
        other => panic!("{other:?}"),
    }
}

/// A cache whose device has a budget beyond what there is.
fn beside(bytes: u64) -> (Cache, Arc<Kept>, Arc<Simulated>, Tier) {
    let device = Arc::new(Simulated::new(bytes));
    let tier = device.tier();
    let there = Arc::clone(&device);
    let (cache, kept) = cache(|builder| builder.ram(64 * MIB).device(there, 64 * MIB));
    (cache, kept, device, tier)
}

#[test]
fn memory_is_what_it_was_made_with_whoever_takes_it() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
    let (cache, kept, device, tier) = beside(12 * MIB);
    let charge = device.charge(&a);
    let occupied = device.occupy(4 * MIB).unwrap();
    assert_eq!(free(&device), 8 * MIB);
    assert_eq!(device.occupy(9 * MIB).unwrap_err(), 8 * MIB);
    assert_eq!(device.occupy(u64::MAX).unwrap_err(), 8 * MIB);
    let lease = cache.lease([a.on(tier)]).unwrap();
    let tensor = lease.get(&a).unwrap().tensor("t002").unwrap();
    // The budget has room, the device has not, and there is nothing to evict.
    let error = cache.lease([b.on(tier)]).unwrap_err();
    let text = error.to_string();
    let Error::Load(load) = &error else {
        panic!("{error}");
    };
    assert!(matches!(
        **load,
        LoadError::OutOfMemory { free, total, injected: false, .. }
            if free == 8 * MIB - charge && total == 12 * MIB
    ));
    assert!(
        text.contains("simulated") && text.contains("12.0 MiB"),
        "{text}"
    );
    drop(occupied);
    drop(cache.lease([b.on(tier)]).unwrap());
    drop(lease);
    cache.clear();
    assert_eq!(free(&device), 12 * MIB - charge, "what a tensor holds");
    assert!(device.occupy(8 * MIB).is_err());
    drop(tensor);
    assert_eq!(free(&device), 12 * MIB);
    let refused = kept.kinds().into_iter().find_map(|kind| match kind {
        Kind::Load(load) => load.error,
        _ => None,
    });
    assert_eq!(refused, Some(text));
}

#[test]
fn a_device_that_is_full_has_models_evicted_and_is_asked_once_more() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
    let (cache, kept, device, tier) = beside(12 * MIB);
    drop(cache.lease([a.on(tier)]).unwrap());
    let _occupied = device.occupy(4 * MIB).unwrap();
    verify_on(&cache.lease([b.on(tier)]).unwrap(), &b, tier);
    let evicted = kept.evictions();
    assert_eq!(evicted.len(), 1);
    let asked_bytes = device.charge(&b);
    assert_eq!(evicted[0].reason, EvictReason::DeviceFull { asked_bytes });
    assert_eq!(cache.usage_of(tier).unwrap().used_bytes, asked_bytes);
}

#[test]
fn another_device_is_granted_where_the_memory_of_one_fails() {
    let folder = Folder::new();
    let a = folder.model("a", 5 * MIB);
    let (cache, _, device, tier) = beside(12 * MIB);
    device.inject(Fault::OutOfMemory);
    let lease = cache.lease([a.on(tier).or_on(Cpu)]).unwrap();
    verify_on(&lease, &a, Tier::RAM);
    assert_eq!(cache.usage_of(tier).unwrap().used_bytes, 0);
    drop(lease);
    verify_on(&cache.lease([a.on(tier).or_on(Cpu)]).unwrap(), &a, tier);
}

/// Two of one name cannot be told apart in events and errors, so a cache does not begin with them.
#[test]
fn devices_of_one_cache_have_names_of_their_own() {
    let build = |first: Simulated, second: Simulated| {
        let builder = Cache::builder().device(first, MIB).device(second, MIB);
        builder.build().map(drop)
    };
    let error = build(Simulated::new(MIB), Simulated::new(MIB)).unwrap_err();
    assert!(error.to_string().contains("simulated"), "{error}");
    build(Simulated::new(MIB), Simulated::new(MIB).named("b")).unwrap();
    let twice = Arc::new(Simulated::new(MIB));
    let builder = Cache::builder().device(Arc::clone(&twice), MIB);
    assert!(builder.device(twice, MIB).build().is_err());
}

#[test]
fn faults_come_in_their_order_and_again_and_again() {
    let folder = Folder::new();
    let a = folder.model("a", 3 * MIB);
    let device = Simulated::new(12 * MIB);
    let load = || {
        let result = device.load(&Load {
            model: &a,
            source: Source::Files { staging: 128 << 10 },
            observer: &Unobserved,
        });
        match result {
            Ok(_) => "fine",
            Err(LoadError::OutOfMemory { injected: true, .. }) => "oom",
            Err(LoadError::Transfer { .. }) => "transfer",
            Err(other) => panic!("{other}"),
        }
    };
    device.inject(Fault::Transfer);
    device.inject(Fault::OutOfMemory);
    device.inject(Fault::Slow);
    device.inject_every("transfer:5".parse().unwrap());
    device.inject_every("oom:7".parse().unwrap());
    let seen: Vec<&str> = (0..10).map(|_| load()).collect();
    let wanted = [
        "transfer", "oom", "fine", "fine", "transfer", "fine", "oom", "fine", "fine", "transfer",
    ];
    assert_eq!(seen, wanted);
    assert_eq!(free(&device), 12 * MIB, "a fault leaves nothing behind");
}

#[test]
fn a_stuck_transfer_catches_nobody_who_may_give_up() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 3 * MIB), folder.model("b", 3 * MIB));
    let (cache, _, device, tier) = beside(12 * MIB);
    device.inject(Fault::Stuck);
    let error = cache.lease_timeout([a.on(tier)], Duration::from_millis(50));
    assert!(matches!(error, Err(Error::Timeout { .. })));
    until("the transfer is stuck", || device.stuck() == 1);
    // Others pass.
    verify_on(&cache.lease([b.on(tier)]).unwrap(), &b, tier);
    std::thread::scope(|scope| {
        let joined = scope.spawn(|| verify_on(&cache.lease([a.on(tier)]).unwrap(), &a, tier));
        until("it waits", || {
            cache.residency().models.iter().any(|model| {
                model
                    .places
                    .iter()
                    .any(|place| place.phase == "loading" && place.leases == 1)
            })
        });
        device.unstick();
        joined.join().unwrap();
    });
    assert_eq!(device.stuck(), 0);
}

#[test]
fn a_write_into_leased_weights_is_found_and_told_with_both_checksums() {
    let folder = Folder::new();
    let a = folder.model("a", 3 * MIB);
    let (cache, _, _, tier) = beside(12 * MIB);
    let lease = cache.lease([a.on(tier)]).unwrap();
    let weights = lease.get(&a).unwrap();
    let tensor = weights.tensor("t002").unwrap();
    let before = tensor.to_vec1::<u8>().unwrap();
    let patch = Tensor::from_vec(vec![!before[1], 3], 2, tensor.device()).unwrap();
    tensor.slice_set(&patch, 0, 1).unwrap();
    for error in [
        weights.tensor("t002").unwrap_err(),
        weights.bytes("t002").unwrap_err(),
    ] {
        let text = error.to_string();
        let Error::Corrupt {
            tensor,
            expected,
            found,
            device,
            model,
        } = error
        else {
            panic!("{text}");
        };
        assert_eq!(
            (&tensor[..], &device[..], &model[..]),
            ("t002", "simulated", "a")
        );
        assert_eq!(expected, xxhash_rust::xxh3::xxh3_64(&before));
        assert_ne!(expected, found);
        for sum in [expected, found] {
            assert!(text.contains(&format!("{sum:016x}")), "{text}");
        }
    }
    assert!(weights.tensor("t001").is_ok(), "the others are sound");
    // Fresh bytes are sound again.
    drop((tensor, lease));
    assert!(cache.evict(&a));
    verify_on(&cache.lease([a.on(tier)]).unwrap(), &a, tier);
}

#[test]
fn a_cache_that_ends_gives_the_device_its_memory_back() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 3 * MIB), folder.model("b", 3 * MIB));
    let (cache, _, device, tier) = beside(12 * MIB);
    drop(cache.lease([a.on(tier)]).unwrap());
    let lease = cache.lease([b.on(tier)]).unwrap();
    let tensor = lease.get(&b).unwrap().tensor("t001").unwrap();
    drop(cache);
    verify_on(&lease, &b, tier);
    drop(lease);
    assert_eq!(
        free(&device),
        12 * MIB - device.charge(&b),
        "a tensor is left"
    );
    drop(tensor);
    assert_eq!(free(&device), 12 * MIB);
}

#[test]
fn a_link_of_any_speed_transfers_without_a_panic() {
    let folder = Folder::new();
    let a = folder.model("a", 1000);
    for rate in [f64::NAN, f64::INFINITY, -1.0, f64::MAX, 1e9] {
        let device = Simulated::new(MIB).link(Link {
            bytes_per_second: Some(rate),
            latency: Duration::from_micros(1),
        });
        device.inject(Fault::Slow);
        let load = Load {
            model: &a,
            source: Source::Files { staging: 128 << 10 },
            observer: &Unobserved,
        };
        let weights = device.load(&load).unwrap();
        assert!(weights.bytes(0).is_ok(), "at {rate} bytes a second");
    }
}

#[test]
fn a_simulated_device_is_made_of_a_line_and_bad_lines_are_told() {
    for (text, bytes) in [
        ("simulated:8GiB", 8 << 30),
        ("simulated:8GiB,25", 8 << 30),
        ("simulated:1", 1),
        ("simulated:1.5MiB,0.5", 3 << 19),
        ("simulated:18446744073709551615", u64::MAX),
    ] {
        let device: Simulated = text.parse().unwrap();
        assert_eq!(device.memory().total, Metric::Exact(bytes), "{text}");
        assert_eq!(device.memory().free, Metric::Exact(bytes));
        assert!(device.is_simulated() && device.name() == "simulated");
    }
    for text in [
        "",
        "simulated",
        "simulated:",
        "simulated:0",
        "simulated:0B,25",
        "simulated:,25",
        "simulated:-1",
        "simulated:8GiB,",
        "simulated:8GiB,0",
        "simulated:8GiB,-1",
        "simulated:8GiB,nan",
        "simulated:8GiB,inf",
        "simulated:8GiB,1e-300",
        "simulated:8GiB,1e300",
        "simulated:8GiB,25,3",
        "simulated:16EiB",
        "simulated:18446744073709551616",
        "simulated:99999999999999999999999GiB",
        "simulated:eight",
        "cuda:0",
        "Simulated:8GiB",
        "simulated:8GiB\u{1b}[2J\n",
    ] {
        let error = text.parse::<Simulated>().unwrap_err().to_string();
        assert!(!error.contains(char::is_control), "{error:?}");
        assert!(error.contains(&*text.escape_debug().to_string()), "{error}");
        assert!(error.contains("simulated:8GiB,25"), "a way out: {error}");
    }
}

#[test]
fn faults_are_written_as_they_are_read() {
    for text in ["oom", "transfer", "slow", "stuck"] {
        let fault: Fault = text.parse().unwrap();
        assert_eq!(fault.to_string(), text);
        assert_eq!(text.parse(), Ok(Injection { fault, every: 1 }));
        let every = Injection { fault, every: 12 };
        assert_eq!(every.to_string().parse(), Ok(every));
    }
    for text in [
        "",
        "oops",
        "oom:",
        "oom:0",
        "oom:-1",
        "oom:1:2",
        ":3",
        "oom :1",
        "slow:\u{7}",
        "oom:18446744073709551616",
        "OOM",
    ] {
        let error = text.parse::<Injection>().unwrap_err().to_string();
        assert!(!error.contains(char::is_control), "{error:?}");
        assert!(error.contains(&*text.escape_debug().to_string()), "{error}");
        assert!(error.contains("transfer"), "what it may be: {error}");
        assert!(text.parse::<Fault>().is_err());
    }
}

#[test]
fn handles_of_a_device_are_one_device() {
    let folder = Folder::new();
    let a: Model = folder.model("a", MIB);
    let (cache, _, device, tier) = beside(12 * MIB);
    let lease = cache.lease([a.on(&*device)]).unwrap();
    assert_eq!(lease.get(&a).unwrap().tier(), tier);
    let other = Simulated::new(12 * MIB);
    let error = cache.lease([a.on(&other)]).unwrap_err();
    assert!(matches!(error, Error::NoDevice { .. }), "{error}");
    assert!(error.to_string().contains("`a`"));
}
