//! Merging takes little memory besides base, factors and result.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
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

/// A file of zeros.
fn save(folder: &Path, name: &str, tensors: &[(&str, &[usize])]) -> PathBuf {
    let zeros = vec![0; 2 * tensors.iter().map(elements).max().unwrap()];
    let views = tensors.iter().map(|tensor| {
        let (name, shape) = *tensor;
        let bytes = &zeros[..2 * elements(tensor)];
        let view = TensorView::new(Dtype::BF16, shape.to_vec(), bytes).unwrap();
        (name.to_owned(), view)
    });
    let path = folder.join(name);
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

fn elements(tensor: &(&str, &[usize])) -> usize {
    tensor.1.iter().product()
}

/// The most that a merge has besides weights and factors.
fn most(shape: &[usize], changes: &[(&str, &[usize])]) -> isize {
    let folder = tempfile::tempdir().unwrap();
    let base = save(folder.path(), "base.safetensors", &[("a.weight", shape)]);
    let base = Model::open(base).unwrap();
    let patch = Patch::open(save(folder.path(), "lora.safetensors", changes)).unwrap();
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
    most
}

#[test]
fn a_merge_works_in_tiles_whatever_the_size_of_the_weights() {
    let (down, up, mid) = (
        "lora_unet_a.lora_down.weight",
        "lora_unet_a.lora_up.weight",
        "lora_unet_a.lora_mid.weight",
    );
    let large = [3000, 2000];
    let difference = ("lora_unet_a.diff", &large[..]);
    let of_large = [(down, &[4, 2000][..]), (up, &[3000, 4]), difference];
    // All that is kept of long sums, and more than is.
    let long = [(down, &[512, 600][..]), (up, &[100, 512])];
    let longer = [(down, &[3000, 100][..]), (up, &[100, 3000])];
    let core = [
        (down, &[130, 70, 1, 1][..]),
        (up, &[150, 130, 1, 1]),
        (mid, &[130, 130, 3, 3]),
    ];
    for (shape, changes) in [
        (&large[..], &of_large[..]),
        (&[100, 600], &long),
        (&[100, 100], &longer),
        (&[150, 70, 3, 3], &core),
    ] {
        let most = most(shape, changes);
        eprintln!("{shape:?}: {most} bytes at most");
        assert!(most < 6 << 20, "{shape:?}: {most} bytes");
    }
}
