//! Quantised tensors over weights: blocks of GGUF, and the numbers that candle's reader of GGUF
//! gives as such too.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K,
    BlockQ8_0, BlockQ8_1, BlockQ8K,
};
use candle_core::quantized::{GgmlDType, GgmlType, QStorage, QTensor};

use super::weights::Memory;
use crate::model::{Dtype, TensorInfo};

/// What a tensor can be as a quantised one.
///
/// # Errors
/// Why it cannot be one.
pub(super) fn quantised_type(tensor: &TensorInfo) -> Result<GgmlDType, String> {
    if tensor.shape.is_empty() {
        return Err("it has no dimensions, and quantised tensors have some".to_owned());
    }
    match tensor.dtype {
        Dtype::F32 => Ok(GgmlDType::F32),
        Dtype::F16 => Ok(GgmlDType::F16),
        Dtype::BF16 => Ok(GgmlDType::BF16),
        other => other
            .quantised()
            .ok_or_else(|| format!("candle has no quantised type {other}")),
    }
}

/// A quantised tensor over adopted memory, which it only reads.
pub(super) fn adopt(memory: &Memory, index: usize, tensor: &TensorInfo) -> Option<Arc<QTensor>> {
    match quantised_type(tensor).ok()? {
        GgmlDType::F32 => over::<f32>(memory, index, tensor),
        GgmlDType::F16 => over::<half::f16>(memory, index, tensor),
        GgmlDType::BF16 => over::<half::bf16>(memory, index, tensor),
        GgmlDType::Q4_0 => over::<BlockQ4_0>(memory, index, tensor),
        GgmlDType::Q4_1 => over::<BlockQ4_1>(memory, index, tensor),
        GgmlDType::Q5_0 => over::<BlockQ5_0>(memory, index, tensor),
        GgmlDType::Q5_1 => over::<BlockQ5_1>(memory, index, tensor),
        GgmlDType::Q8_0 => over::<BlockQ8_0>(memory, index, tensor),
        GgmlDType::Q8_1 => over::<BlockQ8_1>(memory, index, tensor),
        GgmlDType::Q2K => over::<BlockQ2K>(memory, index, tensor),
        GgmlDType::Q3K => over::<BlockQ3K>(memory, index, tensor),
        GgmlDType::Q4K => over::<BlockQ4K>(memory, index, tensor),
        GgmlDType::Q5K => over::<BlockQ5K>(memory, index, tensor),
        GgmlDType::Q6K => over::<BlockQ6K>(memory, index, tensor),
        GgmlDType::Q8K => over::<BlockQ8K>(memory, index, tensor),
    }
}

fn over<T: GgmlType + 'static>(
    memory: &Memory,
    index: usize,
    tensor: &TensorInfo,
) -> Option<Arc<QTensor>> {
    // SAFETY: called once for each tensor, under its cell's initialisation; from here on its bytes
    // are read through the resulting tensor alone. Blocks are numbers without padding, so any bytes
    // are some.
    let vector = unsafe { memory.adopt::<T>(index) }?;
    let quantised = QTensor::new(QStorage::Cpu(Box::new(vector)), &tensor.shape[..]);
    quantised.ok().map(Arc::new)
}

/// A quantised tensor with a copy of these bytes.
///
/// # Errors
/// Why there can be none.
pub(super) fn copy(bytes: &[u8], tensor: &TensorInfo) -> Result<Arc<QTensor>, String> {
    let dtype = quantised_type(tensor)?;
    let (len, alignment) = (bytes.len() as u64, tensor.dtype.alignment() as usize);
    // candle panics where it reads elements that are not aligned, or a part of one.
    if len != tensor.bytes || len > 0 && bytes.as_ptr().align_offset(alignment) != 0 {
        return Err(format!("its memory of {len} bytes does not fit it"));
    }
    let blocks = match len {
        // No bytes are aligned to nothing in particular.
        0 => dtype.cpu_zeros(0),
        _ => dtype.from_data(Cow::Borrowed(bytes)),
    };
    let storage = QStorage::Cpu(blocks);
    let quantised = QTensor::new(storage, &tensor.shape[..]);
    quantised.map(Arc::new).map_err(|error| error.to_string())
}

/// The bytes that a quantised tensor on the CPU lies in.
pub(super) fn bytes(tensor: &QTensor) -> &[u8] {
    match tensor.data() {
        Ok(Cow::Borrowed(bytes)) => bytes,
        // On the CPU it always is.
        Ok(Cow::Owned(_)) | Err(_) => &[],
    }
}
