//! Leases that wait, polled by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use plimsoll_cache::{Error, Lease, LeaseFuture};

use crate::world::Ask;

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A lease that waits.
pub struct Waiting {
    pub asks: Vec<Ask>,
    future: Pin<Box<LeaseFuture>>,
    woken: Arc<Woken>,
}

impl Waiting {
    pub fn new(asks: Vec<Ask>, future: LeaseFuture) -> Waiting {
        Waiting {
            asks,
            future: Box::pin(future),
            woken: Arc::new(Woken(AtomicBool::new(true))),
        }
    }

    /// Whether it names no second choice.
    pub fn is_simple(&self) -> bool {
        self.asks.iter().all(|ask| ask.tiers.len() == 1)
    }

    /// Polls it if it was woken: whoever waits for a wake that never comes is not helped.
    pub fn poll(&mut self) -> Option<Result<Lease, Error>> {
        if !self.woken.0.swap(false, Ordering::SeqCst) {
            return None;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }
}
