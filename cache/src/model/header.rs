//! The header of a safetensors file, as a pure function over its bytes.
//!
//! A file is eight bytes that give the header's length (little endian), the header, and the data.
//! The header is a JSON object from tensor names to `{dtype, shape, data_offsets}`, offsets counted
//! from the start of the data, with an optional `__metadata__` of strings. The rules are those of
//! the safetensors crate 0.8 (`SafeTensors::read_metadata`): at most 100 MB of header, tensors that
//! cover the data without gap or overlap, sizes that match. Whatever is accepted here, that crate
//! accepts too, with the same ranges. Beyond it are refused: names that occur twice (there, the
//! last wins), more than 64 dimensions, and a header that does not begin with `{`, which the
//! format forbids but that crate lets pass.

use super::header_fault::HeaderFault;
use super::header_json;
use super::names::{NameIndex, Named, Twice};
use super::tensor::{Dtype, SizeFault, TensorInfo, packed_bytes};

/// The longest header that is read, in bytes: the limit of the safetensors crate
/// (`MAX_HEADER_SIZE`).
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The most dimensions a tensor may have: those of NumPy 2 (`NPY_MAXDIMS`), more than any runtime
/// for weights takes.
pub const MAX_DIMENSIONS: usize = 64;

/// The bytes before the header, that give its length.
pub(super) const PREFIX: u64 = 8;

/// A header that was read and found consistent with the length of its file.
pub struct Header {
    /// The tensors in the order of their bytes in the file, with `file` 0.
    pub tensors: Vec<TensorInfo>,
    /// Where the data begins, counted from the start of the file.
    pub data_offset: u64,
    pub(super) names: NameIndex,
}

/// The length of the header that `start`, the first bytes of a file of `file_bytes`, announces.
///
/// # Errors
/// A [`HeaderFault`] if no such header can be in such a file. Nothing is allocated.
pub fn header_length(start: &[u8], file_bytes: u64) -> Result<usize, HeaderFault> {
    if file_bytes == 0 {
        return Err(HeaderFault::Empty);
    }
    let Some(&prefix) = start.first_chunk::<{ PREFIX as usize }>() else {
        return Err(HeaderFault::TooShort { file_bytes });
    };
    let claimed = u64::from_le_bytes(prefix);
    let beyond = claimed > file_bytes.saturating_sub(PREFIX);
    if (beyond || claimed > MAX_HEADER_BYTES)
        && let Some((kind, remedy)) = other_kind(start)
    {
        return Err(HeaderFault::OtherKind {
            kind,
            remedy,
            file_bytes,
        });
    }
    if claimed > MAX_HEADER_BYTES {
        return Err(HeaderFault::HeaderTooLarge {
            claimed,
            file_bytes,
        });
    }
    if beyond {
        return Err(HeaderFault::HeaderBeyondFile {
            claimed,
            file_bytes,
        });
    }
    match start.get(PREFIX as usize) {
        Some(&first) if claimed > 0 && first != b'{' => {
            Err(HeaderFault::NotObject { first, claimed })
        }
        _ => Ok(claimed as usize),
    }
}

/// What is often saved under the name of a safetensors file, told by its first bytes.
fn other_kind(start: &[u8]) -> Option<(&'static str, &'static str)> {
    let begins =
        |with: &[u8]| start.len() >= with.len() && start[..with.len()].eq_ignore_ascii_case(with);
    if begins(b"version https://git-lfs") {
        Some((
            "a Git LFS pointer",
            "run `git lfs pull` to get the file it stands for",
        ))
    } else if begins(b"<!doctype") || begins(b"<html") {
        Some((
            "a web page",
            "download it again, signed in if the site asks for that",
        ))
    } else if begins(b"PK\x03\x04") {
        Some(("a zip or PyTorch file", "convert it to safetensors"))
    } else if begins(b"GGUF") {
        Some(("a GGUF file", "convert it to safetensors"))
    } else {
        None
    }
}

/// Reads `header`, the bytes between the length and the data of a file of `file_bytes` in all.
///
/// ```
/// use plimsoll_cache::model::parse_header;
/// let json = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
/// let header = parse_header(json, 8 + json.len() as u64 + 8)?;
/// assert_eq!(header.tensors[0].offset, 8 + json.len() as u64);
/// # Ok::<(), plimsoll_cache::model::HeaderFault>(())
/// ```
///
/// # Errors
/// A [`HeaderFault`] if it is not a header of such a file. Takes no more memory than a small
/// multiple of the header's own.
pub fn parse_header(header: &[u8], file_bytes: u64) -> Result<Header, HeaderFault> {
    let claimed = header.len() as u64;
    let data_offset = PREFIX.saturating_add(claimed);
    if claimed > MAX_HEADER_BYTES {
        return Err(HeaderFault::HeaderTooLarge {
            claimed,
            file_bytes,
        });
    }
    let Some(data_bytes) = file_bytes.checked_sub(data_offset) else {
        return Err(HeaderFault::HeaderBeyondFile {
            claimed,
            file_bytes,
        });
    };
    if let Some(&first) = header.first()
        && first != b'{'
    {
        return Err(HeaderFault::NotObject { first, claimed });
    }
    let text = str::from_utf8(header).map_err(|fault| HeaderFault::NotUtf8 {
        at: fault.valid_up_to(),
        claimed: header.len(),
    })?;
    let mut entries = header_json::read(text)?;
    // Stable: tensors without bytes stay in the order of the header.
    entries.sort_by_key(|entry| (entry.begin, entry.end));
    // Before the ranges, which cannot all be right where a name occurs twice.
    let names = NameIndex::new(&entries).map_err(|Twice(first, _)| HeaderFault::DuplicateName {
        tensor: entries[first].name.clone(),
    })?;
    Ok(Header {
        tensors: place(entries, data_offset, data_bytes)?,
        data_offset,
        names,
    })
}

/// One entry of the table as the header gives it, not yet checked.
pub(super) struct Entry {
    pub(super) name: Box<str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Box<[usize]>,
    pub(super) begin: u64,
    pub(super) end: u64,
}

impl Named for Entry {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Checks that the sorted entries cover the data exactly.
fn place(
    entries: Vec<Entry>,
    data_offset: u64,
    data_bytes: u64,
) -> Result<Vec<TensorInfo>, HeaderFault> {
    let mut tensors: Vec<TensorInfo> = Vec::with_capacity(entries.len());
    let mut covered = 0;
    for Entry {
        name,
        dtype,
        shape,
        begin,
        end,
    } in entries
    {
        if end < begin {
            return Err(HeaderFault::Reversed {
                tensor: name,
                begin,
                end,
            });
        }
        if begin > covered {
            return Err(HeaderFault::Gap {
                tensor: name,
                begin,
                end: covered,
            });
        }
        if begin < covered {
            let other = tensors
                .last()
                .map_or_else(Box::default, |other| other.name.clone());
            return Err(HeaderFault::Overlap {
                tensor: name,
                begin,
                other,
                end: covered,
            });
        }
        match packed_bytes(dtype, &shape) {
            Err(SizeFault::Overflow) => {
                return Err(HeaderFault::SizeOverflow {
                    tensor: name,
                    dtype,
                    shape,
                });
            }
            Err(SizeFault::PartOfByte { bits }) => {
                return Err(HeaderFault::PartOfByte {
                    tensor: name,
                    dtype,
                    shape,
                    bits,
                });
            }
            Ok(needs) if needs != end - begin => {
                let has = end - begin;
                return Err(HeaderFault::SizeMismatch {
                    tensor: name,
                    dtype,
                    shape,
                    needs,
                    has,
                });
            }
            Ok(_) => {}
        }
        if end > data_bytes {
            return Err(HeaderFault::OutsideFile {
                tensor: name,
                end,
                data_bytes,
            });
        }
        covered = end;
        tensors.push(TensorInfo {
            name,
            dtype,
            shape,
            file: 0,
            offset: data_offset + begin,
            bytes: end - begin,
        });
    }
    if covered < data_bytes {
        return Err(HeaderFault::TrailingBytes {
            end: covered,
            data_bytes,
        });
    }
    Ok(tensors)
}
