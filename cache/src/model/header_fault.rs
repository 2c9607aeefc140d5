//! What can be wrong with the header of a safetensors file.

use thiserror::Error;

use super::dtype::Dtype;
use super::escape::escape;
use super::header::{MAX_DIMENSIONS, MAX_HEADER_BYTES};

/// What is wrong with a header.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// The file has no bytes.
    #[error("is empty, 0 bytes; download it again")]
    Empty,

    /// The file is shorter than the eight bytes that every safetensors file begins with.
    #[error(
        "has {file_bytes} bytes, fewer than the 8 that a safetensors file begins with; download it again"
    )]
    TooShort {
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// The file begins like one of another kind.
    #[error("begins like {kind}, not like a safetensors file ({file_bytes} bytes); {remedy}")]
    OtherKind {
        /// What it looks like.
        kind: &'static str,
        /// What to do about it.
        remedy: &'static str,
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// The header would be longer than [`MAX_HEADER_BYTES`].
    #[error(
        "claims a header of {claimed} bytes, above the limit of {MAX_HEADER_BYTES}, in a file of {file_bytes}; it is broken or no safetensors file: download it again"
    )]
    HeaderTooLarge {
        /// The header's length as the file gives it.
        claimed: u64,
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// The header would reach beyond the end of the file.
    #[error(
        "claims a header of {claimed} bytes, but has {file_bytes} bytes in all, 8 of them before the header; it is cut off or no safetensors file: download it again"
    )]
    HeaderBeyondFile {
        /// The header's length as the file gives it.
        claimed: u64,
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// The header does not begin with `{`.
    #[error(
        "has a header that begins with byte 0x{first:02x} instead of `{{`, of {claimed} bytes; it is no safetensors file"
    )]
    NotObject {
        /// The header's first byte.
        first: u8,
        /// The header's length in bytes.
        claimed: u64,
    },

    /// The header is not UTF-8.
    #[error(
        "has a header that is not UTF-8 at byte {at} of {claimed}; the file is damaged: download it again"
    )]
    NotUtf8 {
        /// Where the first wrong byte is, counted from the start of the header.
        at: usize,
        /// The header's length in bytes.
        claimed: usize,
    },

    /// The header is not JSON of the right form.
    #[error("has a header that cannot be read{}: {reason}; the file is damaged, or written by a faulty program: download or convert it again", at_tensor(tensor.as_deref()))]
    Json {
        /// The tensor in whose entry the fault lies, if it is in one.
        tensor: Option<Box<str>>,
        /// What the JSON reader said, with line and column.
        reason: Box<str>,
    },

    /// The element type is none that safetensors 0.8 knows.
    #[error(
        "tensor `{}` is of dtype `{}`, which safetensors 0.8 does not know; convert the model to a known one, such as F16",
        escape(tensor),
        escape(dtype)
    )]
    UnknownDtype {
        /// The tensor.
        tensor: Box<str>,
        /// The element type as the file gives it.
        dtype: Box<str>,
    },

    /// More than [`MAX_DIMENSIONS`].
    #[error(
        "tensor `{}` has more than {MAX_DIMENSIONS} dimensions; the file is damaged, or written by a faulty program",
        escape(tensor)
    )]
    TooManyDimensions {
        /// The tensor.
        tensor: Box<str>,
    },

    /// A name that occurs twice.
    #[error(
        "names tensor `{}` twice, so it is not known which is meant; convert the model again",
        escape(tensor)
    )]
    DuplicateName {
        /// The tensor.
        tensor: Box<str>,
    },

    /// A tensor ends before it begins.
    #[error(
        "tensor `{}` begins at byte {begin} of the data and ends before it, at {end}; the file is damaged: download it again",
        escape(tensor)
    )]
    Reversed {
        /// The tensor.
        tensor: Box<str>,
        /// Its begin, counted from the start of the data.
        begin: u64,
        /// Its end.
        end: u64,
    },

    /// A tensor ends beyond the end of the file.
    #[error(
        "tensor `{}` ends at byte {end} of the data, of which the file has {data_bytes}; the file is cut off: download it again",
        escape(tensor)
    )]
    OutsideFile {
        /// The tensor.
        tensor: Box<str>,
        /// Its end, counted from the start of the data.
        end: u64,
        /// Bytes of data in the file.
        data_bytes: u64,
    },

    /// A tensor begins before the one in front of it ends.
    #[error(
        "tensor `{}` begins at byte {begin} of the data, inside tensor `{}` that ends at {end}; the file is damaged: download it again",
        escape(tensor),
        escape(other)
    )]
    Overlap {
        /// The tensor.
        tensor: Box<str>,
        /// Its begin, counted from the start of the data.
        begin: u64,
        /// The tensor in front of it.
        other: Box<str>,
        /// Where that one ends.
        end: u64,
    },

    /// Bytes that belong to no tensor.
    #[error(
        "tensor `{}` begins at byte {begin} of the data, and the bytes from {end} to there belong to none; convert the model again",
        escape(tensor)
    )]
    Gap {
        /// The tensor after the gap.
        tensor: Box<str>,
        /// Its begin, counted from the start of the data.
        begin: u64,
        /// Where the tensor in front of it ends.
        end: u64,
    },

    /// Bytes behind the last tensor.
    #[error("its tensors end at byte {end} of the data, of which the file has {data_bytes}; {} bytes too many: download it again", data_bytes - end)]
    TrailingBytes {
        /// Where the last tensor ends, counted from the start of the data.
        end: u64,
        /// Bytes of data in the file.
        data_bytes: u64,
    },

    /// The size of the tensor leaves 64 bits.
    #[error(
        "tensor `{}` of dtype {dtype} and shape {shape:?} would have more than 2^64 bits; the file is damaged: download it again",
        escape(tensor)
    )]
    SizeOverflow {
        /// The tensor.
        tensor: Box<str>,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Box<[usize]>,
    },

    /// The tensor does not end at a whole byte.
    #[error(
        "tensor `{}` of dtype {dtype} and shape {shape:?} has {bits} bits, which are no whole bytes; convert the model again",
        escape(tensor)
    )]
    PartOfByte {
        /// The tensor.
        tensor: Box<str>,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Box<[usize]>,
        /// How many bits it has.
        bits: u64,
    },

    /// The range of bytes is not of the size that shape and element type need.
    #[error(
        "tensor `{}` of dtype {dtype} and shape {shape:?} needs {needs} bytes, but its range has {has}; the file is damaged: download it again",
        escape(tensor)
    )]
    SizeMismatch {
        /// The tensor.
        tensor: Box<str>,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Box<[usize]>,
        /// The bytes it needs.
        needs: u64,
        /// The bytes its range has.
        has: u64,
    },
}

fn at_tensor(tensor: Option<&str>) -> String {
    tensor.map_or_else(String::new, |name| format!(" at tensor `{}`", escape(name)))
}
