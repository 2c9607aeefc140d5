//! The header of a GGUF file, from its first byte to its last tensor.

use std::collections::HashSet;

use super::MAGIC;
use super::fault::GgufFault;
use super::place::place;
use super::reader::{Reader, Source, Stop};
use super::value::{Value, ValueType};
use crate::model::dtype::Dtype;
use crate::model::escape::escape;
use crate::model::metadata::Metadata;
use crate::model::names::{NameIndex, Twice};
use crate::model::tensor::TensorInfo;

/// The longest header that is read, in bytes. Vocabularies, which are passed over, take up to 10 MB
/// in public models.
pub const MAX_GGUF_BYTES: u64 = 1 << 30;

/// The most bytes of keys and tensors, which are kept, of a header: room for a hundred times as many
/// as the largest public models have.
pub(super) const MAX_TABLE_BYTES: u64 = 16 << 20;

/// The most dimensions: `GGML_MAX_DIMS`.
const MAX_DIMENSIONS: u32 = 4;

/// Where tensors begin if the file does not say: `GGUF_DEFAULT_ALIGNMENT`.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A key has the length of its name, a type, and a value of a byte.
const LEAST_KEY: u64 = 8 + 4 + 1;

/// A tensor has the length of its name, a number of dimensions, a type, and an offset.
const LEAST_TENSOR: u64 = 8 + 4 + 4 + 8;

/// The most tensors, of all parts of a split model too.
pub(super) const MOST_TENSORS: u64 = MAX_TABLE_BYTES / LEAST_TENSOR;

/// The header of a GGUF file, read and found consistent with the length of the file.
pub struct GgufHeader {
    /// The version of the format, 2 or 3.
    pub version: u32,
    /// What the offsets of tensors are multiples of, bytes; a power of two.
    pub alignment: u64,
    /// The tensors in the order of their bytes in the file, with `file` 0. Several may lie in the
    /// same bytes, and then say so.
    pub tensors: Vec<TensorInfo>,
    /// Where the data begins, counted from the start of the file.
    pub data_offset: u64,
    /// What the file says of itself besides; of arrays, what they are of and how many.
    pub metadata: Metadata,
    pub(super) split: SplitKeys,
}

/// What a part of a split model says of itself, as far as it is a number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SplitKeys {
    /// Which part it is, from 0.
    pub(super) number: Option<u64>,
    /// How many parts there are.
    pub(super) count: Option<u64>,
    /// How many tensors all parts have.
    pub(super) tensors: Option<u64>,
}

/// Reads a header. In one that is right otherwise, names may occur twice: see [`once`].
pub(super) fn parse<S: Source + ?Sized>(
    source: &S,
    file_bytes: u64,
) -> Result<GgufHeader, Stop<S::Error>> {
    let mut reader = Reader::new(source, file_bytes);
    let version = version(&mut reader)?;
    let tensors = reader.u64("the number of tensors")?;
    let keys = reader.u64("the number of keys")?;
    check_counts(tensors, keys, reader.left())?;
    let mut table = Table::default();
    let keys = Keys::read(&mut reader, keys, &mut table)?;
    let mut tensors = read_tensors(&mut reader, tensors, &mut table)?;
    reader.end_header("the header")?;
    let mut data_offset = reader.at().next_multiple_of(keys.alignment);
    if tensors.is_empty() {
        // Files of a vocabulary alone end with their header.
        data_offset = data_offset.min(file_bytes);
    }
    if let Err(fault) = place(&mut tensors, data_offset, keys.alignment, file_bytes) {
        // Ranges can hardly be right where a name occurs twice, which then says more.
        once(&tensors)?;
        return Err(fault.into());
    }
    Ok(GgufHeader {
        version,
        alignment: keys.alignment,
        tensors,
        data_offset,
        metadata: keys.metadata,
        split: keys.split,
    })
}

/// Reads what every file begins with.
fn version<S: Source + ?Sized>(reader: &mut Reader<'_, S>) -> Result<u32, Stop<S::Error>> {
    let file_bytes = reader.left();
    if reader.array("the start of a GGUF file")? != MAGIC {
        let kind = None;
        return Err(GgufFault::NotGguf { kind, file_bytes }.into());
    }
    let version = reader.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        // The number of a version is small in one byte order, and has no low bytes in the other.
        _ if version != 0 && version & 0xffff == 0 => {
            let version = version.swap_bytes();
            Err(GgufFault::BigEndian { version }.into())
        }
        _ => Err(GgufFault::Version { version }.into()),
    }
}

fn check_counts(tensors: u64, keys: u64, left: u64) -> Result<(), GgufFault> {
    let needs = tensors
        .saturating_mul(LEAST_TENSOR)
        .saturating_add(keys.saturating_mul(LEAST_KEY));
    if needs > left {
        return Err(GgufFault::Counts {
            tensors,
            keys,
            needs,
            left,
        });
    }
    Ok(())
}

/// The index of names that occur once each.
pub(super) fn once(tensors: &[TensorInfo]) -> Result<NameIndex, GgufFault> {
    NameIndex::new(tensors).map_err(|Twice(first, _)| GgufFault::DuplicateName {
        tensor: tensors[first].name.clone(),
    })
}

/// How much of the header is kept.
#[derive(Default)]
struct Table {
    bytes: u64,
}

impl Table {
    fn keep(&mut self, name: &str, besides: u64) -> Result<(), GgufFault> {
        self.bytes += name.len() as u64 + besides;
        match self.bytes > MAX_TABLE_BYTES {
            true => Err(GgufFault::LongTable),
            false => Ok(()),
        }
    }
}

/// What is kept of the keys.
struct Keys {
    alignment: u64,
    metadata: Metadata,
    split: SplitKeys,
}

impl Keys {
    fn read<S: Source + ?Sized>(
        reader: &mut Reader<'_, S>,
        count: u64,
        table: &mut Table,
    ) -> Result<Keys, Stop<S::Error>> {
        let mut keys = Keys {
            alignment: DEFAULT_ALIGNMENT,
            metadata: Metadata::default(),
            split: SplitKeys::default(),
        };
        let mut known = HashSet::new();
        for _ in 0..count {
            let key = reader.name("a key")?;
            table.keep(&key, LEAST_KEY)?;
            let value = reader.value(&key)?;
            keys.note(&key, &value)?;
            if let Some(key) = known.replace(key) {
                return Err(GgufFault::DuplicateKey { key }.into());
            }
        }
        Ok(keys)
    }

    fn note(&mut self, key: &str, value: &Value) -> Result<(), GgufFault> {
        match value.to_text() {
            Some(text) => self.metadata.note(key, &text),
            None => self.metadata.leave_out(),
        }
        let number = || match value {
            Value::Integer(_, number) => u64::try_from(*number).ok(),
            _ => None,
        };
        match key {
            "general.alignment" => self.alignment = alignment(value)?,
            "split.no" => self.split.number = number(),
            "split.count" => self.split.count = number(),
            "split.tensors.count" => self.split.tensors = number(),
            _ => {}
        }
        Ok(())
    }
}

fn alignment(value: &Value) -> Result<u64, GgufFault> {
    match value {
        // candle takes the default where it is of 64 bits, and llama.cpp nothing but u32.
        Value::Integer(of, number) if !matches!(of, ValueType::U64 | ValueType::I64) => {
            u64::try_from(*number).ok()
        }
        _ => None,
    }
    .filter(|alignment| alignment.is_power_of_two())
    .ok_or_else(|| {
        let text = value.to_text().unwrap_or_else(|| "a long text".to_owned());
        GgufFault::Alignment {
            value: escape(&text).to_string().into(),
        }
    })
}

/// Reads the tensors, their offsets counted from the start of the data.
fn read_tensors<S: Source + ?Sized>(
    reader: &mut Reader<'_, S>,
    count: u64,
    table: &mut Table,
) -> Result<Vec<TensorInfo>, Stop<S::Error>> {
    let mut tensors = Vec::new();
    for _ in 0..count {
        let name = reader.name("a tensor's name")?;
        let dimensions = reader.u32("a tensor's number of dimensions")?;
        if dimensions > MAX_DIMENSIONS {
            let tensor = name;
            return Err(GgufFault::TooManyDimensions { tensor, dimensions }.into());
        }
        table.keep(&name, LEAST_TENSOR + 8 * u64::from(dimensions))?;
        let mut sizes = [0; MAX_DIMENSIONS as usize];
        let sizes = &mut sizes[..dimensions as usize];
        for size in &mut *sizes {
            *size = reader.u64("a tensor's dimension")?;
        }
        let dtype = dtype(reader.u32("a tensor's type")?, &name)?;
        let offset = reader.u64("a tensor's offset")?;
        tensors.push(tensor(name, dtype, sizes, offset)?);
    }
    Ok(tensors)
}

/// The types of `ggml.h`.
fn dtype(id: u32, tensor: &str) -> Result<Dtype, GgufFault> {
    let removed = match id {
        0 => return Ok(Dtype::F32),
        1 => return Ok(Dtype::F16),
        2 => return Ok(Dtype::Q4_0),
        3 => return Ok(Dtype::Q4_1),
        4 => "Q4_2",
        5 => "Q4_3",
        6 => return Ok(Dtype::Q5_0),
        7 => return Ok(Dtype::Q5_1),
        8 => return Ok(Dtype::Q8_0),
        9 => return Ok(Dtype::Q8_1),
        10 => return Ok(Dtype::Q2_K),
        11 => return Ok(Dtype::Q3_K),
        12 => return Ok(Dtype::Q4_K),
        13 => return Ok(Dtype::Q5_K),
        14 => return Ok(Dtype::Q6_K),
        15 => return Ok(Dtype::Q8_K),
        16 => return Ok(Dtype::IQ2_XXS),
        17 => return Ok(Dtype::IQ2_XS),
        18 => return Ok(Dtype::IQ3_XXS),
        19 => return Ok(Dtype::IQ1_S),
        20 => return Ok(Dtype::IQ4_NL),
        21 => return Ok(Dtype::IQ3_S),
        22 => return Ok(Dtype::IQ2_S),
        23 => return Ok(Dtype::IQ4_XS),
        24 => return Ok(Dtype::I8),
        25 => return Ok(Dtype::I16),
        26 => return Ok(Dtype::I32),
        27 => return Ok(Dtype::I64),
        28 => return Ok(Dtype::F64),
        29 => return Ok(Dtype::IQ1_M),
        30 => return Ok(Dtype::BF16),
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        34 => return Ok(Dtype::TQ1_0),
        35 => return Ok(Dtype::TQ2_0),
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        39 => return Ok(Dtype::MXFP4),
        _ => {
            let tensor = tensor.into();
            return Err(GgufFault::UnknownType { tensor, id });
        }
    };
    Err(GgufFault::RemovedType {
        tensor: tensor.into(),
        id,
        name: removed,
    })
}

/// A tensor of these dimensions, fastest first.
fn tensor(
    name: Box<str>,
    dtype: Dtype,
    dimensions: &[u64],
    offset: u64,
) -> Result<TensorInfo, GgufFault> {
    let row = dimensions.first().copied().unwrap_or(1);
    let (block, block_bytes) = dtype
        .block()
        .unwrap_or((1, dtype.bitsize().div_ceil(8) as u64));
    if !row.is_multiple_of(block) {
        return Err(GgufFault::PartOfBlock {
            tensor: name,
            dtype,
            row,
            block,
        });
    }
    // As if no dimension were 0: whoever multiplies them in another order must not overflow.
    let elements = dimensions.iter().try_fold(1_u64, |product, dimension| {
        product.checked_mul((*dimension).max(1))
    });
    let blocks = elements.map(|elements| elements / block);
    let bits = blocks.and_then(|blocks| blocks.checked_mul(8 * block_bytes));
    let shape: Option<Box<[usize]>> = dimensions
        .iter()
        .rev()
        .map(|dimension| usize::try_from(*dimension).ok())
        .collect();
    let (Some(bits), Some(shape)) = (bits, shape) else {
        return Err(GgufFault::SizeOverflow {
            tensor: name,
            dtype,
            dimensions: dimensions.into(),
        });
    };
    let is_empty = dimensions.contains(&0);
    Ok(TensorInfo {
        name,
        dtype,
        shape,
        file: 0,
        offset,
        bytes: if is_empty { 0 } else { bits / 8 },
        tied_to: None,
    })
}
