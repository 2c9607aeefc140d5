//! A listening socket's place: it appears there whole, replaces a dead one at most, and goes again.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::PublishError;
use super::folder::default_folder;

/// `sun_path` has 108 bytes, the last of them 0.
const LONGEST_PATH: usize = 107;

/// The longest name of a socket that is not yet at its place: `.PID-N.part`.
const LONGEST_PART: usize = ".4194304-9999.part".len();

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// How long to wait for the lock of a folder, to remove a dead socket.
const PATIENCE: Duration = Duration::from_secs(2);

/// A listening socket's place in the file system.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// The same, wherever the process goes.
    absolute: PathBuf,
    /// Until it is removed: once nobody listens, another file may get the same identity.
    identity: Option<(u64, u64)>,
    pid: u32,
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the process that listens, and not a fork of it.
    pub(super) fn is_ours(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Removes the socket, if it is this one.
    pub(super) fn remove(&mut self) {
        let Some(own) = self.identity.take() else {
            return;
        };
        let there = fs::symlink_metadata(&self.absolute);
        if self.is_ours() && there.is_ok_and(|there| identity(&there) == own) {
            let _ = fs::remove_file(&self.absolute);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Listens at a path, or at the first free name in the default folder.
pub(super) fn listen(path: Option<PathBuf>) -> Result<(OwnedFd, Place), PublishError> {
    if let Some(path) = path {
        let (listener, part) = bind(&path)?;
        let place = part.claim(&path)?;
        return Ok((listener, place));
    }
    let folder = default_folder()?;
    let pid = std::process::id();
    let mut path = folder.join(format!("{pid}.sock"));
    let (listener, part) = bind(&path)?;
    let mut number = 1;
    loop {
        match part.claim(&path) {
            Ok(place) => return Ok((listener, place)),
            Err(PublishError::Taken { .. } | PublishError::NotASocket { .. }) if number < 1000 => {
                number += 1;
                path = folder.join(format!("{pid}-{number}.sock"));
                check_length(&path)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A socket under a name that nobody looks for; the name goes on drop.
struct Part {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Part {
    /// Gives the socket its name. What has that name stays, unless it is a socket of the dead.
    fn claim(&self, path: &Path) -> Result<Place, PublishError> {
        let absolute = std::path::absolute(path)
            .map_err(PublishError::io(path, "tell where the working folder is"))?;
        // Each turn but the last either ends it or finds that another process was at it too.
        for _ in 0..100 {
            match fs::hard_link(&self.path, path) {
                Ok(()) => {
                    return Ok(Place {
                        path: path.to_owned(),
                        absolute,
                        identity: Some(self.identity),
                        pid: std::process::id(),
                    });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(PublishError::io(path, "make the socket")(error)),
            }
            match look(path) {
                Ok(There::Nothing) => {}
                Ok(There::NoSocket) => return Err(PublishError::NotASocket { path: path.into() }),
                Ok(There::Answers(_) | There::Busy) => break,
                Ok(There::Dead) => remove_dead(path).map_err(PublishError::io(
                    path,
                    "replace the dead socket that is there",
                ))?,
                Err(error) => {
                    return Err(PublishError::io(
                        path,
                        "tell whether somebody publishes there",
                    )(error));
                }
            }
        }
        Err(PublishError::Taken { path: path.into() })
    }
}

/// Binds and listens in the folder of `path`. Between `bind` and `listen` nobody can connect,
/// whatever the umask is: that is when the mode is set.
fn bind(path: &Path) -> Result<(OwnedFd, Part), PublishError> {
    check_length(path)?;
    if path.file_name().is_none() {
        let error = io::Error::new(ErrorKind::InvalidInput, "it does not end in a name");
        return Err(PublishError::io(path, "make a socket there")(error));
    }
    let doing = "make a socket in this folder";
    let socket = socket().map_err(PublishError::io(path, doing))?;
    let mut tries = 0;
    let name = loop {
        let name = part_name(path);
        tries += 1;
        match SocketAddrUnix::new(&name).and_then(|address| rustix::net::bind(&socket, &address)) {
            Ok(()) => break name,
            Err(Errno::ADDRINUSE) if tries < 100 => {}
            Err(error) => return Err(PublishError::io(path, doing)(error)),
        }
    };
    let mut part = Part {
        path: name,
        identity: (0, 0),
    };
    fs::set_permissions(&part.path, fs::Permissions::from_mode(0o600))
        .map_err(PublishError::io(path, "give the socket its mode"))?;
    let there = fs::symlink_metadata(&part.path)
        .map_err(PublishError::io(path, "look at the new socket"))?;
    part.identity = identity(&there);
    rustix::net::listen(&socket, BACKLOG).map_err(PublishError::io(path, "listen there"))?;
    Ok((socket, part))
}

/// A new name beside `path`.
fn part_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
    path.with_file_name(format!(".{}-{number}.part", std::process::id()))
}

pub(super) fn check_length(path: &Path) -> Result<(), PublishError> {
    let bytes = path.as_os_str().len();
    let name = path.file_name().map_or(0, |name| name.len());
    let most = LONGEST_PATH - LONGEST_PART.saturating_sub(name);
    if bytes > most {
        return Err(PublishError::TooLong {
            path: path.into(),
            bytes,
            most,
        });
    }
    Ok(())
}

/// What is at a path.
pub(super) enum There {
    Nothing,
    NoSocket,
    /// A socket that nobody listens on.
    Dead,
    /// Somebody listens, and has more to accept than there is room for.
    Busy,
    Answers(OwnedFd),
}

/// Looks who is at a path, and never waits for an answer. Links are not followed.
pub(super) fn look(path: &Path) -> io::Result<There> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => Ok(There::NoSocket),
        Ok(_) => reach(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(There::Nothing),
        Err(error) => Err(error),
    }
}

/// Connects to what is there, and never waits for an answer. What is no socket counts as dead.
pub(super) fn reach(path: &Path) -> io::Result<There> {
    let socket = socket()?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(There::Answers(socket)),
        Err(Errno::CONNREFUSED) => Ok(There::Dead),
        Err(Errno::NOENT) => Ok(There::Nothing),
        // EPROTOTYPE: a socket of another type, that somebody has.
        Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(There::Busy),
        Err(error) => Err(error.into()),
    }
}

fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Removes a socket that was found dead. Only who has the folder's lock removes one, and looks
/// again first: meanwhile another process may have replaced it by a live one.
pub(super) fn remove_dead(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")))?;
    let until = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            // Anybody can lock a folder such as `/tmp`, for as long as it likes.
            Err(Errno::WOULDBLOCK) if until <= Instant::now() => {
                let reason = "another process keeps the folder locked";
                return Err(io::Error::new(ErrorKind::WouldBlock, reason));
            }
            Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(1)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let removed = match look(path) {
        Ok(There::Dead) => fs::remove_file(path),
        _ => Ok(()),
    };
    // Not left to the end of the descriptor, which a fork may have too.
    let _ = rustix::fs::flock(&folder, FlockOperation::Unlock);
    removed
}
