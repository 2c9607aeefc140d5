//! The primitives that the lock protocol is made of. `tests/interleavings` builds the same protocol
//! over a scheduler's instead, which tries the orders in which threads may run.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
