//! The four requests of `ptrace(2)` that a pause needs, and the reaping that goes with them.
//!
//! Every request but [`reap`] has to come from the thread that seized.

use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use rustix::io::Errno;

/// Of `linux/ptrace.h`: the event of a stop that no signal caused.
const EVENT_STOP: c_int = 128;

/// Begins to trace a thread, without stopping it and without options: `PTRACE_O_EXITKILL` would
/// kill the target with us.
pub(super) fn seize(tid: i32) -> Result<(), Errno> {
    let options = ptr::null_mut::<c_void>();
    // SAFETY: PTRACE_SEIZE takes an address of zero and its options in place of a pointer; it
    // reads and writes no memory of this process.
    outcome(unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, ptr::null_mut::<c_void>(), options) })
}

/// Asks a seized thread to stop; it does as soon as it is about to return to its program.
pub(super) fn interrupt(tid: i32) -> Result<(), Errno> {
    let none = ptr::null_mut::<c_void>();
    // SAFETY: PTRACE_INTERRUPT ignores both arguments, and touches no memory of this process.
    outcome(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none) })
}

/// Lets a stopped thread go, and gives it the signal that was about to reach it (0: none).
pub(super) fn detach(tid: i32, signal: c_int) -> Result<(), Errno> {
    let signal = ptr::without_provenance_mut::<c_void>(signal.unsigned_abs() as usize);
    // SAFETY: PTRACE_DETACH takes the number of a signal in place of a pointer; it reads and
    // writes no memory of this process.
    outcome(unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, ptr::null_mut::<c_void>(), signal) })
}

/// The signal to let a stopped thread go with (0: none); `ESRCH` where it is not stopped, or not
/// seized by the calling thread.
///
/// This is asked rather than waited for, since a wait takes the report of the stop away. Left
/// where it is, the kernel itself delivers the signal should this program be killed; and a
/// `waitpid(-1)` elsewhere in this program cannot make us miss it.
pub(super) fn stop_signal(tid: i32) -> Result<c_int, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: PTRACE_GETSIGINFO ignores the address, and writes one siginfo_t where `info` is.
    outcome(unsafe {
        let info = info.as_mut_ptr();
        libc::ptrace(
            libc::PTRACE_GETSIGINFO,
            tid,
            ptr::null_mut::<c_void>(),
            info,
        )
    })?;
    // SAFETY: the kernel wrote it; zeroes would be a valid siginfo_t, too.
    let info = unsafe { info.assume_init() };
    // A stop of ours, or of the whole process by SIGSTOP: the latter the kernel itself takes up
    // again. The target can forge the code only in a signal to itself, which it then loses.
    if info.si_code >> 8 == EVENT_STOP {
        return Ok(0);
    }
    Ok(info.si_signo)
}

/// Clears away a seized thread that has ended, so that its process can go on with what waits for
/// that (its own end, or `execve`). `false` where it has not ended; `ECHILD` where it is not
/// seized by this program.
///
/// Never for the leader of a process: its end is for its parent, which may be this program.
pub(super) fn reap(tid: i32) -> Result<bool, Errno> {
    // Asked first, as a wait for an end takes the report of a stop away, too.
    Ok(has_ended(tid)? && wait(tid, 0)?.is_some())
}

/// As [`reap`], but leaves it there.
pub(super) fn has_ended(tid: i32) -> Result<bool, Errno> {
    let change = wait(tid, libc::WNOWAIT)?;
    Ok(matches!(
        change,
        Some(libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED)
    ))
}

/// What there is to report of a seized thread (`CLD_…`): its end, or else a stop, which the kernel
/// reports of those that are traced even when not asked for (`wait_task_stopped`).
fn wait(tid: i32, option: c_int) -> Result<Option<c_int>, Errno> {
    let id = libc::id_t::try_from(tid).map_err(|_| Errno::CHILD)?;
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL | option;
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: waitid writes one siginfo_t where `info` is.
    outcome(unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), options) }.into())?;
    // SAFETY: zeroed above, which is a valid siginfo_t; the kernel fills it in for a child.
    let info = unsafe { info.assume_init() };
    // SAFETY: where there was nothing to report, the field is zero, and else it is set.
    let reported = unsafe { info.si_pid() } != 0;
    Ok(reported.then_some(info.si_code))
}

/// Flag of a kernel thread in `/proc/PID/stat` (`PF_KTHREAD` of `linux/sched.h`).
pub(super) const PF_KTHREAD: c_uint = 0x0020_0000;

fn outcome(result: libc::c_long) -> Result<(), Errno> {
    if result != -1 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
}
