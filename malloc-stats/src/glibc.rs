//! glibc's own numbers: `mallinfo2(3)`.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::provider::{Implementation, Provider, symbol};

/// All ten fields of `mallinfo2(3)`, as glibc gives them.
///
/// glibc locks and sums its arenas one after the other, so the whole is not one instant, and the
/// cost grows with the number of free chunks, each a cache miss unless they were freed in the
/// order of their addresses: 0.04–0.25 ms at 10⁴ and 16–290 ms at 10⁶ (`benches/snapshot.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mallinfo {
    /// Bytes that all arenas got from the system; without the mmapped chunks.
    pub arena: u64,
    /// Number of free chunks, the top of each arena among them.
    pub ordblks: u64,
    /// Number of free fastbin chunks.
    pub smblks: u64,
    /// Number of mmapped chunks.
    pub hblks: u64,
    /// Bytes in mmapped chunks.
    pub hblkhd: u64,
    /// Always 0.
    pub usmblks: u64,
    /// Bytes in free fastbin chunks; part of `fordblks`.
    pub fsmblks: u64,
    /// Bytes in chunks of the arenas that are in use, with their headers. A chunk in a thread's
    /// cache (tcache) counts as in use.
    pub uordblks: u64,
    /// Bytes in free chunks of the arenas. Virtual: a trim gives their pages back and leaves this
    /// number as it was.
    pub fordblks: u64,
    /// Bytes in the top chunk of the *main* arena.
    pub keepcost: u64,
}

/// The C structure. On 64-bit systems its fields are those of [`Mallinfo`], one for one.
#[repr(C)]
struct RawMallinfo2([usize; 10]);

type Mallinfo2 = unsafe extern "C" fn() -> RawMallinfo2;

/// glibc's numbers; `None` where [`why_unavailable`] has a reason.
#[must_use]
pub fn mallinfo() -> Option<Mallinfo> {
    let mallinfo2 = resolved().as_ref().ok()?;
    // SAFETY: the symbol is glibc's own (see `resolve`), whose mallinfo2 takes no argument, returns
    // ten size_t by value, and may be called from any thread.
    let RawMallinfo2(fields) = unsafe { mallinfo2() };
    let [
        arena,
        ordblks,
        smblks,
        hblks,
        hblkhd,
        usmblks,
        fsmblks,
        uordblks,
        fordblks,
        keepcost,
    ] = fields.map(|field| field as u64);
    Some(Mallinfo {
        arena,
        ordblks,
        smblks,
        hblks,
        hblkhd,
        usmblks,
        fsmblks,
        uordblks,
        fordblks,
        keepcost,
    })
}

/// Why glibc's numbers cannot be had here; `None` where they can.
#[must_use]
pub fn why_unavailable() -> Option<&'static str> {
    resolved().as_ref().err().map(String::as_str)
}

fn resolved() -> &'static Result<Mallinfo2, String> {
    static RESOLVED: OnceLock<Result<Mallinfo2, String>> = OnceLock::new();
    RESOLVED.get_or_init(resolve)
}

fn resolve() -> Result<Mallinfo2, String> {
    let provider = Provider::of_malloc();
    if provider.implementation != Implementation::Glibc {
        return Err(format!(
            "malloc is {provider}: glibc's mallinfo2 would count an unused heap"
        ));
    }
    let address = symbol(c"mallinfo2")
        .ok_or_else(|| format!("{provider} has no mallinfo2 (it came with glibc 2.33)"))?;
    // SAFETY: glibc's mallinfo2(3) has this signature since 2.33, where it first appeared.
    Ok(unsafe { std::mem::transmute::<*mut libc::c_void, Mallinfo2>(address.as_ptr()) })
}
