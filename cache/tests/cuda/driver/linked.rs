//! What candle calls beside what the cache does, in libraries that it links: the driver's functions
//! by which it makes a device, allocates, copies, clears and frees, and those of cuBLAS and cuRAND
//! by which it gets ready. One library stands in for all of them.

use std::ffi::{c_int, c_uchar, c_uint};

use crate::{BOUND, CONTEXT, Code, DEFAULT_POOL, Driver, INVALID_CONTEXT, Op, calls, code, driver};

const NOT_READY: Code = 600;

impl Driver {
    fn is_done(&self, stream: usize) -> Option<bool> {
        self.streams.get(&stream).map(|stream| stream.queue.is_empty())
    }

    /// A handle of a library's, which has to be there.
    fn known(&mut self, handle: usize) -> Result<(), Code> {
        match self.handles.contains(&handle) {
            true => Ok(()),
            false => self.violation(),
        }
    }
}

calls! {
    code:
    cuCtxGetCurrent[false](context: *mut usize) |_driver| {
        *context = BOUND.with_borrow(|bound| bound.last().copied().unwrap_or(0));
        Ok(())
    }
    cuCtxSetCurrent[false](context: usize) |driver| {
        if context != 0 && (context != CONTEXT || driver.retained <= 0) {
            driver.violations += 1;
            return Err(INVALID_CONTEXT);
        }
        BOUND.with_borrow_mut(|bound| {
            bound.pop();
            bound.extend((context != 0).then_some(context));
        });
        Ok(())
    }
    cuCtxSynchronize[true]() |driver| {
        driver.run_all();
        Ok(())
    }
    cuDeviceGetUuid_v2[false](uuid: *mut [u8; 16], _device: c_int) |_driver| {
        *uuid = *b"Simulated GPU 00";
        Ok(())
    }
    cuDeviceTotalMem_v2[false](bytes: *mut usize, _device: c_int) |driver| {
        *bytes = driver.total as usize;
        Ok(())
    }
    cuMemAllocAsync[true](address: *mut u64, bytes: usize, stream: usize) |driver| {
        if driver.is_done(stream).is_none() {
            return driver.violation();
        }
        *address = driver.take(DEFAULT_POOL, bytes)?;
        Ok(())
    }
    cuMemsetD8Async[true](to: u64, value: c_uchar, len: usize, stream: usize) |driver| {
        if driver.memory(to, len).is_none() {
            return driver.violation();
        }
        driver.push(stream, Op::Write { to, bytes: vec![value; len] })
    }
    cuMemcpyDtoDAsync_v2[true](to: u64, from: u64, len: usize, stream: usize) |driver| {
        if driver.memory(to, len).is_none() || driver.memory(from, len).is_none() {
            return driver.violation();
        }
        driver.push(stream, Op::Within { to, from, len })
    }
    cuStreamQuery[true](stream: usize) |driver| {
        match driver.is_done(stream) {
            Some(true) => Ok(()),
            Some(false) => Err(NOT_READY),
            None => driver.violation(),
        }
    }
    cuStreamIsCapturing[true](stream: usize, status: *mut c_uint) |driver| {
        *status = 0;
        match driver.is_done(stream) {
            Some(_) => Ok(()),
            None => driver.violation(),
        }
    }
    cuEventQuery[true](event: usize) |driver| {
        let Some(point) = driver.events.get(&event).copied() else {
            return driver.violation();
        };
        let stream = driver.streams.get(&point.stream);
        match stream.is_some_and(|stream| stream.done < point.done) {
            true => Err(NOT_READY),
            false => Ok(()),
        }
    }
}

/// `CUBLAS_STATUS_INTERNAL_ERROR`.
fn of_cublas(result: Result<(), Code>) -> Code {
    if result.is_ok() { 0 } else { 14 }
}

calls! {
    of_cublas:
    cublasCreate_v2[false](handle: *mut usize) |driver| {
        *handle = driver.handle();
        driver.handles.insert(*handle);
        Ok(())
    }
    cublasSetStream_v2[false](handle: usize, stream: usize) |driver| {
        driver.known(handle)?;
        driver.is_done(stream).map(drop).map_or_else(|| driver.violation(), Ok)
    }
    cublasDestroy_v2[false](handle: usize) |driver| {
        driver.known(handle)?;
        driver.handles.remove(&handle);
        Ok(())
    }
}

/// `CURAND_STATUS_INTERNAL_ERROR`.
fn of_curand(result: Result<(), Code>) -> Code {
    if result.is_ok() { 0 } else { 999 }
}

calls! {
    of_curand:
    curandCreateGenerator[false](handle: *mut usize, _kind: c_uint) |driver| {
        *handle = driver.handle();
        driver.handles.insert(*handle);
        Ok(())
    }
    curandSetStream[false](handle: usize, stream: usize) |driver| {
        driver.known(handle)?;
        driver.is_done(stream).map(drop).map_or_else(|| driver.violation(), Ok)
    }
    curandSetPseudoRandomGeneratorSeed[false](handle: usize, _seed: u64) |driver| {
        driver.known(handle)
    }
    curandDestroyGenerator[false](handle: usize) |driver| {
        driver.known(handle)?;
        driver.handles.remove(&handle);
        Ok(())
    }
}
