//! A device in a cache: leases.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_cache::device::Device;
use plimsoll_cache::{Builder, Cache, Cpu, Error, Tier};
use plimsoll_events::{EvictReason, Kind};

use crate::Make;
use crate::files::{in_files, on_the_cpu};
use crate::support::{Folder, Kept, MIB, cache, verify_on};

/// A cache with a device of 12 MiB, and 32 MiB of RAM.
pub struct Beside {
    pub cache: Cache,
    pub kept: Arc<Kept>,
    pub device: Arc<dyn Device>,
    pub tier: Tier,
}

impl Beside {
    pub fn new(make: Make) -> Beside {
        Beside::with(make, |builder| builder)
    }

    pub fn with(make: Make, set: impl FnOnce(Builder) -> Builder) -> Beside {
        let device = make(12 * MIB);
        let tier = device.tier();
        let (cache, kept) = cache(|builder| {
            let builder = builder.ram(32 * MIB).device(Arc::clone(&device), 12 * MIB);
            set(builder)
        });
        Beside {
            cache,
            kept,
            device,
            tier,
        }
    }

    /// Bytes that count on the device and in RAM.
    pub fn used(&self) -> (u64, u64) {
        let there = self.cache.usage_of(self.tier).unwrap();
        (there.used_bytes, self.cache.usage().used_bytes)
    }
}

pub fn a_lease_brings_a_model_and_keeps_it(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 7 * MIB), folder.model("b", 7 * MIB));
    let beside = Beside::new(make);
    let lease = beside.cache.lease([a.on(beside.tier)]).unwrap();
    verify_on(&lease, &a, beside.tier);
    assert!(!beside.cache.evict(&a), "a leased model stays");
    let usage = beside.cache.usage_of(beside.tier).unwrap();
    assert_eq!(usage.used_bytes, beside.device.charge(&a));
    assert_eq!(usage.pinned_bytes, usage.used_bytes);
    let refused = beside.cache.try_lease([b.on(beside.tier)]).unwrap_err();
    assert!(
        refused.to_string().contains(beside.device.name()),
        "{refused}"
    );
    assert!(matches!(refused, Error::NoRoom { .. }));
    drop(lease);
    verify_on(
        &beside.cache.lease([b.on(beside.tier)]).unwrap(),
        &b,
        beside.tier,
    );
    let usage = beside.cache.usage_of(beside.tier).unwrap();
    assert_eq!(usage.used_bytes, beside.device.charge(&b));
    assert_eq!((usage.pinned_bytes, usage.resident_models), (0, 1));
    let evicted = beside.kept.evictions();
    let evicted = evicted
        .iter()
        .find(|evict| evict.tier == beside.device.name());
    assert_eq!(evicted.unwrap().model, "a");
}

pub fn a_lease_is_all_or_nothing(make: Make) {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 5 * MIB));
    let beside = Beside::new(make);
    let tier = beside.tier;
    let held = beside.cache.lease([a.on(tier)]).unwrap();
    let before = (beside.cache.usage(), beside.cache.usage_of(tier));
    let refused = beside.cache.try_lease([b.on(tier), c.on(tier)]);
    assert!(matches!(refused, Err(Error::NoRoom { .. })));
    let refused = beside.cache.try_lease([b.on(Cpu), b.on(tier), c.on(tier)]);
    assert!(matches!(refused, Err(Error::NoRoom { .. })));
    let after = (beside.cache.usage(), beside.cache.usage_of(tier));
    assert_eq!(before, after, "nothing of the refused leases was kept");
    let timeout = Duration::from_millis(30);
    let refused = beside
        .cache
        .lease_timeout([b.on(tier), c.on(tier)], timeout);
    assert!(matches!(refused, Err(Error::Timeout { .. })));
    assert_eq!(before.1, beside.cache.usage_of(tier));
    drop(held);
    let both = beside.cache.lease([b.on(tier), c.on(tier)]).unwrap();
    verify_on(&both, &b, tier);
    verify_on(&both, &c, tier);
}

pub fn models_are_leased_on_different_devices_at_once(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
    let beside = Beside::new(make);
    let lease = beside.cache.lease([a.on(beside.tier), b.on(Cpu)]).unwrap();
    verify_on(&lease, &a, beside.tier);
    verify_on(&lease, &b, Tier::RAM);
    assert!(lease.get_on(&b, beside.tier).is_err());
    assert!(
        lease.get_on(&a, Cpu).is_err(),
        "a copy on the way is not leased"
    );
    assert_eq!(lease.models().count(), 2);
    let there = beside.cache.usage_of(beside.tier).unwrap();
    assert_eq!(
        (there.resident_models, there.used_bytes),
        (1, beside.device.charge(&a))
    );
}

pub fn a_model_is_leased_on_both_at_once(make: Make) {
    let folder = Folder::new();
    let a = folder.model("a", 5 * MIB);
    for device_first in [true, false] {
        for again in [false, true] {
            let beside = Beside::with(make, |builder| builder.keep_ram_copy(false));
            if again {
                drop(beside.cache.lease([a.on(Cpu)]).unwrap());
            }
            let wanted = if device_first {
                [a.on(beside.tier), a.on(Cpu)]
            } else {
                [a.on(Cpu), a.on(beside.tier)]
            };
            let lease = beside.cache.lease(wanted).unwrap();
            verify_on(&lease, &a, beside.tier);
            verify_on(&lease, &a, Tier::RAM);
            let first = if device_first { beside.tier } else { Tier::RAM };
            assert_eq!(lease.get(&a).unwrap().tier(), first);
            assert_eq!(lease.models().count(), 2, "once for each device");
            assert!(!beside.cache.evict(&a));
            drop(lease);
            assert!(beside.cache.evict(&a));
            assert_eq!(beside.used(), (0, 0));
        }
    }
}

pub fn another_device_is_granted_where_there_is_no_room(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 7 * MIB), folder.model("b", 7 * MIB));
    let large = folder.model("large", 15 * MIB);
    let beside = Beside::new(make);
    let tier = beside.tier;
    let held = beside.cache.lease([a.on(tier).or_on(Cpu)]).unwrap();
    assert_eq!(held.get(&a).unwrap().tier(), tier, "there is room");
    let lease = beside.cache.lease([b.on(tier).or_on(Cpu)]).unwrap();
    assert_eq!(lease.get(&b).unwrap().tier(), Tier::RAM);
    verify_on(&lease, &b, Tier::RAM);
    assert!(lease.get_on(&b, tier).is_err());
    drop((held, lease));
    let lease = beside.cache.lease([b.on(tier).or_on(Cpu)]).unwrap();
    assert_eq!(
        lease.get(&b).unwrap().tier(),
        tier,
        "what is not leased goes first"
    );
    // Larger than all of it: at once.
    let lease = beside.cache.lease([large.on(tier).or_on(Cpu)]).unwrap();
    assert_eq!(lease.get(&large).unwrap().tier(), Tier::RAM);
    let error = beside.cache.lease([large.on(tier)]).unwrap_err();
    assert!(matches!(&error, Error::ExceedsBudget { tier, .. } if tier == beside.device.name()));
}

pub fn working_memory_is_declared_and_given_back(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
    let beside = Beside::new(make);
    let tier = beside.tier;
    let there = || beside.cache.usage_of(tier).unwrap();
    let lease = beside
        .cache
        .lease([a.on(tier).working_memory(4 * MIB)])
        .unwrap();
    assert_eq!(there().working_bytes, 4 * MIB);
    assert_eq!(
        there().used_bytes,
        beside.device.charge(&a),
        "it is no weights"
    );
    let refused = beside.cache.try_lease([b.on(tier)]);
    assert!(
        matches!(refused, Err(Error::NoRoom { .. })),
        "9 of 12 MiB are taken"
    );
    drop(lease);
    assert_eq!(there().working_bytes, 0);
    drop(beside.cache.try_lease([b.on(tier)]).unwrap());
    assert_eq!(there().resident_models, 2);
    // For working memory models go, the one that is asked for not.
    let lease = beside
        .cache
        .lease([b.on(tier).working_memory(6 * MIB)])
        .unwrap();
    assert_eq!(there().used_bytes, beside.device.charge(&b));
    drop(lease);
    let error = beside
        .cache
        .lease([b.on(tier).working_memory(8 * MIB)])
        .unwrap_err();
    assert!(matches!(error, Error::ExceedsBudget { .. }), "{error}");
    assert_eq!(there().working_bytes, 0);
}

pub fn a_model_comes_back_from_its_copy_in_ram(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 7 * MIB), folder.model("b", 7 * MIB));
    let beside = Beside::new(make);
    let (tier, name) = (beside.tier, beside.device.name().to_owned());
    for model in [&a, &b, &a] {
        verify_on(&beside.cache.lease([model.on(tier)]).unwrap(), model, tier);
    }
    let loads = [
        "a in ram from File".to_owned(),
        format!("a in {name} from Ram"),
        "b in ram from File".to_owned(),
        format!("b in {name} from Ram"),
        format!("a in {name} from Ram"),
    ];
    assert_eq!(beside.kept.loads(), loads);
    assert_eq!(beside.cache.usage().resident_models, 2);
    assert_eq!(beside.cache.usage().pinned_bytes, 0, "a copy is not leased");
}

pub fn copies_in_ram_are_not_kept_where_they_are_not_wanted(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
    let beside = Beside::with(make, |builder| builder.keep_ram_copy(false));
    let (tier, name) = (beside.tier, beside.device.name().to_owned());
    let lease = beside.cache.lease([a.on(tier)]).unwrap();
    verify_on(&lease, &a, tier);
    assert_eq!(beside.used(), (beside.device.charge(&a), 0));
    assert_eq!(beside.kept.loads(), [format!("a in {name} from File")]);
    // What is in RAM already is the source, and goes once the device has it.
    drop(beside.cache.lease([b.on(Cpu)]).unwrap());
    verify_on(&beside.cache.lease([b.on(tier)]).unwrap(), &b, tier);
    assert_eq!(beside.used().1, 0);
    assert_eq!(
        beside.kept.loads()[1..],
        [
            "b in ram from File".to_owned(),
            format!("b in {name} from Ram"),
        ]
    );
    let evicted = beside.kept.evictions();
    assert_eq!(evicted.len(), 1);
    assert_eq!((&evicted[0].model[..], &evicted[0].tier[..]), ("b", "ram"));
    assert_eq!(evicted[0].reason, EvictReason::NotKept);
}

pub fn a_failed_load_leaves_every_tier_as_it_was(make: Make) {
    let folder = Folder::new();
    for keep in [true, false] {
        let (good, path) = (folder.model("good", 2 * MIB), folder.file("bad", 3 * MIB));
        let bad = plimsoll_cache::Model::open(&path).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(MIB).unwrap();
        let beside = Beside::with(make, |builder| builder.keep_ram_copy(keep));
        let error = beside
            .cache
            .lease([good.on(beside.tier), bad.on(beside.tier)]);
        let error = error.unwrap_err();
        assert!(error.to_string().contains("bad.safetensors"), "{error}");
        let usage = beside.cache.usage_of(beside.tier).unwrap();
        assert_eq!((usage.pinned_bytes, usage.staging_bytes), (0, 0));
        beside.cache.clear();
        assert_eq!(beside.used(), (0, 0));
        let lease = beside.cache.lease([good.on(beside.tier)]).unwrap();
        verify_on(&lease, &good, beside.tier);
    }
}

pub fn tensors_outlive_their_lease_and_count(make: Make) {
    let folder = Folder::new();
    let a = folder.model("a", 5 * MIB);
    let wanted = in_files(&a);
    let beside = Beside::with(make, |builder| builder.keep_ram_copy(false));
    let lease = beside.cache.lease([a.on(beside.tier)]).unwrap();
    let tensor = lease.get(&a).unwrap().tensor(&a.tensors()[0].name).unwrap();
    drop(lease);
    assert!(beside.cache.evict(&a));
    let kinds = beside.kept.kinds();
    let held = kinds.iter().find_map(|kind| match kind {
        Kind::Evict(evict) => Some(evict.held_bytes),
        _ => None,
    });
    let usage = beside.cache.usage_of(beside.tier).unwrap();
    assert_eq!(Some(usage.held_bytes), held);
    assert_eq!(usage.used_bytes, usage.held_bytes);
    assert_eq!(usage.resident_models, 0);
    // The model can come again beside what is held of it.
    let lease = beside.cache.lease([a.on(beside.tier)]).unwrap();
    verify_on(&lease, &a, beside.tier);
    let charge = beside.device.charge(&a);
    assert_eq!(beside.used().0, usage.held_bytes + charge);
    assert!(on_the_cpu(&tensor) == wanted[0]);
    drop(tensor);
    assert_eq!(beside.used().0, charge);
}
