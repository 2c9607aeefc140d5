//! A device in a cache: what is moved, dropped and told by request.

use plimsoll_cache::{Cpu, Error, MadeRoom, Tier};
use plimsoll_events::EvictReason;

use crate::Make;
use crate::leases::Beside;
use crate::support::{Folder, MIB, verify_on};

pub fn evict_and_clear_leave_what_is_leased(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
    let beside = Beside::new(make);
    let on_device = beside.cache.lease([a.on(beside.tier)]).unwrap();
    assert!(
        !beside.cache.evict(&a),
        "from every tier, or it is not gone"
    );
    assert_eq!(
        beside.used(),
        (beside.device.charge(&a), 0),
        "its copy went"
    );
    drop(beside.cache.lease([b.on(beside.tier)]).unwrap());
    let cleared = beside.cache.clear();
    assert_eq!(cleared.evicted, ["b", "b"], "from RAM and from the device");
    assert_eq!(cleared.leased, [("a".to_owned(), 1)]);
    verify_on(&on_device, &a, beside.tier);
    drop(on_device);
    assert!(beside.cache.evict(&a));
    assert_eq!(beside.used(), (0, 0));
}

pub fn offload_keeps_a_model_in_ram(make: Make) {
    let folder = Folder::new();
    let a = folder.model("a", 5 * MIB);
    for keep in [true, false] {
        let beside = Beside::with(make, |builder| builder.keep_ram_copy(keep));
        let lease = beside.cache.lease([a.on(beside.tier)]).unwrap();
        assert!(!beside.cache.offload(&a).unwrap(), "a lease holds it there");
        verify_on(&lease, &a, beside.tier);
        drop(lease);
        assert!(beside.cache.offload(&a).unwrap());
        assert_eq!(beside.used().0, 0);
        assert_eq!(beside.cache.usage().resident_models, 1);
        assert_eq!(beside.cache.usage().pinned_bytes, 0);
        let evicted = beside.kept.evictions();
        assert_eq!(evicted.last().unwrap().reason, EvictReason::Offloaded);
        verify_on(&beside.cache.lease([a.on(Cpu)]).unwrap(), &a, Tier::RAM);
        assert!(beside.cache.offload(&a).unwrap(), "it is nowhere else");
    }
}

pub fn room_is_made_as_far_as_possible(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
    let beside = Beside::new(make);
    let (charge, tier) = (beside.device.charge(&a), beside.tier);
    drop(beside.cache.lease([a.on(tier)]).unwrap());
    let held = beside.cache.lease([b.on(tier)]).unwrap();
    let made = beside.cache.make_room(tier, MIB).unwrap();
    let none = MadeRoom {
        freed_bytes: 0,
        free_bytes: 12 * MIB - charge - beside.device.charge(&b),
    };
    // A device that is shared may have less.
    assert!(made.free_bytes <= none.free_bytes && made.freed_bytes == 0);
    let made = beside.cache.make_room(tier, 6 * MIB).unwrap();
    assert_eq!(made.freed_bytes, charge);
    assert!(made.free_bytes >= 6 * MIB);
    let error = beside.cache.make_room(tier, 10 * MIB).unwrap_err();
    assert!(
        matches!(error, Error::NoRoom { asked, .. } if asked == 10 * MIB),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains(beside.device.name()) && !text.contains("  "),
        "{text}"
    );
    verify_on(&held, &b, tier);
    assert_eq!(
        beside.cache.usage().resident_models,
        2,
        "RAM is not touched"
    );
    let error = beside.cache.make_room(Tier::unique(), 1).unwrap_err();
    assert!(matches!(error, Error::NoDevice { .. }));
    assert!(!error.to_string().contains("``"), "{error}");
}

pub fn prefetch_brings_and_pins_nothing(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 7 * MIB), folder.model("b", 7 * MIB));
    let beside = Beside::new(make);
    beside.cache.prefetch(a.on(beside.tier)).wait().unwrap();
    let usage = beside.cache.usage_of(beside.tier).unwrap();
    assert_eq!((usage.resident_models, usage.pinned_bytes), (1, 0));
    let loads = beside.kept.loads().len();
    let lease = beside.cache.lease([a.on(beside.tier)]).unwrap();
    assert_eq!(beside.kept.loads().len(), loads, "it is there");
    let refused = beside.cache.prefetch(b.on(beside.tier)).wait();
    assert!(matches!(refused, Err(Error::NoRoom { .. })));
    beside
        .cache
        .prefetch(b.on(beside.tier).or_on(Cpu))
        .wait()
        .unwrap();
    verify_on(&lease, &a, beside.tier);
    drop(lease);
    verify_on(&beside.cache.lease([b.on(Cpu)]).unwrap(), &b, Tier::RAM);
}

pub fn a_dropped_model_goes_at_the_last_release_on_every_tier(make: Make) {
    let folder = Folder::new();
    let a = folder.model("a", 4 * MIB);
    let beside = Beside::new(make);
    let tier = beside.tier;
    let charge = beside.device.charge(&a);
    let old = beside.cache.lease([a.on(tier), a.on(Cpu)]).unwrap();
    let old_too = beside.cache.lease([a.on(tier)]).unwrap();
    assert!(!beside.cache.drop_model(&a));
    let new = beside.cache.lease([a.on(tier)]).unwrap();
    assert_eq!(beside.used().0, 2 * charge, "both count");
    for lease in [&old, &old_too, &new] {
        verify_on(lease, &a, tier);
    }
    let loads = beside.kept.loads();
    let from_files = loads.iter().filter(|load| load.ends_with("from File"));
    assert_eq!(from_files.count(), 2, "fresh bytes: {loads:?}");
    drop(old);
    assert_eq!(beside.used().0, 2 * charge, "one lease is left");
    drop(old_too);
    assert_eq!(beside.used().0, charge);
    verify_on(&new, &a, tier);
    drop(new);
    assert!(beside.cache.drop_model(&a), "nobody leases it");
    assert_eq!(beside.used(), (0, 0));
    assert_eq!(beside.cache.residency().models, []);
}

pub fn the_picture_agrees_with_usage(make: Make) {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 4 * MIB), folder.model("b", 4 * MIB));
    let beside = Beside::with(make, |builder| builder.keep_ram_copy(false));
    let wanted = [a.on(beside.tier).working_memory(MIB), b.on(Cpu)];
    let lease = beside.cache.lease(wanted).unwrap();
    let picture = beside.cache.residency();
    let names: Vec<&str> = picture.tiers.iter().map(|tier| &tier.tier[..]).collect();
    assert_eq!(names, ["ram", beside.device.name()]);
    assert_eq!(picture.tiers[1].simulated, beside.device.is_simulated());
    for (tier, pictured) in [Tier::RAM, beside.tier].into_iter().zip(&picture.tiers) {
        let usage = beside.cache.usage_of(tier).unwrap();
        assert_eq!(pictured.budget_bytes, usage.budget_bytes);
        assert_eq!(pictured.used_bytes, usage.used_bytes);
        assert_eq!(pictured.pinned_bytes, usage.pinned_bytes);
        assert_eq!(pictured.working_bytes, usage.working_bytes);
        assert_eq!(pictured.resident_models, usage.resident_models as u64);
        let places = picture.models.iter().flat_map(|model| &model.places);
        let there = places.filter(|place| place.tier == pictured.tier);
        let charged: u64 = there.map(|place| place.charged_bytes).sum();
        assert_eq!(charged, usage.used_bytes);
    }
    let places = picture.models.iter().flat_map(|model| &model.places);
    assert!(places.clone().count() == 2 && places.clone().all(|place| place.leases == 1));
    drop(lease);
    let places = beside.cache.residency().models;
    let mut places = places.iter().flat_map(|model| &model.places);
    assert!(places.all(|place| place.phase == "resident" && place.leases == 0));
}
