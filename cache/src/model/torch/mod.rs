//! PyTorch checkpoints: the zip file with a pickle that `torch.save` has written since version 1.6.
//!
//! The pickle says which tensors there are, and entries of the zip file hold their storages, plain
//! and aligned to 64 bytes, so that every tensor is a range of the file like those of safetensors.
//! Nothing of the pickle is run, see `pickle.rs`; a file that asks for anything but tensors is
//! refused, though it could be read without harm, because the next program to load it may run it.
//!
//! The tensors are those of the outermost table or, if that has none, of the only table in it that
//! has. Two that lie in the very same bytes are tied. Views of one storage that overlap otherwise
//! are each read apart, and count apart. Transposed tensors are refused.
//!
//! | file | what it has |
//! |---|---|
//! | `archive.rs`, `directory.rs` | the zip file, and its directory |
//! | `pickle.rs`, `machine.rs` | the pickle's instructions, and what they do |
//! | `globals.rs`, `values.rs` | what a pickle may ask for, and what it makes |
//! | `table.rs` | from values to tensors |
//! | `fault.rs` | what can be wrong |

mod archive;
mod directory;
mod fault;
mod globals;
mod machine;
mod pickle;
mod table;
mod values;

use std::fs::File;
use std::path::Path;

use super::error::OpenError;
use super::header::{Header, other_kind};
use archive::{Archive, Opened};
use pickle::{MAX_PICKLE_BYTES, PROTOCOL};

pub use fault::TorchFault;
pub(super) use table::tie;

/// The longest `byteorder` entry that is read.
const LONGEST_ORDER: u64 = 16;

/// Whether a file has the extension of a PyTorch checkpoint.
pub(super) fn is_named(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        let known = ["bin", "ckpt", "pt", "pth"];
        known
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// Whether a file that begins with `start` is a zip file. The length of a safetensors header may be
/// the same four bytes, but then that follows, in place of a method of compression.
pub(super) fn is_zip(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") && start.get(8) != Some(&b'{')
}

/// What is wrong with a file that has the name of a checkpoint, and begins with `start`, which is
/// not how zip files begin.
pub(super) fn not_zip(start: &[u8], file_bytes: u64) -> TorchFault {
    // Before 1.6 `torch.save` wrote pickles one behind another, before 0.1.2 a tar file of them.
    let is_pickle = matches!(start, [0x80, 2..=PROTOCOL, ..]);
    if is_pickle || start.get(257..262) == Some(b"ustar") {
        TorchFault::Legacy { file_bytes }
    } else {
        let kind = other_kind(start);
        TorchFault::NotZip { kind, file_bytes }
    }
}

/// Reads the table of tensors in the open zip file at `path`, and nothing of the weights.
pub(super) fn read(path: &Path, file: &File, file_bytes: u64) -> Result<Header, OpenError> {
    let file = Opened {
        path,
        file,
        bytes: file_bytes,
    };
    let archive = Archive::read(&file)?;
    let folder = folder(&archive).map_err(|fault| file.refuse(fault))?;
    if let Some(order) = archive.entry(&format!("{folder}/byteorder")) {
        let text = file.range(order.begin, order.bytes.min(LONGEST_ORDER))?;
        if text != b"little" {
            let order = String::from_utf8_lossy(&text).into();
            return Err(file.refuse(TorchFault::ByteOrder { order }));
        }
    }
    // `folder` looked for it.
    let bytes = match archive.entry(&format!("{folder}/data.pkl")) {
        Some(entry) if entry.bytes <= MAX_PICKLE_BYTES => file.range(entry.begin, entry.bytes)?,
        entry => {
            let bytes = entry.map_or(0, |entry| entry.bytes);
            return Err(file.refuse(TorchFault::PickleTooLarge { bytes }));
        }
    };
    let found = pickle::read(&bytes).and_then(|values| table::tensors(&values, &archive, folder));
    let (tensors, metadata) = found.map_err(|fault| file.refuse(fault))?;
    Ok(Header {
        data_offset: tensors.first().map_or(0, |tensor| tensor.offset),
        tensors,
        metadata,
    })
}

/// The folder in the archive that everything is in. It has the name that the file had when it was
/// saved, or `archive`.
fn folder(archive: &Archive) -> Result<&str, TorchFault> {
    let entries = || archive.entries.iter().map(|entry| &*entry.name);
    let pickles = || {
        let folders = entries().filter_map(|name| name.strip_suffix("/data.pkl"));
        folders.filter(|folder| !folder.contains('/'))
    };
    let (Some(folder), 1) = (pickles().next(), pickles().count()) else {
        return Err(TorchFault::NotTorch {
            entries: archive.entries.len(),
            pickles: pickles().count(),
        });
    };
    let is_program = |name: &&str| {
        let below = name
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix('/'));
        below.is_some_and(|below| below == "constants.pkl" || below.starts_with("code/"))
    };
    match entries().find(is_program) {
        Some(entry) => Err(TorchFault::TorchScript {
            entry: entry.into(),
        }),
        None => Ok(folder),
    }
}
