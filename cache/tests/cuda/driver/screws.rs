//! What is no driver's: tests turn the screws by it, and count.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{Code, Driver, Op, driver, text};

/// Has the call of this number fail, counted from 1 and from now on; all that follow too, where the
/// device is lost by it.
#[unsafe(no_mangle)]
pub extern "C" fn simulated_fail(call: u64, code: Code, is_lost: bool) {
    let mut driver = driver();
    driver.calls = 0;
    driver.names.clear();
    driver.lost = None;
    driver.fails = (call > 0).then_some((call, code, is_lost));
}

/// Has every call of a function fail; 0 lets it be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simulated_refuse(name: *const c_char, code: Code) {
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    let mut driver = driver();
    match code {
        0 => driver.refused.remove(&name),
        code => driver.refused.insert(name, code),
    };
}

/// Forgets all that calls have made, as the end of a process does, and all counts.
#[unsafe(no_mangle)]
pub extern "C" fn simulated_restart() {
    let mut driver = driver();
    *driver = Driver {
        // Handles of before are never those of after.
        next: driver.next,
        ..Driver::new()
    };
}

/// Another process takes so much.
#[unsafe(no_mangle)]
pub extern "C" fn simulated_elsewhere(bytes: u64) {
    driver().elsewhere = bytes;
}

/// No more than so much can be registered.
#[unsafe(no_mangle)]
pub extern "C" fn simulated_registered_most(bytes: u64) {
    driver().registered_most = bytes;
}

/// The device has no memory pools.
#[unsafe(no_mangle)]
pub extern "C" fn simulated_no_pools(none: bool) {
    driver().no_pools = none;
}

/// Counts: see `Simulated::count`.
#[unsafe(no_mangle)]
pub extern "C" fn simulated_count(what: c_uint) -> u64 {
    count(what)
}

/// Exported functions call none that are exported: those would be another copy's of this library.
fn count(what: c_uint) -> u64 {
    let mut driver = driver();
    if what == 6 {
        // What streams were given they do, sooner or later.
        driver.run_all();
    }
    match what {
        0 => driver.violations,
        1 => driver.calls,
        2 => driver.retained as u64,
        3 => driver.streams.len() as u64 - 2,
        4 => driver.events.len() as u64,
        5 => driver.pools.len() as u64 - 1,
        6 => driver.allocations.len() as u64,
        7 => driver.registered.values().map(|bytes| *bytes as u64).sum(),
        8 => driver.free(),
        9 => driver.handles.len() as u64,
        _ => 0,
    }
}

/// As the process ends it must not have misused the driver, nor left anything where
/// `SIMULATED_NOTHING_LEFT` is set.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_THE_END: extern "C" fn() = {
    extern "C" fn at_the_end() {
        let left: Vec<u64> = (2..=7).chain([9]).map(count).collect();
        let may_leave = std::env::var_os("SIMULATED_NOTHING_LEFT").is_none();
        let violations = count(0);
        if violations > 0 || !may_leave && left.iter().any(|count| *count > 0) {
            eprintln!(
                "the simulated driver was misused {violations} times; of contexts, streams, events, \
                 pools, allocations, registered bytes and handles there are left {left:?}"
            );
            std::process::abort();
        }
    }
    at_the_end
};

/// The name of a call since they were last counted from 1, written as a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simulated_call(number: u64, name: *mut c_char, len: c_int) {
    let driver = driver();
    let found = driver.names.get((number as usize).wrapping_sub(1));
    unsafe { text(name, len, found.map_or("", String::as_str)) };
}

/// Frees memory in the order of the stream that all share, as a tensor library does.
#[unsafe(no_mangle)]
pub extern "C" fn simulated_free(address: u64) {
    let mut driver = driver();
    if driver.lost.is_some() {
        return;
    }
    match driver.allocations.get_mut(&address) {
        Some(known) if !known.freed => known.freed = true,
        _ => driver.violations += 1,
    }
    let _ = driver.push(0, Op::Free { address });
}

/// Reads memory as a kernel would that is launched now: what is not there yet it does not see.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn simulated_read(address: u64, into: *mut c_void, len: usize) {
    let mut driver = driver();
    match driver.memory(address, len) {
        Some(bytes) => {
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), into.cast(), len) };
        }
        None => driver.violations += 1,
    }
}
