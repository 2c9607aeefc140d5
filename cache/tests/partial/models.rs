//! Models of every shape, and a consumer that computes with them.

use candle_core::{DType, Tensor};
use plimsoll_cache::{Lease, Model};
use safetensors::Dtype;
use tempfile::TempDir;

use super::files::File;
use super::torch_files::Checkpoint;

/// Numbers that differ, and stay small when they are multiplied.
fn numbers(seed: usize, count: usize) -> Vec<f64> {
    let number = |at: usize| ((at * 7919 + seed * 104_729) % 2003) as f64 / 2003.0 - 0.5;
    (0..count).map(|at| number(at) / 8.0).collect()
}

fn weight(file: File, name: &str, seed: usize, shape: &[usize]) -> File {
    file.with(
        name,
        Dtype::F32,
        shape,
        &numbers(seed, shape.iter().product()),
    )
}

/// So many layers of a square matrix and a bias.
pub fn layers(folder: &TempDir, name: &str, count: usize, width: usize) -> Model {
    let layers = (0..count).fold(File::new(), |file, layer| {
        let file = weight(file, &format!("l{layer:03}.weight"), layer, &[width, width]);
        weight(file, &format!("l{layer:03}.bias"), layer + 500, &[width])
    });
    layers.model(folder, name)
}

pub fn shapes(folder: &TempDir) -> Vec<Model> {
    let empty = (0..12).fold(File::new(), |file, layer| {
        let file = weight(file, &format!("l{layer:02}"), layer, &[192, 128]);
        file.with(&format!("none{layer:02}"), Dtype::F32, &[0, 5], &[])
    });
    let huge = (0..8).fold(File::new(), |file, layer| {
        weight(file, &format!("l{layer:02}"), layer, &[128, 160])
    });
    let huge = weight(huge, "l03.huge", 99, &[640, 512]);
    let tiny = (0..3000).fold(File::new(), |file, layer| {
        weight(file, &format!("l{layer:04}"), layer, &[16 + layer % 40])
    });
    let tied = (0..10).fold(Checkpoint::default(), |file, layer| {
        file.with(&format!("w{layer}"), "FloatStorage", &[160, 128])
            .view(&format!("tied{layer}"), 0, &[128, 160])
    });
    let path = folder.path().join("tied.bin");
    std::fs::write(&path, tied.bytes()).unwrap();
    let tied = Model::open(path).unwrap();
    assert!(tied.tensors().iter().any(|one| one.tied_to.is_some()));
    vec![
        layers(folder, "layers", 24, 144),
        empty.model(folder, "empty"),
        huge.model(folder, "huge"),
        tiny.model(folder, "tiny"),
        tied,
    ]
}

/// The names of a model's tensors.
pub fn in_file_order(model: &Model) -> Vec<String> {
    let names = model.tensors().iter().map(|tensor| tensor.name.to_string());
    names.collect()
}

/// The same in another order.
pub fn shuffled(model: &Model) -> Vec<String> {
    let mut names = in_file_order(model);
    let mut state = 7_usize;
    for at in (1..names.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(3);
        names.swap(at, (state >> 33) % (at + 1));
    }
    names
}

/// Computes with every tensor, in this order, and returns the bits of what comes of it. Square
/// matrices are multiplied by what came before, everything else is summed up in it.
pub fn compute(lease: &Lease, model: &Model, order: &[String]) -> Vec<u32> {
    let leased = lease.get(model).unwrap();
    let mut x = Tensor::ones((128, 3), DType::F32, &candle_core::Device::Cpu).unwrap();
    for name in order {
        let weights = leased.tensor(name).unwrap();
        x = step(&x, &weights);
    }
    let x: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
    x.into_iter().map(f32::to_bits).collect()
}

fn step(x: &Tensor, weights: &Tensor) -> Tensor {
    let rows = x.dim(0).unwrap();
    let next = match weights.dims() {
        [_, columns] if *columns == rows => weights.matmul(x).unwrap().tanh().unwrap(),
        _ if weights.elem_count() == 0 => x.affine(1.01, 0.0).unwrap(),
        _ => {
            let sum: f32 = weights
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
                .into_iter()
                // Checkpoints are filled with any bytes, also such as are no numbers.
                .map(|number| (number.to_bits() % 1009) as f32 / 1009.0 + number.clamp(-1.0, 1.0))
                .filter(|number| number.is_finite())
                .sum();
            x.affine(0.875, f64::from(sum.sin())).unwrap()
        }
    };
    // However the shapes go on, it stays a matrix of numbers.
    let rows = next.dim(0).unwrap();
    if rows == 128 {
        next
    } else {
        let row = next.mean_keepdim(0).unwrap();
        row.broadcast_as((128, 3)).unwrap().contiguous().unwrap()
    }
}
