//! Sharded models: the tensors of the shards, joined by an index.

use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::header_fault::HeaderFault;
use super::metadata::Metadata;
use super::names::{NameIndex, Twice};
use super::open::{Begun, read_header};
use super::shard_index::ShardIndex;
use super::summary::total_bytes;
use super::tensor::TensorInfo;
use super::{Format, ModelFile, Parts, torch};

/// Opens the shards that an index names and joins their tensors.
pub(super) fn join(path: &Path, index: ShardIndex) -> Result<Parts, OpenError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let paths: Vec<PathBuf> = index
        .shards
        .iter()
        .map(|shard| folder.join(&**shard))
        .collect();
    let mut files = Vec::with_capacity(paths.len());
    let mut tensors: Vec<TensorInfo> = Vec::with_capacity(index.tensors().len());
    let mut metadata = Metadata::default();
    let mut format = Format::Sharded;
    let mut buffer = Vec::new();
    for (number, shard) in paths.iter().enumerate() {
        let begun = Begun::open(shard, &mut buffer).map_err(|error| match error {
            error if error.is_absence() => missing(path, shard, number, &index),
            error => error,
        })?;
        let identity = begun.identity;
        let (of, header) = read_header(shard, begun)?;
        files.push(ModelFile::new(shard, identity, header.data_offset));
        if number == 0 {
            metadata = header.metadata;
            if of == Format::PyTorch {
                format = of;
            }
        }
        tensors.extend(header.tensors.into_iter().map(|mut tensor| {
            tensor.file = number as u32;
            tensor
        }));
    }
    drop(buffer);
    let Some(places) = places(&index, &tensors) else {
        return Err(disagreement(path, &paths, &index, &tensors));
    };
    let unmapped = tensors.len() - places.len();
    if unmapped > 0 {
        tensors.retain(|tensor| index.position(&tensor.name).is_some());
        tensors.shrink_to_fit();
    }
    // What ties them counts in the whole table, and only among those that are left.
    torch::tie(&mut tensors);
    Ok(Parts {
        bytes: total_bytes(&tensors),
        files: files.into(),
        tensors: tensors.into(),
        names: index.into_names().moved(&places),
        unmapped,
        format,
        metadata,
    })
}

/// Where each tensor of the index is among those of the shards that it names; `None` unless each is
/// there, in the shard that it should be in, and no name occurs twice.
fn places(index: &ShardIndex, tensors: &[TensorInfo]) -> Option<Vec<u32>> {
    const NOWHERE: u32 = u32::MAX;
    let mut places = vec![NOWHERE; index.tensors().len()];
    let mut next = 0;
    let mut unmapped = Vec::new();
    for tensor in tensors {
        let Some(position) = index.position(&tensor.name) else {
            unmapped.push(tensor);
            continue;
        };
        if places[position] != NOWHERE || index.shard_at(position) != tensor.file {
            return None;
        }
        places[position] = next;
        next += 1;
    }
    let is_whole = next as usize == places.len() && NameIndex::new(&unmapped[..]).is_ok();
    is_whole.then_some(places)
}

/// What keeps shards from being the model of their index.
fn disagreement(
    path: &Path,
    paths: &[PathBuf],
    index: &ShardIndex,
    tensors: &[TensorInfo],
) -> OpenError {
    let file = |position: usize| tensors[position].file as usize;
    let names = match NameIndex::new(tensors) {
        Ok(names) => names,
        Err(Twice(first, second)) => {
            let tensor = tensors[first].name.clone();
            let (first, second) = (file(first), file(second));
            if first == second {
                return OpenError::header(&paths[first], HeaderFault::DuplicateName { tensor });
            }
            return OpenError::TwoShards {
                path: path.into(),
                tensor,
                first: paths[first].as_path().into(),
                second: paths[second].as_path().into(),
            };
        }
    };
    let lacking = |(name, shard): &(&str, u32)| {
        let position = names.position(name, tensors);
        position.is_none_or(|position| tensors[position].file != *shard)
    };
    // The first by name. There is one where no name occurs twice.
    let (name, shard) = index.tensors().filter(lacking).min().unwrap_or_default();
    let found_in = names.position(name, tensors).map(file);
    OpenError::ShardLacks {
        path: path.into(),
        shard: paths[shard as usize].as_path().into(),
        tensor: name.into(),
        has: tensors.iter().filter(|tensor| tensor.file == shard).count(),
        found_in: found_in.map(|file| paths[file].as_path().into()),
    }
}

fn missing(path: &Path, shard: &Path, number: usize, index: &ShardIndex) -> OpenError {
    let in_it = |(_, shard): &(&str, u32)| *shard as usize == number;
    OpenError::ShardMissing {
        path: path.into(),
        shard: shard.into(),
        tensors: index.tensors().filter(in_it).count(),
        of: index.tensors().len(),
    }
}
