//! Models of any tensors come whole, whichever way.

use std::collections::BTreeMap;

use plimsoll_cache::Storage;
use plimsoll_cache::device::{Device, DeviceWeights, Host, Load, Source};
use plimsoll_cache::model::Model;
use plimsoll_cache::observe::Unobserved;
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::driver::{Count, Simulated};
use crate::support::{Folder, MIB};

const TYPES: [Dtype; 9] = [
    Dtype::U8,
    Dtype::F16,
    Dtype::BF16,
    Dtype::F32,
    Dtype::F64,
    Dtype::I64,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::BOOL,
];

fn load<'a>(device: &dyn Device, model: &Model, source: Source<'a>) -> Box<dyn DeviceWeights> {
    let load = Load {
        model,
        source,
        observer: &Unobserved,
    };
    device.load(&load).unwrap()
}

/// How many elements: mostly few, at times more than passes at once.
fn elements() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0_usize..200,
        3 => 10_000_usize..400_000,
        1 => 500_000_usize..700_000,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_model_comes_whole_from_files_and_from_ram_and_leaves_nothing(
        tensors in proptest::collection::vec((0..TYPES.len(), elements()), 0..25),
        staging in prop_oneof![Just(128_u64 << 10), Just(MIB + 4096), Just(8 * MIB), Just(64 * MIB)],
    ) {
        let folder = Folder::new();
        let data: BTreeMap<String, (Dtype, usize, Vec<u8>)> = tensors
            .iter()
            .enumerate()
            .map(|(index, (dtype, count))| {
                let dtype = TYPES[*dtype];
                let bytes = count * dtype.bitsize() / 8;
                let bytes = (0..bytes).map(|at| (at * 31 + at / 251 + index * 7) as u8).collect();
                (format!("t{index}"), (dtype, *count, bytes))
            })
            .collect();
        let views = data.iter().map(|(name, (dtype, count, bytes))| {
            (name.clone(), TensorView::new(*dtype, vec![*count], bytes).unwrap())
        });
        let path = folder.path().join("m.safetensors");
        safetensors::serialize_to_file(views, None, &path).unwrap();
        let model = Model::open(&path).unwrap();

        let driver = Simulated::new();
        let device = driver.device(512 * MIB).unwrap();
        let charge = device.charge(&model);
        prop_assert!(charge >= model.bytes());
        let plain = Host::new(Storage::Heap, 512 * MIB);
        let pinned = Host::new(Storage::Pinned, 512 * MIB)
            .with_page_locker(device.page_locker(), Some(512 * MIB));
        let plain = load(&plain, &model, Source::Files { staging: 0 });
        let pinned = load(&pinned, &model, Source::Files { staging: 0 });
        prop_assert!(pinned.degraded().is_none());
        for source in [Source::Files { staging }, Source::Ram(&*plain), Source::Ram(&*pinned)] {
            let weights = load(&device, &model, source);
            let used = device.figures().unwrap().pool_used.bytes();
            prop_assert_eq!(used, Some(charge), "what is counted is what the pool has handed out");
            for (index, tensor) in model.tensors().iter().enumerate() {
                let wanted = &data[&*tensor.name].2;
                prop_assert!(*weights.bytes(index).unwrap() == **wanted, "{:?}", tensor);
            }
            weights.unload();
            prop_assert_eq!(driver.count(Count::Allocations), 0);
        }
    }
}
