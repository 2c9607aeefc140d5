//! Loads that several leases wait for.

use crate::books::{Denied, RAM, Wait};
use crate::orders::{together, try_orders};
use crate::thread;
use crate::world::{Failure, PATIENT, fails, gate, is_whole, lease, loads, model, use_in_ram};

#[test]
fn leases_of_an_absent_model_share_one_load() {
    try_orders(3000, || {
        let gate = gate(&[20], PATIENT);
        let a = model(&gate, "a", 10);
        let user = || thread!(gate, a => use_in_ram(&gate, &[&a]));
        together(vec![user(), user(), user()]);
        assert_eq!(loads(&gate, &a, RAM), 1);
        is_whole(&gate);
    });
}

#[test]
fn a_load_that_fails_fails_for_all_who_wait_for_it_and_for_nobody_after() {
    try_orders(3000, || {
        let gate = gate(&[20], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        fails(&gate, &a, &[Failure::Broken]);
        let user = || {
            thread!(gate, a, b => {
                match lease(&gate, [(&b, RAM), (&a, RAM)], Wait::Forever) {
                    Ok(lease) => lease.work(),
                    Err(Denied::Load(Failure::Broken)) => {}
                    Err(denied) => panic!("{denied:?}"),
                }
            })
        };
        together(vec![user(), user(), user()]);
        use_in_ram(&gate, &[&a, &b]);
        assert_eq!(
            loads(&gate, &a, RAM),
            2,
            "one that failed, and one that did not"
        );
        is_whole(&gate);
    });
}

#[test]
fn the_leases_of_a_failed_load_hold_back_nobody() {
    try_orders(2000, || {
        let gate = gate(&[10], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        fails(&gate, &a, &[Failure::Broken, Failure::Broken]);
        let broken = || thread!(gate, a => drop(lease(&gate, [(&a, RAM)], Wait::Forever)));
        together(vec![
            broken(),
            broken(),
            thread!(gate, b => use_in_ram(&gate, &[&b])),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn memory_that_is_refused_is_had_by_an_eviction() {
    try_orders(2000, || {
        let gate = gate(&[30], PATIENT);
        let [a, b, c] = ["a", "b", "c"].map(|name| model(&gate, name, 10));
        use_in_ram(&gate, &[&a]);
        fails(&gate, &b, &[Failure::Full(10)]);
        together(vec![
            thread!(gate, b => {
                match lease(&gate, [(&b, RAM)], Wait::Forever) {
                    Ok(lease) => lease.work(),
                    // All that could go was leased.
                    Err(Denied::Load(Failure::Full(10))) => {}
                    Err(denied) => panic!("{denied:?}"),
                }
            }),
            thread!(gate, a => use_in_ram(&gate, &[&a])),
            thread!(gate, b, c => drop(lease(&gate, [(&c, RAM), (&b, RAM)], Wait::Forever))),
        ]);
        is_whole(&gate);
    });
}
