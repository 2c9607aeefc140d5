//! Tasks that wait, and that give up.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use plimsoll_cache::{Error, Lease};

use crate::support::{Folder, cache, verify};
use crate::{KIB, ROUNDS, SOON, is_whole};

/// Wakes a thread, and counts.
struct Woken {
    thread: Thread,
    times: AtomicUsize,
}

impl Woken {
    fn here() -> Arc<Woken> {
        Arc::new(Woken {
            thread: std::thread::current(),
            times: AtomicUsize::new(0),
        })
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

type Polled<'a> = Pin<&'a mut dyn Future<Output = Result<Lease, Error>>>;

/// Polls a task whenever it is woken, and never else.
fn when_woken(mut task: Polled<'_>) -> Result<Lease, Error> {
    let woken = Woken::here();
    let waker = Waker::from(Arc::clone(&woken));
    let started = Instant::now();
    let mut seen = 0;
    loop {
        if let Poll::Ready(leased) = task.as_mut().poll(&mut Context::from_waker(&waker)) {
            return leased;
        }
        while woken.times.load(Ordering::SeqCst) == seen {
            assert!(started.elapsed() < SOON, "it was never woken");
            std::thread::park_timeout(SOON);
        }
        seen = woken.times.load(Ordering::SeqCst);
    }
}

#[test]
fn a_task_is_woken_when_a_lease_ends() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 220 * KIB), folder.model("b", 230 * KIB));
    let (cache, _) = cache(|builder| builder.ram(300 * KIB));
    for _ in 0..ROUNDS {
        let held = cache.lease([&a]).unwrap();
        let mut task = pin!(cache.lease_async([&b]));
        let waker = Waker::from(Woken::here());
        let first = task.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(first.is_pending(), "a is leased");
        std::thread::scope(|scope| {
            scope.spawn(move || drop(held));
            verify(&when_woken(task.as_mut()).unwrap(), &b);
        });
        is_whole(&cache, None, &[&a, &b]);
        cache.clear();
    }
}

#[test]
fn a_task_that_is_polled_often_is_remembered_once_and_forgotten_when_it_gives_up() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 220 * KIB), folder.model("b", 230 * KIB));
    let (cache, _) = cache(|builder| builder.ram(300 * KIB));
    let held = cache.lease([&a]).unwrap();
    let woken = Woken::here();
    let waker = Waker::from(Arc::clone(&woken));
    let mut task = Box::pin(cache.lease_async([&b]));
    for _ in 0..1000 {
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    // Here, in the waker, and with the cache.
    assert!(
        Arc::strong_count(&woken) <= 3,
        "{}",
        Arc::strong_count(&woken)
    );
    drop(task);
    assert_eq!(Arc::strong_count(&woken), 2, "the cache has forgotten it");
    drop(held);
    is_whole(&cache, None, &[&a, &b]);
}

#[test]
fn a_task_that_gives_up_while_it_evicts_or_loads_keeps_nothing() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 220 * KIB), folder.model("b", 230 * KIB));
    let (cache, _) = cache(|builder| builder.ram(300 * KIB));
    for round in 0..ROUNDS {
        drop(cache.lease([&a]).unwrap());
        let mut task = Box::pin(cache.lease_async([&b]));
        let waker = Waker::from(Woken::here());
        for _ in 0..=round % 3 {
            // To evict `a`, then to load `b`, as far as it gets.
            let _ = task.as_mut().poll(&mut Context::from_waker(&waker));
            std::thread::yield_now();
        }
        drop(task);
        let started = Instant::now();
        while cache.usage().pinned_bytes > 0 {
            assert!(started.elapsed() < SOON, "{:?}", cache.usage());
            std::thread::yield_now();
        }
        drop(cache.lease([&b]).unwrap());
        assert_eq!(
            cache.usage().recyclable_bytes,
            0,
            "pages are kept for nobody"
        );
        is_whole(&cache, None, &[&a, &b]);
        cache.clear();
    }
}

#[test]
fn models_that_were_dropped_are_forgotten() {
    let folder = Folder::new();
    let a = folder.model("a", 20 * KIB);
    let (cache, _) = cache(|builder| builder.ram(300 * KIB));
    for _ in 0..ROUNDS {
        let held = cache.lease([&a]).unwrap();
        assert!(!cache.drop_model(&a), "it is leased");
        drop(held);
        drop(cache.lease([&a]).unwrap());
        assert!(cache.drop_model(&a));
    }
    assert!(cache.known_models() <= 1, "{}", cache.known_models());
}
