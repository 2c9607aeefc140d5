//! Reading what may be anything, and writing so that it is never half there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Fault, LARGEST_FILE, form};

/// As many as the kernel follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

fn io(action: &'static str) -> impl Fn(io::Error) -> Fault {
    move |error| match error.kind() {
        io::ErrorKind::NotFound if action == READ => Fault::Absent,
        _ => Fault::Io {
            action,
            reason: error.to_string(),
        },
    }
}

const READ: &str = "read it";
const WRITE: &str = "write it";

/// All its bytes, if that is a regular file of a baseline's size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    // A FIFO has no writer yet, and some devices act when they are opened, so look first.
    let there = rustix::fs::stat(path).map_err(|errno| io(READ)(errno.into()))?;
    fits(&there)?;
    // What is there may have been swapped meanwhile, hence NONBLOCK and the second look.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| io(READ)(errno.into()))?;
    let opened = rustix::fs::fstat(&file).map_err(|errno| io(READ)(errno.into()))?;
    fits(&opened)?;
    let mut bytes = Vec::new();
    let most = LARGEST_FILE + 1;
    (File::from(file).take(most).read_to_end(&mut bytes)).map_err(io(READ))?;
    match bytes.len() as u64 {
        length if length > LARGEST_FILE => Err(Fault::TooLarge { bytes: length }),
        _ => Ok(bytes),
    }
}

fn fits(stat: &rustix::fs::Stat) -> Result<(), Fault> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let bytes = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
            return match bytes > LARGEST_FILE {
                true => Err(Fault::TooLarge { bytes }),
                false => Ok(()),
            };
        }
        FileType::Directory => "directory",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        _ => "special file",
    };
    Err(Fault::NotRegular { kind })
}

/// Puts these bytes in place of a baseline, of an empty file, or of nothing.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let length = bytes.len() as u64;
    if length > LARGEST_FILE {
        return Err(Fault::TooLarge { bytes: length });
    }
    let Place { path, mode } = place(path)?;
    let folder = folder(&path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (mut file, unfinished) = Unfinished::new(folder, &name)?;
    if let Some(mode) = mode {
        file.set_permissions(mode).map_err(io(WRITE))?;
    }
    file.write_all(bytes).map_err(io(WRITE))?;
    file.sync_all().map_err(io(WRITE))?;
    // Then nothing is at the other name any more, and dropping it does nothing.
    fs::rename(&unfinished.0, &path).map_err(io(WRITE))?;
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some filesystems do not sync folders, and some folders may be written but not read.
        Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
            Err(io(WRITE)(error))
        }
        _ => Ok(()),
    }
}

/// Where a baseline goes.
pub(super) struct Place {
    path: PathBuf,
    /// Of the file that it replaces.
    mode: Option<fs::Permissions>,
}

/// Where a baseline would go, if nothing else is there and its folder is.
pub(super) fn place(path: &Path) -> Result<Place, Fault> {
    let path = target(path)?;
    let occupied = |fault: Fault| Fault::Occupied {
        reason: fault.to_string(),
    };
    let mode = match read(&path) {
        Ok(old) => {
            if !old.is_empty() {
                form::schema(&old).map_err(occupied)?;
            }
            let old = fs::metadata(&path).map_err(io(WRITE))?;
            Some(old.permissions())
        }
        Err(Fault::Absent) => {
            fs::metadata(folder(&path)).map_err(io(WRITE))?;
            None
        }
        Err(fault @ Fault::TooLarge { .. }) => return Err(occupied(fault)),
        Err(fault) => return Err(fault),
    };
    Ok(Place { path, mode })
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What the path leads to, which need not exist.
fn target(path: &Path) -> Result<PathBuf, Fault> {
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&at) {
            Ok(next) => at = at.parent().unwrap_or(Path::new("")).join(next),
            // No link, or nothing.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                return Ok(at);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(at),
            Err(error) => return Err(io("follow it")(error)),
        }
    }
    Err(io("follow it")(Errno::LOOP.into()))
}

/// A file without its name yet; gone if it never gets it.
struct Unfinished(PathBuf);

impl Unfinished {
    fn new(folder: &Path, name: &str) -> Result<(File, Unfinished), Fault> {
        let process = std::process::id();
        for number in 0..100 {
            // Several processes, some of them in namespaces of their own, may write here at once.
            let path = folder.join(format!(".{name}.{process}-{number}.part"));
            match File::create_new(&path) {
                Ok(file) => return Ok((file, Unfinished(path))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io(WRITE)(error)),
            }
        }
        Err(io(WRITE)(io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
