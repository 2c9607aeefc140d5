//! What a user is told where there is no driver, no device or no memory.

use std::path::Path;

use plimsoll_cache::device::{Device, Load, Source};
use plimsoll_cache::driver::{Driver, DriverError};
use plimsoll_cache::observe::Unobserved;
use plimsoll_cache::{LoadError, Model};

use crate::driver::Simulated;
use crate::support::{Folder, MIB};

#[test]
fn a_machine_without_a_driver_is_told_so() {
    let error = Driver::open(Path::new("/nowhere/libcuda.so.1")).unwrap_err();
    assert!(matches!(error, DriverError::Absent { .. }), "{error:?}");
    let told = error.to_string();
    assert!(
        told.starts_with("no NVIDIA driver: /nowhere/libcuda.so.1"),
        "{told}"
    );
}

#[test]
fn a_library_that_lacks_functions_is_a_driver_that_is_too_old() {
    // The C library is one that can be opened everywhere.
    let error = Driver::open(Path::new("libc.so.6")).unwrap_err();
    let DriverError::TooOld { version, lacks } = &error else {
        panic!("{error:?}");
    };
    assert_eq!((*version, &lacks[..]), (None, "cuInit"));
    assert!(error.to_string().contains("CUDA 11.2"), "{error}");
}

#[test]
fn a_device_that_does_not_exist_is_told_with_how_many_there_are() {
    let driver = Simulated::new();
    let library = std::sync::Arc::new(crate::driver::ReadBack::of(&driver));
    // SAFETY: the stream that all share is always there.
    let made = unsafe { plimsoll_cache::device::Cuda::with(&driver.driver().unwrap(), 3, library) };
    let error = made.unwrap_err();
    assert_eq!(
        error,
        DriverError::NoDevice {
            ordinal: 3,
            devices: 1
        }
    );
    assert!(
        error
            .to_string()
            .contains("no device cuda:3: the driver shows 1"),
        "{error}"
    );
}

#[test]
fn a_device_that_another_process_has_for_itself_is_told_as_that() {
    let driver = Simulated::new();
    driver.refuse("cuDevicePrimaryCtxRetain", 46);
    let told = driver.device(MIB).unwrap_err().to_string();
    assert!(
        told.contains("cuDevicePrimaryCtxRetain: CUDA_ERROR_DEVICE_UNAVAILABLE"),
        "{told}"
    );
    assert!(
        told.contains("another process has the device for itself"),
        "{told}"
    );
}

#[test]
fn a_device_without_memory_pools_is_named() {
    let driver = Simulated::new();
    driver.without_pools();
    let told = driver.device(MIB).unwrap_err().to_string();
    assert_eq!(told, "cuda:0 (Simulated GPU) has no memory pools");
}

fn refused(device: &dyn Device, model: &Model) -> LoadError {
    let load = Load {
        model,
        source: Source::Files { staging: MIB },
        observer: &Unobserved,
    };
    device.load(&load).unwrap_err()
}

#[test]
fn memory_that_another_process_took_meanwhile_is_told_in_the_drivers_words() {
    let folder = Folder::new();
    let model = folder.model("m", 8 * MIB);
    let driver = Simulated::new();
    let device = driver.device(64 * MIB).unwrap();
    let charge = device.charge(&model);
    driver.elsewhere(1024 * MIB - 8 * MIB);
    let error = refused(&device, &model);
    let LoadError::OutOfMemory {
        asked,
        free,
        total,
        reason,
        injected,
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!((*asked, *total, *injected), (charge, 64 * MIB, false));
    assert!(*free < charge);
    let reason = reason.as_ref().unwrap();
    assert!(
        reason.contains("cuMemAllocFromPoolAsync: CUDA_ERROR_OUT_OF_MEMORY"),
        "{reason}"
    );
    // What could be had at that moment was tried.
    let largest = device.figures().unwrap().largest_block.bytes().unwrap();
    assert!(largest > 0 && largest <= *free, "{largest} of {free}");
}

#[test]
fn weights_pass_through_plain_memory_where_no_pages_can_be_locked() {
    let folder = Folder::new();
    let model = folder.model("m", 12 * MIB);
    let driver = Simulated::new();
    driver.refuse("cuMemHostRegister_v2", 2);
    let device = driver.device(64 * MIB).unwrap();
    let weights = device
        .load(&Load {
            model: &model,
            source: Source::Files { staging: 64 * MIB },
            observer: &Unobserved,
        })
        .unwrap();
    let file = std::fs::read(model.path()).unwrap();
    for (index, tensor) in model.tensors().iter().enumerate() {
        let at = tensor.offset as usize;
        assert!(*weights.bytes(index).unwrap() == file[at..at + tensor.bytes as usize]);
    }
    assert_eq!(device.figures().unwrap().staging.bytes(), Some(0));
}
