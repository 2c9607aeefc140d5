//! Every call of the driver fails once: typed errors, nothing left behind, and the rest goes on.

use std::sync::atomic::Ordering;

use plimsoll_cache::device::{Device, DeviceWeights, Host, Load, Source};
use plimsoll_cache::observe::Unobserved;
use plimsoll_cache::{Cache, Error, LoadError, Model, Storage};

use crate::driver::{Count, ReadBack, Simulated};
use crate::support::{Folder, MIB};

const UNKNOWN: u32 = 999;
const OUT_OF_MEMORY: u32 = 2;
const ILLEGAL_ADDRESS: u32 = 700;

/// Calls that end what others began: where one fails, that stays.
pub fn ends_something(call: &str) -> bool {
    [
        "cuDevicePrimaryCtxRelease_v2",
        "cuCtxPopCurrent_v2",
        "cuStreamDestroy_v2",
        "cuEventDestroy_v2",
        "cuMemPoolDestroy",
        "cuMemFreeAsync",
        "cuMemHostUnregister",
        "cublasDestroy_v2",
        "curandDestroyGenerator",
    ]
    .contains(&call)
}

fn load<'a>(
    device: &dyn Device,
    model: &'a Model,
    source: Source<'a>,
) -> Result<Box<dyn DeviceWeights>, LoadError> {
    device.load(&Load {
        model,
        source,
        observer: &Unobserved,
    })
}

/// Makes a device, loads a model from its files and from RAM, reads it and unloads it. Whatever is
/// refused is told; what is told as done is right.
fn all_of_it(driver: &Simulated, model: &Model, wanted: &[Vec<u8>]) -> Vec<String> {
    let mut told = Vec::new();
    let device = match driver.device(64 * MIB) {
        Ok(device) => device,
        Err(error) => return vec![error.to_string()],
    };
    let plain = Host::new(Storage::Anonymous, 64 * MIB);
    let pinned = Host::new(Storage::Pinned, 64 * MIB).with_page_locker(device.page_locker(), None);
    let [plain, pinned] =
        [plain, pinned].map(|ram| load(&ram, model, Source::Files { staging: 0 }).unwrap());
    if let Some(reason) = pinned.degraded() {
        told.push(reason.to_owned());
    }
    let sources = [
        Source::Files { staging: MIB },
        Source::Ram(&*plain),
        Source::Ram(&*pinned),
    ];
    for source in sources {
        let weights = match load(&device, model, source) {
            Ok(weights) => weights,
            Err(error) => {
                let is_typed = matches!(
                    error,
                    LoadError::Transfer { .. }
                        | LoadError::Device { .. }
                        | LoadError::OutOfMemory { .. }
                        | LoadError::Memory { .. }
                );
                assert!(is_typed, "{error:?}");
                told.push(error.to_string());
                continue;
            }
        };
        for (index, wanted) in wanted.iter().enumerate() {
            match weights.bytes(index) {
                Ok(bytes) => assert!(&*bytes == wanted),
                Err(error @ Error::Device { .. }) => told.push(error.to_string()),
                Err(other) => panic!("{other:?}"),
            }
            let tensor = weights.tensor(index).unwrap();
            assert_eq!(tensor.dims(), &model.tensors()[index].shape[..]);
        }
        let unloaded = weights.unload();
        assert_eq!(unloaded.returned_bytes, Some(device.charge(model)));
        let freed = unloaded.device.unwrap();
        if let (Some(before), Some(after)) = (freed.pool_before.bytes(), freed.pool_after.bytes()) {
            assert!(after <= before);
        }
    }
    told
}

fn bytes_of(model: &Model) -> Vec<Vec<u8>> {
    let file = std::fs::read(model.path()).unwrap();
    let tensors = model.tensors().iter();
    tensors
        .map(|tensor| file[tensor.offset as usize..][..tensor.bytes as usize].to_vec())
        .collect()
}

#[test]
fn a_driver_that_errs_at_each_call_in_turn_gives_typed_errors_and_nothing_is_left() {
    let folder = Folder::new();
    let model = folder.model("m", 9 * MIB / 8 + 7);
    let wanted = bytes_of(&model);
    let driver = Simulated::new();
    driver.fail(0, 0, false);
    assert_eq!(all_of_it(&driver, &model, &wanted), [""; 0]);
    assert!(driver.left().is_empty(), "{:?}", driver.left());
    let calls = driver.count(Count::Calls);
    assert!(calls > 100, "{calls}");

    let mut refused = 0;
    let mut driver = Simulated::new();
    for code in [UNKNOWN, OUT_OF_MEMORY] {
        for call in 1..=calls {
            driver.fail(call, code, false);
            let told = all_of_it(&driver, &model, &wanted);
            let name = driver.call(call);
            refused += told.len();
            for told in told {
                let words = told.contains("CUDA_ERROR") && told.contains("own words");
                assert!(words && told.contains("cu"), "{name}: {told}");
                assert!(!told.contains(char::is_control), "{told:?}");
            }
            let left = driver.left();
            // Before what ends something there is a push, whose refusal leaves that one thing.
            let may_stay =
                ends_something(&name) || (name == "cuCtxPushCurrent_v2" && left.len() == 1);
            assert!(left.is_empty() || may_stay, "{name} ({call}): {left:?}");
            driver.fail(0, 0, false);
            if !left.is_empty() {
                driver = Simulated::new();
            }
        }
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_device_that_is_lost_at_any_call_ends_in_errors_and_the_ram_tier_goes_on() {
    let folder = Folder::new();
    let model = folder.model("m", MIB);
    let wanted = bytes_of(&model);
    let driver = Simulated::new();
    driver.fail(0, 0, false);
    all_of_it(&driver, &model, &wanted);
    let calls = driver.count(Count::Calls);
    for call in (1..=calls).step_by(3) {
        let driver = Simulated::new();
        driver.fail(call, ILLEGAL_ADDRESS, true);
        all_of_it(&driver, &model, &wanted);
    }

    let driver = Simulated::new();
    let device = std::sync::Arc::new(driver.device(64 * MIB).unwrap());
    let cache = Cache::builder()
        .ram(64 * MIB)
        .device(std::sync::Arc::clone(&device), 64 * MIB)
        .build()
        .unwrap();
    let lease = cache.lease([model.on(&device)]).unwrap();
    driver.fail(1, ILLEGAL_ADDRESS, true);
    let leased = lease.get(&model).unwrap();
    let error = leased.bytes(&model.tensors()[0].name).unwrap_err();
    assert!(error.to_string().contains("ILLEGAL_ADDRESS"), "{error}");
    drop(lease);
    let other = folder.model("other", MIB);
    let error = cache.lease([other.on(&device)]).unwrap_err();
    assert!(error.to_string().contains("CUDA_ERROR"), "{error}");
    let lease = cache.lease([&model, &other]).unwrap();
    for tensor in model.tensors() {
        let at = tensor.offset as usize;
        let file = std::fs::read(model.path()).unwrap();
        let bytes = lease.get(&model).unwrap().bytes(&tensor.name).unwrap();
        assert!(*bytes == file[at..at + tensor.bytes as usize]);
    }
    // The lost device's driver is not asked for anything that could hang or panic as all goes.
    drop(lease);
    drop(cache);
}

#[test]
fn a_library_that_cannot_take_memory_over_gives_it_back() {
    let folder = Folder::new();
    let model = folder.model("m", MIB);
    let driver = Simulated::new();
    let library = std::sync::Arc::new(ReadBack::of(&driver));
    library.refuses.store(true, Ordering::Relaxed);
    // SAFETY: the stream that all share is always there.
    let device =
        unsafe { plimsoll_cache::device::Cuda::with(&driver.driver().unwrap(), 0, library) };
    let device = device.unwrap();
    let error = load(&device, &model, Source::Files { staging: MIB }).unwrap_err();
    assert!(error.to_string().contains("it would not"), "{error}");
    assert_eq!(driver.count(Count::Allocations), 0);
}
