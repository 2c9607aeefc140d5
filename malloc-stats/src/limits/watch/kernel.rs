//! The kernel's own events of memory running short: pressure stall triggers, and the pressure
//! levels of cgroups of version 1.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FsWord, PROC_SUPER_MAGIC, fstatfs};

use super::Source;
use super::signals::{drain, new_eventfd};
use crate::limits::location::{self, CgroupVersion, Location};

/// What a trigger asks for: `some` task waiting for so many microseconds within a window. Without
/// `CAP_SYS_RESOURCE` the window has to be a multiple of two seconds (Linux 6.5). The kernel takes
/// the last byte for the end of the text.
const TRIGGERS: [&[u8]; 2] = [b"some 50000 1000000\0", b"some 100000 2000000\0"];

/// The file to listen at, and that which registers it, in a cgroup of version 1.
const LEVEL_FILE: &str = "memory.pressure_level";
const REGISTER_FILE: &str = "cgroup.event_control";

/// Without `local` it would be told of the limits of other cgroups below the ancestors too. Linux
/// before 4.13 does not know the word.
const LEVELS: [&str; 2] = ["medium,local", "medium"];

/// Of `linux/magic.h`: proc, and cgroups of version 1 and 2.
const KERNEL_FILE_SYSTEMS: [FsWord; 3] = [PROC_SUPER_MAGIC, 0x0027_e0eb, 0x6367_7270];

/// A descriptor that becomes ready when memory is short.
#[derive(Debug)]
pub(super) enum Events {
    Psi(File),
    Levels {
        counter: OwnedFd,
        /// A file that is there as long as the lowest of the cgroups is.
        sign_of_life: PathBuf,
    },
}

pub(super) enum Heard {
    Pressure,
    /// Another thread heard it first.
    Nothing,
    /// It will say no more, for this reason.
    Failed(&'static str),
}

/// Opens the best there is; or says what was tried, and why it failed.
pub(super) fn open(root: &Path, process: &str) -> Result<(Events, Source), String> {
    let of_cgroup = location::find(root, process).and_then(|location| match location.version {
        CgroupVersion::V1 => levels(&location),
        CgroupVersion::V2 => {
            let own = location.directories().next();
            psi(own
                .map_or(location.mount_point, |(own, _)| own)
                .join("memory.pressure"))
        }
    });
    of_cgroup.or_else(|first| {
        psi(root.join("proc/pressure/memory")).map_err(|second| format!("{first}; {second}"))
    })
}

/// Sets a trigger at a pressure file; it lasts as long as the descriptor.
fn psi(path: PathBuf) -> Result<(Events, Source), String> {
    let shown = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|error| shown(&error))?;
    require_kernel_file(&file, &path)?;
    let mut refused = None;
    for trigger in TRIGGERS {
        match file.write_all(trigger) {
            Ok(()) => return Ok((Events::Psi(file), Source::Psi(path))),
            Err(error) => refused = Some(format!("no trigger can be set: {error}")),
        }
    }
    Err(shown(&refused.unwrap_or_default()))
}

/// Listens at the cgroup and all its ancestors, since each one's limit is told of only there.
fn levels(location: &Location) -> Result<(Events, Source), String> {
    let counter = new_eventfd()?;
    let mut lowest = None;
    let mut refused = None;
    for (directory, _) in location.directories() {
        match register(&counter, &directory) {
            Ok(()) => lowest = lowest.or(Some(directory)),
            Err(reason) => refused = refused.or(Some(reason)),
        }
    }
    let directory = lowest.ok_or_else(|| refused.unwrap_or_default())?;
    let events = Events::Levels {
        counter,
        sign_of_life: directory.join(LEVEL_FILE),
    };
    Ok((events, Source::CgroupLevel(directory)))
}

/// The registration lasts as long as the counter; the files need not stay open.
fn register(counter: &OwnedFd, directory: &Path) -> Result<(), String> {
    let level_path = directory.join(LEVEL_FILE);
    let level = File::open(&level_path).map_err(|e| format!("{}: {e}", level_path.display()))?;
    require_kernel_file(&level, &level_path)?;
    let path = directory.join(REGISTER_FILE);
    let shown = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut control = OpenOptions::new().write(true).open(&path).map_err(shown)?;
    let mut register = |level_name: &str| {
        let (counter, level) = (counter.as_raw_fd(), level.as_raw_fd());
        control.write_all(format!("{counter} {level} {level_name}").as_bytes())
    };
    let [best, older] = LEVELS;
    match register(best) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => register(older),
        outcome => outcome,
    }
    .map_err(shown)
}

/// A plain file that stands for the kernel's would be written to, and never say a thing.
fn require_kernel_file(file: &File, path: &Path) -> Result<(), String> {
    match fstatfs(file) {
        Ok(system) if KERNEL_FILE_SYSTEMS.contains(&system.f_type) => Ok(()),
        Ok(_) => Err(format!(
            "{}: on no file system of the kernel's (proc, cgroup, cgroup2), so it tells nothing",
            path.display()
        )),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

impl Events {
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        match self {
            Self::Psi(file) => PollFd::new(file, PollFlags::PRI),
            Self::Levels { counter, .. } => PollFd::new(counter, PollFlags::IN),
        }
    }

    /// What it means that the descriptor is ready.
    pub(super) fn hear(&self, flags: PollFlags) -> Heard {
        if flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            return Heard::Failed("poll reports an error, as when the cgroup is removed");
        }
        match self {
            Self::Psi(_) => Heard::Pressure,
            Self::Levels {
                counter,
                sign_of_life,
            } => {
                if !drain(counter) {
                    Heard::Nothing
                } else if sign_of_life.exists() {
                    Heard::Pressure
                } else {
                    // The kernel counts the removal of the cgroup as an event.
                    Heard::Failed("the cgroup was removed")
                }
            }
        }
    }
}
