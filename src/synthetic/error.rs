//! Why synthetic models could not be made.

use std::io;
use std::path::PathBuf;

use malloc_stats::Size;
use plimsoll_cache::model::escape_path;
use thiserror::Error;

use super::plan::SCALES;

/// Why synthetic models could not be planned, made or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The scale is out of range.
    #[error("the scale {given} is not between {} and {}; 1 makes about 1.5 GiB", SCALES.start(), SCALES.end())]
    Scale {
        /// What was asked for.
        given: f64,
    },

    /// The file system has no room.
    #[error("{}: {} to be written and {} free; free {}, make less with a smaller --scale, or set XDG_CACHE_HOME to a roomier folder", escape_path(dir), Size(*needs), Size(*free), Size(needs - free))]
    NoSpace {
        /// The folder.
        dir: PathBuf,
        /// Bytes to be written.
        needs: u64,
        /// Bytes that are free to this user.
        free: u64,
    },

    /// The operating system refused.
    #[error(
        "{}: cannot {action}: {source}; models are made below XDG_CACHE_HOME",
        escape_path(path)
    )]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },

    /// The header of a model cannot be written.
    #[error("the header of {model} cannot be written: {reason}; please report this")]
    Header {
        /// The file stem of the model.
        model: String,
        /// What the safetensors crate said.
        reason: String,
    },

    /// There is no folder for caches.
    #[error(
        "neither XDG_CACHE_HOME nor HOME is an absolute path, so there is no folder for the models; set one, or name a folder"
    )]
    NoCacheFolder,
}

impl Error {
    /// Turns an error of the operating system into one that names the path.
    pub(super) fn io<E: Into<io::Error>>(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io {
            path,
            action,
            source: source.into(),
        }
    }
}
