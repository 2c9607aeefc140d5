//! Quantised tensors over resident weights: what candle's own reader gives, without its copies.

#![allow(clippy::unwrap_used)]

mod by_hand;
#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Tensor};
use plimsoll_cache::device::{Device as _, Simulated};
use plimsoll_cache::model::Dtype;
use plimsoll_cache::{Cache, Error, Mapping, Model, Storage};
use plimsoll_events::Kind;
use support::{Folder, Kept, MIB};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const TYPES: [GgmlDType; 15] = [
    GgmlDType::F32,
    GgmlDType::F16,
    GgmlDType::BF16,
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q8_1,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
    GgmlDType::Q8K,
];

const STORAGES: [Storage; 3] = [Storage::Heap, Storage::Anonymous, Storage::Mapped];

const ROWS: usize = 48;
const COLUMNS: usize = 512;

fn name(dtype: GgmlDType) -> String {
    format!("blk.{dtype:?}.weight").to_lowercase()
}

/// Numbers around zero that look like weights.
fn numbers(seed: u64, shape: (usize, usize)) -> Tensor {
    let mut state = seed;
    let numbers = (0..shape.0 * shape.1).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    });
    let numbers: Vec<f32> = numbers.collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

fn quantised(dtype: GgmlDType) -> QTensor {
    QTensor::quantize(&numbers(dtype as u64 + 1, (ROWS, COLUMNS)), dtype).unwrap()
}

/// A model with a tensor of each type.
fn model(folder: &Folder) -> Model {
    let tensors = TYPES.map(|dtype| (name(dtype), quantised(dtype)));
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (&**name, tensor))
        .collect();
    let path = folder.path().join("m.gguf");
    let architecture = ("general.architecture", &Value::String("none".to_owned()));
    gguf_file::write(&mut File::create(&path).unwrap(), &[architecture], &tensors).unwrap();
    Model::open(path).unwrap()
}

fn cache(storage: Storage) -> (Cache, Arc<Kept>) {
    let mapping = Mapping {
        anywhere: true,
        ..Mapping::default()
    };
    support::cache(|builder| builder.ram(8 * MIB).storage(storage).mapping(mapping))
}

/// Tensors and bytes that were copied.
fn copied(cache: &Cache, kept: &Kept) -> (u64, u64) {
    cache.tell_hits();
    let tallies = kept.kinds().into_iter().filter_map(|kind| match kind {
        Kind::Tally(tally) => Some((tally.copied_tensors, tally.copied_bytes)),
        _ => None,
    });
    tallies.fold((0, 0), |sum, tally| (sum.0 + tally.0, sum.1 + tally.1))
}

/// What candle's own reader makes of a tensor, or what was written where it cannot read a type that
/// it writes.
fn theirs(path: &Path, dtype: GgmlDType) -> QTensor {
    let mut file = BufReader::new(File::open(path).unwrap());
    let content = Content::read(&mut file).unwrap();
    match content.tensor(&mut file, &name(dtype), &Device::Cpu) {
        Ok(tensor) => tensor,
        Err(error) => {
            assert!(matches!(dtype, GgmlDType::Q8_1 | GgmlDType::Q8K), "{error}");
            quantised(dtype)
        }
    }
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let numbers = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    numbers.into_iter().map(f32::to_bits).collect()
}

/// What both make of the same inputs, of one row and of several.
#[track_caller]
fn compute_alike(ours: &Arc<QTensor>, theirs: QTensor) {
    let dtype = theirs.dtype();
    assert_eq!((ours.dtype(), ours.shape()), (dtype, theirs.shape()));
    assert_eq!(ours.data().unwrap(), theirs.data().unwrap(), "{dtype:?}");
    let plain = |tensor: &QTensor| bits(&tensor.dequantize(&Device::Cpu).unwrap());
    assert_eq!(plain(ours), plain(&theirs), "{dtype:?}");
    let ours = QMatMul::from_arc(Arc::clone(ours)).unwrap();
    let theirs = QMatMul::from_qtensor(theirs).unwrap();
    for rows in [1, 5] {
        let input = numbers(99, (rows, COLUMNS));
        let products = [&ours, &theirs].map(|matrix| bits(&matrix.forward(&input).unwrap()));
        assert_eq!(products[0], products[1], "{dtype:?}");
        assert!(
            products[0]
                .iter()
                .any(|bits| f32::from_bits(*bits).abs() > 0.01)
        );
    }
}

#[test]
fn every_type_computes_what_candles_own_reader_computes_bit_for_bit() {
    let folder = Folder::new();
    let model = model(&folder);
    for storage in STORAGES {
        let (cache, kept) = cache(storage);
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        for dtype in TYPES {
            let name = name(dtype);
            let before = weights.bytes(&name).unwrap().to_vec();
            let ours = weights.quantised(&name).unwrap();
            compute_alike(&ours, theirs(model.path(), dtype));
            assert!(*weights.bytes(&name).unwrap() == before[..], "{dtype:?}");
            let again = weights.quantised(&name).unwrap();
            assert_eq!(Arc::ptr_eq(&ours, &again), storage != Storage::Heap);
        }
        let copies = copied(&cache, &kept);
        match storage {
            Storage::Heap => assert_eq!(copies, (30, 2 * model.bytes())),
            _ => assert_eq!(copies, (0, 0), "{storage}"),
        }
    }
}

#[test]
fn quantised_tensors_lie_in_the_weights_themselves() {
    let folder = Folder::new();
    let model = model(&folder);
    for storage in [Storage::Anonymous, Storage::Mapped] {
        let (cache, _) = cache(storage);
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        let name = name(GgmlDType::Q4K);
        let at = weights.bytes(&name).unwrap().as_ptr();
        let ours = weights.quantised(&name).unwrap();
        assert_eq!(ours.data().unwrap().as_ptr(), at, "{storage}");
        assert_eq!(weights.bytes(&name).unwrap().as_ptr(), at, "{storage}");
    }
}

#[test]
fn a_quantised_tensor_outlives_its_lease_and_its_models_eviction() {
    let folder = Folder::new();
    let model = model(&folder);
    for storage in STORAGES {
        let (cache, _) = cache(storage);
        let lease = cache.lease([&model]).unwrap();
        let ours = lease
            .get(&model)
            .unwrap()
            .quantised(&name(GgmlDType::Q6K))
            .unwrap();
        drop(lease);
        assert!(cache.evict(&model));
        let usage = cache.usage();
        assert_eq!(usage.held_bytes > 0, storage != Storage::Heap, "{storage}");
        compute_alike(&ours, theirs(model.path(), GgmlDType::Q6K));
        drop(ours);
        assert_eq!(cache.usage().used_bytes, 0, "{storage}");
    }
}

#[test]
fn blocks_are_no_plain_tensor_and_say_how_they_are_asked_for() {
    let folder = Folder::new();
    let model = model(&folder);
    for storage in STORAGES {
        let (cache, _) = cache(storage);
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        let name = name(GgmlDType::Q5_0);
        let error = weights.tensor(&name).unwrap_err();
        assert!(matches!(error, Error::NotATensor { .. }));
        assert!(error.to_string().contains("`quantised`"), "{error}");
        // And having asked harms nothing.
        compute_alike(
            &weights.quantised(&name).unwrap(),
            theirs(model.path(), GgmlDType::Q5_0),
        );
    }
}

#[test]
fn numbers_are_given_as_both_kinds_and_never_share_what_can_be_written() {
    let folder = Folder::new();
    let model = model(&folder);
    for storage in STORAGES {
        for quantised_first in [false, true] {
            let (cache, kept) = cache(storage);
            let lease = cache.lease([&model]).unwrap();
            let weights = lease.get(&model).unwrap();
            for dtype in [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16] {
                let name = name(dtype);
                let early = quantised_first.then(|| weights.quantised(&name).unwrap());
                let plain = weights.tensor(&name).unwrap();
                let ours = early.unwrap_or_else(|| weights.quantised(&name).unwrap());
                let theirs = || theirs(model.path(), dtype);
                let wanted = bits(&theirs().dequantize(&Device::Cpu).unwrap());
                let as_f32 = plain.to_dtype(candle_core::DType::F32).unwrap();
                assert_eq!(bits(&as_f32), wanted);
                plain.slice_set(&plain.zeros_like().unwrap(), 0, 0).unwrap();
                compute_alike(&ours, theirs());
            }
            let (tensors, _) = copied(&cache, &kept);
            let wanted = if storage == Storage::Heap { 6 } else { 3 };
            assert_eq!(tensors, wanted, "{storage}");
        }
    }
}

#[test]
fn a_quantised_tensor_is_copied_while_its_bytes_are_read() {
    let folder = Folder::new();
    let model = model(&folder);
    for storage in [Storage::Anonymous, Storage::Mapped] {
        let (cache, kept) = cache(storage);
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        let name = name(GgmlDType::Q8_0);
        let bytes = weights.bytes(&name).unwrap();
        let copy = weights.quantised(&name).unwrap();
        assert_ne!(copy.data().unwrap().as_ptr(), bytes.as_ptr());
        drop(bytes);
        compute_alike(&copy, theirs(model.path(), GgmlDType::Q8_0));
        assert_eq!(
            copied(&cache, &kept),
            (1, copy.storage_size_in_bytes() as u64)
        );
    }
}

#[test]
fn a_simulated_device_has_quantised_tensors_too() {
    let folder = Folder::new();
    let (model, tied) = (model(&folder), by_hand::tied(&folder));
    let device = Arc::new(Simulated::new(32 * MIB));
    let tier = device.tier();
    for keep in [true, false] {
        let (cache, _) = support::cache(|builder| {
            let builder = builder.ram(8 * MIB).keep_ram_copy(keep);
            builder.device(Arc::clone(&device), 32 * MIB)
        });
        let lease = cache.lease([model.on(tier), tied.on(tier)]).unwrap();
        let weights = lease.get(&model).unwrap();
        for dtype in TYPES {
            let ours = weights.quantised(&name(dtype)).unwrap();
            compute_alike(&ours, theirs(model.path(), dtype));
        }
        let weights = lease.get(&tied).unwrap();
        let both = ["embedding", "output"].map(|name| weights.quantised(name).unwrap());
        assert_eq!(both[0].data().unwrap(), both[1].data().unwrap());
    }
}

#[test]
fn threads_that_ask_for_both_kinds_at_once_all_get_the_right_numbers() {
    let folder = Folder::new();
    let model = model(&folder);
    let wanted = TYPES.map(|dtype| {
        let tensor = theirs(model.path(), dtype);
        tensor.data().unwrap().into_owned()
    });
    for storage in STORAGES {
        for _ in 0..20 {
            let (cache, _) = cache(storage);
            let lease = cache.lease([&model]).unwrap();
            let weights = lease.get(&model).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let wanted = &wanted;
                    scope.spawn(move || {
                        for (dtype, wanted) in TYPES.iter().zip(wanted) {
                            let name = name(*dtype);
                            if thread % 2 == 0 {
                                let ours = weights.quantised(&name).unwrap();
                                assert_eq!(*ours.data().unwrap(), wanted[..]);
                            } else if let Ok(plain) = weights.tensor(&name) {
                                assert_eq!(plain.dims(), [ROWS, COLUMNS]);
                            }
                            assert_eq!(*weights.bytes(&name).unwrap(), wanted[..]);
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn every_type_of_candles_is_one_of_ours() {
    let folder = Folder::new();
    let model = model(&folder);
    for dtype in TYPES {
        let tensor = model.tensor(&name(dtype)).unwrap().1;
        let blocks = tensor.dtype.quantised();
        let is_number = matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        assert!(
            blocks == Some(dtype) || is_number && blocks.is_none(),
            "{dtype:?}"
        );
    }
}
