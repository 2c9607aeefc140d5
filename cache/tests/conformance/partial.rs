//! A device in a cache: leases of models of which a part is there.

use plimsoll_cache::{Error, Partial};
use plimsoll_events::Kind;

use crate::Make;
use crate::files::{in_files, on_the_cpu};
use crate::leases::Beside;
use crate::support::{Folder, MIB, verify_on};

pub fn a_model_larger_than_its_budget_is_leased_in_part(make: Make) {
    let folder = Folder::new();
    let model = folder.model("m", 20 * MIB);
    let beside = Beside::new(make);
    let refused = beside.cache.lease([model.on(beside.tier)]).unwrap_err();
    let Error::ExceedsBudget {
        partial: Some(offer),
        ..
    } = refused
    else {
        panic!("{refused}");
    };
    let wanted = model.on(beside.tier).partial(Partial::default());
    let lease = beside.cache.lease([wanted]).unwrap();
    for _ in 0..2 {
        verify_on(&lease, &model, beside.tier);
        assert!(beside.used().0 <= 12 * MIB && beside.used().1 <= 32 * MIB);
    }
    let residency = lease.get(&model).unwrap().residency();
    // By sizes alone it is about that.
    let margin = model.bytes() / 8;
    let about =
        |is: u64, said: u64| assert!(is.abs_diff(said) <= margin, "{offer:?} {residency:?}");
    about(residency.resident_bytes, offer.resident);
    about(residency.pool_bytes, offer.pool);
    assert!(residency.streamed_bytes >= offer.streamed, "{residency:?}");
    assert_eq!(
        residency.charged_bytes + residency.pool_bytes,
        beside.used().0
    );
    for (tensor, wanted) in model.tensors().iter().zip(in_files(&model)) {
        let found = lease.get(&model).unwrap().tensor(&tensor.name).unwrap();
        assert_eq!(found.dims(), &tensor.shape[..]);
        assert!(on_the_cpu(&found) == wanted, "{tensor:?}");
    }
    drop(lease);
    beside.cache.clear();
    assert_eq!(beside.used(), (0, 0));
    let kinds = beside.kept.kinds();
    assert!(kinds.iter().any(|kind| matches!(kind, Kind::Streamed(_))));
}

pub fn a_part_gives_way_to_others_and_grows_back(make: Make) {
    let folder = Folder::new();
    let (model, other) = (folder.model("m", 11 * MIB), folder.model("o", 5 * MIB));
    let beside = Beside::new(make);
    let wanted = model.on(beside.tier).partial(Partial::default());
    let lease = beside.cache.lease([wanted]).unwrap();
    let there = || lease.get(&model).unwrap().residency().charged_bytes;
    let before = there();
    for _ in 0..5 {
        let second = beside.cache.try_lease([other.on(beside.tier)]).unwrap();
        assert!(there() < before && beside.used().0 <= 12 * MIB);
        verify_on(&lease, &model, beside.tier);
        verify_on(&second, &other, beside.tier);
        drop(second);
        lease.grow(&model).unwrap();
        assert_eq!(there(), before);
    }
    verify_on(&lease, &model, beside.tier);
}

pub fn tensors_out_of_a_pool_outlive_their_lease_and_count(make: Make) {
    let folder = Folder::new();
    let model = folder.model("m", 20 * MIB);
    let beside = Beside::new(make);
    let wanted = model.on(beside.tier).partial(Partial::default());
    let lease = beside.cache.lease([wanted]).unwrap();
    let last = model.tensors().len() - 1;
    let name = &model.tensors()[last].name;
    let tensor = lease.get(&model).unwrap().tensor(name).unwrap();
    drop(lease);
    beside.cache.clear();
    assert!(on_the_cpu(&tensor) == in_files(&model)[last]);
    let usage = beside.cache.usage_of(beside.tier).unwrap();
    assert_eq!(usage.used_bytes, usage.held_bytes);
    drop(tensor);
    assert_eq!(beside.used(), (0, 0));
}
