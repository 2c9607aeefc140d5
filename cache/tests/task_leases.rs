//! Leases of tasks, polled by hand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Cpu, Error, Lease, LeaseFuture, Tier};
use support::{Folder, MIB, cache, until, verify, verify_on};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// Tasks to be polled, by number.
#[derive(Default)]
struct Ready {
    numbers: Mutex<Vec<usize>>,
    woken: Condvar,
}

struct Task {
    number: usize,
    ready: Arc<Ready>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.ready.numbers().push(self.number);
        self.ready.woken.notify_all();
    }
}

impl Ready {
    fn numbers(&self) -> MutexGuard<'_, Vec<usize>> {
        // A test that fails is not to fail again as its futures are dropped.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waker(self: &Arc<Self>, number: usize) -> Waker {
        let ready = Arc::clone(self);
        Waker::from(Arc::new(Task { number, ready }))
    }

    /// The next task that was woken. Fails where none is for a long time.
    fn next(&self) -> usize {
        let numbers = self.numbers();
        let long = std::time::Duration::from_secs(10);
        let (mut numbers, late) = self
            .woken
            .wait_timeout_while(numbers, long, |numbers| numbers.is_empty())
            .unwrap();
        assert!(!late.timed_out(), "nobody is woken");
        numbers.remove(0)
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let ready = Arc::new(Ready::default());
    let waker = ready.waker(0);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        ready.next();
    }
}

fn beside() -> (Cache, Tier) {
    let device = Simulated::new(12 * MIB);
    let tier = device.tier();
    let (cache, _) = cache(|builder| builder.ram(12 * MIB).device(device, 12 * MIB));
    (cache, tier)
}

/// Nothing is taken, kept or waited for.
fn is_at_rest(cache: &Cache, tier: Tier) -> bool {
    let usages = [Tier::RAM, tier].map(|tier| cache.usage_of(tier).unwrap());
    cache.residency().waiting == 0
        && usages.iter().all(|usage| {
            usage.pinned_bytes + usage.staging_bytes + usage.working_bytes == 0
                && usage.recyclable_bytes == 0
        })
}

#[test]
fn a_task_finds_brings_and_is_refused() {
    fn is_send<T: Send>(it: T) -> T {
        it
    }
    let folder = Folder::new();
    let (a, large) = (folder.model("a", 5 * MIB), folder.model("large", 13 * MIB));
    let (cache, tier) = beside();
    // A miss, a hit, and a hit that was leased before it is polled.
    for _ in 0..2 {
        let lease = is_send(block_on(is_send(cache.lease_async([a.on(tier)]))).unwrap());
        verify_on(&lease, &a, tier);
    }
    let hit = cache.lease_async([&a]);
    verify(&block_on(hit).unwrap(), &a);
    drop(cache.lease_async([a.on(tier)]));
    let error = block_on(cache.lease_async([large.on(tier)])).unwrap_err();
    assert!(matches!(error, Error::ExceedsBudget { .. }), "{error}");
    let lease = block_on(cache.lease_async([large.on(tier).or_on(tier), a.on(Cpu)]));
    assert!(matches!(lease, Err(Error::ExceedsBudget { .. })));
    let nothing: [&plimsoll_cache::Model; 0] = [];
    assert!(matches!(
        block_on(cache.lease_async(nothing)),
        Err(Error::NoModel)
    ));
    let elsewhere = a.on(Tier::unique());
    let error = block_on(cache.lease_async([elsewhere])).unwrap_err();
    assert!(matches!(error, Error::NoDevice { .. }));
    std::fs::remove_file(a.path()).unwrap();
    cache.clear();
    assert!(matches!(
        block_on(cache.lease_async([&a])),
        Err(Error::Load(_))
    ));
    assert!(is_at_rest(&cache, tier));
}

#[test]
fn a_task_waits_for_room_without_a_thread() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 7 * MIB), folder.model("b", 7 * MIB));
    let (cache, tier) = beside();
    let held = cache.lease([a.on(tier)]).unwrap();
    let ready = Arc::new(Ready::default());
    let waker = ready.waker(0);
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(cache.lease_async([b.on(tier)]));
    let mut polls = 0;
    while cache.residency().waiting == 0 || polls < 3 {
        assert!(future.as_mut().poll(&mut context).is_pending());
        polls += 1;
    }
    drop(held);
    let lease = block_on(future).unwrap();
    verify_on(&lease, &b, tier);
}

#[test]
fn a_task_that_gives_up_at_any_poll_keeps_nothing() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 7 * MIB));
    // What is leased on the way: nothing; what has to go first; what is waited for.
    for (resident, leased) in [(false, false), (true, false), (true, true)] {
        let mut completed = false;
        for polls in 0..12 {
            let (cache, tier) = beside();
            let held = resident.then(|| cache.lease([c.on(tier), c.on(Cpu)]).unwrap());
            let held = held.filter(|_| leased);
            let ready = Arc::new(Ready::default());
            let waker = ready.waker(0);
            let wanted = [a.on(tier).working_memory(MIB), b.on(Cpu)];
            let mut future = Box::pin(cache.lease_async(wanted));
            let mut lease = None;
            for poll in 0..polls {
                // It gives up while what the last poll began is still to be done. It is not woken
                // while the other lease goes on.
                if poll > 0 && !leased {
                    ready.next();
                }
                if let Poll::Ready(ended) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    lease = Some(ended.unwrap());
                    break;
                }
            }
            drop(future);
            if let Some(lease) = lease {
                verify_on(&lease, &a, tier);
                verify_on(&lease, &b, Tier::RAM);
                completed = true;
            }
            drop(held);
            until("all of it is given back", || is_at_rest(&cache, tier));
            cache.clear();
            for tier in [Tier::RAM, tier] {
                assert_eq!(cache.usage_of(tier).unwrap().used_bytes, 0);
            }
            // Pages of this eviction are kept for nobody.
            drop(cache.lease([&c]).unwrap());
            assert!(cache.evict(&c));
            assert_eq!(cache.usage().recyclable_bytes, 0, "after {polls} polls");
        }
        assert_ne!(completed, leased, "polled to its end, where there is one");
    }
}

#[test]
fn many_tasks_on_one_thread_are_all_served() {
    let folder = Folder::new();
    let models: Vec<_> = (0..5_u64)
        .map(|n| folder.model(&format!("m{n}"), 2 * MIB + n * 70_001))
        .collect();
    let (cache, tier) = beside();
    let ready = Arc::new(Ready::default());
    let wanted = |number: usize| {
        let (one, two) = (&models[number % 5], &models[(number * 3 + 1) % 5]);
        (one, two)
    };
    let mut tasks: Vec<Option<Pin<Box<LeaseFuture>>>> = (0..60)
        .map(|number| {
            let (one, two) = wanted(number);
            let future = cache.lease_async([one.on(tier), two.on(Cpu)]);
            Some(Box::pin(future))
        })
        .collect();
    ready.numbers().extend(0..tasks.len());
    // Leases are held for a while, and end in another order than they began.
    let mut held: Vec<Lease> = Vec::new();
    let mut served = 0;
    while served < tasks.len() {
        if ready.numbers().is_empty() && !held.is_empty() {
            held.swap_remove(held.len() / 2);
        }
        let number = ready.next();
        let Some(future) = &mut tasks[number] else {
            continue;
        };
        let waker = ready.waker(number);
        if let Poll::Ready(lease) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            let lease = lease.unwrap();
            let (one, two) = wanted(number);
            verify_on(&lease, one, tier);
            verify_on(&lease, two, Tier::RAM);
            held.push(lease);
            tasks[number] = None;
            served += 1;
        }
    }
    drop(held);
    until("all of it is given back", || is_at_rest(&cache, tier));
}
