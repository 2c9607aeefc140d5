//! candle's in-place operations hand out `&mut CpuStorage`, from which safe code can take the
//! vector away. Whoever has it can write to the weights' memory without any lock.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp1, Layout};
use support::{Folder, MIB, cache, content};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// Puts another vector in a tensor's place.
struct Steal(Mutex<Vec<u8>>);

impl InplaceOp1 for Steal {
    fn name(&self) -> &'static str {
        "steal"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        if let CpuStorage::U8(bytes) = storage {
            let other = vec![7; bytes.len()];
            *self.0.lock().unwrap() = std::mem::replace(bytes, other);
        }
        Ok(())
    }
}

#[test]
fn bytes_never_alias_a_vector_that_was_taken_out_of_its_tensor() {
    let folder = Folder::new();
    let model = folder.model("a", 3 * MIB);
    let (cache, _) = cache(|builder| builder.ram(8 * MIB));
    let lease = cache.lease([&model]).unwrap();
    let weights = lease.get(&model).unwrap();
    let steal = Steal(Mutex::default());
    weights.tensor("t002").unwrap().inplace_op1(&steal).unwrap();
    let mut stolen = steal.0.into_inner().unwrap();
    assert_eq!(stolen, content("a", 2, stolen.len()));

    let bytes = weights.bytes("t002").unwrap();
    stolen.fill(9);
    assert!(!stolen.as_ptr_range().contains(&bytes.as_ptr()));
    assert!(bytes.iter().all(|byte| *byte == 7));

    drop(bytes);
    drop(lease);
    assert!(cache.evict(&model));
    assert!(cache.usage().held_bytes > 0, "the vector holds its memory");
    assert!(stolen.iter().all(|byte| *byte == 9));
    drop(stolen);
    assert_eq!(cache.usage().used_bytes, 0);
}
