//! Merging takes little memory besides base, factors and result.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use plimsoll_cache::Model;
use plimsoll_cache::patch::{Factors, Merge, Patch, Strictness, Term};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Counts what is allocated now, and the most there was.
struct Counting;

static NOW: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() as isize;
        let now = NOW.fetch_add(size, Ordering::Relaxed) + size;
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROWS: usize = 3000;
const COLUMNS: usize = 2000;
const RANK: usize = 160;

#[test]
fn a_merge_works_in_tiles_whatever_the_size_of_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let save = |name: &str, tensors: &[(&str, [usize; 2])]| {
        let zeros = vec![0; 2 * ROWS * COLUMNS];
        let views = tensors.iter().map(|(name, shape)| {
            let bytes = &zeros[..2 * shape[0] * shape[1]];
            (
                name.to_string(),
                TensorView::new(Dtype::BF16, shape.to_vec(), bytes).unwrap(),
            )
        });
        let path = folder.path().join(name);
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        path
    };
    let base = save("base.safetensors", &[("a.weight", [ROWS, COLUMNS])]);
    let patch = save(
        "lora.safetensors",
        &[
            ("lora_unet_a.lora_down.weight", [RANK, COLUMNS]),
            ("lora_unet_a.lora_up.weight", [ROWS, RANK]),
            ("lora_unet_a.diff", [ROWS, COLUMNS]),
        ],
    );
    let base = Model::open(base).unwrap();
    let patch = Patch::open(patch).unwrap();
    let edits = patch.fit(&base, Strictness::Strict).unwrap().edits;
    let factors = edits
        .iter()
        .map(|edit| Factors::read(&patch, &edit.change).unwrap());
    let factors: Vec<_> = factors.collect();
    let terms = factors.iter().map(|factors| Term {
        factors,
        strength: 0.5,
    });
    let terms: Vec<_> = terms.collect();
    let tensor = &base.tensors()[0];
    let mut bytes = vec![0; tensor.bytes as usize];
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let merge = Merge::new(tensor.dtype, &tensor.shape, &terms).unwrap();
    assert_eq!(merge.run(0, &mut bytes), Ok(0));
    let most = MOST.load(Ordering::Relaxed) - before;
    assert!(bytes.iter().all(|byte| *byte == 0));
    eprintln!("{most} bytes at most");
    assert!(most < 6 << 20, "{most} bytes");
}
