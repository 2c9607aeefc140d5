//! Writing to tensors of mapped weights.

use candle_core::{InplaceOp1, Layout};

use crate::mapped;
use crate::support::{Folder, MIB, cache, content, verify};

/// Adds one to every byte.
struct AddOne;

impl InplaceOp1 for AddOne {
    fn name(&self) -> &'static str {
        "add one"
    }

    fn cpu_fwd(
        &self,
        storage: &mut candle_core::CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<()> {
        match storage {
            candle_core::CpuStorage::U8(bytes) => {
                bytes
                    .iter_mut()
                    .for_each(|byte| *byte = byte.wrapping_add(1));
                Ok(())
            }
            _ => candle_core::bail!("bytes only"),
        }
    }
}

#[test]
fn a_write_to_a_tensor_leaves_the_file_and_every_other_tensor() {
    let folder = Folder::new();
    let model = folder.model("a", 9 * MIB);
    let before = std::fs::read(model.path()).unwrap();
    let (cache, _) = cache(|builder| mapped(builder.ram(16 * MIB)));
    let lease = cache.lease([&model]).unwrap();
    let weights = lease.get(&model).unwrap();
    let tensor = weights.tensor("t002").unwrap();
    tensor.inplace_op1(&AddOne).unwrap();
    for info in weights.tensors() {
        let bytes = weights.bytes(&info.name).unwrap();
        let number = info.name[1..].parse().unwrap();
        let mut expected = content("a", number, info.bytes as usize);
        if number == 2 {
            expected
                .iter_mut()
                .for_each(|byte| *byte = byte.wrapping_add(1));
        }
        assert!(*bytes == expected[..], "{}", info.name);
    }
    assert!(std::fs::read(model.path()).unwrap() == before, "the file");
    drop((tensor, lease));
    assert!(cache.evict(&model));
    verify(&cache.lease([&model]).unwrap(), &model);
}
