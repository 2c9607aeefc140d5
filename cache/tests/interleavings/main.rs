//! The lock protocol of the cache under a scheduler that tries the orders in which threads may run.
//!
//! The books do no I/O and take their primitives from `crate::sync`, so here the very same files are
//! built over shuttle's. What they lead to is done by a [`World`](world::World) that yields wherever
//! real loads and evictions take time, and that objects to what must never happen: weights loaded
//! twice or evicted while somebody uses them, bytes that exist and do not count.
//!
//! A failure prints its schedule, for `shuttle::replay`. Clocks do not run by themselves here, and
//! no wait times out: where time has to pass, a thread makes it.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, unused_imports)]
#[path = "../../src/books/mod.rs"]
mod books;
#[allow(dead_code)]
#[path = "../../src/policy/mod.rs"]
mod policy;
#[allow(dead_code)]
#[path = "../../src/residency.rs"]
mod residency;

mod devices;
mod dropped;
mod given_up;
mod leases;
mod loads;
mod orders;
mod time;
mod world;

mod sync {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};
}
