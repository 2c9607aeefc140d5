//! Where synthetic models lie by default, and removing them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::plan::MARK;
use super::write::PART;

/// What [`clean`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many files.
    pub files: u64,
    /// Their sizes together, in bytes.
    pub bytes: u64,
}

/// The folder of synthetic models: `plimsoll/models` in `$XDG_CACHE_HOME`, or in `~/.cache` where
/// that is not set. It need not exist.
///
/// # Errors
/// [`Error::NoCacheFolder`] if neither variable is an absolute path (the XDG Base Directory
/// Specification 0.8 says to ignore relative ones).
pub fn cache_dir() -> Result<PathBuf, Error> {
    cache_dir_of(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"))
}

pub(super) fn cache_dir_of(
    cache: Option<OsString>,
    home: Option<OsString>,
) -> Result<PathBuf, Error> {
    let absolute =
        |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute(cache).or_else(|| Some(absolute(home)?.join(".cache")));
    Ok(caches
        .ok_or(Error::NoCacheFolder)?
        .join("plimsoll")
        .join("models"))
}

/// Removes the synthetic models in [`cache_dir`], and the folders that are empty then. Files that
/// were not made by [`make`](super::make()) stay.
///
/// # Errors
/// [`Error::NoCacheFolder`], or [`Error::Io`] with the first file that cannot be removed.
pub fn clean() -> Result<Removed, Error> {
    clean_in(&cache_dir()?)
}

pub(super) fn clean_in(dir: &Path) -> Result<Removed, Error> {
    let mut removed = Removed::default();
    // Only a folder that is not there is nothing to clean: one that cannot be looked at is an error.
    match fs::metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(removed),
        Err(error) => Err(Error::io(dir, "look at it")(error)),
        Ok(_) => clean_folder(dir, 1, &mut removed).map(|()| removed),
    }
}

/// Cleans `dir` and, `below` levels deep, the folders of sets in it. Links are not followed.
fn clean_folder(dir: &Path, below: usize, removed: &mut Removed) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "list it"))? {
        let entry = entry.map_err(Error::io(dir, "list it"))?;
        let path = entry.path();
        let meta = entry.metadata().map_err(Error::io(&path, "look at it"))?;
        if meta.is_dir() && below > 0 {
            clean_folder(&path, below - 1, removed)?;
        } else if meta.is_file() && is_ours(&path) {
            fs::remove_file(&path).map_err(Error::io(&path, "remove it"))?;
            removed.files += 1;
            removed.bytes += meta.len();
        }
    }
    // Fails where something stays in it, as it should.
    let _ = fs::remove_dir(dir);
    Ok(())
}

/// Whether a file was made here: its header begins with our mark, or it is one of our temporary
/// files.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(PART) {
        return true;
    }
    let mark = format!("{{\"__metadata__\":{{\"{}\":\"{}", MARK.0, MARK.1);
    let mut begin = vec![0; 8 + mark.len()];
    name.ends_with(".safetensors")
        && File::open(path)
            .and_then(|mut file| file.read_exact(&mut begin))
            .is_ok()
        && begin[8..] == *mark.as_bytes()
}
