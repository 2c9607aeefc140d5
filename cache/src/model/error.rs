//! Why a model could not be opened.
//!
//! Every message names the file, the numbers that disagree, and what can be done about it. Names
//! that come from files are printed escaped.

use std::fs;
use std::io;
use std::path::Path;

use thiserror::Error;

use super::escape::{escape, escape_path};
use super::file::FileIdentity;
use super::gguf::{GgufFault, SplitFault};
use super::header_fault::HeaderFault;
use super::shard_index::IndexFault;
use super::torch::TorchFault;

/// Why a model could not be opened, or is no longer what was opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file.
    #[error(
        "{}: no such file; check the path (a relative one counts from the working directory)",
        escape_path(path)
    )]
    NotFound {
        /// The path that was asked for.
        path: Box<Path>,
    },

    /// There is a symbolic link, and nothing where it leads.
    #[error(
        "{}: is a link to {}, which is not there; restore that file, or remove the link",
        escape_path(path),
        escape_path(to)
    )]
    DeadLink {
        /// The link.
        path: Box<Path>,
        /// What it names.
        to: Box<Path>,
    },

    /// The path is a directory.
    #[error(
        "{}: is a directory; name the file of a model in it (`plimsoll scan` lists them)",
        escape_path(path)
    )]
    Directory {
        /// The directory.
        path: Box<Path>,
    },

    /// The path is a FIFO, a device or a socket.
    #[error(
        "{}: is a {kind}, and weights are read only from regular files; save it to a file first",
        escape_path(path)
    )]
    NotRegular {
        /// The path that was asked for.
        path: Box<Path>,
        /// What is there.
        kind: &'static str,
    },

    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", escape_path(path))]
    Io {
        /// The file or directory.
        path: Box<Path>,
        /// What was attempted.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },

    /// There is no memory for the header.
    #[error(
        "{}: no memory for its header of {bytes} bytes; free some, or raise the process's limit",
        escape_path(path)
    )]
    Memory {
        /// The file.
        path: Box<Path>,
        /// The size of the header in bytes.
        bytes: u64,
    },

    /// A model in a format that is not read.
    #[error(
        "{}: is {format}, which is not read by Plimsoll; convert it to safetensors",
        escape_path(path)
    )]
    OtherFormat {
        /// The file.
        path: Box<Path>,
        /// The format that its name says.
        format: &'static str,
    },

    /// The file's header is not what the safetensors format allows.
    #[error("{}: {fault}", escape_path(path))]
    Header {
        /// The file.
        path: Box<Path>,
        /// What is wrong.
        #[source]
        fault: Box<HeaderFault>,
    },

    /// The file is a PyTorch checkpoint by its name or its first bytes, but not one to be read.
    #[error("{}: {fault}", escape_path(path))]
    Torch {
        /// The file.
        path: Box<Path>,
        /// What is wrong.
        #[source]
        fault: Box<TorchFault>,
    },

    /// The header of a GGUF file is not what the format allows.
    #[error("{}: {fault}", escape_path(path))]
    Gguf {
        /// The file.
        path: Box<Path>,
        /// What is wrong.
        #[source]
        fault: Box<GgufFault>,
    },

    /// The parts of a split GGUF model are not together.
    #[error("{}: {fault}", escape_path(path))]
    Split {
        /// The file that was opened, or the part that is at fault.
        path: Box<Path>,
        /// What is wrong.
        #[source]
        fault: Box<SplitFault>,
    },

    /// The index of a sharded model is broken.
    #[error("{}: {fault}", escape_path(path))]
    Index {
        /// The index file.
        path: Box<Path>,
        /// What is wrong.
        #[source]
        fault: Box<IndexFault>,
    },

    /// A shard that the index names is not there.
    #[error(
        "{}: its shard {} is missing, with {tensors} of the model's {of} tensors; download that file, or restore it",
        escape_path(path),
        escape_path(shard)
    )]
    ShardMissing {
        /// The index file.
        path: Box<Path>,
        /// Where the shard should be.
        shard: Box<Path>,
        /// How many tensors the index places in it.
        tensors: usize,
        /// How many tensors the index names.
        of: usize,
    },

    /// A shard lacks a tensor that the index places in it.
    #[error(
        "{}: places tensor `{}` in shard {}, which has {has} tensors but not that one{}; index and shards are of different versions, download both again",
        escape_path(path), escape(tensor), escape_path(shard), found(found_in.as_deref())
    )]
    ShardLacks {
        /// The index file.
        path: Box<Path>,
        /// The shard.
        shard: Box<Path>,
        /// The tensor.
        tensor: Box<str>,
        /// How many tensors the shard has.
        has: usize,
        /// The other shard that holds a tensor of that name, if one does.
        found_in: Option<Box<Path>>,
    },

    /// Two shards hold a tensor of the same name.
    #[error(
        "{}: tensor `{}` is in two shards, {} and {}, so it is not known which is meant; download the model again, or remove one of them",
        escape_path(path),
        escape(tensor),
        escape_path(first),
        escape_path(second)
    )]
    TwoShards {
        /// The index file.
        path: Box<Path>,
        /// The tensor.
        tensor: Box<str>,
        /// One shard.
        first: Box<Path>,
        /// The other.
        second: Box<Path>,
    },

    /// The file is not the one that was opened.
    #[error(
        "{}: changed since it was opened: it was {was}, it is {}; open the model again",
        escape_path(path), identity(is.as_ref())
    )]
    Changed {
        /// The file.
        path: Box<Path>,
        /// What it was when it was opened.
        was: FileIdentity,
        /// What is there instead; `None` if nothing is.
        is: Option<FileIdentity>,
    },

    /// The model has no file of that index.
    #[error("{}: has {files} files, and none of index {index}", escape_path(path))]
    NoSuchFile {
        /// The model's path.
        path: Box<Path>,
        /// The index that was asked for.
        index: usize,
        /// How many files the model has.
        files: usize,
    },

    /// A folder lies too deep below the one that was searched.
    #[error(
        "{}: lies {depth} folders below where the search began, and was not searched; name it itself",
        escape_path(path)
    )]
    TooDeep {
        /// The folder that was not searched.
        path: Box<Path>,
        /// How deep it lies.
        depth: usize,
    },
}

impl OpenError {
    /// The file or folder that the error is about. For a sharded model this is the index, unless
    /// one shard alone is at fault.
    pub fn path(&self) -> &Path {
        match self {
            Self::NotFound { path }
            | Self::DeadLink { path, .. }
            | Self::Directory { path }
            | Self::NotRegular { path, .. }
            | Self::Io { path, .. }
            | Self::Memory { path, .. }
            | Self::OtherFormat { path, .. }
            | Self::Header { path, .. }
            | Self::Torch { path, .. }
            | Self::Gguf { path, .. }
            | Self::Split { path, .. }
            | Self::Index { path, .. }
            | Self::ShardMissing { path, .. }
            | Self::ShardLacks { path, .. }
            | Self::TwoShards { path, .. }
            | Self::Changed { path, .. }
            | Self::NoSuchFile { path, .. }
            | Self::TooDeep { path, .. } => path,
        }
    }

    /// Whether nothing is there.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::DeadLink { .. })
    }

    pub(super) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            let path: Box<Path> = path.into();
            return match fs::read_link(&path) {
                Ok(to) => Self::DeadLink {
                    path,
                    to: to.into(),
                },
                Err(_) => Self::NotFound { path },
            };
        }
        Self::Io {
            path: path.into(),
            action,
            source,
        }
    }

    pub(super) fn header(path: &Path, fault: HeaderFault) -> Self {
        Self::Header {
            path: path.into(),
            fault: Box::new(fault),
        }
    }

    pub(super) fn torch(path: &Path, fault: TorchFault) -> Self {
        Self::Torch {
            path: path.into(),
            fault: Box::new(fault),
        }
    }

    pub(super) fn gguf(path: &Path, fault: GgufFault) -> Self {
        Self::Gguf {
            path: path.into(),
            fault: Box::new(fault),
        }
    }

    pub(super) fn split(path: &Path, fault: SplitFault) -> Self {
        Self::Split {
            path: path.into(),
            fault: Box::new(fault),
        }
    }

    pub(super) fn index(path: &Path, fault: IndexFault) -> Self {
        Self::Index {
            path: path.into(),
            fault: Box::new(fault),
        }
    }
}

fn found(shard: Option<&Path>) -> String {
    shard.map_or_else(String::new, |shard| {
        format!(" (it is in {})", escape_path(shard))
    })
}

fn identity(is: Option<&FileIdentity>) -> String {
    is.map_or_else(|| "gone".to_owned(), FileIdentity::to_string)
}
