//! Sleeping until there is something to hear.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Sleeps until one of these can be read, or so long.
pub(super) fn sleep_on<const N: usize>(fds: [Option<BorrowedFd<'_>>; N], timeout: Duration) {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    let fds = fds.into_iter().flatten();
    let mut fds: Vec<_> = fds
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    // Interrupted, or for want of memory: whoever called looks again at what there is.
    let _ = poll(&mut fds, Some(&timeout));
}
