//! How this process was started, before the standard library changes it: it opens `/dev/null` for
//! descriptors 0 to 2 that are closed, and ignores `SIGPIPE`. A command is to inherit neither.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Bit `n` stands for signal `n + 1`.
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// Bit `n` stands for descriptor `n`.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// What the C library runs before `main`, and so before the standard library.
#[used]
// SAFETY: a section of pointers to functions that are called with the C convention, once, while
// there is one thread. This one makes system calls and stores numbers: it needs nothing of the
// standard library that `main` prepares. C passes arguments, which may be left unread.
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

extern "C" fn note() {
    let mut ignored = 0;
    for signal in 1..=64 {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the action lives here; it is read where the kernel filled it.
        let is_ignored = unsafe {
            libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init_ref().sa_sigaction == libc::SIG_IGN
        };
        ignored |= u64::from(is_ignored) << (signal - 1);
    }
    let mut closed = 0;
    for fd in 0..3 {
        // SAFETY: takes numbers.
        let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        closed |= u8::from(!is_open) << fd;
    }
    IGNORED.store(ignored, Ordering::Relaxed);
    CLOSED.store(closed, Ordering::Relaxed);
}

/// Whether this process was started with a signal ignored.
pub(super) fn ignored(signal: i32) -> bool {
    (1..=64).contains(&signal) && IGNORED.load(Ordering::Relaxed) & 1 << (signal - 1) != 0
}

/// Whether it was started without one of the descriptors 0 to 2.
pub(super) fn lacked(fd: i32) -> bool {
    (0..3).contains(&fd) && CLOSED.load(Ordering::Relaxed) & 1 << fd != 0
}
