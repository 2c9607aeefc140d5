//! Where the tensors of a GGUF file lie in it.

use super::fault::GgufFault;
use crate::model::tensor::TensorInfo;

/// Puts tensors, whose offsets count from the start of the data, in the order of their bytes, and
/// counts their offsets from the start of the file. Those that share all of their bytes are tied.
pub(super) fn place(
    tensors: &mut [TensorInfo],
    data_offset: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<(), GgufFault> {
    // Stable: tied tensors stay in the order of the header.
    tensors.sort_by_key(|tensor| (tensor.offset, tensor.bytes));
    // The last one with bytes of its own.
    let mut last: Option<usize> = None;
    for index in 0..tensors.len() {
        let tensor = &tensors[index];
        let (offset, bytes) = (tensor.offset, tensor.bytes);
        if !offset.is_multiple_of(alignment) {
            return Err(GgufFault::Misaligned {
                tensor: tensor.name.clone(),
                offset,
                alignment,
            });
        }
        let end = offset.checked_add(bytes).filter(|end| {
            data_offset
                .checked_add(*end)
                .is_some_and(|end| end <= file_bytes)
        });
        if end.is_none() {
            return Err(GgufFault::OutsideFile {
                tensor: tensor.name.clone(),
                offset,
                bytes,
                data_offset,
                file_bytes,
            });
        }
        if bytes == 0 {
            continue;
        }
        if let Some(before) = last {
            let other = &tensors[before];
            // No sum overflows that was looked at above.
            let end = other.offset + other.bytes;
            if (offset, bytes, tensor.dtype) == (other.offset, other.bytes, other.dtype) {
                tensors[index].tied_to = Some(before as u32);
                continue;
            }
            if offset < end {
                return Err(GgufFault::Overlap {
                    tensor: tensor.name.clone(),
                    offset,
                    other: other.name.clone(),
                    end,
                });
            }
        }
        last = Some(index);
    }
    for tensor in tensors {
        tensor.offset += data_offset;
    }
    Ok(())
}
