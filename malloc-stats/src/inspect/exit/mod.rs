//! How a process ended that is not a child of ours.

mod kernel;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use procfs::FromRead;
use procfs::process::Stat;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::kernel::Told;
use super::Target;
use super::refusal::shown;
use crate::limits::{self, CgroupVersion, parse_stat};

/// A kill for want of memory that was counted so long before the end is not the cause of it. The
/// memory of a process of hundreds of gigabytes takes seconds to be freed.
const MEANWHILE: Duration = Duration::from_secs(30);

/// Waits for the end of a process, and tells how that came. Holds the process itself, not its
/// number: another one that gets the number is not mistaken for it.
#[derive(Debug)]
pub struct Watch {
    /// Its directory in `/proc`.
    directory: OwnedFd,
    /// What becomes readable at its end; or why there is none.
    pidfd: Result<OwnedFd, Errno>,
    kills: Kills,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ending {
    /// Its exit code, where it exited.
    pub code: Option<i32>,
    /// The signal that killed it, where one did.
    pub signal: Option<i32>,
    /// The cgroup in which the kernel killed for want of memory at about that time.
    pub oom: Option<String>,
    /// Why neither code nor signal is known, where that is so.
    pub unknown: Option<String>,
}

impl Watch {
    /// Begins to watch a process.
    ///
    /// # Errors
    ///
    /// There are no descriptors left, or the process is gone.
    pub fn begin(target: &Target) -> io::Result<Self> {
        let pidfd = kernel::open(target.pid());
        let watch = Self {
            directory: target.directory().try_clone()?,
            pidfd,
            kills: Kills::of(target.pid()),
        };
        // If it is there still, then it was when its number was looked up.
        watch.stat()?;
        Ok(watch)
    }

    /// What `poll(2)` finds readable once the process has ended; `None` before Linux 5.3, and where
    /// a policy forbids it.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().ok().map(AsFd::as_fd)
    }

    /// Whether it has ended, whether or not its parent has waited for it. One system call.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let Some(pidfd) = self.pidfd() else {
            let gone = |stat: Stat| matches!(stat.state, 'Z' | 'X' | 'x') && stat.num_threads <= 1;
            return self.stat().map_or(true, gone);
        };
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Looks whether the kernel has killed for want of memory in its cgroup. To be called now and
    /// then, so that a kill of long ago is not taken for the cause of its end; whoever does not is
    /// told of all kills since the beginning.
    pub fn note_kills(&mut self) {
        self.kills.look();
    }

    /// How it ended; `None` while it runs.
    pub fn ending(&mut self) -> Option<Ending> {
        if !self.has_ended() {
            return None;
        }
        self.kills.look();
        let mut ending = Ending {
            oom: self.kills.latest(),
            ..Ending::default()
        };
        match self.status() {
            // `wait(2)`: the signal in the lower seven bits, or the exit code above eight.
            Ok(status) if status & 0x7f != 0 => ending.signal = Some(status & 0x7f),
            Ok(status) => ending.code = Some(status >> 8 & 0xff),
            Err(why) => ending.unknown = Some(why),
        }
        Some(ending)
    }

    /// The status that its parent gets from `wait(2)`, or why it is not known.
    fn status(&self) -> Result<i32, String> {
        let ask = || self.pidfd.as_ref().map(kernel::ask);
        if let Ok(Told::Status(status)) = ask() {
            return Ok(status);
        }
        let of_zombie = self.status_of_zombie();
        if let Some(Ok(status)) = of_zombie {
            return Ok(status);
        }
        // Its parent may have waited for it in between.
        match ask() {
            Ok(Told::Status(status)) => Ok(status),
            _ if let Some(Err(why)) = of_zombie => Err(why),
            Ok(Told::NotYet | Told::Never) => Err("is not known before Linux 6.15".to_owned()),
            Err(error) => Err(format!("is not known, as pidfd_open(2) failed: {error}")),
        }
    }

    /// The same of one that its parent has not waited for; `None` where it is gone.
    fn status_of_zombie(&self) -> Option<Result<i32, String>> {
        let stat = self.stat().ok()?;
        // The code is shown as 0 to whom it does not concern (`PTRACE_MODE_READ_FSCREDS`); this
        // link is kept from the same.
        let may_know = rustix::fs::readlinkat(&self.directory, "ns/user", Vec::new()).is_ok();
        Some(match stat.exit_code.filter(|_| may_know) {
            Some(status) => Ok(status),
            None => Err("is not known to other users until its parent waits for it".to_owned()),
        })
    }

    fn stat(&self) -> io::Result<Stat> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, "stat", flags, Mode::empty())?;
        Stat::from_read(File::from(file)).map_err(io::Error::other)
    }
}

/// Kills for want of memory in the cgroup of a process, as the kernel counts them.
#[derive(Debug)]
struct Kills {
    /// Its own first. An ancestor counts only where those below it are out of sight, or gone.
    counters: Vec<Counter>,
    /// The cgroup that counted a kill last, and when that was seen.
    grew: Option<(String, Instant)>,
}

#[derive(Debug)]
struct Counter {
    cgroup: String,
    file: PathBuf,
    before: Option<u64>,
}

impl Kills {
    fn of(pid: u32) -> Self {
        let mut counters = Vec::new();
        if let Ok(location) = limits::location_of(&pid.to_string()) {
            // Version 1 does not count kills below a cgroup.
            let (name, most) = match location.version {
                CgroupVersion::V1 => ("memory.oom_control", 1),
                CgroupVersion::V2 => ("memory.events", usize::MAX),
            };
            let directories = location.directories().take(most);
            counters.extend(directories.map(|(directory, cgroup)| Counter {
                cgroup,
                file: directory.join(name),
                before: None,
            }));
        }
        let mut kills = Self {
            counters,
            grew: None,
        };
        for counter in &mut kills.counters {
            counter.before = counter.read();
        }
        kills
    }

    fn look(&mut self) {
        let mut decided = false;
        for counter in &mut self.counters {
            let Some(now) = counter.read() else {
                continue;
            };
            let before = counter.before.replace(now);
            // Whoever is killed is counted in its own cgroup: if that did not count, then it was
            // another process that an ancestor counted.
            if !decided && before.is_some_and(|before| now > before) {
                self.grew = Some((counter.cgroup.clone(), Instant::now()));
            }
            decided = true;
        }
    }

    fn latest(&self) -> Option<String> {
        let (cgroup, at) = self.grew.as_ref()?;
        (at.elapsed() < MEANWHILE).then(|| cgroup.clone())
    }
}

impl Counter {
    fn read(&self) -> Option<u64> {
        parse_stat(&std::fs::read_to_string(&self.file).ok()?, "oom_kill")
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal, &self.unknown) {
            (Some(code), ..) => write!(f, "ended with exit code {code}")?,
            (None, Some(signal), _) => {
                write!(f, "killed by signal {signal}")?;
                if let Some(name) = name_of(signal) {
                    write!(f, " ({name})")?;
                }
            }
            (None, None, Some(why)) => write!(f, "ended; how {why}")?,
            (None, None, None) => f.write_str("ended")?,
        }
        match &self.oom {
            Some(cgroup) => write!(
                f,
                "; the kernel killed for want of memory in cgroup {} meanwhile",
                shown(cgroup, 200)
            ),
            None => Ok(()),
        }
    }
}

/// The name of a signal that ends processes.
fn name_of(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}
