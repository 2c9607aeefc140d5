//! The walk of a heap against what real processes say of their own: C programs and CPython, on the
//! installed glibc and on those below `PLIMSOLL_GLIBCS` (`scripts/fetch-glibc` puts them there).

#![cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)]

mod agreement;
mod chunks;
mod glibcs;
mod heaps;
mod look;
mod malloc_info;
mod python;
mod releasable;
mod restless;
mod target;
mod truth;
mod truth_holds;
