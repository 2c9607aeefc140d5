//! Whether a signal was sent to this process or to its whole group, which no field of a signal
//! says. In the first case the command has to get it from us; in the second it got it by itself.
//!
//! A witness tells: a process of the group that does nothing but hold back all signals. What it
//! holds went to the group. It has it before we do, since the kernel goes through a group from
//! those that joined last to those that joined first.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// A process of our group. It ends when this is dropped, or with us.
#[derive(Debug)]
pub(super) struct Witness {
    pid: libc::pid_t,
    line: Option<UnixStream>,
}

impl Witness {
    /// Call it while signals are held back, and there is one thread.
    pub(super) fn call() -> io::Result<Witness> {
        let (ours, its) = UnixStream::pair()?;
        let line = its.as_raw_fd();
        let parent = std::process::id();
        // SAFETY: as fork(2), but its end makes no SIGCHLD, so that waiting for any child does not
        // wait for it (`__WCLONE` of wait(2)). The order of clone's arguments, which differs
        // between machines, is no matter while all are 0. There is one thread, so no lock is held
        // by another; `witness` makes system calls only, and does not return.
        let pid = unsafe {
            let pid = libc::syscall(libc::SYS_clone, 0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
            if pid == 0 {
                witness(line, parent);
            }
            pid
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Witness {
            pid: libc::pid_t::try_from(pid).map_err(io::Error::other)?,
            line: Some(ours),
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Whether it got such a signal too, that was not asked for before. `None` where it is gone.
    pub(super) fn has(&self, signal: i32) -> Option<bool> {
        let mut line = self.line.as_ref()?;
        let mut answer = [0];
        line.write_all(&[u8::try_from(signal).ok()?]).ok()?;
        line.read_exact(&mut answer).ok()?;
        Some(answer == [1])
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // Its end of the line reads the end, and it goes.
        self.line = None;
        // SAFETY: a child of ours that nobody else waits for; a status is not wanted.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WCLONE) };
    }
}

/// What the witness does.
///
/// # Safety
/// Right after the fork; all signals are held back.
unsafe fn witness(line: i32, parent: u32) -> ! {
    // SAFETY: system calls on numbers and on memory that lives here (signal-safety(7)).
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, c"plimsoll-group".as_ptr());
        if u32::try_from(libc::getppid()) != Ok(parent) || libc::dup2(line, 0) != 0 {
            libc::_exit(1);
        }
        // Who reads what the command prints waits for all who could print.
        if libc::syscall(libc::SYS_close_range, 1_u32, u32::MAX, 0_u32) != 0 {
            for fd in 1..65_536 {
                libc::close(fd);
            }
        }
        let mut byte = 0_u8;
        while libc::read(0, (&raw mut byte).cast(), 1) == 1 {
            let mut asked = MaybeUninit::<libc::sigset_t>::zeroed();
            libc::sigemptyset(asked.as_mut_ptr());
            libc::sigaddset(asked.as_mut_ptr(), i32::from(byte));
            let at_once = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let got = libc::sigtimedwait(asked.as_ptr(), std::ptr::null_mut(), &raw const at_once);
            let answer = u8::from(got == i32::from(byte));
            if libc::write(0, (&raw const answer).cast(), 1) != 1 {
                break;
            }
        }
        libc::_exit(0);
    }
}
