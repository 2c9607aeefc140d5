//! Weights of checkpoints in RAM: what was saved, under every storage.

#![allow(clippy::unwrap_used)]

mod support;
mod torch_files;

use candle_core::{CpuStorage, InplaceOp1, Layout};
use plimsoll_cache::Storage;
use support::{MIB, cache};
use torch_files::{Checkpoint, open};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

#[test]
fn every_storage_holds_the_bytes_that_were_saved() {
    let checkpoint = Checkpoint::of_every_type()
        .with("large", "BFloat16Storage", &[512, 1024])
        .view("tied", 0, &[512, 1024])
        .view("rows", 4096, &[16, 1024])
        .view("odd", 5, &[3]);
    let (_folder, model) = open(checkpoint.bytes());
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        let (cache, _) = cache(|builder| builder.ram(64 * MIB).storage(storage));
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        for tensor in &checkpoint.tensors {
            let held = weights.bytes(&tensor.name).unwrap();
            let saved = checkpoint.content(&tensor.name);
            assert!(*held == *saved, "{} under {storage}", tensor.name);
        }
        let tensor = weights.tensor("rows").unwrap();
        assert_eq!(tensor.dims(), [16, 1024]);
    }
}

/// Makes every byte zero.
struct Clear;

impl InplaceOp1 for Clear {
    fn name(&self) -> &'static str {
        "clear"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        match storage {
            CpuStorage::U8(bytes) => bytes.fill(0),
            _ => candle_core::bail!("bytes only"),
        }
        Ok(())
    }
}

#[test]
fn a_write_to_a_tensor_leaves_a_view_of_the_same_storage_and_the_file() {
    let checkpoint = Checkpoint::default()
        .with("whole", "ByteStorage", &[1 << 20])
        .view("part", 64, &[1 << 12])
        .view("end", (1 << 20) - 64, &[64]);
    let (_folder, model) = open(checkpoint.bytes());
    for storage in [Storage::Anonymous, Storage::Mapped] {
        let (cache, _) = cache(|builder| builder.ram(16 * MIB).storage(storage));
        let lease = cache.lease([&model]).unwrap();
        let weights = lease.get(&model).unwrap();
        for (name, other) in [("whole", ["part", "end"]), ("part", ["end", "end"])] {
            weights.tensor(name).unwrap().inplace_op1(&Clear).unwrap();
            assert!(weights.bytes(name).unwrap().iter().all(|&byte| byte == 0));
            for other in other {
                let held = weights.bytes(other).unwrap();
                assert!(
                    *held == *checkpoint.content(other),
                    "{other} under {storage}"
                );
            }
        }
        assert!(std::fs::read(model.path()).unwrap() == checkpoint.bytes());
    }
}
