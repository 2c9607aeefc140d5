//! GGUF files, those of llama.cpp and stable-diffusion.cpp.
//!
//! | file | what it has |
//! |---|---|
//! | `parse.rs` | a header, from its first byte to its last tensor |
//! | `place.rs` | where the tensors lie in the file, checked |
//! | `value.rs` | the typed values before them |
//! | `reader.rs` | the bytes, a little at a time |
//! | `fault.rs` | what can be wrong |
//! | `split.rs` | models in several files |
//!
//! The format is that of ggml's `docs/gguf.md`, versions 2 and 3, little endian. A header is not
//! preceded by its length and may hold vocabularies of millions of words, so it is read in passing
//! and hardly any of it is kept. What is accepted here, candle's own reader
//! (`gguf_file::Content::read`) accepts too, with the same ranges, as far as it knows the element
//! types. Beyond it are refused: names and keys that occur twice, alignments that are no power of
//! two, tensors that are misaligned, in part outside the file or in part inside one another, and
//! names that are not UTF-8. Zeros at the end of strings are dropped, as there.

mod fault;
mod parse;
mod place;
mod reader;
mod split;
mod value;

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub use fault::GgufFault;
pub use parse::{GgufHeader, MAX_GGUF_BYTES};
pub use split::SplitFault;
pub(super) use split::{PartName, open};

use super::error::OpenError;
use super::file::FileIdentity;
use parse::{once, parse};
use reader::{Source, Stop};

/// What every GGUF file begins with.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// Reads the header of a GGUF file of `file_bytes` that begins with `start`.
///
/// ```
/// use plimsoll_cache::model::parse_gguf;
/// let mut file = b"GGUF\x03\0\0\0".to_vec();
/// for number in [1_u64, 0, 1] {
///     file.extend(number.to_le_bytes()); // one tensor, no keys, and a name of one byte,
/// }
/// file.extend(b"w\x01\0\0\0"); // `w`, of one dimension,
/// file.extend(2_u64.to_le_bytes()); // of two
/// file.extend([0; 4 + 8]); // F32, where the data begins:
/// file.resize(64 + 8, 0); // at the next multiple of 32
/// let header = parse_gguf(&file, file.len() as u64)?;
/// assert_eq!((header.tensors[0].offset, header.tensors[0].bytes), (64, 8));
/// # Ok::<(), plimsoll_cache::model::GgufFault>(())
/// ```
///
/// # Errors
/// A [`GgufFault`] if it is not the header of such a file, or reaches beyond `start`. Takes no more
/// memory than a small multiple of the tensors' part of the header.
pub fn parse_gguf(start: &[u8], file_bytes: u64) -> Result<GgufHeader, GgufFault> {
    let header = parse(start, file_bytes).map_err(|stop| match stop {
        Stop::Fault(fault) => fault,
        Stop::Read(never) => match never {},
    })?;
    once(&header.tensors)?;
    Ok(header)
}

/// Reads the header of an open file, in which names may occur twice.
fn read_header(path: &Path, file: &File, identity: &FileIdentity) -> Result<GgufHeader, OpenError> {
    parse(file, identity.size).map_err(|stop| match stop {
        Stop::Fault(fault) => OpenError::gguf(path, fault),
        Stop::Read(source) => OpenError::io(path, "read its header", source),
    })
}

impl Source for [u8] {
    type Error = Infallible;

    fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize, Infallible> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..));
        let rest = rest.unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
}

impl Source for File {
    type Error = io::Error;

    fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize, io::Error> {
        loop {
            match FileExt::read_at(self, into, at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}
