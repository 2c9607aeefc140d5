//! Devices that are loaded from the copy in RAM while others want that room.

use plimsoll_events::EvictReason;

use crate::books::{Denied, RAM, Rules, Wait};
use crate::orders::{together, try_orders};
use crate::thread;
use crate::world::{
    Failure, PATIENT, evict, fails, gate, is_whole, lease, loads, model, use_in_ram,
};

const DEVICE: usize = 1;

fn rules(keep_ram_copy: bool) -> Rules {
    Rules {
        keep_ram_copy,
        ..PATIENT
    }
}

#[test]
fn the_copy_that_a_device_is_loaded_from_stays_until_it_is() {
    for keep in [true, false] {
        try_orders(1500, move || {
            let gate = gate(&[14, 10], rules(keep));
            let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
            together(vec![
                thread!(gate, a => {
                    lease(&gate, [(&a, DEVICE)], Wait::Forever).unwrap().work();
                    evict(&gate, &a, DEVICE);
                    lease(&gate, [(&a, DEVICE)], Wait::Forever).unwrap().work();
                }),
                thread!(gate, a => {
                    evict(&gate, &a, RAM);
                    use_in_ram(&gate, &[&a]);
                    evict(&gate, &a, RAM);
                }),
                thread!(gate, b => use_in_ram(&gate, &[&b])),
            ]);
            is_whole(&gate);
        });
    }
}

#[test]
fn two_models_share_a_device_with_room_for_one() {
    for keep in [true, false] {
        try_orders(1500, move || {
            let gate = gate(&[24, 10], rules(keep));
            let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
            together(vec![
                thread!(gate, a => {
                    lease(&gate, [(&a, DEVICE), (&a, RAM)], Wait::Forever).unwrap().work();
                }),
                thread!(gate, b => {
                    lease(&gate, [(&b, DEVICE)], Wait::Forever).unwrap().work();
                }),
                thread!(gate, a, b => {
                    lease(&gate, [(&a, RAM), (&b, DEVICE)], Wait::Forever).unwrap().work();
                }),
            ]);
            is_whole(&gate);
        });
    }
}

#[test]
fn a_copy_that_cannot_be_loaded_fails_the_device_too() {
    try_orders(1500, || {
        let gate = gate(&[20, 20], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        fails(&gate, &a, &[Failure::Broken]);
        let user = |tier: usize| {
            thread!(gate, a, b => {
                match lease(&gate, [(&b, DEVICE), (&a, tier)], Wait::Forever) {
                    Ok(lease) => lease.work(),
                    Err(Denied::Load(Failure::Broken)) => {}
                    Err(denied) => panic!("{denied:?}"),
                }
            })
        };
        together(vec![user(RAM), user(DEVICE), user(DEVICE)]);
        is_whole(&gate);
    });
}

#[test]
fn a_model_on_its_way_to_a_device_is_dropped() {
    try_orders(1500, || {
        let gate = gate(&[20, 10], PATIENT);
        let a = model(&gate, "a", 10);
        let user = |tier: usize| {
            thread!(gate, a => {
                match lease(&gate, [(&a, tier)], Wait::Forever) {
                    Ok(lease) => lease.work(),
                    Err(denied) => assert!(matches!(denied, Denied::Retired), "{denied:?}"),
                }
            })
        };
        together(vec![
            user(DEVICE),
            user(RAM),
            thread!(gate, a => { gate.drop_entry(&a, &EvictReason::Dropped); }),
        ]);
        let books = gate.books();
        assert_eq!(books.somewhere().count(), 0, "gone with its last lease");
        drop(books);
        is_whole(&gate);
    });
}

#[test]
fn a_copy_that_can_never_be_loaded_is_tried_once_for_each_lease() {
    try_orders(1500, || {
        let gate = gate(&[20, 20], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        fails(&gate, &a, &[Failure::Broken; 8]);
        let user = |first: &_, second: &_| {
            let (first, second) = (std::sync::Arc::clone(first), std::sync::Arc::clone(second));
            thread!(gate, first, second => {
                let wanted = [(&first, DEVICE), (&second, DEVICE)];
                let denied = lease(&gate, wanted, Wait::Forever).err();
                assert!(matches!(denied, Some(Denied::Load(Failure::Broken))));
            })
        };
        together(vec![user(&a, &b), user(&b, &a), user(&a, &a)]);
        assert!(loads(&gate, &a, RAM) <= 3);
        is_whole(&gate);
    });
}
