//! Files of weights: opening them without being made to wait, and knowing them again.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::error::OpenError;

/// What tells one state of a file from another.
///
/// A file that was replaced has another inode, one that was overwritten another time of change or
/// another size. A file overwritten in place by a program that then sets the old time again is not
/// noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The device that holds the file.
    pub dev: u64,
    /// The inode on that device.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// When its content last changed, in nanoseconds since 1970. Times beyond the years 1677 and
    /// 2262 count as those.
    pub mtime_ns: i64,
}

impl FileIdentity {
    fn of(stat: &Stat) -> Self {
        // The widths of these fields differ between architectures.
        #[allow(clippy::unnecessary_cast)]
        Self {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: (stat.st_mtime as i64)
                .saturating_mul(1_000_000_000)
                .saturating_add(stat.st_mtime_nsec as i64),
        }
    }

    /// The identity of what is at `path`, following symbolic links; `None` if nothing is.
    pub(super) fn at(path: &Path) -> Result<Option<Self>, OpenError> {
        match rustix::fs::stat(path) {
            Ok(stat) => Ok(Some(Self::of(&stat))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(OpenError::io(path, "look at it", errno.into())),
        }
    }
}

impl fmt::Display for FileIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            dev,
            ino,
            size,
            mtime_ns,
        } = self;
        let seconds = mtime_ns.div_euclid(1_000_000_000);
        let nanoseconds = mtime_ns.rem_euclid(1_000_000_000);
        write!(
            f,
            "{size} bytes, inode {ino} on device {dev}, modified at {seconds}.{nanoseconds:09}"
        )
    }
}

/// Opens a regular file for reading. Anything else is refused without waiting for it and without
/// waking it: a FIFO has no writer yet, and some devices act when they are opened.
pub(super) fn open_regular(path: &Path) -> Result<(File, FileIdentity), OpenError> {
    let there =
        rustix::fs::stat(path).map_err(|errno| OpenError::io(path, "look at it", errno.into()))?;
    regular(path, &there)?;
    // What is there may have been swapped meanwhile, hence NONBLOCK and the second look.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| OpenError::io(path, "open it", errno.into()))?;
    let stat = rustix::fs::fstat(&file)
        .map_err(|errno| OpenError::io(path, "look at it", errno.into()))?;
    regular(path, &stat)?;
    Ok((File::from(file), FileIdentity::of(&stat)))
}

fn regular(path: &Path, stat: &Stat) -> Result<(), OpenError> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => return Err(OpenError::Directory { path: path.into() }),
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "special file",
    };
    Err(OpenError::NotRegular {
        path: path.into(),
        kind,
    })
}

/// Reads until `bytes` is `want` long or the file ends. Reserves exactly what it will hold, and
/// reports failure to get that memory.
pub(super) fn read_to(
    path: &Path,
    file: &File,
    bytes: &mut Vec<u8>,
    want: usize,
) -> Result<(), OpenError> {
    let more = want.saturating_sub(bytes.len());
    bytes
        .try_reserve_exact(more)
        .map_err(|_| OpenError::Memory {
            path: path.into(),
            bytes: want as u64,
        })?;
    file.take(more as u64)
        .read_to_end(bytes)
        .map_err(|source| OpenError::io(path, "read its header", source))?;
    Ok(())
}
