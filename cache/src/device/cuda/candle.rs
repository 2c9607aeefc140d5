//! candle's CUDA device as the tensor library.

use std::any::Any;
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream};
use candle_core::op::BackpropOp;
use candle_core::quantized::cuda::QCudaStorage;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{CudaDevice, CudaStorage, DType, Device, DeviceLocation, Storage, Tensor};

use super::{Block, Cuda, Elements, Tensors};
use crate::driver::{Context, Driver, DriverError, RawStream};
use crate::model::{Dtype, TensorInfo};

/// The handle that means another stream on every thread.
const PER_THREAD: usize = 2;

/// candle pads quantised tensors by what its kernels may read beyond their end: so many elements
/// (`MATRIX_ROW_PADDING` in `candle_core::quantized::cuda`, 0.11).
const PADDING: usize = 512;

impl Cuda {
    /// The device of this number, as a new candle device with a stream of its own.
    ///
    /// # Errors
    /// There is no driver or no such device, another process has it for itself, or the driver's
    /// answer.
    pub fn new(ordinal: u32) -> Result<Cuda, DriverError> {
        // candle takes part in the same context, but its words for a refusal say less.
        let _context = Context::of(&Driver::installed()?, ordinal)?;
        let device = caught(|| Device::new_cuda_with_stream(ordinal as usize))
            .map_err(|reason| DriverError::Library { reason })?;
        Cuda::on(&device)
    }

    /// The device that a candle device is on. Its tensors belong to that very one: candle lets no
    /// others meet them.
    ///
    /// # Errors
    /// It is no CUDA device, or was made by [`Device::new_cuda`], whose stream is another on every
    /// thread, so that nothing tells when tensors are no longer used; or the driver's answer.
    pub fn on(device: &Device) -> Result<Cuda, DriverError> {
        let refused = |reason: &str| DriverError::Library {
            reason: reason.to_owned(),
        };
        let DeviceLocation::Cuda { gpu_id } = device.location() else {
            return Err(refused("it is no CUDA device"));
        };
        let cuda = device
            .as_cuda_device()
            .map_err(|error| refused(&words(&error)))?;
        let library = Candle {
            device: ManuallyDrop::new(cuda.clone()),
            stream: cuda.cuda_stream(),
        };
        if library.stream().0 == PER_THREAD {
            return Err(refused(
                "it was made by Device::new_cuda, whose stream is another on every thread: make it \
                 by Device::new_cuda_with_stream",
            ));
        }
        let ordinal = u32::try_from(gpu_id).unwrap_or(u32::MAX);
        let driver = Driver::installed()?;
        // SAFETY: candle's stream is of the primary context, and lives as long as `library`.
        unsafe { Cuda::with(&driver, ordinal, Arc::new(library)) }
    }

    /// candle's device, whose tensors leases give out; `None` with another tensor library.
    #[must_use]
    pub fn candle(&self) -> Option<Device> {
        let library: &dyn Any = self.inner.library.as_any();
        let candle = library.downcast_ref::<Candle>()?;
        Some(Device::Cuda(CudaDevice::clone(&candle.device)))
    }
}

/// candle's CUDA device.
struct Candle {
    device: ManuallyDrop<CudaDevice>,
    stream: Arc<CudaStream>,
}

impl fmt::Debug for Candle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Candle").field(&*self.device).finish()
    }
}

/// candle's words, without the backtrace that comes with them where backtraces are on.
fn words(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => words(inner),
        error => error.to_string(),
    }
}

/// What candle or what it stands on says, where it does not answer but panics too.
fn caught<T>(make: impl FnOnce() -> candle_core::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(make)) {
        Ok(made) => made.map_err(|error| words(&error)),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(said.unwrap_or("it panicked").to_owned())
        }
    }
}

impl Drop for Candle {
    fn drop(&mut self) {
        // SAFETY: this is the last use of it.
        let device = unsafe { ManuallyDrop::take(&mut self.device) };
        // Whoever drops the last handle of a device ends what it has of cuBLAS and cuRAND, which
        // panics where one is refused and ends the process where both are. So a device that no longer
        // answers is never ended here. Where tensors outlive this, and it is lost then, nothing can be
        // caught.
        // Asked twice: the first answer may be what an earlier drop was refused.
        if self.stream.synchronize().is_err() && self.stream.synchronize().is_err() {
            std::mem::forget(device);
            return;
        }
        // One after the other, should it be lost now.
        let blas = device.cublas_handle();
        let ended = caught(|| {
            drop(device);
            Ok(())
        });
        let ended = ended.and(caught(|| {
            drop(blas);
            Ok(())
        }));
        if let Err(reason) = ended {
            tracing::warn!(%reason, "candle's device could not be ended");
        }
    }
}

impl Candle {
    /// A handle of the stream that only one block has: it lives as long as the block's memory does,
    /// which nothing else tells.
    fn own_stream(&self) -> Arc<CudaStream> {
        let handle = self.stream.cu_stream();
        // SAFETY: the same stream, of the same context. Blocks hold the device, which holds the
        // stream; all is done in that one stream's order.
        unsafe { self.stream.context().wrap_borrowed_stream(handle) }
    }
}

// SAFETY: the stream lives as long as this, and blocks free what they were given once, in its order.
unsafe impl Tensors for Candle {
    fn stream(&self) -> RawStream {
        RawStream(self.stream.cu_stream() as usize)
    }

    fn has(&self, dtype: Dtype) -> bool {
        dtype.candle().is_some() || dtype.quantised().is_some()
    }

    unsafe fn take(&self, address: u64, elements: Elements) -> Result<Box<dyn Block>, String> {
        let stream = self.own_stream();
        let life = Arc::downgrade(&stream);
        // Where nothing is made of it, the memory is not to be freed: it is the caller's again.
        let slice = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the caller's promise.
            unsafe { slice(&stream, address, elements) }
        }))
        .map_err(|_| "candle's driver layer panicked: the device may be lost".to_owned())?;
        let storage = Storage::Cuda(CudaStorage {
            slice,
            device: CudaDevice::clone(&self.device),
        });
        Ok(Box::new(Plain {
            address,
            life,
            tensor: Tensor::from_storage(storage, elements.count, BackpropOp::none(), false),
        }))
    }

    fn make_quantised(&self, tensor: &TensorInfo) -> Option<Result<Box<dyn Block>, String>> {
        let dtype = tensor.dtype.quantised()?;
        let made = caught(|| {
            let elements = tensor.elements() as usize;
            let storage = QCudaStorage::zeros(&self.device, elements, dtype)?;
            let address = storage.device_ptr()? as u64;
            let tensor = QTensor::new(QStorage::Cuda(storage), &tensor.shape[..])?;
            Ok(Box::new(Quantised {
                address,
                tensor: Arc::new(tensor),
            }) as Box<dyn Block>)
        });
        Some(made)
    }

    fn quantised_bytes(&self, tensor: &TensorInfo) -> Option<u64> {
        let dtype: GgmlDType = tensor.dtype.quantised()?;
        let elements = tensor.elements().saturating_add(PADDING as u64);
        let blocks = elements.div_ceil(dtype.block_size() as u64);
        Some(blocks.saturating_mul(dtype.type_size() as u64))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// # Safety
/// `address` is memory of so many elements, the stream's to free.
unsafe fn slice(stream: &Arc<CudaStream>, address: u64, elements: Elements) -> CudaStorageSlice {
    /// # Safety
    /// As of `slice`.
    unsafe fn of<T>(stream: &Arc<CudaStream>, address: u64, count: usize) -> CudaSlice<T> {
        // SAFETY: the caller's promise; any bytes are numbers.
        unsafe { stream.upgrade_device_ptr(address, count) }
    }
    let Elements {
        dtype,
        count,
        bytes,
    } = elements;
    // SAFETY: the caller's promise, for each.
    unsafe {
        match dtype.candle() {
            Some(DType::U32) => CudaStorageSlice::U32(of(stream, address, count)),
            Some(DType::I16) => CudaStorageSlice::I16(of(stream, address, count)),
            Some(DType::I32) => CudaStorageSlice::I32(of(stream, address, count)),
            Some(DType::I64) => CudaStorageSlice::I64(of(stream, address, count)),
            Some(DType::BF16) => CudaStorageSlice::BF16(of(stream, address, count)),
            Some(DType::F16) => CudaStorageSlice::F16(of(stream, address, count)),
            Some(DType::F32) => CudaStorageSlice::F32(of(stream, address, count)),
            Some(DType::F64) => CudaStorageSlice::F64(of(stream, address, count)),
            Some(DType::F8E4M3) => CudaStorageSlice::F8E4M3(of(stream, address, count)),
            Some(DType::F6E2M3) => CudaStorageSlice::F6E2M3(of(stream, address, bytes)),
            Some(DType::F6E3M2) => CudaStorageSlice::F6E3M2(of(stream, address, bytes)),
            Some(DType::F4) => CudaStorageSlice::F4(of(stream, address, bytes)),
            Some(DType::F8E8M0) => CudaStorageSlice::F8E8M0(of(stream, address, bytes)),
            // What candle has no type for is bytes, which nobody is given a tensor over.
            _ => CudaStorageSlice::U8(of(stream, address, bytes)),
        }
    }
}

/// Memory in the cache's pool.
#[derive(Debug)]
struct Plain {
    address: u64,
    life: Weak<CudaStream>,
    /// All of them, of which others are views.
    tensor: Tensor,
}

// SAFETY: the address is that of the memory that this owns, and `life` is a part of what owns it.
unsafe impl Block for Plain {
    fn address(&self) -> u64 {
        self.address
    }

    fn tensor(&self, first: usize, tensor: &TensorInfo) -> Result<Tensor, String> {
        let elements = tensor.elements() as usize;
        self.tensor
            .narrow(0, first, elements)
            .and_then(|part| part.reshape(&tensor.shape[..]))
            .map_err(|error| words(&error))
    }

    fn life(&self) -> Weak<dyn Any + Send + Sync> {
        let life: Weak<CudaStream> = Weak::clone(&self.life);
        life
    }
}

/// A quantised tensor in memory of candle's.
#[derive(Debug)]
struct Quantised {
    address: u64,
    tensor: Arc<QTensor>,
}

// SAFETY: the address is that of the memory that this owns, and `life` is a part of what owns it.
unsafe impl Block for Quantised {
    fn address(&self) -> u64 {
        self.address
    }

    fn tensor(&self, _first: usize, _tensor: &TensorInfo) -> Result<Tensor, String> {
        Err("it is quantised: ask for it with `quantised`".to_owned())
    }

    fn quantised(&self, tensor: &TensorInfo) -> Result<Option<Arc<QTensor>>, String> {
        if self.tensor.shape().dims() == &*tensor.shape {
            return Ok(Some(Arc::clone(&self.tensor)));
        }
        Err("it is tied to a tensor of another shape".to_owned())
    }

    fn life(&self) -> Weak<dyn Any + Send + Sync> {
        let life: Weak<QTensor> = Arc::downgrade(&self.tensor);
        life
    }
}
