//! Models that are dropped while anything else goes on.

use std::sync::{Arc, Mutex};

use plimsoll_events::EvictReason;

use crate::books::{Denied, RAM, Wait};
use crate::orders::{together, try_orders};
use crate::thread;
use crate::world::{
    Failure, Gate, Model, PATIENT, evict, fails, gate, is_whole, lease, model, use_in_ram,
};

/// The entry that a model has at the moment, as the cache looks it up.
type Registered = Arc<Mutex<Model>>;

fn registered(gate: &Gate, name: &'static str) -> Registered {
    Arc::new(Mutex::new(model(gate, name, 10)))
}

fn now(registered: &Registered) -> Model {
    Arc::clone(&registered.lock().unwrap())
}

fn use_registered(gate: &Arc<Gate>, registered: &Registered) {
    loop {
        match lease(gate, [(&now(registered), RAM)], Wait::Forever) {
            Ok(lease) => return lease.work(),
            // The next one was there before this one was dropped.
            Err(Denied::Retired | Denied::Load(Failure::Broken)) => {}
            Err(denied) => panic!("{denied:?}"),
        }
    }
}

fn drop_registered(gate: &Arc<Gate>, registered: &Registered) {
    let next = model(gate, "next", 10);
    let old = std::mem::replace(&mut *registered.lock().unwrap(), next);
    gate.drop_entry(&old, &EvictReason::Dropped);
}

#[test]
fn a_model_is_dropped_while_it_is_loaded_leased_and_evicted() {
    try_orders(3000, || {
        let gate = gate(&[20], PATIENT);
        let a = registered(&gate, "a");
        let first = now(&a);
        together(vec![
            thread!(gate, a => use_registered(&gate, &a)),
            thread!(gate, a => {
                use_registered(&gate, &a);
                use_registered(&gate, &a);
            }),
            thread!(gate, a => drop_registered(&gate, &a)),
            thread!(gate, first => evict(&gate, &first, RAM)),
        ]);
        // Gone with its last lease, without anybody clearing it.
        let books = gate.books();
        assert!(books.somewhere().all(|(entry, _)| !entry.is_retired()));
        drop(books);
        is_whole(&gate);
    });
}

#[test]
fn a_model_is_dropped_while_its_load_fails() {
    try_orders(2000, || {
        let gate = gate(&[10], PATIENT);
        let a = registered(&gate, "a");
        fails(&gate, &now(&a), &[Failure::Broken]);
        let b = model(&gate, "b", 10);
        together(vec![
            thread!(gate, a => use_registered(&gate, &a)),
            thread!(gate, a => drop_registered(&gate, &a)),
            thread!(gate, b => use_in_ram(&gate, &[&b])),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn a_model_that_was_dropped_is_forgotten() {
    try_orders(1000, || {
        let gate = gate(&[20], PATIENT);
        let a = registered(&gate, "a");
        together(vec![
            thread!(gate, a => use_registered(&gate, &a)),
            thread!(gate, a => drop_registered(&gate, &a)),
            thread!(gate, a => drop_registered(&gate, &a)),
        ]);
        is_whole(&gate);
        assert_eq!(gate.books().known(), 1, "the one that is registered");
    });
}
