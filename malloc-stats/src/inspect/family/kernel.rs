//! Whether two processes use one memory.

/// `KCMP_VM` (linux/kcmp.h).
const VM: libc::c_int = 1;

/// Whether two processes use one memory (`CLONE_VM`): `kcmp(2)`, which takes the permission to
/// trace both for reading. `None` where that is not told.
pub(super) fn share_memory(one: u32, other: u32) -> Option<bool> {
    let (one, other) = (pid(one)?, pid(other)?);
    // SAFETY: takes numbers only, and compares what they stand for.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, VM, 0_u64, 0_u64) };
    (order >= 0).then_some(order == 0)
}

fn pid(number: u32) -> Option<libc::pid_t> {
    libc::pid_t::try_from(number).ok()
}
