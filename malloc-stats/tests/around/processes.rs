//! Processes to look at, which end with the test.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock};

/// A user who is not root, `nobody` on most systems.
pub const NOBODY: u32 = 65534;

/// Held while files are looked into, and while this process forks: a copy has what is open then.
pub static LOOKING: RwLock<()> = RwLock::new(());

/// A copy of this process that runs nothing but what it was given, until it is dropped.
pub struct Forked {
    pub pid: u32,
}

impl Forked {
    /// `prepare` runs in the copy, where other threads are gone: it must not allocate.
    pub fn new(prepare: impl FnOnce()) -> Self {
        let quiet = LOOKING.write().unwrap_or_else(PoisonError::into_inner);
        let mut ends = [0; 2];
        // SAFETY: pipe(2) writes two descriptors. The child calls nothing but what is safe after a
        // fork in a process with threads: system calls and `prepare`, which promises as much.
        let pid = unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            let pid = libc::fork();
            if pid == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                prepare();
                libc::write(ends[1], c"r".as_ptr().cast(), 1);
                loop {
                    libc::pause();
                }
            }
            assert!(pid > 0);
            libc::close(ends[1]);
            pid
        };
        drop(quiet);
        // SAFETY: the descriptor was made above, and nobody else has it.
        let mut ready = unsafe { File::from_raw_fd(ends[0]) };
        ready.read_exact(&mut [0]).unwrap();
        Self {
            pid: u32::try_from(pid).unwrap(),
        }
    }

    /// One that calls itself so.
    pub fn named(name: &CStr) -> Self {
        Self::new(|| {
            // SAFETY: prctl(2) reads the name, which ends with a zero.
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
        })
    }

    /// Ends it, and leaves it a zombie.
    pub fn kill(&self) {
        let pid = i32::try_from(self.pid).unwrap();
        // SAFETY: signals and waits for the child only, which stays there to be waited for.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            let mut info = std::mem::zeroed();
            let options = libc::WEXITED | libc::WNOWAIT;
            assert_eq!(
                libc::waitid(libc::P_PID, self.pid, &raw mut info, options),
                0
            );
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        let pid = i32::try_from(self.pid).unwrap();
        // SAFETY: the child is there until it is waited for.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }
}

/// A shell that does what it was told at the next line of its input.
pub struct Shell(pub std::process::Child);

impl Shell {
    pub fn new(script: &str) -> Self {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    pub fn go_on(&mut self) {
        let input = self.0.stdin.as_mut().unwrap();
        input.write_all(b"\n").unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Becomes another user in this thread only, and loses what root may do.
pub fn become_nobody() {
    let nobody = NOBODY;
    // SAFETY: these change the credentials of the calling thread, and touch no memory.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_setgroups, 0, 0), 0);
        assert_eq!(
            libc::syscall(libc::SYS_setresgid, nobody, nobody, nobody),
            0
        );
        assert_eq!(
            libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody),
            0
        );
    }
}

pub fn is_root() -> bool {
    // SAFETY: reads a number.
    unsafe { libc::geteuid() == 0 }
}

/// Runs `look` without the power of root: in a thread of another user where this is root.
pub fn as_nobody<T: Send>(look: impl FnOnce() -> T + Send) -> T {
    if !is_root() {
        return look();
    }
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            become_nobody();
            look()
        });
        looking.join().unwrap()
    })
}
