//! candle's tensors on the device `cuda:0`: on a GPU, or over the driver that `scripts/check-cuda`
//! simulates, whose counts are looked at too.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device as Candle, Tensor};
use malloc_stats::Metric;
use plimsoll_cache::device::{Cuda, Device, DeviceWeights, Host, Load, Source};
use plimsoll_cache::driver::DriverError;
use plimsoll_cache::model::TensorInfo;
use plimsoll_cache::observe::Unobserved;
use plimsoll_cache::{Cache, LoadError, Model, Storage};
use safetensors::Dtype;

use crate::driver::{Count, Simulated};
use crate::faults::ends_something;
use crate::files::{in_files, model, on_the_cpu, same_as_in_files};
use crate::support::{Folder, MIB};

/// The driver alone: what one test leaves behind, another would count.
fn alone() -> (MutexGuard<'static, ()>, Option<Simulated>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = Simulated::linked();
    if let Some(driver) = &driver {
        // What a test that failed has left.
        driver.restart();
    }
    (alone, driver)
}

fn nothing_is_left(driver: Option<&Simulated>) {
    if let Some(driver) = driver {
        assert!(driver.left().is_empty(), "{:?}", driver.left());
        assert_eq!(driver.count(Count::Violations), 0);
    }
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

const FILES: Source<'_> = Source::Files { staging: MIB };

/// What the device's pool has handed out, once all that was freed is.
fn pool_used(device: &Cuda) -> Metric {
    device.candle().unwrap().synchronize().unwrap();
    device.figures().unwrap().pool_used
}

fn of_few_types(folder: &Path) -> Model {
    let tensors: [(&str, Dtype, &[usize]); 6] = [
        ("a", Dtype::F32, &[3, 5]),
        ("b", Dtype::BF16, &[70]),
        ("c", Dtype::F32, &[7]),
        ("d", Dtype::F32, &[]),
        ("e", Dtype::F32, &[2, 0]),
        ("f", Dtype::F4, &[2, 8]),
    ];
    model(folder, "few", &tensors)
}

#[test]
fn tensors_of_a_type_are_views_of_one_allocation() {
    let (_alone, driver) = alone();
    let folder = Folder::new();
    let model = of_few_types(folder.path());
    let device = Cuda::new(0).unwrap();
    let weights = load(&device, &model, FILES).unwrap();
    same_as_in_files(&*weights, &model);
    let at = |name: &str| {
        let mut tensors = model.tensors().iter();
        let index = tensors.position(|tensor| &*tensor.name == name).unwrap();
        let tensor = weights.tensor(index).unwrap();
        assert!(tensor.device().same_device(&device.candle().unwrap()));
        tensor.storage_and_layout().1.start_offset()
    };
    let mut of_f32 = ["a", "c", "d", "e"].map(at);
    of_f32.sort_unstable();
    assert_eq!(of_f32[0], 0);
    assert!(of_f32.iter().all(|at| at % 16 == 0), "{of_f32:?}");
    assert!(of_f32[3] < 64);
    if let Some(driver) = &driver {
        assert_eq!(driver.count(Count::Allocations), 3);
    }
    assert_eq!(pool_used(&device), Metric::Exact(device.charge(&model)));
    weights.unload();
    assert_eq!(pool_used(&device), Metric::Exact(0));
    drop(device);
    nothing_is_left(driver.as_ref());
}

#[test]
fn a_tensor_that_outlives_its_lease_counts_until_it_is_dropped_on_any_thread() {
    let (_alone, driver) = alone();
    let folder = Folder::new();
    let model = of_few_types(folder.path());
    let device = Arc::new(Cuda::new(0).unwrap());
    let cache = Cache::builder()
        .ram(64 * MIB)
        .device(Arc::clone(&device), 64 * MIB)
        .build()
        .unwrap();
    let lease = cache.lease([model.on(&device)]).unwrap();
    let kept = lease.get(&model).unwrap().tensor("b").unwrap();
    drop(lease);
    cache.clear();
    let held = cache.usage_of(&*device).unwrap().held_bytes;
    assert_eq!(held, 512, "the allocation of its type");
    assert_eq!(pool_used(&device), Metric::Exact(held));
    let index = model.tensors().iter().position(|one| &*one.name == "b");
    assert!(on_the_cpu(&kept) == in_files(&model)[index.unwrap()]);
    std::thread::spawn(move || drop(kept)).join().unwrap();
    assert_eq!(cache.usage_of(&*device).unwrap().held_bytes, 0);
    assert_eq!(pool_used(&device), Metric::Exact(0));
    drop((cache, device));
    nothing_is_left(driver.as_ref());
}

#[test]
fn a_tensor_that_outlives_the_device_is_right_and_ends_it() {
    let (_alone, driver) = alone();
    let folder = Folder::new();
    let model = of_few_types(folder.path());
    let device = Cuda::new(0).unwrap();
    let weights = load(&device, &model, FILES).unwrap();
    let kept = weights.tensor(0).unwrap();
    drop((weights, device));
    assert!(on_the_cpu(&kept) == in_files(&model)[0]);
    std::thread::spawn(move || drop(kept)).join().unwrap();
    nothing_is_left(driver.as_ref());
}

#[test]
fn a_device_of_the_programs_own_gives_tensors_that_meet_its_own() {
    let (_alone, driver) = alone();
    let folder = Folder::new();
    let model = of_few_types(folder.path());
    let own = Candle::new_cuda_with_stream(0).unwrap();
    let device = Cuda::on(&own).unwrap();
    let weights = load(&device, &model, FILES).unwrap();
    assert!(weights.tensor(0).unwrap().device().same_device(&own));
    // Copies within the device, in the stream that both use.
    let zeros = Tensor::from_slice(&[0.0_f32; 20], (4, 5), &own).unwrap();
    let index = model.tensors().iter().position(|one| &*one.name == "a");
    let found = weights.tensor(index.unwrap()).unwrap();
    let copied = zeros.slice_scatter0(&found, 1).unwrap();
    let wanted = [&[0; 20], &in_files(&model)[index.unwrap()][..]].concat();
    assert!(on_the_cpu(&copied) == wanted);
    drop((weights, device, zeros, found, copied, own));
    nothing_is_left(driver.as_ref());

    for other in [Candle::Cpu, Candle::new_cuda(0).unwrap()] {
        let error = Cuda::on(&other).unwrap_err();
        assert!(matches!(error, DriverError::Library { .. }), "{error:?}");
    }
    nothing_is_left(driver.as_ref());
}

const TYPES: [GgmlDType; 8] = [
    GgmlDType::F16,
    GgmlDType::F32,
    GgmlDType::Q4_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q6K,
];

fn of_types(folder: &Path, types: &[GgmlDType]) -> Model {
    let numbers: Vec<f32> = (0..3 * 512_u32)
        .map(|at| (at * 37 % 251) as f32 - 125.0)
        .collect();
    let numbers = Tensor::from_vec(numbers, (3, 512), &Candle::Cpu).unwrap();
    let tensors = types.iter().map(|dtype| {
        let tensor = QTensor::quantize(&numbers, *dtype).unwrap();
        (format!("{dtype:?}").to_lowercase(), tensor)
    });
    let tensors: Vec<(String, QTensor)> = tensors.collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, one)| (&**name, one)).collect();
    let path = folder.join("q.gguf");
    let architecture = ("general.architecture", &Value::String("none".to_owned()));
    let mut file = std::fs::File::create(&path).unwrap();
    gguf_file::write(&mut file, &[architecture], &tensors).unwrap();
    Model::open(path).unwrap()
}

#[test]
fn quantised_tensors_hold_the_files_blocks_and_count_beside_the_pool() {
    let (_alone, driver) = alone();
    let folder = Folder::new();
    let model = of_types(folder.path(), &TYPES);
    let wanted = in_files(&model);
    let device = Cuda::new(0).unwrap();
    let ram = Host::new(Storage::Mapped, 64 * MIB);
    let copy = load(&ram, &model, FILES).unwrap();
    for source in [FILES, Source::Ram(&*copy)] {
        let weights = load(&device, &model, source).unwrap();
        let mut kept = None;
        for (index, tensor) in model.tensors().iter().enumerate() {
            assert!(*weights.bytes(index).unwrap() == wanted[index]);
            let Some(dtype) = tensor.dtype.quantised() else {
                assert!(on_the_cpu(&weights.tensor(index).unwrap()) == wanted[index]);
                continue;
            };
            weights.tensor(index).unwrap_err();
            let found = weights.quantised(index).unwrap().unwrap();
            assert_eq!(found.shape().dims(), &tensor.shape[..]);
            assert_eq!(found.dtype(), dtype);
            assert!(found.device().same_device(&device.candle().unwrap()));
            assert!(*found.data().unwrap() == wanted[index], "{tensor:?}");
            kept = Some(found);
        }
        let figures = device.figures().unwrap();
        let (outside, used) = (figures.outside.bytes(), figures.pool_used.bytes());
        let both = outside.unwrap() + used.unwrap();
        assert_eq!(both, device.charge(&model));
        let unloaded = weights.unload();
        let held = unloaded.held.unwrap();
        assert_eq!(
            device.figures().unwrap().outside.bytes(),
            Some(held.bytes())
        );
        drop(kept);
        assert!(held.is_gone());
        assert_eq!(device.figures().unwrap().outside.bytes(), Some(0));
        assert_eq!(pool_used(&device), Metric::Exact(0));
    }
    drop((copy, device));
    nothing_is_left(driver.as_ref());
}

#[test]
fn a_model_that_is_all_quantised_is_off_the_device_once_its_unload_returns() {
    let (_alone, _driver) = alone();
    let folder = Folder::new();
    let model = of_types(folder.path(), &TYPES[2..]);
    let is_quantised = |tensor: &TensorInfo| tensor.dtype.quantised().is_some();
    assert!(model.tensors().iter().all(is_quantised));
    let device = Cuda::new(0).unwrap();
    let freed = load(&device, &model, FILES)
        .unwrap()
        .unload()
        .device
        .unwrap();
    let back = freed.free_after.minus_saturating(freed.free_before);
    assert!(back.bytes() >= Some(device.charge(&model)), "{freed:?}");
}

const UNKNOWN: u32 = 999;
const OUT_OF_MEMORY: u32 = 2;
const ILLEGAL_ADDRESS: u32 = 700;

/// Makes a device, loads models, brings tensors back and drops all of it. Whatever is refused is
/// told; what is told as done is right.
fn all_of_it(models: &[(Model, Vec<Vec<u8>>)]) -> Vec<String> {
    let mut told = Vec::new();
    let device = match Cuda::new(0) {
        Ok(device) => device,
        Err(error) => return vec![error.to_string()],
    };
    for (model, wanted) in models {
        let weights = match load(&device, model, FILES) {
            Ok(weights) => weights,
            Err(error) => {
                told.push(error.to_string());
                continue;
            }
        };
        let mut kept = None;
        for (index, wanted) in wanted.iter().enumerate() {
            let info = &model.tensors()[index];
            if let Some(found) = weights.quantised(index).unwrap() {
                match found.data() {
                    Ok(bytes) => assert!(*bytes == *wanted),
                    Err(error) => told.push(words(&error)),
                }
            } else if info.elements() > 0 && info.dtype.bitsize() >= 8 {
                let tensor = weights.tensor(index).unwrap();
                match tensor.to_device(&Candle::Cpu) {
                    Ok(found) => assert!(on_the_cpu(&found) == *wanted),
                    Err(error) => told.push(words(&error)),
                }
                kept = Some(tensor);
            }
        }
        let freed = weights.unload().device.unwrap();
        if freed.pool_after == Metric::Unavailable {
            told.push("nobody knows what the pool has".to_owned());
        }
        std::thread::spawn(move || drop(kept)).join().unwrap();
    }
    told
}

/// What candle says, without the backtrace that it adds where backtraces are on.
fn words(error: &candle_core::Error) -> String {
    let said = error.to_string();
    said.lines().next().unwrap_or_default().to_owned()
}

fn models(folder: &Path) -> Vec<(Model, Vec<Vec<u8>>)> {
    [of_few_types(folder), of_types(folder, &TYPES)]
        .map(|model| (model.clone(), in_files(&model)))
        .into()
}

#[test]
fn a_driver_that_errs_at_each_call_of_candles_in_turn_gives_typed_errors() {
    let (_alone, driver) = alone();
    let Some(driver) = driver else {
        eprintln!("skipped: a real driver cannot be made to err");
        return;
    };
    let folder = Folder::new();
    let models = models(folder.path());
    // The first time some calls are made that are not made again.
    all_of_it(&models);
    driver.fail(0, 0, false);
    assert_eq!(all_of_it(&models), [""; 0]);
    nothing_is_left(Some(&driver));
    let calls = driver.count(Count::Calls);
    assert!(calls > 200, "{calls}");
    let mut refused = 0;
    for code in [UNKNOWN, OUT_OF_MEMORY] {
        for call in 1..=calls {
            driver.restart();
            driver.fail(call, code, false);
            let told = all_of_it(&models);
            let name = driver.call(call);
            driver.fail(0, 0, false);
            refused += told.len();
            for told in told {
                assert!(!told.contains(char::is_control), "{name}: {told:?}");
            }
            let left = driver.left();
            let pushed = name == "cuCtxPushCurrent_v2" && left.len() == 1;
            let of_one = |(kind, count): &(Count, u64)| match kind {
                Count::Events => *count <= 2,
                Count::RegisteredBytes => false,
                _ => *count == 1,
            };
            let candles_own = CANDLES_OWN.contains(&&*name) && left.iter().all(of_one);
            let may_stay = ends_something(&name) || pushed || candles_own;
            assert!(left.is_empty() || may_stay, "{name} ({call}): {left:?}");
        }
    }
    driver.restart();
    assert!(refused > 100, "{refused}");
}

/// Where one of these fails, candle 0.11 (cudarc 0.19) loses one thing: what it made just before, or
/// the memory of a tensor that is dropped on a thread without a context next, which it then does not
/// bind. None of it is the cache's to free.
const CANDLES_OWN: [&str; 8] = [
    "cuDeviceGetAttribute",
    "cublasSetStream_v2",
    "curandSetStream",
    "cuEventCreate",
    "cuEventRecord",
    "cuStreamWaitEvent",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
];

#[test]
fn a_device_that_is_lost_at_any_call_of_candles_ends_in_errors() {
    let (_alone, driver) = alone();
    let Some(driver) = driver else {
        eprintln!("skipped: a real device cannot be lost at will");
        return;
    };
    let folder = Folder::new();
    let models = models(folder.path());
    // The first time some calls are made that are not made again.
    all_of_it(&models);
    driver.fail(0, 0, false);
    all_of_it(&models);
    let calls = driver.count(Count::Calls);
    let names: Vec<String> = (1..=calls).map(|call| driver.call(call)).collect();
    for (call, name) in (1..).zip(&names) {
        // Here candle itself ends the process: it has cuBLAS and cuRAND already, ends both because
        // the device could not be made, and panics at the second while it panics at the first.
        if name == "curandSetPseudoRandomGeneratorSeed" {
            continue;
        }
        driver.restart();
        driver.fail(call, ILLEGAL_ADDRESS, true);
        let told = all_of_it(&models);
        assert!(
            !told.is_empty() || call + 40 > calls,
            "{name} ({call} of {calls})"
        );
    }
    driver.restart();
}
