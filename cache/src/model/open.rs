//! From paths to models: reading headers, and joining shards.

use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::file::{FileIdentity, open_regular, read_to};
use super::header::{Header, PREFIX, header_length, parse_header};
use super::header_fault::HeaderFault;
use super::names::{NameIndex, Twice};
use super::shard_index::{INDEX_SUFFIX, IndexFault, MAX_INDEX_BYTES, ShardIndex, parse_index};
use super::summary::total_bytes;
use super::tensor::TensorInfo;
use super::{ModelFile, Parts};

/// What is read of a file at first. Most headers are shorter (that of SDXL's UNet has 195 kB, of a
/// text encoder 25), and reading them then takes one call.
const FIRST_READ: u64 = 64 * 1024;

/// The formats of models that are not read, by the extension of their files.
const OTHER_FORMATS: [(&str, &str); 9] = [
    ("bin", "a PyTorch file"),
    ("ckpt", "a PyTorch checkpoint"),
    ("ggml", "a GGML file"),
    ("gguf", "a GGUF file"),
    ("h5", "a Keras file"),
    ("msgpack", "a Flax file"),
    ("onnx", "an ONNX file"),
    ("pt", "a PyTorch file"),
    ("pth", "a PyTorch file"),
];

/// The format of a model that is not read, if `path` has its extension.
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
    let stem = file_name
        .strip_suffix(INDEX_SUFFIX)
        .or_else(|| file_name.strip_suffix(".safetensors"))
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
        return join(path, &read_index(path)?);
    }
    if let Some(format) = other_format(path)
        && path.is_file()
    {
        return Err(OpenError::OtherFormat {
            path: path.into(),
            format,
        });
    }
    single(path)
}

pub(super) fn is_index(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

fn single(path: &Path) -> Result<Parts, OpenError> {
    let (identity, header) = read_header(path)?;
    Ok(Parts {
        bytes: total_bytes(&header.tensors),
        files: vec![ModelFile::new(path, identity, header.data_offset)].into(),
        tensors: header.tensors.into(),
        names: header.names,
        unmapped: 0,
    })
}

fn read_header(path: &Path) -> Result<(FileIdentity, Header), OpenError> {
    let (file, identity) = open_regular(path)?;
    let refuse = |fault| OpenError::header(path, fault);
    let mut bytes = Vec::new();
    read_to(
        path,
        &file,
        &mut bytes,
        FIRST_READ.min(identity.size) as usize,
    )?;
    let length = header_length(&bytes, identity.size).map_err(refuse)?;
    let end = PREFIX as usize + length;
    read_to(path, &file, &mut bytes, end)?;
    // Shorter only if the file was cut off since its size was asked for.
    let header = bytes.get(PREFIX as usize..end).ok_or_else(|| {
        let (claimed, file_bytes) = (length as u64, bytes.len() as u64);
        refuse(HeaderFault::HeaderBeyondFile {
            claimed,
            file_bytes,
        })
    })?;
    Ok((
        identity,
        parse_header(header, identity.size).map_err(refuse)?,
    ))
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

/// Opens the shards that an index names and joins their tensors.
pub(super) fn join(path: &Path, index: &ShardIndex) -> Result<Parts, OpenError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let paths: Vec<PathBuf> = index
        .shards
        .iter()
        .map(|shard| folder.join(&**shard))
        .collect();
    let mut files = Vec::with_capacity(paths.len());
    let mut tensors: Vec<TensorInfo> = Vec::with_capacity(index.tensors.len());
    // How many tensors each shard has.
    let mut sizes = Vec::with_capacity(paths.len());
    for (number, shard) in paths.iter().enumerate() {
        let (identity, header) = read_header(shard).map_err(|error| match error {
            OpenError::NotFound { .. } => missing(path, shard, number, index),
            other => other,
        })?;
        files.push(ModelFile::new(shard, identity, header.data_offset));
        sizes.push(header.tensors.len());
        tensors.extend(header.tensors.into_iter().map(|mut tensor| {
            tensor.file = number as u32;
            tensor
        }));
    }
    let names = NameIndex::new(&tensors).map_err(|Twice(first, second)| OpenError::TwoShards {
        path: path.into(),
        tensor: tensors[first].name.clone(),
        first: paths[tensors[first].file as usize].as_path().into(),
        second: paths[tensors[second].file as usize].as_path().into(),
    })?;
    check_map(path, &paths, &sizes, index, &tensors, &names)?;

    let all = tensors.len();
    tensors.retain(|tensor| index.tensors.contains_key(&tensor.name));
    let unmapped = all - tensors.len();
    tensors.shrink_to_fit();
    let names = match unmapped {
        0 => names,
        // No name occurs twice among a part of names none of which did.
        _ => NameIndex::new(&tensors).unwrap_or(names),
    };
    Ok(Parts {
        bytes: total_bytes(&tensors),
        files: files.into(),
        tensors: tensors.into(),
        names,
        unmapped,
    })
}

/// Checks that every tensor lies where the index says.
fn check_map(
    path: &Path,
    paths: &[PathBuf],
    sizes: &[usize],
    index: &ShardIndex,
    tensors: &[TensorInfo],
    names: &NameIndex,
) -> Result<(), OpenError> {
    let lacking = |(name, shard): &(&str, u32)| {
        let position = names.position(name, tensors);
        position.is_none_or(|position| tensors[position].file != *shard)
    };
    let placed = index.tensors.iter().map(|(name, &shard)| (&**name, shard));
    // The first by name: a hash map has another order in every process.
    let Some((name, shard)) = placed.filter(lacking).min() else {
        return Ok(());
    };
    let found_in = names.position(name, tensors);
    Err(OpenError::ShardLacks {
        path: path.into(),
        shard: paths[shard as usize].as_path().into(),
        tensor: name.into(),
        has: sizes[shard as usize],
        found_in: found_in.map(|position| paths[tensors[position].file as usize].as_path().into()),
    })
}

fn missing(path: &Path, shard: &Path, number: usize, index: &ShardIndex) -> OpenError {
    OpenError::ShardMissing {
        path: path.into(),
        shard: shard.into(),
        tensors: index
            .tensors
            .values()
            .filter(|shard| **shard as usize == number)
            .count(),
        of: index.tensors.len(),
    }
}
