//! Leases that give up on their way, wherever they are, with their work left to other threads: what
//! a task does that is dropped.

use std::sync::Arc;
use std::task::{Wake, Waker};

use shuttle::rand::Rng;
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::sync::{Condvar, Mutex};

use crate::books::{Denied, Io, Pending, RAM, Step, Wait};
use crate::orders::{together, try_orders, try_random_orders};
use crate::thread;
use crate::world::{
    Failure, Gate, Lease, Model, PATIENT, World, asks, gate, is_whole, lease, loads, model,
    set_budget, use_in_ram,
};

/// A task that can be woken.
#[derive(Default)]
struct Woken {
    is: Mutex<bool>,
    changed: Condvar,
}

impl Woken {
    fn wait(&self) {
        let mut is = self.is.lock().unwrap();
        while !*is {
            is = self.changed.wait(is).unwrap();
        }
        *is = false;
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.is.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// Has the task looked at again once its work is done.
struct Done {
    busy: Arc<AtomicBool>,
    gate: Arc<Gate>,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.busy.store(false, Ordering::Release);
        self.gate.wake_tasks();
    }
}

/// Asks as a task does, and gives up after so many polls, if it has nothing by then.
fn ask(
    gate: &Arc<Gate>,
    models: &[&Model],
    polls: usize,
) -> Option<Result<Lease, Denied<Failure>>> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let busy = Arc::new(AtomicBool::new(false));
    let wanted = models.iter().map(|model| (*model, RAM));
    let mut pending: Pending<World> = Pending::new(gate, asks(wanted.clone()), None);
    for poll in 0..polls {
        if poll > 0 {
            woken.wait();
        }
        let mut books = gate.books();
        if busy.load(Ordering::Acquire) {
            drop(pending.wake_by(&mut books, &waker));
            continue;
        }
        let work: Box<dyn FnOnce() + Send> = match pending.step(&mut books, false) {
            Step::Done(done) => {
                drop(books);
                match pending.finish(done) {
                    Ok(grant) => return Some(Ok(Lease::new(gate, grant, None))),
                    Err(Denied::Retired) => {}
                    Err(denied) => return Some(Err(denied)),
                }
                pending.ask_again(asks(wanted.clone()));
                woken.wake_by_ref();
                continue;
            }
            Step::Sleep { .. } => {
                drop(pending.wake_by(&mut books, &waker));
                continue;
            }
            Step::Work(mut work) => {
                // This `Io` does not mind the lock.
                work.announce();
                Box::new(move || work.run())
            }
            Step::Load(job) => Box::new(move || job.run()),
        };
        busy.store(true, Ordering::Release);
        drop(pending.wake_by(&mut books, &waker));
        drop(books);
        let done = Done {
            busy: Arc::clone(&busy),
            gate: Arc::clone(gate),
        };
        gate.io.spawn(Box::new(move || {
            let _done = done;
            work();
        }));
    }
    None
}

#[test]
fn tasks_are_served_and_woken() {
    try_orders(2000, || {
        let gate = gate(&[10], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        let task = |one: &Model| {
            let one = Arc::clone(one);
            thread!(gate, one => ask(&gate, &[&one], usize::MAX).unwrap().unwrap().work())
        };
        together(vec![
            task(&a),
            task(&b),
            thread!(gate, b => use_in_ram(&gate, &[&b])),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn a_lease_that_gives_up_anywhere_keeps_nothing_and_nobody_waiting() {
    try_orders(3000, || {
        let gate = gate(&[20], PATIENT);
        let [a, b, c] = ["a", "b", "c"].map(|name| model(&gate, name, 10));
        use_in_ram(&gate, &[&c]);
        let polls = shuttle::rand::thread_rng().gen_range(1..6);
        together(vec![
            thread!(gate, a, b => drop(ask(&gate, &[&a, &b], polls))),
            thread!(gate, b => use_in_ram(&gate, &[&b])),
            thread!(gate, c, a => use_in_ram(&gate, &[&c, &a])),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn a_lease_that_gives_up_while_it_evicts_expects_no_pages_any_more() {
    try_orders(2000, || {
        let gate = gate(&[10], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        use_in_ram(&gate, &[&a]);
        // The first poll begins to evict `a`, on another thread.
        assert!(ask(&gate, &[&b], 1).is_none());
        is_whole(&gate);
    });
}

#[test]
fn a_load_goes_on_when_the_one_it_was_for_gives_up() {
    try_orders(2000, || {
        let gate = gate(&[10], PATIENT);
        let a = model(&gate, "a", 10);
        together(vec![
            thread!(gate, a => drop(ask(&gate, &[&a], 1))),
            thread!(gate, a => use_in_ram(&gate, &[&a])),
        ]);
        assert_eq!(loads(&gate, &a, RAM), 1);
        is_whole(&gate);
    });
}

/// Gets as far as a job, and drops it before it has begun.
fn withdraw(gate: &Arc<Gate>, models: &[&Model]) {
    let wanted = models.iter().map(|model| (*model, RAM));
    let mut pending: Pending<World> = Pending::new(gate, asks(wanted), None);
    let step = pending.step(&mut gate.books(), false);
    match step {
        // The work that is not done is the evictions; they are made up for as it is dropped.
        Step::Load(_) | Step::Work(_) | Step::Sleep { .. } => {}
        Step::Done(done) => drop(
            pending
                .finish(done)
                .map(|grant| Lease::new(gate, grant, None)),
        ),
    }
}

#[test]
fn whoever_has_joined_a_load_that_is_withdrawn_loads_it() {
    try_orders(3000, || {
        let gate = gate(&[20], PATIENT);
        let [a, b, c] = ["a", "b", "c"].map(|name| model(&gate, name, 10));
        let user = || {
            thread!(gate, a, b => {
                lease(&gate, [(&b, RAM), (&a, RAM)], Wait::Forever).unwrap().work();
            })
        };
        together(vec![
            thread!(gate, a, b => withdraw(&gate, &[&a, &b])),
            user(),
            user(),
            thread!(gate, c => use_in_ram(&gate, &[&c])),
        ]);
        is_whole(&gate);
    });
}

#[test]
fn a_job_for_less_than_was_expected_leaves_no_pages_when_it_is_withdrawn() {
    try_random_orders(1, || {
        let gate = gate(&[10, 10], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        use_in_ram(&gate, &[&b]);
        let mut wanted = asks([(&a, RAM)]);
        wanted[0].tiers.push(1);
        let mut pending: Pending<World> = Pending::new(&gate, wanted, None);
        let step = pending.step(&mut gate.books(), false);
        let Step::Work(evictions) = step else {
            panic!("RAM is full");
        };
        evictions.run();
        // What was evicted for has no room any more: the device has.
        set_budget(&gate, RAM, 5, 10);
        let step = pending.step(&mut gate.books(), false);
        assert!(matches!(step, Step::Load(_)));
        drop(step);
        drop(pending);
        is_whole(&gate);
    });
}

#[test]
fn what_was_evicted_for_and_loaded_by_another_leaves_no_pages() {
    try_random_orders(1, || {
        let gate = gate(&[10, 10], PATIENT);
        let (a, b) = (model(&gate, "a", 10), model(&gate, "b", 10));
        lease(&gate, [(&a, 1)], Wait::Forever).unwrap().work();
        use_in_ram(&gate, &[&b]);
        let mut wanted = asks([(&a, RAM)]);
        wanted[0].tiers.push(1);
        let mut pending: Pending<World> = Pending::new(&gate, wanted, None);
        let step = pending.step(&mut gate.books(), false);
        let Step::Work(evictions) = step else {
            panic!("RAM is full");
        };
        evictions.run();
        set_budget(&gate, RAM, 5, 10);
        loop {
            let step = pending.step(&mut gate.books(), false);
            match step {
                Step::Work(work) => work.run(),
                Step::Done(done) => {
                    drop(
                        pending
                            .finish(done)
                            .map(|grant| Lease::new(&gate, grant, None)),
                    );
                    break;
                }
                Step::Load(_) | Step::Sleep { .. } => panic!("it is on the device"),
            }
        }
        is_whole(&gate);
    });
}
