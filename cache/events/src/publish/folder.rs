//! The folders where sockets lie that have no path of their own: nobody else can put things there,
//! sockets have names, and what the dead left is removed.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};

use super::PublishError;
use super::place::{There, check_length, look, remove_dead};

/// The folders where sockets may lie, the one to use first.
fn folders() -> Vec<PathBuf> {
    let user = geteuid().as_raw();
    // The folder of another user, kept by `su` or `sudo -E`, is not for ours.
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .filter(|folder| {
            fs::metadata(folder).is_ok_and(|there| there.is_dir() && there.uid() == user)
        })
        .map(|folder| folder.join("plimsoll"));
    let fallback = PathBuf::from(format!("/tmp/plimsoll-{user}"));
    runtime.into_iter().chain([fallback]).collect()
}

/// The folder for new sockets, made if need be, and freed of what the dead left.
pub(super) fn default_folder() -> Result<PathBuf, PublishError> {
    let folder = folders().swap_remove(0);
    check_length(&folder.join(format!("{}.sock", std::process::id())))?;
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(PublishError::io(&folder, "make the folder")(error));
        }
        _ => {}
    }
    check_folder(&folder)?;
    clean(&folder);
    Ok(folder)
}

/// Whether a folder is ours alone. In `/tmp` anybody may have made it, as a trap.
fn check_folder(folder: &Path) -> Result<(), PublishError> {
    let there = fs::symlink_metadata(folder)
        .map_err(PublishError::io(folder, "look at the folder for sockets"))?;
    let user = geteuid().as_raw();
    let mode = there.mode() & 0o7777;
    let reason = if there.is_symlink() {
        "it is a symbolic link; remove it, or name the path of the socket".to_owned()
    } else if !there.is_dir() {
        "it is not a folder; remove it, or name the path of the socket".to_owned()
    } else if there.uid() != user {
        let owner = there.uid();
        format!("it belongs to user {owner}, and this is user {user}; name the path of the socket")
    } else if mode & 0o077 != 0 {
        format!("its mode is {mode:04o}, which lets others in; make it 0700 with chmod")
    } else {
        return Ok(());
    };
    Err(PublishError::Folder {
        path: folder.into(),
        reason,
    })
}

/// The process and the number in the name of a socket: `PID.sock`, `PID-2.sock`.
fn socket_name(name: &str) -> Option<(u32, u32)> {
    numbers(name.strip_suffix(".sock")?)
}

fn numbers(name: &str) -> Option<(u32, u32)> {
    match name.split_once('-') {
        Some((pid, number)) => Some((pid.parse().ok()?, number.parse().ok()?)),
        None => Some((name.parse().ok()?, 1)),
    }
}

/// What lies in a folder: names, with their paths.
fn entries(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

/// Removes what dead processes left in our folder. What cannot be removed stays: it harms nobody.
fn clean(folder: &Path) {
    for (name, path) in entries(folder) {
        let part = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(".part"));
        let Some((pid, _)) = socket_name(&name).or_else(|| part.and_then(numbers)) else {
            continue;
        };
        // A process that cannot be seen, in another PID namespace, still answers.
        if !is_alive(pid) && matches!(look(&path), Ok(There::Dead)) {
            let _ = remove_dead(&path);
        }
    }
}

fn is_alive(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// A process that publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The process, as it numbers itself: in a PID namespace of its own it has another number here.
    pub pid: u32,
    /// Its socket.
    pub path: PathBuf,
    /// The name of its program; absent if `/proc` does not show it. A program chooses its name:
    /// escape control characters before printing it.
    pub program: Option<String>,
}

/// What publishes on this machine, for this user, under a default path: by process, and in the
/// order in which its publications began. Sockets that nobody listens on are left out.
#[must_use]
pub fn published() -> Vec<Published> {
    let mut found = Vec::new();
    for folder in folders() {
        if check_folder(&folder).is_err() {
            continue;
        }
        for (name, path) in entries(&folder) {
            let Some(key) = socket_name(&name) else {
                continue;
            };
            if matches!(look(&path), Ok(There::Answers(_) | There::Busy)) {
                found.push((key, path));
            }
        }
    }
    found.sort();
    found
        .into_iter()
        .map(|((pid, _), path)| Published {
            pid,
            path,
            program: fs::read(format!("/proc/{pid}/comm"))
                .ok()
                .map(|name| String::from_utf8_lossy(name.trim_ascii_end()).into_owned()),
        })
        .collect()
}
