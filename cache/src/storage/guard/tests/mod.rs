//! Each case that may end a process, or that takes its handler, is run in a process of its own.

mod dispositions;
mod lifetimes;
mod others;
mod truncation;

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::Arc;

use super::Guarded;

/// Names the test whose body a process is to run.
const APART: &str = "PLIMSOLL_TEST_APART";
/// How a process ends whose body came to its end.
const DONE: i32 = 43;

/// Runs the body of a test in a process of its own, and returns how that ended. The body has to be a
/// closure of the test itself, whose name it bears.
fn apart<F: FnOnce()>(body: F) -> ExitStatus {
    let name = std::any::type_name::<F>();
    let name = name.trim_end_matches("::{{closure}}");
    let (_, name) = name.split_once("::").unwrap();
    if std::env::var(APART).is_ok_and(|asked| asked == name) {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: reads the struct; no core file is wanted of what is meant to die, nor a process
        // that never does.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::alarm(60);
        }
        body();
        std::process::exit(DONE);
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(APART, name)
        .output()
        .unwrap();
    if output.status.code() != Some(DONE) {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status
}

/// Runs the body of a test in a process of its own, which has to come to its end.
#[track_caller]
fn lives<F: FnOnce()>(body: F) {
    let status = apart(body);
    assert_eq!(status.code(), Some(DONE), "{status}");
}

/// As [`lives`], of one that `SIGBUS` has to kill.
#[track_caller]
fn dies<F: FnOnce()>(body: F) {
    let status = apart(body);
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

fn page() -> usize {
    rustix::param::page_size()
}

/// A file of pages, each full of its own number from 1 on, mapped privately from one of them on.
struct Pages {
    file: Arc<File>,
    at: usize,
    /// Which pages of the file.
    mapped: Range<usize>,
}

impl Pages {
    fn new(pages: usize) -> Pages {
        Pages::of(pages, 0..pages)
    }

    fn of(pages: usize, mapped: Range<usize>) -> Pages {
        let file = tempfile::tempfile().unwrap();
        for number in 0..pages {
            let content = vec![Pages::byte_of(number); page()];
            file.write_all_at(&content, (number * page()) as u64)
                .unwrap();
        }
        // SAFETY: a fresh mapping.
        let at = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped.len() * page(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                (mapped.start * page()) as i64,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        Pages {
            file: Arc::new(file),
            at: at as usize,
            mapped,
        }
    }

    /// What the bytes of a page of the file are, never zero.
    fn byte_of(number: usize) -> u8 {
        (number % 255) as u8 + 1
    }

    fn guard(&self) -> Guarded {
        let offset = (self.mapped.start * page()) as u64;
        Guarded::new(self.at, self.mapped.len() * page(), &self.file, offset).unwrap()
    }

    fn cut(&self, bytes: usize) {
        self.file.set_len(bytes as u64).unwrap();
    }

    /// A byte of the mapping, from memory.
    fn read(&self, at: usize) -> u8 {
        assert!(at < self.mapped.len() * page());
        // SAFETY: inside the mapping; others change it, so it is read as it is at this moment.
        unsafe { ((self.at + at) as *const u8).read_volatile() }
    }

    fn write(&self, at: usize, byte: u8) {
        assert!(at < self.mapped.len() * page());
        // SAFETY: as above.
        unsafe { ((self.at + at) as *mut u8).write_volatile(byte) };
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: its own mapping.
        unsafe { libc::munmap(self.at as *mut _, self.mapped.len() * page()) };
    }
}

/// Installs a handler of `SIGBUS`, and returns what was there.
fn install(handler: usize, flags: i32, blocked: &[i32]) -> libc::sigaction {
    // SAFETY: a plain struct, and handlers that the tests made for this.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut before: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        for signal in blocked {
            libc::sigaddset(&raw mut action.sa_mask, *signal);
        }
        assert_eq!(
            libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before),
            0
        );
        before
    }
}

/// Maps zeros over the page of an address, as a handler would that knows what it is about.
fn patch(address: usize) {
    let start = address / page() * page();
    // SAFETY: a page of a mapping that a test made.
    let mapped = unsafe {
        libc::mmap(
            start as *mut _,
            page(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    assert_ne!(mapped, libc::MAP_FAILED);
}

/// Sends the signal to this thread.
fn send() {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0);
}

/// Guards a mapping, takes its file away, and reads it: the guard works.
fn guard_works() {
    let pages = Pages::new(4);
    let guard = pages.guard();
    still_works(&pages, &guard);
}

/// As [`guard_works`], of a guard that was there before.
fn still_works(pages: &Pages, guard: &Guarded) {
    pages.cut(0);
    assert_eq!(pages.read(3 * page()), 0);
    assert_eq!(guard.poisoned(), Some(0));
}
