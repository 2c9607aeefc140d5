//! What `/proc` says of the threads to stop.

use std::ffi::c_uint;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::PauseError;

/// A process by its directory in `/proc`, through which no other process can be met that got the
/// number later.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) directory: OwnedFd,
}

/// A few lines of a `status`.
#[derive(Debug, Default)]
pub(super) struct Status {
    /// Newlines and backslashes in it are escaped by the kernel.
    pub(super) name: String,
    pub(super) state: char,
    /// The process of the thread.
    pub(super) process: u32,
    /// The *thread* that traces it; 0 for none, or one in a PID namespace outside.
    pub(super) tracer: u32,
    pub(super) threads: usize,
    /// Real, effective, saved.
    pub(super) uids: Vec<u32>,
    pub(super) gids: Vec<u32>,
    pub(super) capabilities: u64,
}

impl Process {
    pub(super) fn open(pid: u32) -> Result<Self, PauseError> {
        // Numbers of another PID namespace would make ptrace stop some other process.
        let own = std::fs::read_link("/proc/self").map_err(|source| PauseError::Failed {
            pid,
            what: "reading /proc/self",
            source,
        })?;
        if own.to_str() != Some(&std::process::id().to_string()) {
            return Err(PauseError::ForeignProc { pid });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()) {
            Ok(directory) => Ok(Self { pid, directory }),
            Err(Errno::NOENT | Errno::SRCH) => Err(PauseError::NoProcess { pid }),
            Err(error) => Err(PauseError::Failed {
                pid,
                what: "opening its directory in /proc",
                source: error.into(),
            }),
        }
    }

    /// Its threads.
    pub(super) fn threads(&self) -> Result<Vec<i32>, PauseError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = || -> Result<Vec<i32>, Errno> {
            let tasks = rustix::fs::openat(&self.directory, "task", flags, Mode::empty())?;
            let mut threads = Vec::new();
            for entry in Dir::new(tasks)? {
                // The rest are `.` and `..`.
                if let Some(tid) = entry?
                    .file_name()
                    .to_str()
                    .ok()
                    .and_then(|n| n.parse().ok())
                {
                    threads.push(tid);
                }
            }
            Ok(threads)
        };
        list().map_err(|error| self.gone_or("listing its threads", error.into()))
    }

    /// The status of one of its threads.
    pub(super) fn thread(&self, tid: i32) -> io::Result<Status> {
        Ok(Status::parse(&self.text(&format!("task/{tid}/status"))?))
    }

    /// Its own status.
    pub(super) fn status(&self) -> Result<Status, PauseError> {
        let text = self.text("status");
        let text = text.map_err(|error| self.gone_or("reading its status", error))?;
        Ok(Status::parse(&text))
    }

    /// Flags of the kernel (`PF_…`).
    pub(super) fn flags(&self) -> Option<c_uint> {
        let stat = self.text("stat").ok()?;
        // The name in parentheses may hold anything; the state follows it, then six numbers.
        let (_, fields) = stat.rsplit_once(") ")?;
        fields.split(' ').nth(6)?.parse().ok()
    }

    pub(super) fn gone_or(&self, what: &'static str, source: io::Error) -> PauseError {
        let pid = self.pid;
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => PauseError::Gone { pid },
            _ => PauseError::Failed { pid, what, source },
        }
    }

    fn text(&self, name: &str) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Status {
    pub(super) fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once(":\t")) {
            let number = || value.trim().parse();
            let numbers = || {
                value
                    .split('\t')
                    .filter_map(|n| n.parse().ok())
                    .take(3)
                    .collect()
            };
            match key {
                "Name" => value.clone_into(&mut status.name),
                "State" => status.state = value.chars().next().unwrap_or('?'),
                "Tgid" => status.process = number().unwrap_or(0),
                "TracerPid" => status.tracer = number().unwrap_or(0),
                "Threads" => status.threads = value.trim().parse().unwrap_or(0),
                "Uid" => status.uids = numbers(),
                "Gid" => status.gids = numbers(),
                "CapEff" => status.capabilities = u64::from_str_radix(value, 16).unwrap_or(0),
                _ => {}
            }
        }
        status
    }

    /// Of some process.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let text = std::fs::read(format!("/proc/{pid}/status"))?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}
