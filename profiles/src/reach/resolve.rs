//! From a command to a file, as `execvp(3)` goes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// Where commands are looked for without a `PATH`, as the C library has it.
const WITHOUT_PATH: &str = "/bin:/usr/bin";

/// Why a command is nothing that can be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// There is no such file.
    #[error("command not found: {command}")]
    Missing {
        /// The command, escaped.
        command: String,
    },
    /// There is one that may not be executed.
    #[error("cannot execute {path}: {reason}")]
    NotExecutable {
        /// The file, escaped.
        path: String,
        /// Why.
        reason: String,
    },
}

impl NotFound {
    /// What shells exit with: 127 where nothing was found, 126 where it cannot be executed.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } => 127,
            Self::NotExecutable { .. } => 126,
        }
    }
}

/// The file that a command names: itself, where it has a slash, else the first executable file of
/// that name in `PATH`.
///
/// # Errors
/// [`NotFound`], with the exit code that shells have for it.
pub fn resolve(command: &OsStr) -> Result<PathBuf, NotFound> {
    resolve_in(command, std::env::var_os("PATH"))
}

fn resolve_in(command: &OsStr, path: Option<OsString>) -> Result<PathBuf, NotFound> {
    if command.as_bytes().contains(&b'/') {
        let path = PathBuf::from(command);
        return match runnable(&path) {
            Run::Yes => Ok(path),
            Run::Absent => Err(missing(command)),
            Run::No(reason) => Err(refused(&path, reason)),
        };
    }
    if command.is_empty() {
        return Err(missing(command));
    }
    let path = path.unwrap_or_else(|| WITHOUT_PATH.into());
    let mut denied = None;
    for folder in std::env::split_paths(&path) {
        let folder = if folder.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            folder
        };
        let candidate = folder.join(command);
        match runnable(&candidate) {
            Run::Yes => return Ok(candidate),
            Run::Absent => {}
            Run::No(reason) => denied = denied.or(Some(refused(&candidate, reason))),
        }
    }
    Err(denied.unwrap_or_else(|| missing(command)))
}

/// Whether a file can be run by this process.
pub(super) enum Run {
    Yes,
    Absent,
    No(String),
}

pub(super) fn runnable(path: &Path) -> Run {
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(error) => {
            let absent = [
                std::io::ErrorKind::NotFound,
                std::io::ErrorKind::NotADirectory,
            ];
            return if absent.contains(&error.kind()) {
                Run::Absent
            } else {
                Run::No(error.to_string())
            };
        }
    };
    if meta.is_dir() {
        return Run::No("it is a directory".into());
    }
    if !meta.is_file() {
        return Run::No("it is no plain file".into());
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Run::Yes,
        Err(error) => Run::No(std::io::Error::from(error).to_string()),
    }
}

fn missing(command: &OsStr) -> NotFound {
    NotFound::Missing {
        command: escaped(command),
    }
}

fn refused(path: &Path, reason: String) -> NotFound {
    NotFound::NotExecutable {
        path: escaped(path.as_os_str()),
        reason,
    }
}

fn escaped(text: &OsStr) -> String {
    text.to_string_lossy().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_command_is_found_as_the_c_library_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        for (folder, mode) in [(&first, 0o644), (&second, 0o755)] {
            std::fs::create_dir(folder).unwrap();
            let file = folder.join("tool");
            std::fs::write(&file, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(first.join("folder")).unwrap();
        let path = std::env::join_paths([&first, &second]).unwrap();
        let find = |name: &str| resolve_in(OsStr::new(name), Some(path.clone()));
        assert_eq!(find("tool").unwrap(), second.join("tool"));
        assert_eq!(find("nothing-of-this-name").unwrap_err().exit_code(), 127);
        assert_eq!(find("").unwrap_err().exit_code(), 127);
        assert_eq!(find("folder").unwrap_err().exit_code(), 126);
        let only_first = resolve_in(OsStr::new("tool"), Some(first.clone().into()));
        assert_eq!(only_first.unwrap_err().exit_code(), 126);
        let by_path = |path: PathBuf| resolve_in(path.as_os_str(), None);
        assert_eq!(by_path(first.join("tool")).unwrap_err().exit_code(), 126);
        assert_eq!(by_path(first.join("none")).unwrap_err().exit_code(), 127);
        let below_a_file = first.join("tool/below");
        assert_eq!(by_path(below_a_file).unwrap_err().exit_code(), 127);
        assert!(resolve_in(OsStr::new("sh"), None).is_ok());
    }
}
