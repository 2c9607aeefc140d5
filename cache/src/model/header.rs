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

use super::dtype::Dtype;
use super::header_fault::HeaderFault;
use super::header_json;
use super::metadata::Metadata;
use super::names::{NameIndex, Named, Twice};
use super::tensor::{SizeFault, TensorInfo, packed_bytes};

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
    /// What the file says of itself besides.
    pub metadata: Metadata,
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

/// What is often saved under the name of a model, told by its first bytes.
pub(super) fn other_kind(start: &[u8]) -> Option<(&'static str, &'static str)> {
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
    let header = parse(header, file_bytes)?;
    once(&header.tensors[..])?;
    Ok(header)
}

/// The same, but of a header that is right otherwise, names may occur twice.
pub(super) fn parse(header: &[u8], file_bytes: u64) -> Result<Header, HeaderFault> {
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
    let (mut entries, metadata) = header_json::read(text)?;
    // Stable: tensors without bytes stay in the order of the header.
    entries.sort_by_key(|entry| (entry.begin, entry.end));
    if let Err(fault) = check(&entries, data_bytes) {
        // Ranges can hardly be right where a name occurs twice, which then says more.
        once(&entries[..])?;
        return Err(fault);
    }
    let tensors = entries.into_iter().map(|entry| entry.at(data_offset));
    Ok(Header {
        tensors: tensors.collect(),
        data_offset,
        metadata,
    })
}

/// The index of names that occur once each.
pub(super) fn once<T: Named>(named: &[T]) -> Result<NameIndex, HeaderFault> {
    NameIndex::new(named).map_err(|Twice(first, _)| HeaderFault::DuplicateName {
        tensor: named[first].name().into(),
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

impl Entry {
    /// The tensor, in a file whose data begins there. Its range was checked.
    fn at(self, data_offset: u64) -> TensorInfo {
        TensorInfo {
            name: self.name,
            dtype: self.dtype,
            shape: self.shape,
            file: 0,
            offset: data_offset + self.begin,
            bytes: self.end - self.begin,
            tied_to: None,
        }
    }
}

impl Named for Entry {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Checks that the sorted entries cover the data exactly.
fn check(entries: &[Entry], data_bytes: u64) -> Result<(), HeaderFault> {
    let mut covered = 0;
    for (position, entry) in entries.iter().enumerate() {
        let Entry {
            dtype, begin, end, ..
        } = *entry;
        let (tensor, shape) = (|| entry.name.clone(), || entry.shape.clone());
        if end < begin {
            return Err(HeaderFault::Reversed {
                tensor: tensor(),
                begin,
                end,
            });
        }
        if begin > covered {
            return Err(HeaderFault::Gap {
                tensor: tensor(),
                begin,
                end: covered,
            });
        }
        if begin < covered {
            let other = position.checked_sub(1).map(|before| &entries[before]);
            return Err(HeaderFault::Overlap {
                tensor: tensor(),
                begin,
                other: other.map_or_else(Box::default, |other| other.name.clone()),
                end: covered,
            });
        }
        match packed_bytes(dtype, &entry.shape) {
            Err(SizeFault::Overflow) => {
                return Err(HeaderFault::SizeOverflow {
                    tensor: tensor(),
                    dtype,
                    shape: shape(),
                });
            }
            Err(SizeFault::PartOfByte { bits }) => {
                return Err(HeaderFault::PartOfByte {
                    tensor: tensor(),
                    dtype,
                    shape: shape(),
                    bits,
                });
            }
            Ok(needs) if needs != end - begin => {
                let has = end - begin;
                return Err(HeaderFault::SizeMismatch {
                    tensor: tensor(),
                    dtype,
                    shape: shape(),
                    needs,
                    has,
                });
            }
            Ok(_) => {}
        }
        if end > data_bytes {
            return Err(HeaderFault::OutsideFile {
                tensor: tensor(),
                end,
                data_bytes,
            });
        }
        covered = end;
    }
    if covered < data_bytes {
        return Err(HeaderFault::TrailingBytes {
            end: covered,
            data_bytes,
        });
    }
    Ok(())
}
