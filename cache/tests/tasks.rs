//! Leases of tasks: who waits for room is woken when room is made, whatever polls it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use plimsoll_cache::{Cache, Lease, LeaseFuture, Model};
use support::{Folder, MIB, cache, verify};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_waits_for_room_is_woken_when_the_lease_in_its_way_ends() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 4 * MIB));
    let (cache, _) = cache(|builder| builder.ram(5 * MIB));
    let held = cache.lease([&a]).unwrap();
    let waiting = tokio::spawn({
        let (cache, b) = (cache.clone(), b.clone());
        async move {
            let lease = cache.lease_async([&b]).await.unwrap();
            verify(&lease, &b);
        }
    });
    while cache.residency().waiting == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It has looked, found no room, and gone to sleep.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(held);
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("it was never woken")
        .unwrap();
}

#[tokio::test]
async fn a_task_that_gives_up_makes_way_for_the_next() {
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 4 * MIB));
    let (cache, _) = cache(|builder| builder.ram(9 * MIB));
    let held = cache.lease([&a]).unwrap();
    let soon = Duration::from_millis(50);
    let both = tokio::time::timeout(soon, cache.lease_async([&b, &c])).await;
    assert!(both.is_err(), "there is room for one");
    assert_eq!(cache.residency().waiting, 0);
    let lease = cache.lease_async([&b]).await.unwrap();
    verify(&lease, &b);
    drop((held, lease));
    let both = cache.lease_async([&b, &c]).await.unwrap();
    verify(&both, &c);
}

struct Nothing;

impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_task_that_is_polled_again_and_again_leaves_one_waker_and_takes_it_along() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 4 * MIB));
    let (cache, _) = cache(|builder| builder.ram(5 * MIB));
    let held = cache.lease([&a]).unwrap();
    let nothing = Arc::new(Nothing);
    {
        let waker = Waker::from(Arc::clone(&nothing));
        let mut waiting = pin!(cache.lease_async([&b]));
        for _ in 0..1000 {
            let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        let clones = Arc::strong_count(&nothing);
        assert!(clones <= 3, "{clones} wakers for one task");
    }
    assert_eq!(Arc::strong_count(&nothing), 1, "a task that is gone");
    drop(held);
}

#[test]
fn handles_may_go_to_any_thread() {
    fn anywhere<T: Send + Sync>() {}
    anywhere::<(Cache, Model, Lease)>();
    fn spawned<T: Send>() {}
    spawned::<LeaseFuture>();
}
