//! What a measurement does to its own process.

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use crate::glibc;
use crate::jemalloc;
use crate::metric::Metric;
use crate::provider::{Implementation, Provider, symbol};
use crate::{Allocator, AllocatorKind, AllocatorReading};

/// Makes the allocator give back what it can. Gives the name of what did it.
pub(super) fn purge(allocator: &Allocator) -> Result<&'static str, String> {
    match allocator.kind {
        AllocatorKind::Libc => trim(),
        AllocatorKind::Jemalloc => purge_jemalloc(),
    }
}

fn trim() -> Result<&'static str, String> {
    let provider = Provider::of_malloc();
    let trim = match provider.implementation {
        Implementation::Glibc => symbol(c"malloc_trim"),
        _ => None,
    };
    let trim: NonNull<c_void> = trim.ok_or_else(|| {
        format!("malloc is {provider}, which is not known how to purge: what it holds back and what is pinned cannot be told apart")
    })?;
    // SAFETY: glibc's malloc_trim(3) takes a size_t and returns an int, takes the allocator's own
    // locks, and the symbol is glibc's, since malloc is.
    unsafe {
        let trim: extern "C" fn(usize) -> c_int = std::mem::transmute(trim.as_ptr());
        trim(0);
    }
    Ok("malloc_trim(0)")
}

#[cfg(feature = "jemalloc")]
fn purge_jemalloc() -> Result<&'static str, String> {
    // What the thread's cache holds keeps its pages in use. 4096 is MALLCTL_ARENAS_ALL.
    for name in [c"thread.tcache.flush", c"arena.4096.purge"] {
        // SAFETY: the name is NUL-terminated, and neither reads nor writes a value.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                0,
            )
        };
        if code != 0 && name == c"arena.4096.purge" {
            let error = std::io::Error::from_raw_os_error(code);
            return Err(format!("jemalloc refuses to purge: {error}"));
        }
    }
    Ok("a purge (arena.4096.purge)")
}

#[cfg(not(feature = "jemalloc"))]
fn purge_jemalloc() -> Result<&'static str, String> {
    Err(jemalloc::stats().err().unwrap_or_default())
}

/// What is in blocks that are in use, as in [`AllocatorReading`](crate::AllocatorReading), without
/// its costlier numbers.
pub(super) fn in_use(allocator: &Allocator) -> Metric {
    match allocator.kind {
        AllocatorKind::Libc => glibc::mallinfo()
            .map(|raw| raw.uordblks.saturating_add(raw.hblkhd))
            .into(),
        AllocatorKind::Jemalloc => jemalloc::stats().ok().map(|stats| stats.allocated).into(),
    }
}

/// Why [`in_use`] is unavailable.
pub(super) fn why_not_in_use(allocator: &Allocator) -> Option<String> {
    match allocator.kind {
        AllocatorKind::Libc => glibc::why_unavailable().map(str::to_owned),
        AllocatorKind::Jemalloc => jemalloc::stats().err(),
    }
}

/// What lies unused at the ends of arenas other than the main one, after a purge; at least.
///
/// A purge leaves of each free chunk less than a page at either side, of the main arena its end as
/// well, and all of the other arenas' ends. mallinfo2 does not tell those ends, but counts the free
/// chunks: what is resident and free beyond two pages for each must be ends.
pub(super) fn arena_ends(allocator: &Allocator) -> Metric {
    let reading = AllocatorReading::read(allocator);
    match (allocator.kind, reading.glibc) {
        (AllocatorKind::Libc, Some(raw)) => {
            let page = rustix::param::page_size() as u64;
            let edges = raw.ordblks.saturating_mul(2 * page);
            let not_ends = Metric::Exact(edges.saturating_add(raw.keepcost));
            reading.cached_resident.minus_saturating(not_ends)
        }
        _ => Metric::Unavailable,
    }
}

/// Lets `VmHWM` begin anew from what is resident now (`proc(5)`, since Linux 4.0).
pub(super) fn forget_peak() -> Result<(), String> {
    std::fs::write("/proc/self/clear_refs", "5")
        .map_err(|error| format!("no peak: /proc/self/clear_refs: {error}"))
}
