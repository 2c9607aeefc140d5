//! Leases against evictions and against each other.

use shuttle::thread::yield_now;

use crate::books::{Denied, RAM, Wait};
use crate::orders::{together, try_all_orders, try_orders};
use crate::thread;
use crate::world::{PATIENT, evict, gate, hit, is_whole, lease, model, set_budget, use_in_ram};

#[test]
fn a_model_is_leased_and_evicted_at_once() {
    try_orders(3000, || {
        let gate = gate(&[10], PATIENT);
        let a = model(&gate, "a", 10);
        let user = || {
            thread!(gate, a => {
                use_in_ram(&gate, &[&a]);
                use_in_ram(&gate, &[&a]);
            })
        };
        together(vec![
            user(),
            user(),
            thread!(gate, a => {
                evict(&gate, &a, RAM);
                evict(&gate, &a, RAM);
            }),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn the_door_lets_nobody_in_once_it_is_closed_in_any_order() {
    try_all_orders(50_000, || {
        let gate = gate(&[10], PATIENT);
        let a = model(&gate, "a", 10);
        drop(lease(&gate, [(&a, RAM)], Wait::Forever));
        together(vec![
            thread!(gate, a => if let Some(lease) = hit(&gate, &a, RAM) {
                lease.work();
            }),
            thread!(gate, a => evict(&gate, &a, RAM)),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn two_models_in_room_for_one_are_both_served() {
    try_orders(3000, || {
        let gate = gate(&[10], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        let user = |first: &_, second: &_| {
            let (first, second) = (std::sync::Arc::clone(first), std::sync::Arc::clone(second));
            thread!(gate, first, second => {
                use_in_ram(&gate, &[&first]);
                use_in_ram(&gate, &[&second]);
            })
        };
        together(vec![user(&a, &b), user(&b, &a), user(&a, &b)]);
        is_whole(&gate);
    });
}

#[test]
fn a_waiter_is_woken_by_whoever_leaves_without_the_lock() {
    try_all_orders(50_000, || {
        let gate = gate(&[10], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        let held = lease(&gate, [(&a, RAM)], Wait::Forever).unwrap();
        together(vec![
            Box::new(move || drop(held)),
            thread!(gate, b => use_in_ram(&gate, &[&b])),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn pairs_in_opposite_order_are_leased_whole_or_not_at_all() {
    try_orders(2000, || {
        let gate = gate(&[20], PATIENT);
        let [a, b, c] = ["a", "b", "c"].map(|name| model(&gate, name, 10));
        together(vec![
            thread!(gate, a, b => use_in_ram(&gate, &[&a, &b])),
            thread!(gate, a, b => use_in_ram(&gate, &[&b, &a])),
            thread!(gate, b, c => use_in_ram(&gate, &[&c, &b])),
            thread!(gate, a => use_in_ram(&gate, &[&a])),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn a_lease_that_may_not_wait_is_given_or_refused() {
    try_orders(2000, || {
        let gate = gate(&[10], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        let hasty = |one: &_| {
            let one = std::sync::Arc::clone(one);
            thread!(gate, one => {
                match lease(&gate, [(&one, RAM)], Wait::Never) {
                    Ok(lease) => lease.work(),
                    Err(denied) => assert!(matches!(denied, Denied::NoRoom { .. }), "{denied:?}"),
                }
            })
        };
        together(vec![
            hasty(&a),
            hasty(&b),
            thread!(gate, a => use_in_ram(&gate, &[&a])),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn a_budget_that_shrinks_and_grows_under_leases_serves_everyone() {
    try_orders(2000, || {
        let gate = gate(&[30], PATIENT);
        let [a, b, c] = ["a", "b", "c"].map(|name| model(&gate, name, 10));
        together(vec![
            thread!(gate, a, b => use_in_ram(&gate, &[&a, &b])),
            thread!(gate, b, c => use_in_ram(&gate, &[&c, &b])),
            thread!(gate => {
                set_budget(&gate, RAM, 10, 30);
                yield_now();
                set_budget(&gate, RAM, 20, 30);
            }),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn a_waiter_beyond_a_budget_that_shrank_for_good_is_refused_while_others_hold_leases() {
    try_orders(1000, || {
        let gate = gate(&[20], PATIENT);
        let [a, b, c] = ["a", "b", "c"].map(|name| model(&gate, name, 10));
        let held = lease(&gate, [(&a, RAM)], Wait::Forever).unwrap();
        together(vec![
            thread!(gate, b, c => {
                let denied = lease(&gate, [(&b, RAM), (&c, RAM)], Wait::Forever).err();
                assert!(matches!(denied, Some(Denied::Exceeds { tier: RAM, asked: 20 })));
            }),
            thread!(gate => set_budget(&gate, RAM, 10, 10)),
        ]);
        held.work();
        drop(held);
        is_whole(&gate);
    });
}

#[test]
fn what_is_beyond_a_budget_that_shrank_goes_with_the_leases_of_it() {
    try_orders(2000, || {
        let gate = gate(&[30], PATIENT);
        let [a, b, c] = ["a", "b", "c"].map(|name| model(&gate, name, 10));
        use_in_ram(&gate, &[&a, &b, &c]);
        together(vec![
            thread!(gate, a, b => use_in_ram(&gate, &[&a, &b])),
            thread!(gate, b, c => use_in_ram(&gate, &[&b, &c])),
            thread!(gate => set_budget(&gate, RAM, 20, 20)),
            thread!(gate => set_budget(&gate, RAM, 25, 25)),
        ]);
        let books = gate.books();
        assert!(books.accounts[RAM].used() <= books.accounts[RAM].budget);
        drop(books);
        is_whole(&gate);
    });
}
