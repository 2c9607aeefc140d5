//! From paths to models: telling what a file is, and reading its header.

use std::fs::File;
use std::path::Path;

use super::error::OpenError;
use super::file::{FileIdentity, open_regular, read_to};
use super::gguf::{self, GgufFault, PartName};
use super::header::{self, Header, PREFIX, header_length, other_kind};
use super::header_fault::HeaderFault;
use super::join::join;
use super::shard_index::{INDEX_SUFFIXES, IndexFault, MAX_INDEX_BYTES, ShardIndex, parse_index};
use super::summary::total_bytes;
use super::{Format, ModelFile, Parts, torch};

/// What is read of a file at first. Most headers are shorter (that of SDXL's UNet has 195 kB, of a
/// text encoder 25), and reading them then takes one call.
const FIRST_READ: u64 = 64 * 1024;

/// How many bytes are kept to read the next file into.
const MOST_KEPT: usize = 1 << 20;

/// Files by their extension that need not be models: of formats that are not read, and checkpoints
/// that may hold something else.
const OTHER_FORMATS: [(&str, &str); 8] = [
    ("bin", "a PyTorch file"),
    ("ckpt", "a PyTorch checkpoint"),
    ("ggml", "a GGML file"),
    ("h5", "a Keras file"),
    ("msgpack", "a Flax file"),
    ("onnx", "an ONNX file"),
    ("pt", "a PyTorch file"),
    ("pth", "a PyTorch file"),
];

/// What `path` is by its extension, if that is one of [`OTHER_FORMATS`].
pub(super) fn other_format(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let known = OTHER_FORMATS.iter().find(|(known, _)| *known == extension);
    known.map(|(_, format)| *format)
}

/// The file name of `path` without the suffix that every model of its kind has.
pub(super) fn stem(path: &Path) -> String {
    let file_name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy();
    let suffixes = [".safetensors", ".bin", ".ckpt", ".pt", ".pth"];
    let mut suffixes = INDEX_SUFFIXES.iter().chain(&suffixes);
    let stem = suffixes.find_map(|suffix| file_name.strip_suffix(suffix));
    let part = PartName::of(&file_name).filter(|name| name.part == 1);
    let stem = stem
        .or(part.as_ref().map(|name| &*name.prefix))
        .or_else(|| is_gguf(path).then(|| &file_name[..file_name.len() - ".gguf".len()]))
        .unwrap_or(&file_name);
    if stem.is_empty() {
        file_name.into_owned()
    } else {
        stem.to_owned()
    }
}

/// Opens the model that `path` names.
pub(super) fn open(path: &Path) -> Result<Parts, OpenError> {
    if is_index(path) {
        return join(path, read_index(path)?);
    }
    let mut buffer = Vec::new();
    let begun = Begun::open(path, &mut buffer)?;
    if begun.start.starts_with(&gguf::MAGIC) {
        return gguf::open(path, &begun.file, begun.identity);
    }
    if let Some(format) = other_format(path)
        && !torch::is_named(path)
    {
        return Err(OpenError::OtherFormat {
            path: path.into(),
            format,
        });
    }
    let (kind, file_bytes) = (other_kind(begun.start), begun.identity.size);
    match single(path, begun) {
        Err(OpenError::Header { .. }) if is_gguf(path) => Err(OpenError::gguf(
            path,
            GgufFault::NotGguf { kind, file_bytes },
        )),
        other => other,
    }
}

/// A file that was opened, and its first bytes, which tell what it is.
pub(super) struct Begun<'b> {
    file: File,
    pub(super) identity: FileIdentity,
    start: &'b mut Vec<u8>,
}

impl<'b> Begun<'b> {
    /// Opens a file. What is read of it is in place of what was in `start`.
    pub(super) fn open(path: &Path, start: &'b mut Vec<u8>) -> Result<Begun<'b>, OpenError> {
        let (file, identity) = open_regular(path)?;
        start.clear();
        // Whoever opens many files keeps it from one to the next, but not a long one.
        start.shrink_to(MOST_KEPT);
        let first = FIRST_READ.min(identity.size) as usize;
        read_to(path, &file, start, first)?;
        Ok(Begun {
            file,
            identity,
            start,
        })
    }
}

/// Whether `path` is named as a GGUF file.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

pub(super) fn is_index(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// Reads a safetensors file or a checkpoint.
fn single(path: &Path, begun: Begun<'_>) -> Result<Parts, OpenError> {
    let identity = begun.identity;
    let (format, header) = read_header(path, begun)?;
    let names = header::once(&header.tensors).map_err(|fault| OpenError::header(path, fault))?;
    Ok(Parts {
        format,
        metadata: header.metadata,
        bytes: total_bytes(&header.tensors),
        files: vec![ModelFile::new(path, identity, header.data_offset)].into(),
        tensors: header.tensors.into(),
        names,
        unmapped: 0,
    })
}

/// Reads the header of a safetensors file, in which names may occur twice, or of a checkpoint.
pub(super) fn read_header(path: &Path, begun: Begun<'_>) -> Result<(Format, Header), OpenError> {
    let refuse = |fault| OpenError::header(path, fault);
    let Begun {
        file,
        identity,
        start: bytes,
    } = begun;
    if torch::is_zip(bytes) {
        let header = torch::read(path, &file, identity.size)?;
        return Ok((Format::PyTorch, header));
    }
    if torch::is_named(path) {
        let fault = torch::not_zip(bytes, identity.size);
        return Err(OpenError::torch(path, fault));
    }
    let length = header_length(bytes, identity.size).map_err(refuse)?;
    let end = PREFIX as usize + length;
    read_to(path, &file, bytes, end)?;
    // Shorter only if the file was cut off since its size was asked for.
    let header = bytes.get(PREFIX as usize..end).ok_or_else(|| {
        let (claimed, file_bytes) = (length as u64, bytes.len() as u64);
        refuse(HeaderFault::HeaderBeyondFile {
            claimed,
            file_bytes,
        })
    })?;
    let header = header::parse(header, identity.size).map_err(refuse)?;
    Ok((Format::Safetensors, header))
}

/// Reads the index at `path`, but none of its shards.
pub(super) fn read_index(path: &Path) -> Result<ShardIndex, OpenError> {
    let (file, identity) = open_regular(path)?;
    let refuse = |fault| OpenError::index(path, fault);
    if identity.size > MAX_INDEX_BYTES {
        return Err(refuse(IndexFault::TooLarge {
            bytes: identity.size,
        }));
    }
    let mut bytes = Vec::new();
    read_to(path, &file, &mut bytes, identity.size as usize)?;
    parse_index(&bytes).map_err(refuse)
}
