//! A process that can have no more threads: tasks still get their leases.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use support::{Folder, MIB, cache, verify};

/// Lets this process have so much address space, and returns what it could have before.
fn limit_address_space(bytes: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: reads into and from a structure of this function's own.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &raw mut limit), 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = bytes;
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &raw const limit), 0);
        before
    }
}

#[test]
fn a_task_that_waits_for_room_does_not_block_itself_where_no_thread_can_be_had() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, 4 * MIB));
    let (cache, _) = cache(|builder| builder.ram(5 * MIB));
    let held = cache.lease([&a]).unwrap();
    let (tell, told) = mpsc::channel();
    let task = std::thread::spawn({
        let (cache, b) = (cache.clone(), b.clone());
        move || {
            let before = limit_address_space(1);
            let no_thread = std::thread::Builder::new().spawn(|| {}).is_err();
            let mut waiting = pin!(cache.lease_async([&b]));
            let mut context = Context::from_waker(Waker::noop());
            let polled = waiting.as_mut().poll(&mut context);
            limit_address_space(before);
            tell.send((no_thread, polled.is_pending())).unwrap();
            drop(held);
            let give_up = Instant::now() + Duration::from_secs(20);
            while Instant::now() < give_up {
                if let Poll::Ready(lease) = waiting.as_mut().poll(&mut context) {
                    verify(&lease.unwrap(), &b);
                    return true;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            false
        }
    });
    let polled = told.recv_timeout(Duration::from_secs(20));
    let (no_thread, pending) = polled.expect("the task waits for its own lock");
    assert!(no_thread && pending);
    assert!(task.join().unwrap(), "the lease never came");
}
