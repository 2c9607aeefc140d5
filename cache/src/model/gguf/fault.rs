//! What can be wrong with a GGUF file.

use thiserror::Error;

use super::parse::{MAX_GGUF_BYTES, MAX_TABLE_BYTES};
use super::reader::MAX_NAME_BYTES;
use super::value::MAX_ARRAY_DEPTH;
use crate::model::dtype::Dtype;
use crate::model::escape::escape;

/// What is wrong with the header of a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GgufFault {
    /// The file is named as a GGUF file and begins otherwise.
    #[error("{} like a GGUF file ({file_bytes} bytes); {}", begins(*kind), remedy(*kind))]
    NotGguf {
        /// What it looks like, and what to do about that.
        kind: Option<(&'static str, &'static str)>,
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// Version 1, or one that is not known.
    #[error(
        "is GGUF of version {version}, and versions 2 and 3 are read; convert it with a current llama.cpp"
    )]
    Version {
        /// The version that the file gives.
        version: u32,
    },

    /// The file was written for machines of the other byte order.
    #[error(
        "is a GGUF file of version {version} in big-endian byte order, and little-endian ones are read; convert it with gguf_convert_endian.py of llama.cpp"
    )]
    BigEndian {
        /// The version that the file gives.
        version: u32,
    },

    /// The header reaches beyond the end of the file.
    #[error(
        "is a GGUF file that is cut off: {what} needs {needs} bytes at byte {at}, where {left} are left; download it again"
    )]
    CutOff {
        /// What is not whole.
        what: &'static str,
        /// Where it begins, counted from the start of the file.
        at: u64,
        /// How many bytes it needs.
        needs: u64,
        /// How many there are.
        left: u64,
    },

    /// The header claims more entries than the file has room for.
    #[error(
        "claims {tensors} tensors and {keys} keys, which take at least {needs} bytes, and {left} are left; the file is damaged: download it again"
    )]
    Counts {
        /// How many tensors.
        tensors: u64,
        /// How many keys.
        keys: u64,
        /// The fewest bytes they take, at most 2^64.
        needs: u64,
        /// How many there are.
        left: u64,
    },

    /// The header is longer than [`MAX_GGUF_BYTES`].
    #[error(
        "has a header that reaches to byte {end}, above the limit of {MAX_GGUF_BYTES}; the file is damaged, or no model"
    )]
    TooLong {
        /// Where what is read next would end.
        end: u64,
    },

    /// There are more keys and tensors than are kept.
    #[error(
        "has more than {MAX_TABLE_BYTES} bytes of keys and tensors; the file is damaged, or no model"
    )]
    LongTable,

    /// A key or a name is too long.
    #[error(
        "has {what} of {bytes} bytes at byte {at}, above the limit of {MAX_NAME_BYTES}; the file is damaged: download it again"
    )]
    LongName {
        /// What it is.
        what: &'static str,
        /// Where, counted from the start of the file.
        at: u64,
        /// Its length, bytes.
        bytes: u64,
    },

    /// A key or a name is not UTF-8.
    #[error("has {what} that is not UTF-8 at byte {at}; the file is damaged: download it again")]
    NotUtf8 {
        /// What it is.
        what: &'static str,
        /// Where, counted from the start of the file.
        at: u64,
    },

    /// A key that occurs twice.
    #[error(
        "has key `{}` twice, so it is not known which is meant; convert the model again",
        escape(key)
    )]
    DuplicateKey {
        /// The key.
        key: Box<str>,
    },

    /// A type of value that the format does not know.
    #[error(
        "has a value of type {id} at key `{}`, and types 0 to 12 are known; the file is damaged, or newer than this program",
        escape(key)
    )]
    ValueType {
        /// The key.
        key: Box<str>,
        /// The type's number.
        id: u32,
    },

    /// A truth value that is neither 0 nor 1.
    #[error(
        "has {byte} for a truth value at key `{}`; the file is damaged: download it again",
        escape(key)
    )]
    Bool {
        /// The key.
        key: Box<str>,
        /// What is there.
        byte: u8,
    },

    /// An array claims more elements than the file has room for.
    #[error(
        "claims an array of {len} elements at key `{}`, which take at least {needs} bytes, and {left} are left; the file is damaged: download it again",
        escape(key)
    )]
    LongArray {
        /// The key.
        key: Box<str>,
        /// How many elements.
        len: u64,
        /// The fewest bytes they take, at most 2^64.
        needs: u64,
        /// How many there are.
        left: u64,
    },

    /// Arrays lie too deep in one another.
    #[error(
        "has arrays in one another at key `{}`, more than {MAX_ARRAY_DEPTH} deep; the file is damaged, or made to do harm",
        escape(key)
    )]
    DeepArray {
        /// The key.
        key: Box<str>,
    },

    /// The alignment is none, or of a type that programs read differently.
    #[error(
        "gives `general.alignment` as {value}, which has to be a power of two of type u32; convert the model again"
    )]
    Alignment {
        /// What it gives, escaped.
        value: Box<str>,
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

    /// More dimensions than ggml has.
    #[error(
        "tensor `{}` has {dimensions} dimensions, and GGUF has at most 4; the file is damaged: download it again",
        escape(tensor)
    )]
    TooManyDimensions {
        /// The tensor.
        tensor: Box<str>,
        /// How many.
        dimensions: u32,
    },

    /// An element type that is not known.
    #[error(
        "tensor `{}` is of ggml type {id}, which is not known here; convert the model to a known one, such as Q8_0 or F16",
        escape(tensor)
    )]
    UnknownType {
        /// The tensor.
        tensor: Box<str>,
        /// The type's number.
        id: u32,
    },

    /// An element type that ggml no longer has.
    #[error(
        "tensor `{}` is of ggml type {id} ({name}), which ggml has removed; convert the model from its source again",
        escape(tensor)
    )]
    RemovedType {
        /// The tensor.
        tensor: Box<str>,
        /// The type's number.
        id: u32,
        /// What it was called.
        name: &'static str,
    },

    /// The size of the tensor leaves 64 bits.
    #[error(
        "tensor `{}` of type {dtype} and dimensions {dimensions:?} would have more than 2^64 bits; the file is damaged: download it again",
        escape(tensor)
    )]
    SizeOverflow {
        /// The tensor.
        tensor: Box<str>,
        /// Its element type.
        dtype: Dtype,
        /// Its dimensions as the file gives them, fastest first.
        dimensions: Box<[u64]>,
    },

    /// The rows are no whole blocks.
    #[error(
        "tensor `{}` of type {dtype} has rows of {row} elements, which are no whole blocks of {block}; convert the model again",
        escape(tensor)
    )]
    PartOfBlock {
        /// The tensor.
        tensor: Box<str>,
        /// Its element type.
        dtype: Dtype,
        /// Elements of a row: its fastest dimension.
        row: u64,
        /// Elements of a block.
        block: u64,
    },

    /// A tensor begins where none may.
    #[error(
        "tensor `{}` begins at byte {offset} of the data, which is no multiple of the file's alignment of {alignment}; the file is damaged: download it again",
        escape(tensor)
    )]
    Misaligned {
        /// The tensor.
        tensor: Box<str>,
        /// Its begin, counted from the start of the data.
        offset: u64,
        /// The alignment, bytes.
        alignment: u64,
    },

    /// A tensor ends beyond the end of the file.
    #[error(
        "tensor `{}` of {bytes} bytes begins at byte {offset} of the data, which begins at byte {data_offset} of a file of {file_bytes}; the file is cut off: download it again",
        escape(tensor)
    )]
    OutsideFile {
        /// The tensor.
        tensor: Box<str>,
        /// Its begin, counted from the start of the data.
        offset: u64,
        /// Its bytes.
        bytes: u64,
        /// Where the data begins.
        data_offset: u64,
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// A tensor lies in part where another does.
    #[error(
        "tensor `{}` begins at byte {offset} of the data, inside tensor `{}` that ends at {end}; the file is damaged: download it again",
        escape(tensor),
        escape(other)
    )]
    Overlap {
        /// The tensor.
        tensor: Box<str>,
        /// Its begin, counted from the start of the data.
        offset: u64,
        /// The tensor in front of it.
        other: Box<str>,
        /// Where that one ends.
        end: u64,
    },
}

fn begins(kind: Option<(&str, &str)>) -> String {
    kind.map_or_else(
        || "does not begin".to_owned(),
        |(kind, _)| format!("begins like {kind}, not"),
    )
}

fn remedy<'a>(kind: Option<(&str, &'a str)>) -> &'a str {
    kind.map_or("download it again", |(_, remedy)| remedy)
}
