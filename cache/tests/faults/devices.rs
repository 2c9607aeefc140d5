//! Devices whose transfers fail and whose memory is not there.

use plimsoll_cache::device::{Device, Fault};
use plimsoll_cache::{Cpu, Error, LoadError, Tier};
use plimsoll_events::{EvictReason, Kind};

use crate::support::{Folder, verify};
use crate::{KIB, ROUNDS, Way, balances, is_whole, lease, on_device, says};

#[test]
fn a_transfer_that_fails() {
    for way in Way::ALL {
        let folder = Folder::new();
        let (a, b) = (folder.model("a", 310 * KIB), folder.model("b", 330 * KIB));
        let (cache, device, _) = on_device(way, |builder| builder);
        for _ in 0..ROUNDS {
            lease(&cache, b.on(&*device), &b).unwrap();
            device.inject(Fault::Transfer);
            let error = lease(&cache, a.on(&*device), &a).unwrap_err();
            says(&error, &["simulated", "`a`", "t00", "byte", "injected"]);
            balances(&cache);
            lease(&cache, a.on(&*device), &a).unwrap();
            is_whole(&cache, Some(&device), &[&a, &b]);
            cache.clear();
        }
    }
}

#[test]
fn a_transfer_that_fails_for_one_of_two_models() {
    for way in Way::ALL {
        let folder = Folder::new();
        let (a, b) = (folder.model("a", 310 * KIB), folder.model("b", 330 * KIB));
        let (cache, device, _) = on_device(way, |builder| builder);
        for round in 0..ROUNDS {
            if round % 2 == 1 {
                device.inject(Fault::Slow);
            }
            device.inject(Fault::Transfer);
            let both = cache.lease([a.on(&*device), b.on(&*device)]);
            says(&both.unwrap_err(), &["simulated", "byte", "injected"]);
            balances(&cache);
            is_whole(&cache, Some(&device), &[&a, &b]);
            cache.clear();
        }
    }
}

#[test]
fn memory_that_is_refused_with_nothing_to_evict() {
    for way in Way::ALL {
        let folder = Folder::new();
        let a = folder.model("a", 310 * KIB);
        let (cache, device, _) = on_device(way, |builder| builder);
        for _ in 0..ROUNDS {
            device.inject(Fault::OutOfMemory);
            let error = lease(&cache, a.on(&*device), &a).unwrap_err();
            says(
                &error,
                &["simulated has no memory for `a`", "1.0 MiB", "(injected)"],
            );
            balances(&cache);
            is_whole(&cache, Some(&device), &[&a]);
            cache.clear();
        }
    }
}

#[test]
fn memory_that_the_program_itself_took() {
    for way in Way::ALL {
        let folder = Folder::new();
        let a = folder.model("a", 310 * KIB);
        let (cache, device, _) = on_device(way, |builder| builder);
        for _ in 0..ROUNDS {
            let taken = device.occupy(1000 * KIB).unwrap();
            let error = lease(&cache, a.on(&*device), &a).unwrap_err();
            says(
                &error,
                &["simulated has no memory for `a`", "24.0 KiB free"],
            );
            let Error::Load(load) = &error else {
                panic!("{error}");
            };
            assert!(matches!(
                **load,
                LoadError::OutOfMemory { free, asked, injected: false, .. }
                    if free == 24 * KIB && asked == device.charge(&a)
            ));
            balances(&cache);
            drop(taken);
            is_whole(&cache, Some(&device), &[&a]);
            cache.clear();
        }
    }
}

#[test]
fn memory_that_is_refused_is_had_by_evicting_what_the_budget_had_room_for() {
    for way in Way::ALL {
        for injected in [true, false] {
            let folder = Folder::new();
            let (a, b) = (folder.model("a", 310 * KIB), folder.model("b", 330 * KIB));
            let (cache, device, kept) = on_device(way, |builder| builder);
            for _ in 0..ROUNDS {
                lease(&cache, b.on(&*device), &b).unwrap();
                let taken = if injected {
                    device.inject(Fault::OutOfMemory);
                    None
                } else {
                    let room = 1024 * KIB - device.charge(&b);
                    Some(device.occupy(room).unwrap())
                };
                lease(&cache, a.on(&*device), &a).unwrap();
                let usage = cache.usage_of(&*device).unwrap();
                assert_eq!(usage.used_bytes, device.charge(&a), "b went for it");
                balances(&cache);
                drop(taken);
                is_whole(&cache, Some(&device), &[&a, &b]);
                cache.clear();
            }
            let asked = device.charge(&a);
            let full = kept.kinds().into_iter().filter(|kind| {
                matches!(kind, Kind::Evict(evict)
                    if evict.reason == EvictReason::DeviceFull { asked_bytes: asked })
            });
            assert_eq!(full.count(), ROUNDS);
        }
    }
}

#[test]
fn memory_that_is_refused_is_had_on_the_cpu_where_that_will_do() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 310 * KIB), folder.model("b", 330 * KIB));
    let (cache, device, _) = on_device(Way::Copy, |builder| builder);
    for round in 0..ROUNDS {
        let taken = if round % 2 == 0 {
            device.inject(Fault::OutOfMemory);
            None
        } else {
            Some(device.occupy(900 * KIB).unwrap())
        };
        let wanted = [a.on(&*device).or_on(Cpu), b.on(Cpu)];
        let lease = cache.lease(wanted).unwrap();
        assert_eq!(lease.get(&a).unwrap().tier(), Tier::RAM);
        verify(&lease, &a);
        verify(&lease, &b);
        drop(lease);
        balances(&cache);
        drop(taken);
        is_whole(&cache, Some(&device), &[&a, &b]);
        cache.clear();
    }
}

#[test]
fn a_stream_beside_what_the_lease_itself_takes_of_ram() {
    let folder = Folder::new();
    let a = folder.model("a", 310 * KIB);
    let (fits, beyond) = (
        folder.model("fits", 160 * KIB),
        folder.model("beyond", 200 * KIB),
    );
    let (cache, device, _) = on_device(Way::Stream, |builder| builder);
    for _ in 0..ROUNDS {
        let both = cache.lease([a.on(&*device), fits.on(Cpu)]).unwrap();
        verify(&both, &a);
        verify(&both, &fits);
        drop(both);
        cache.clear();
        // 128 KiB at least are needed to stream anything.
        let error = cache.lease([a.on(&*device), beyond.on(Cpu)]).unwrap_err();
        let Error::ExceedsBudget {
            tier,
            asked,
            budget,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((&tier[..], *budget), ("ram", 300 * KIB));
        assert!(*asked > *budget, "{error}");
        is_whole(&cache, Some(&device), &[&a]);
        cache.clear();
    }
}
