//! A process to look at.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use procfs::process::{Stat, StatFlags};
use procfs::{FromRead, ProcError};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::permission;
use super::refusal::{Denial, TargetError};
use crate::mappings::{self, Mapping};

/// A live process, held by its directory in `/proc`: once it is gone nothing can be read through
/// this, even where another process got its number.
#[derive(Debug)]
pub struct Target {
    pid: u32,
    directory: OwnedFd,
    /// When it started, in clock ticks since the system did.
    started: u64,
    /// Device and inode of its program, where they may be known.
    program: Option<(u64, u64)>,
    /// Its memory as it was at the start: after an `execve(2)` there is nothing in it any more.
    memory: Result<File, Denial>,
}

/// What happened to a process while it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It ended.
    Exited,
    /// It runs another program (`execve(2)`): all its memory was replaced.
    Executed,
}

impl Target {
    /// Opens a process by its number. That its memory may not be read is no error here, as much
    /// is public; [`readable`](Self::readable) says so.
    ///
    /// # Errors
    ///
    /// [`TargetError`] where there is nothing to look at.
    pub fn open(pid: u32) -> Result<Self, TargetError> {
        let directory = directory(pid)?;
        let unread = |file| {
            move |source: io::Error| match Errno::from_io_error(&source) {
                Some(Errno::SRCH | Errno::NOENT) => TargetError::NoSuchProcess { pid },
                _ => TargetError::Unreadable { pid, file, source },
            }
        };
        let mut target = Self {
            pid,
            directory,
            started: 0,
            program: None,
            memory: Err(Denial::unknown(pid)),
        };
        let stat = target.stat().map_err(unread("stat"))?;
        target.started = stat.starttime;
        target
            .refuse_what_has_no_memory(stat, &target.text("status").map_err(unread("status"))?)?;
        target.refuse_32_bits()?;
        target.program = target.program_now();
        target.memory = target
            .file("mem")
            .map_err(|_| permission::diagnose(&target));
        Ok(target)
    }

    fn refuse_what_has_no_memory(&self, stat: Stat, status: &str) -> Result<(), TargetError> {
        let (pid, name) = (self.pid, stat.comm);
        let process = field(status, "Tgid").and_then(|process| process.parse().ok());
        if let Some(process) = process.filter(|process| *process != pid) {
            return Err(TargetError::Thread { pid, process });
        }
        if stat.flags & StatFlags::PF_KTHREAD.bits() != 0 {
            return Err(TargetError::KernelThread { pid, name });
        }
        if !has_ended(stat.state) {
            return Ok(());
        }
        if stat.num_threads > 1 {
            let threads = u64::try_from(stat.num_threads - 1).unwrap_or(0);
            return Err(TargetError::FirstThreadEnded { pid, name, threads });
        }
        let parent = u32::try_from(stat.ppid).unwrap_or(0);
        let parent_name = std::fs::read(format!("/proc/{parent}/comm"))
            .map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
            .unwrap_or_else(|_| "outside of this container".to_owned());
        Err(TargetError::Zombie {
            pid,
            name,
            parent,
            parent_name,
        })
    }

    /// By the class in the ELF header of its program; where that may not be read, it stays open.
    fn refuse_32_bits(&self) -> Result<(), TargetError> {
        let mut class = [0; 5];
        let read = self
            .file("exe")
            .and_then(|file| file.read_exact_at(&mut class, 0));
        if read.is_err() || &class != b"\x7fELF\x01" {
            return Ok(());
        }
        Err(TargetError::ThirtyTwoBits {
            pid: self.pid,
            program: self.program_path().unwrap_or_default(),
        })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its memory, by address, for reading (`/proc/PID/mem`). Reads nothing any more once the
    /// process has ended, or runs another program.
    ///
    /// # Errors
    ///
    /// As [`readable`](Self::readable).
    pub fn memory(&self) -> Result<&File, TargetError> {
        self.memory
            .as_ref()
            .map_err(|denial| TargetError::Denied(denial.clone()))
    }

    /// Whether its memory may be read: the same permission as to attach a debugger
    /// (`PTRACE_MODE_ATTACH`), which is also what `process_vm_readv(2)` needs.
    ///
    /// # Errors
    ///
    /// [`TargetError::Denied`], with what stands in the way and what would work.
    pub fn readable(&self) -> Result<(), TargetError> {
        self.memory().map(drop)
    }

    /// What happened to it since it was opened; `None` where it is still the same process running
    /// the same program. Where its memory may not be read, only its end is noticed.
    #[must_use]
    pub fn changed(&self) -> Option<Change> {
        let Ok(stat) = self.stat() else {
            return Some(Change::Exited);
        };
        if stat.starttime != self.started {
            return Some(Change::Exited);
        }
        // A read from a memory that nobody uses any more ends at once; of one in use the first
        // page is never mapped, which is an error, and touches nothing.
        let replaced = match &self.memory {
            Ok(memory) => matches!(memory.read_at(&mut [0], 0), Ok(0)),
            Err(_) => has_ended(stat.state) && stat.num_threads <= 1,
        };
        let same_program = self.program.is_none() || self.program == self.program_now();
        if !replaced && same_program {
            return None;
        }
        // One on its way out has no mappings any more; one with another program has.
        let lives = self
            .file("maps")
            .is_ok_and(|mut maps| matches!(maps.read(&mut [0]), Ok(1)));
        Some(if lives {
            Change::Executed
        } else {
            Change::Exited
        })
    }

    /// Whether it is still the process that was opened, running the same program.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.changed().is_none()
    }

    /// The numbers of all processes that `/proc` shows, in order.
    ///
    /// # Errors
    ///
    /// Where `/proc` cannot be listed.
    pub fn pids() -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        pids.sort_unstable();
        Ok(pids)
    }

    /// Opens one of its files, such as `maps`, for reading.
    ///
    /// # Errors
    ///
    /// What the kernel says; `ESRCH` or `ENOENT` once the process is gone.
    pub fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        Ok(file.into())
    }

    /// The content of one of its files.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(name)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The text of one of its files; bytes that are no UTF-8 become `U+FFFD`.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn text(&self, name: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(name)?).into_owned())
    }

    /// Its mappings now, in order of address.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn mappings(&self) -> io::Result<Vec<Mapping>> {
        Ok(mappings::parse(&self.text("maps")?))
    }

    /// The path of its program, as far as it may be known.
    #[must_use]
    pub fn program_path(&self) -> Option<String> {
        self.link("exe")
    }

    /// Where one of its links leads.
    pub(super) fn link(&self, name: &str) -> Option<String> {
        let path = rustix::fs::readlinkat(&self.directory, name, Vec::new()).ok()?;
        Some(path.to_string_lossy().into_owned())
    }

    /// The entries of one of its directories that are numbers, such as `fd` and `task`: as many as
    /// come first, in no order.
    pub(super) fn numbers_in(&self, name: &str, most: usize) -> io::Result<Vec<u32>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        let mut numbers = Vec::new();
        for entry in Dir::new(directory)? {
            let name = entry?.file_name().to_str().ok().map(str::parse::<u32>);
            numbers.extend(name.and_then(Result::ok));
            if numbers.len() >= most {
                break;
            }
        }
        Ok(numbers)
    }

    /// Its directory in `/proc`, opened for nothing but to start from.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// `/proc/PID/stat`.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        Stat::from_read(self.file("stat")?).map_err(|error| match error {
            ProcError::Io(error, _) => error,
            error => io::Error::other(error),
        })
    }

    fn program_now(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::statat(&self.directory, "exe", AtFlags::empty()).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }
}

/// Opens the directory of a process.
pub(super) fn directory(pid: u32) -> Result<OwnedFd, TargetError> {
    if !proc_numbers_are_ours() {
        return Err(TargetError::OtherNumbers { pid });
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(
        rustix::fs::CWD,
        format!("/proc/{pid}"),
        flags,
        Mode::empty(),
    );
    opened.map_err(|error| match error {
        Errno::NOENT | Errno::SRCH if is_hidden(pid) => TargetError::Hidden { pid },
        Errno::NOENT | Errno::SRCH if std::fs::exists("/proc/self/stat").unwrap_or(false) => {
            TargetError::NoSuchProcess { pid }
        }
        error => TargetError::Unreadable {
            pid,
            file: "",
            source: error.into(),
        },
    })
}

/// Whether `/proc` numbers processes as the kernel does for us: whether it was mounted in our
/// namespace of PIDs (pid_namespaces(7)). Where it was not, a number read there means another
/// process, or none, to `kill(2)`. Where it is not mounted at all there is nothing to mistake.
pub fn proc_numbers_are_ours() -> bool {
    match rustix::fs::readlink("/proc/self", Vec::new()) {
        Ok(number) => number.to_bytes() == std::process::id().to_string().as_bytes(),
        // Ours is not in it.
        Err(_) => !std::fs::exists("/proc/1").unwrap_or(false),
    }
}

/// Whether a process exists that `/proc` does not show.
fn is_hidden(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| {
        matches!(
            rustix::process::test_kill_process(pid),
            Ok(()) | Err(Errno::PERM)
        )
    })
}

fn has_ended(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// The value of a field in the text of `/proc/PID/status`. The kernel escapes newlines in the name
/// of the process, so it cannot forge one.
pub(super) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let after = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(after).map(str::trim)
}
