//! Models of every shape, and what their files say that they hold.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{CpuStorage, Device as Candle, Storage as CandleStorage, Tensor, WithDType};
use plimsoll_cache::device::DeviceWeights;
use plimsoll_cache::{Error, Model};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::support::content;

/// A tensor to be: its name, type and shape.
pub type Tensors<'a> = &'a [(&'a str, Dtype, &'a [usize])];

pub const EVERY_TYPE: [Dtype; 22] = [
    Dtype::BOOL,
    Dtype::F4,
    Dtype::F6_E2M3,
    Dtype::F6_E3M2,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::C64,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
];

/// Writes a file of these tensors, and opens it.
pub fn model(folder: &Path, name: &str, tensors: Tensors<'_>) -> Model {
    let path = folder.join(format!("{name}.safetensors"));
    write(&path, name, tensors);
    Model::open(path).unwrap()
}

fn write(path: &Path, seed: &str, tensors: Tensors<'_>) {
    let data: BTreeMap<&str, Vec<u8>> = tensors
        .iter()
        .zip(0..)
        .map(|((name, dtype, shape), number)| {
            let bits = shape.iter().product::<usize>() * dtype.bitsize();
            (*name, content(seed, number, bits / 8))
        })
        .collect();
    let views = tensors.iter().map(|(name, dtype, shape)| {
        let view = TensorView::new(*dtype, shape.to_vec(), &data[name]).unwrap();
        ((*name).to_owned(), view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// One model in two files, with an index.
pub fn sharded(folder: &Path) -> Model {
    let shards: [(&str, Tensors<'_>); 2] = [
        (
            "one.safetensors",
            &[("a", Dtype::F32, &[100, 301]), ("b", Dtype::U8, &[777])],
        ),
        (
            "two.safetensors",
            &[("c", Dtype::BF16, &[50_001]), ("d", Dtype::I64, &[3])],
        ),
    ];
    let mut map = serde_json::Map::new();
    for (file, tensors) in shards {
        write(&folder.join(file), file, tensors);
        map.extend(tensors.iter().map(|one| (one.0.to_owned(), file.into())));
    }
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    let path = folder.join("whole.safetensors.index.json");
    std::fs::write(&path, index.to_string()).unwrap();
    Model::open(path).unwrap()
}

/// What the files hold, tensor by tensor.
pub fn in_files(model: &Model) -> Vec<Vec<u8>> {
    let files: Vec<Vec<u8>> = model
        .files()
        .iter()
        .map(|file| std::fs::read(&file.path).unwrap())
        .collect();
    let tensors = model.tensors().iter();
    tensors
        .map(|tensor| {
            let begin = tensor.offset as usize;
            files[tensor.file as usize][begin..begin + tensor.bytes as usize].to_vec()
        })
        .collect()
}

/// Whether weights are what the files hold: as bytes, and as candle tensors.
#[track_caller]
pub fn same_as_in_files(weights: &dyn DeviceWeights, model: &Model) {
    for (index, wanted) in in_files(model).iter().enumerate() {
        let tensor = &model.tensors()[index];
        let is = |bytes: &[u8]| bytes == &wanted[..];
        assert!(is(&weights.bytes(index).unwrap()), "{tensor:?}");
        match weights.tensor(index) {
            Ok(found) => {
                assert_eq!(found.dims(), &tensor.shape[..]);
                assert!(is(&on_the_cpu(&found)), "as a tensor: {tensor:?}");
            }
            Err(error) => {
                let unknown = tensor.dtype.candle().is_none();
                let said = matches!(error, Error::NotATensor { .. });
                assert!(unknown && said, "{tensor:?}: {error}");
            }
        }
        assert!(is(&weights.bytes(index).unwrap()), "afterwards: {tensor:?}");
    }
}

/// The bytes of a tensor, brought to the CPU.
pub fn on_the_cpu(tensor: &Tensor) -> Vec<u8> {
    #[cfg(feature = "cuda")]
    if let Some(bytes) = packed_on_cuda(tensor) {
        return bytes;
    }
    let tensor = tensor.to_device(&Candle::Cpu).unwrap();
    let (storage, layout) = tensor.storage_and_layout();
    // candle brings all that a tensor is a view of.
    let (begin, end) = layout.contiguous_offsets().unwrap();
    let CandleStorage::Cpu(storage) = &*storage else {
        panic!("it is not on the CPU");
    };
    match storage {
        CpuStorage::U8(values) => values[begin..end].to_vec(),
        CpuStorage::U32(values) => bytes_of(&values[begin..end]),
        CpuStorage::I16(values) => bytes_of(&values[begin..end]),
        CpuStorage::I32(values) => bytes_of(&values[begin..end]),
        CpuStorage::I64(values) => bytes_of(&values[begin..end]),
        CpuStorage::BF16(values) => bytes_of(&values[begin..end]),
        CpuStorage::F16(values) => bytes_of(&values[begin..end]),
        CpuStorage::F32(values) => bytes_of(&values[begin..end]),
        CpuStorage::F64(values) => bytes_of(&values[begin..end]),
        CpuStorage::F8E4M3(values) => bytes_of(&values[begin..end]),
        CpuStorage::F6E2M3(bytes)
        | CpuStorage::F6E3M2(bytes)
        | CpuStorage::F4(bytes)
        | CpuStorage::F8E8M0(bytes) => {
            assert_eq!(begin, 0, "of its own");
            bytes.clone()
        }
    }
}

/// The bytes of types that candle itself brings to no CPU from a CUDA device.
#[cfg(feature = "cuda")]
fn packed_on_cuda(tensor: &Tensor) -> Option<Vec<u8>> {
    use candle_core::cuda_backend::CudaStorageSlice;

    let (storage, layout) = tensor.storage_and_layout();
    let CandleStorage::Cuda(storage) = &*storage else {
        return None;
    };
    let (CudaStorageSlice::F4(bytes)
    | CudaStorageSlice::F6E2M3(bytes)
    | CudaStorageSlice::F6E3M2(bytes)
    | CudaStorageSlice::F8E8M0(bytes)) = &storage.slice
    else {
        return None;
    };
    assert_eq!(layout.start_offset(), 0, "of its own");
    Some(bytes.stream().clone_dtoh(bytes).unwrap())
}

fn bytes_of<T: WithDType>(values: &[T]) -> Vec<u8> {
    // SAFETY: numbers have no padding, so all of their bytes are initialised.
    let bytes =
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
    bytes.to_vec()
}
