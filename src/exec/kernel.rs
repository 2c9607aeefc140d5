//! System calls that no library here wraps: waiting with what a child used, signals as a
//! descriptor, and ending or stopping by a signal as another process did.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Pid;

use super::origin;

/// What ended processes used, and those that they waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
    /// The most that was resident in one of them. The kernel carries over what the process that
    /// forked it had, so this is an upper bound.
    pub(crate) peak_rss: u64,
}

impl Used {
    fn of(usage: &libc::rusage) -> Used {
        let time = |time: libc::timeval| {
            let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
            Duration::from_secs(seconds)
                + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
        };
        let count = |count: libc::c_long| u64::try_from(count).unwrap_or(0);
        Used {
            user: time(usage.ru_utime),
            system: time(usage.ru_stime),
            minor_faults: count(usage.ru_minflt),
            major_faults: count(usage.ru_majflt),
            peak_rss: count(usage.ru_maxrss).saturating_mul(1024),
        }
    }

    pub(crate) fn add(&mut self, other: Used) {
        self.user += other.user;
        self.system += other.system;
        self.minor_faults = self.minor_faults.saturating_add(other.minor_faults);
        self.major_faults = self.major_faults.saturating_add(other.major_faults);
        self.peak_rss = self.peak_rss.max(other.peak_rss);
    }
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// A child changed: how, and what it used if it ended.
    Child {
        pid: u32,
        status: ExitStatus,
        used: Used,
    },
    /// Nothing happened.
    Nothing,
    /// There are no children.
    Childless,
}

/// What became of any child, if something did: its end, a stop, that it goes on.
pub(crate) fn wait_for_any() -> io::Result<Waited> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let options = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
    loop {
        // SAFETY: both pointers are to memory that lives here and is large enough.
        let pid = unsafe { libc::wait4(-1, &raw mut status, options, usage.as_mut_ptr()) };
        if pid > 0 {
            // SAFETY: of plain numbers, so zeroed memory is one; the kernel filled it.
            let used = Used::of(unsafe { usage.assume_init_ref() });
            return Ok(Waited::Child {
                pid: pid.unsigned_abs(),
                status: ExitStatus::from_raw(status),
                used,
            });
        }
        if pid == 0 {
            return Ok(Waited::Nothing);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(Waited::Childless),
            _ => return Err(error),
        }
    }
}

/// A signal that was sent to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) signal: i32,
    /// By the kernel, such as a key of the terminal; else by a process.
    pub(crate) by_kernel: bool,
    /// What `sigqueue(3)` sent with it.
    pub(crate) value: Option<u64>,
}

/// All signals, held back and read from a descriptor. Dispositions stay as they were, so that a
/// child inherits what it would have inherited without us.
#[derive(Debug)]
pub(crate) struct Signals {
    file: File,
    before: libc::sigset_t,
}

impl Signals {
    /// Holds them back in this thread, and in those that it starts from now on: call it while
    /// there is one. A fault of this process itself ends it nevertheless.
    pub(crate) fn hold() -> io::Result<Signals> {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        let mut before = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: the sets live here, and are filled before they are read.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
            // Where it is ignored children vanish unwaited for.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Signals {
                file: File::from(OwnedFd::from_raw_fd(fd)),
                before: before.assume_init(),
            })
        }
    }

    /// What a child is to inherit.
    pub(crate) fn inheritance(&self) -> Inheritance {
        Inheritance {
            blocked: self.before,
        }
    }

    /// The next one, if there is one.
    pub(crate) fn take(&self) -> io::Result<Option<Sent>> {
        let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
        match (&self.file).read(&mut bytes) {
            Ok(length) if length == bytes.len() => {
                // SAFETY: of plain numbers, and the kernel wrote a whole one.
                let info: libc::signalfd_siginfo = unsafe { std::mem::transmute(bytes) };
                Ok(Some(Sent {
                    signal: i32::try_from(info.ssi_signo).unwrap_or(0),
                    by_kernel: info.ssi_code == SI_KERNEL,
                    value: (info.ssi_code == SI_QUEUE).then_some(info.ssi_ptr),
                }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// `SI_KERNEL` of `sigaction(2)`, which libc does not have for every C library.
const SI_KERNEL: i32 = 0x80;
/// Its `SI_QUEUE`.
const SI_QUEUE: i32 = -1;

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The signals of a child as they would have been without us.
#[derive(Clone, Copy)]
pub(crate) struct Inheritance {
    blocked: libc::sigset_t,
}

impl Inheritance {
    /// Takes it up; between fork and exec.
    pub(crate) fn take_up(&self) {
        // SAFETY: system calls only (signal-safety(7)), on a set that lives here.
        unsafe {
            // Since then some are handled here, and the standard library has reset one.
            for signal in (1..=64).filter(|signal| origin::ignored(*signal)) {
                libc::signal(signal, libc::SIG_IGN);
            }
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.blocked,
                std::ptr::null_mut(),
            );
        }
    }
}

/// Ends this process by a signal, as its command was ended. Returns where the signal does not.
pub(crate) fn end_by(signal: i32) {
    // SAFETY: takes numbers. A core of ours would say nothing of the command, so none is written.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
    suffer(signal);
}

/// Does to this process what a signal does that is neither held back nor caught: ends it, or stops
/// it until it is continued. Returns at once where the signal does neither, as a stop does not in
/// a group that nobody could continue.
pub(crate) fn suffer(signal: i32) {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: plain system calls; the set lives here.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
        // Here it happens.
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// The process group of this process; `None` where whoever leads it is outside our namespace of
/// PIDs, as of a container's first process: the kernel has no number for it then.
pub(crate) fn group() -> Option<Pid> {
    // SAFETY: takes nothing.
    Pid::from_raw(unsafe { libc::getpgrp() })
}

/// The session of this process, as [`group`].
pub(crate) fn session() -> Option<Pid> {
    // SAFETY: takes a number; 0 is ourselves.
    Pid::from_raw(unsafe { libc::getsid(0) })
}

/// Processes that lose their parent become children of this one, and so stay in sight.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: takes numbers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a signal, by number: real-time ones have no names.
pub(crate) fn send(to: i32, signal: i32) {
    // SAFETY: takes numbers; whoever is gone meanwhile is no error to speak of.
    unsafe { libc::kill(to, signal) };
}

/// Sends one on as it came: with what `sigqueue(3)` sent with it.
pub(crate) fn pass_on(to: i32, sent: Sent) {
    let Some(value) = sent.value else {
        return send(to, sent.signal);
    };
    let value = libc::sigval {
        sival_ptr: std::ptr::with_exposed_provenance_mut(usize::try_from(value).unwrap_or(0)),
    };
    // SAFETY: takes values; the pointer is a number to us.
    unsafe { libc::sigqueue(to, sent.signal, value) };
}

/// Whether a signal that is held back waits to be read.
pub(crate) fn is_pending(signal: i32) -> bool {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set lives here, and is filled before it is read.
    unsafe {
        libc::sigpending(set.as_mut_ptr()) == 0 && libc::sigismember(set.as_ptr(), signal) == 1
    }
}
