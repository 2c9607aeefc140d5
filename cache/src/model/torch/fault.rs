//! What can be wrong with a PyTorch checkpoint.

use thiserror::Error;

use super::super::dtype::Dtype;
use super::super::escape::escape;
use super::directory::{LONGEST_NAME, MAX_DIRECTORY_BYTES, MAX_ENTRIES};
use super::pickle::{MAX_PICKLE_BYTES, PROTOCOL};

/// What is wrong with a file that has the name of a PyTorch checkpoint, or begins like one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TorchFault {
    /// The file has the name of a PyTorch file, but is no zip file.
    #[error(
        "has the name of a PyTorch file, but {} ({file_bytes} bytes); {}",
        begins(*kind),
        remedy(*kind)
    )]
    NotZip {
        /// What it looks like, and what to do about that.
        kind: Option<(&'static str, &'static str)>,
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// A pickle that is not in a zip file, or is in a tar file.
    #[error(
        "is a pickle or tar file as PyTorch wrote before version 1.6 ({file_bytes} bytes), and loading such files can run code; if you trust it, load it in PyTorch and convert it to safetensors"
    )]
    Legacy {
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// The file does not end with the record that every zip file ends with.
    #[error(
        "begins like a zip or PyTorch file, but its last bytes are not the end of one ({file_bytes} bytes); it is cut off: download it again"
    )]
    NoEnd {
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// A record of the zip file that is not what it should be.
    #[error(
        "is a damaged zip file: {what} at byte {at} of {file_bytes}; download it again, or save it again with `torch.save`"
    )]
    Broken {
        /// What is wrong.
        what: &'static str,
        /// Where, counted from the start of the file.
        at: u64,
        /// Bytes of the file.
        file_bytes: u64,
    },

    /// A directory of more entries, or longer, than is read.
    #[error(
        "is a zip file that claims {entries} entries in a directory of {bytes} bytes, above the limits of {MAX_ENTRIES} and {MAX_DIRECTORY_BYTES}; convert it to safetensors"
    )]
    DirectoryTooLarge {
        /// How many entries it claims.
        entries: u64,
        /// How many bytes it claims.
        bytes: u64,
    },

    /// An entry's name that could lead out of a folder, or that no program would give.
    #[error(
        "has an entry named `{}` at byte {at}, which is no plain path within it of up to {LONGEST_NAME} bytes; PyTorch writes no such names, so do not trust this file",
        escape(entry)
    )]
    EntryName {
        /// The name, U+FFFD for what is not UTF-8.
        entry: Box<str>,
        /// Where the directory names it, counted from the start of the file.
        at: u64,
    },

    /// Two entries of one name.
    #[error(
        "has two entries named `{}`, so it is not known which is meant; save it again with `torch.save`",
        escape(entry)
    )]
    DuplicateEntry {
        /// The name.
        entry: Box<str>,
    },

    /// An entry that is encrypted.
    #[error(
        "has entry `{}` of {bytes} bytes encrypted; unpack it and save it again with `torch.save`",
        escape(entry)
    )]
    Encrypted {
        /// The entry.
        entry: Box<str>,
        /// Its bytes.
        bytes: u64,
    },

    /// An entry that is compressed.
    #[error(
        "has entry `{}` compressed (method {method}, {stored} bytes that claim to unpack to {bytes}), and weights are read in place; save it again with `torch.save`, which stores them plain, or convert it to safetensors",
        escape(entry)
    )]
    Compressed {
        /// The entry.
        entry: Box<str>,
        /// The method, as APPNOTE.TXT 4.4.5 numbers them.
        method: u16,
        /// The bytes it has in the file.
        stored: u64,
        /// The bytes it claims to unpack to.
        bytes: u64,
    },

    /// Sizes of one entry that disagree.
    #[error(
        "gives entry `{}` two sizes, {one} and {other} bytes; the file is damaged: download it again",
        escape(entry)
    )]
    EntrySizes {
        /// The entry.
        entry: Box<str>,
        /// One size.
        one: u64,
        /// The other.
        other: u64,
    },

    /// An entry that reaches to where the zip file's directory is, or beyond.
    #[error(
        "places entry `{}` at bytes {begin} to {end}, beyond the {limit} that its entries can have; the file is damaged: download it again",
        escape(entry)
    )]
    OutsideFile {
        /// The entry.
        entry: Box<str>,
        /// Where it begins, counted from the start of the file.
        begin: u64,
        /// Where it ends, as far as 64 bits hold that.
        end: u64,
        /// Where the directory begins.
        limit: u64,
    },

    /// Two entries in the same bytes.
    #[error(
        "places entry `{}` at byte {begin}, inside entry `{}` that ends at {end}; the file is damaged, or made to harm",
        escape(entry),
        escape(other)
    )]
    Overlap {
        /// The entry.
        entry: Box<str>,
        /// Where it begins, counted from the start of the file.
        begin: u64,
        /// The entry before it.
        other: Box<str>,
        /// Where that one ends.
        end: u64,
    },

    /// A zip file of something else.
    #[error(
        "is a zip file of {entries} entries with {pickles} of the form `*/data.pkl`, of which a PyTorch file has one; it is no PyTorch file"
    )]
    NotTorch {
        /// How many entries it has.
        entries: usize,
        /// How many of them could be the pickle.
        pickles: usize,
    },

    /// A program, saved by `torch.jit.save`.
    #[error(
        "is a TorchScript program, with code in its entry `{}`; load it in PyTorch and save its `state_dict()` as safetensors",
        escape(entry)
    )]
    TorchScript {
        /// An entry that no plain checkpoint has.
        entry: Box<str>,
    },

    /// A longer pickle than is read.
    #[error(
        "has a pickle of {bytes} bytes, above the limit of {MAX_PICKLE_BYTES}; convert it to safetensors"
    )]
    PickleTooLarge {
        /// Its bytes.
        bytes: u64,
    },

    /// Saved by a machine of another byte order.
    #[error(
        "was saved in byte order `{}`, and only `little` is read; load it in PyTorch and convert it to safetensors",
        escape(order)
    )]
    ByteOrder {
        /// What the file says.
        order: Box<str>,
    },

    /// The pickle asks for something that is no part of a tensor.
    #[error(
        "asks for `{}` at byte {at} of its pickle, which is no part of a tensor: loading it in Python would import that and could run code, here nothing of it is run; get the model as safetensors or, if you trust it, load it in PyTorch and save its `state_dict()` as safetensors",
        escape(asked)
    )]
    Global {
        /// What it asks for: the module, a dot and the name; cut where it is long.
        asked: Box<str>,
        /// Where, counted from the start of the pickle.
        at: usize,
    },

    /// The pickle has an instruction that `torch.save` does not write for tensors.
    #[error(
        "has instruction 0x{opcode:02x} at byte {at} of its pickle, which `torch.save` does not write for tensors; if you trust it, load it in PyTorch and save its `state_dict()` as safetensors"
    )]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// Where, counted from the start of the pickle.
        at: usize,
    },

    /// The pickle is of a later protocol than is known.
    #[error(
        "has a pickle of protocol {protocol}, and up to {PROTOCOL} are read; save it again with the default protocol of `torch.save`"
    )]
    Protocol {
        /// The protocol.
        protocol: u8,
    },

    /// The pickle ends too early.
    #[error(
        "has a pickle that ends at byte {bytes}, where the instruction at byte {at} needs more; the file is damaged: download it again"
    )]
    Cut {
        /// Where the instruction is, counted from the start of the pickle.
        at: usize,
        /// Bytes of the pickle.
        bytes: usize,
    },

    /// The pickle holds more than any table of tensors.
    #[error(
        "has a pickle that makes more than {limit} {what}, at byte {at}; no table of tensors needs so many, so do not trust this file"
    )]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
        /// Where, counted from the start of the pickle.
        at: usize,
    },

    /// An instruction of the pickle that does not fit what is before it.
    #[error(
        "has a pickle that makes no tensors: {what} at byte {at}; the file is damaged, or written by another program than PyTorch: save it again"
    )]
    Malformed {
        /// What does not fit.
        what: &'static str,
        /// Where, counted from the start of the pickle.
        at: usize,
    },

    /// No tensors that have names.
    #[error(
        "holds {entries} named values, and no tensors among them or one table below; save a `state_dict()`"
    )]
    NoTensors {
        /// How many named values there are, of any kind.
        entries: usize,
    },

    /// Tensors in more than one table.
    #[error(
        "holds tables of tensors under `{}` and `{}`, so it is not known which is meant; save the one you want alone",
        escape(first),
        escape(second)
    )]
    SeveralTables {
        /// One name.
        first: Box<str>,
        /// Another.
        second: Box<str>,
    },

    /// A tensor of a type that has no counterpart here.
    #[error(
        "tensor `{}` is of type `torch.{storage}`, which is not read; convert it to another in PyTorch, such as float16",
        escape(tensor)
    )]
    StorageType {
        /// The tensor.
        tensor: Box<str>,
        /// The type.
        storage: &'static str,
    },

    /// A tensor whose shape cannot be one.
    #[error(
        "tensor `{}` has a shape or stride of other things than numbers from 0 on; the file is damaged: download it again",
        escape(tensor)
    )]
    Shape {
        /// The tensor.
        tensor: Box<str>,
    },

    /// A tensor whose bytes are not in the file.
    #[error(
        "places tensor `{}` in entry `{}`, which it does not have; the file is damaged: download it again",
        escape(tensor),
        escape(entry)
    )]
    StorageMissing {
        /// The tensor.
        tensor: Box<str>,
        /// The entry that should hold its bytes.
        entry: Box<str>,
    },

    /// An entry of another size than the pickle says.
    #[error(
        "places tensor `{}` in a storage of {count} × {size} bytes, but that entry has {has}; the file is damaged: download it again",
        escape(tensor)
    )]
    StorageSize {
        /// The tensor.
        tensor: Box<str>,
        /// How many elements the storage should have.
        count: u64,
        /// Bytes of each.
        size: u64,
        /// The bytes its entry has.
        has: u64,
    },

    /// A tensor that reaches beyond its storage.
    #[error(
        "tensor `{}` of dtype {dtype} and shape {shape:?} begins at element {first} of a storage of {has} bytes, which does not hold it; the file is damaged: download it again",
        escape(tensor)
    )]
    OutsideStorage {
        /// The tensor.
        tensor: Box<str>,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Box<[usize]>,
        /// Its first element, counted from the start of the storage.
        first: u64,
        /// Bytes of the storage.
        has: u64,
    },

    /// A transposed tensor, or another view that skips or repeats elements.
    #[error(
        "tensor `{}` of shape {shape:?} has its elements {stride:?} apart, not in order; call `.contiguous()` on it in PyTorch and save it again, best as safetensors",
        escape(tensor)
    )]
    NotContiguous {
        /// The tensor.
        tensor: Box<str>,
        /// Its shape.
        shape: Box<[usize]>,
        /// How many elements lie from one to the next, by dimension.
        stride: Box<[usize]>,
    },

    /// Two tensors of one name.
    #[error(
        "names tensor `{}` twice, so it is not known which is meant; save the model again",
        escape(tensor)
    )]
    DuplicateName {
        /// The name.
        tensor: Box<str>,
    },
}

impl TorchFault {
    /// What the file is, with an article, where it is something else than a table of tensors, such
    /// as a program or the state of an optimiser, rather than a broken or harmful one.
    pub(in super::super) fn another_kind(&self) -> Option<&'static str> {
        match self {
            Self::NotZip { kind: None, .. } => Some("a file that is PyTorch's by its name alone"),
            Self::Legacy { .. } => Some("a PyTorch file from before version 1.6"),
            Self::NotTorch { .. } => Some("a zip file that is not PyTorch's"),
            Self::TorchScript { .. } => Some("a TorchScript program"),
            Self::NoTensors { .. } => Some("a PyTorch file without a table of tensors"),
            _ => None,
        }
    }
}

fn begins(kind: Option<(&str, &str)>) -> String {
    kind.map_or_else(
        || "does not begin like one".to_owned(),
        |(kind, _)| format!("begins like {kind}"),
    )
}

fn remedy<'a>(kind: Option<(&str, &'a str)>) -> &'a str {
    kind.map_or(
        "if a program can load it, convert it to safetensors there",
        |(_, remedy)| remedy,
    )
}
