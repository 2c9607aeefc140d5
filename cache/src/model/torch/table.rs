//! From the values of a pickle to tensors: which table is the model, and where each tensor lies.

use std::collections::HashSet;

use super::super::dtype::Dtype;
use super::super::metadata::Metadata;
use super::super::tensor::{TensorInfo, packed_bytes};
use super::archive::Archive;
use super::fault::TorchFault;
use super::globals::{DTYPES, STORAGES};
use super::values::{Raw, Table, Tuple, Value, Values};

/// The tensors of a pickle in the order of their bytes, and what it says besides. `folder` is where
/// in the archive the storages are.
pub(super) fn tensors(
    values: &Values<'_>,
    archive: &Archive,
    folder: &str,
) -> Result<(Vec<TensorInfo>, Metadata), TorchFault> {
    let chosen = choose(values)?;
    let metadata = metadata(values, chosen);
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for (name, value) in &values.tables[chosen].entries {
        if let Value::Tensor(at) = value {
            let raw = &values.tensors[*at as usize];
            let name = values.text(*name);
            // Before it is copied: a pickle can name one text any number of times.
            if !names.insert(name) {
                let tensor = name.into();
                return Err(TorchFault::DuplicateName { tensor });
            }
            tensors.push(tensor(values, archive, folder, name, raw)?);
        }
    }
    // Stable: of tensors in the same bytes the first in the pickle is the one that is tied to.
    tensors.sort_by_key(|tensor| (tensor.offset, tensor.bytes, tensor.dtype));
    tie(&mut tensors);
    Ok((tensors, metadata))
}

/// Ties tensors that lie in the very same bytes, of the same type, each to the first of them. The
/// others that overlap, such as a slice of a tensor beside it, are each a tensor of its own.
pub(in super::super) fn tie(tensors: &mut [TensorInfo]) {
    let mut first = 0;
    for at in 0..tensors.len() {
        let place = |at: usize| {
            let tensor: &TensorInfo = &tensors[at];
            (tensor.file, tensor.offset, tensor.bytes, tensor.dtype)
        };
        if place(first) != place(at) {
            first = at;
        }
        let is_tied = first < at && tensors[at].bytes > 0;
        tensors[at].tied_to = is_tied.then_some(first as u32);
    }
}

/// The table that is the model: the outermost or, if that has no tensors, the only one directly in
/// it that has, such as `state_dict` beside the state of an optimiser.
fn choose(values: &Values<'_>) -> Result<usize, TorchFault> {
    let Value::Table(root) = values.root else {
        return Err(TorchFault::NoTensors { entries: 0 });
    };
    let root = root as usize;
    let table = &values.tables[root];
    if table.tensors > 0 {
        return Ok(root);
    }
    let mut found = None;
    for (name, value) in &table.entries {
        let Value::Table(below) = *value else {
            continue;
        };
        let below = below as usize;
        if values.tables[below].tensors == 0 {
            continue;
        }
        match found {
            Some((first, other)) if other != below => {
                return Err(TorchFault::SeveralTables {
                    first: values.text(first).into(),
                    second: values.text(*name).into(),
                });
            }
            _ => found = Some((*name, below)),
        }
    }
    found.map(|(_, below)| below).ok_or(TorchFault::NoTensors {
        entries: table.entries.len(),
    })
}

/// What the outermost table says in single values, such as the epoch; all else that is no tensor
/// of the model is counted.
fn metadata(values: &Values<'_>, chosen: usize) -> Metadata {
    let mut metadata = Metadata::default();
    let mut of = |table: &Table| {
        for (name, value) in &table.entries {
            let text = match value {
                Value::Tensor(_) if std::ptr::eq(table, &values.tables[chosen]) => continue,
                Value::Table(at) if *at as usize == chosen => continue,
                // Asked before its texts are read through, which a pickle can name millions of times.
                _ if !metadata.takes(name.len()) => None,
                Value::Bool(value) => Some(value.to_string()),
                Value::Int(value) => Some(value.to_string()),
                Value::Float(value) => Some(value.to_string()),
                Value::Text(text) => Some(values.text(*text).to_owned()),
                _ => None,
            };
            match text {
                Some(text) => metadata.note(values.text(*name), &text),
                None => metadata.leave_out(),
            }
        }
        for _ in 0..table.unnamed {
            metadata.leave_out();
        }
    };
    if let Value::Table(root) = values.root {
        of(&values.tables[root as usize]);
        if root as usize != chosen {
            of(&values.tables[chosen]);
        }
    }
    metadata
}

fn tensor(
    values: &Values<'_>,
    archive: &Archive,
    folder: &str,
    name: &str,
    raw: &Raw,
) -> Result<TensorInfo, TorchFault> {
    let storage = &values.storages[raw.storage as usize];
    let (storage_type, storage_dtype) = STORAGES[storage.of as usize];
    let (asked, dtype) = match raw.dtype {
        Some(dtype) => DTYPES[dtype as usize],
        None => (storage_type, storage_dtype),
    };
    let (Some(dtype), Some(storage_dtype)) = (dtype, storage_dtype) else {
        return Err(TorchFault::StorageType {
            tensor: name.into(),
            storage: asked,
        });
    };
    let entry_name = format!("{folder}/data/{}", values.text(storage.key));
    let Some(entry) = archive.entry(&entry_name) else {
        return Err(TorchFault::StorageMissing {
            tensor: name.into(),
            entry: entry_name.into(),
        });
    };
    let size = bytes_of(storage_dtype);
    if storage.count.checked_mul(size) != Some(entry.bytes) {
        return Err(TorchFault::StorageSize {
            tensor: name.into(),
            count: storage.count,
            size,
            has: entry.bytes,
        });
    }
    let shape = numbers(values, raw.shape);
    let stride = numbers(values, raw.stride);
    let (Some(shape), Some(stride)) = (shape, stride) else {
        return Err(TorchFault::Shape {
            tensor: name.into(),
        });
    };
    let begin = raw.first.checked_mul(bytes_of(dtype));
    let bytes = packed_bytes(dtype, &shape).ok();
    let end = begin
        .zip(bytes)
        .and_then(|(begin, bytes)| begin.checked_add(bytes));
    let (Some(begin), Some(bytes), true) =
        (begin, bytes, end.is_some_and(|end| end <= entry.bytes))
    else {
        return Err(TorchFault::OutsideStorage {
            tensor: name.into(),
            dtype,
            shape,
            first: raw.first,
            has: entry.bytes,
        });
    };
    if !in_order(&shape, &stride) {
        return Err(TorchFault::NotContiguous {
            tensor: name.into(),
            shape,
            stride,
        });
    }
    Ok(TensorInfo {
        name: name.into(),
        dtype,
        shape,
        file: 0,
        offset: entry.begin + begin,
        bytes,
        tied_to: None,
    })
}

/// All types here are of whole bytes.
fn bytes_of(dtype: Dtype) -> u64 {
    dtype.bitsize() as u64 / 8
}

fn numbers(values: &Values<'_>, tuple: Tuple) -> Option<Box<[usize]>> {
    let numbers = values.tuple(tuple).iter().map(|value| match value {
        Value::Int(number) => usize::try_from(*number).ok(),
        _ => None,
    });
    numbers.collect()
}

/// Whether elements lie one behind another, the last dimension fastest
/// (`Tensor.is_contiguous`). `shape` is of a tensor that fits a file.
fn in_order(shape: &[usize], stride: &[usize]) -> bool {
    if shape.len() != stride.len() {
        return false;
    }
    let mut apart = 1_usize;
    let sound = shape.iter().zip(stride).rev().all(|(&dimension, &stride)| {
        // Of one element it does not matter how far the next would be.
        let fits = dimension == 1 || stride == apart;
        apart = apart.saturating_mul(dimension);
        fits
    });
    sound || shape.contains(&0)
}
