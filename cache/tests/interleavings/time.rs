//! Where time passes: models that are drained, and waits that cannot end.

use std::sync::Arc;

use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::thread::yield_now;

use crate::books::{Denied, Holder, Pending, RAM, Rules, Wait};
use crate::orders::{together, try_random_orders};
use crate::thread;
use crate::world::{Gate, Lease, Model, asks, gate, is_whole, model, use_in_ram};

/// Runs threads while time passes, in steps of so much, and waits time out.
fn while_time_passes(gate: &Arc<Gate>, step_ns: u64, threads: Vec<Box<dyn FnOnce() + Send>>) {
    let over = Arc::new(AtomicBool::new(false));
    let clock = {
        let (gate, over) = (Arc::clone(gate), Arc::clone(&over));
        shuttle::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                gate.io.pass(step_ns);
                gate.wake_tasks();
                yield_now();
            }
        })
    };
    together(threads);
    over.store(true, Ordering::SeqCst);
    clock.join().unwrap();
}

const MS: u64 = 1_000_000;

const HASTY: Rules = Rules {
    keep_ram_copy: true,
    staging: 4,
    drain_after_ns: MS,
    deadlock_after_ns: Some(100 * MS),
};

#[test]
fn a_lease_is_served_between_leases_of_what_has_to_go_for_it() {
    try_random_orders(2000, || {
        let gate = gate(&[20], HASTY);
        let [a, b, c] = ["a", "b", "c"].map(|name| model(&gate, name, 10));
        let busy = |one: &Model| {
            let one = Arc::clone(one);
            thread!(gate, one => for _ in 0..3 {
                use_in_ram(&gate, &[&one]);
            })
        };
        while_time_passes(
            &gate,
            MS / 2,
            vec![
                busy(&a),
                busy(&a),
                busy(&b),
                thread!(gate, c, b => use_in_ram(&gate, &[&c, &b])),
            ],
        );
        for one in [&a, &b, &c] {
            assert!(
                !one.slots[RAM].pins.is_draining(),
                "still drained for nobody"
            );
        }
        is_whole(&gate);
    });
}

/// Leases one model and, while it holds it, another. Returns whether both were given.
fn hold_and_wait(gate: &Arc<Gate>, first: &Model, second: &Model) -> bool {
    let holder = Arc::new(Holder::default());
    let lease = |model: &Model| {
        let mut pending = Pending::new(gate, asks([(model, RAM)]), Some(Arc::clone(&holder)));
        let grant = gate.lease(&mut pending, Wait::Forever);
        grant.map(|grant| Lease::new(gate, grant, Some(Arc::clone(&holder))))
    };
    let held = match lease(first) {
        Ok(held) => held,
        Err(denied) => {
            assert!(matches!(denied, Denied::Deadlock { .. }), "{denied:?}");
            return false;
        }
    };
    let second = lease(second);
    held.work();
    match second {
        Ok(lease) => {
            lease.work();
            true
        }
        Err(denied) => {
            assert!(matches!(denied, Denied::Deadlock { .. }), "{denied:?}");
            false
        }
    }
}

#[test]
fn a_wait_that_cannot_end_is_refused_and_the_others_are_served() {
    try_random_orders(2000, || {
        let gate = gate(&[20], HASTY);
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| model(&gate, name, 10));
        let served = Arc::new(AtomicUsize::new(0));
        let user = |first: &Model, second: &Model| {
            let (first, second) = (Arc::clone(first), Arc::clone(second));
            thread!(gate, first, second, served => {
                if hold_and_wait(&gate, &first, &second) {
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        while_time_passes(
            &gate,
            10 * MS,
            vec![user(&a, &c), user(&b, &d), user(&c, &a)],
        );
        assert!(
            served.load(Ordering::SeqCst) > 0,
            "all of them were refused"
        );
        is_whole(&gate);
    });
}
