//! What the kernel keeps of a process that has ended, for whoever holds a pidfd of it.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What the kernel says of the end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It ended so: a status as `wait(2)` has it.
    Status(i32),
    /// It does not say so yet: the process runs, or its parent has not waited for it.
    NotYet,
    /// It never will: it is older than Linux 6.15.
    Never,
}

/// A descriptor of the process with this number.
pub(super) fn open(pid: u32) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pidfd_open(pid.ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::empty())
}

/// Asks how a process ended: `PIDFD_INFO_EXIT` of `PIDFD_GET_INFO` (`linux/pidfd.h`), which needs
/// no permission and works once the process was waited for.
pub(super) fn ask(pidfd: &OwnedFd) -> Told {
    let mut info = MaybeUninit::<libc::pidfd_info>::zeroed();
    let exit = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: the ioctl reads the mask and writes at most the size that its number encodes, which
    // is that of this struct; all of it are integers, so zeroes are a valid one.
    let (result, info) = unsafe {
        (*info.as_mut_ptr()).mask = exit;
        let result = libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, info.as_mut_ptr());
        (result, info.assume_init())
    };
    if result != 0 {
        // Linux 6.13 knows the request, and says ESRCH for one that is gone; others do not know it.
        Told::Never
    } else if info.mask & exit != 0 {
        Told::Status(info.exit_code)
    } else {
        Told::NotYet
    }
}
