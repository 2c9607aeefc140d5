//! A layer's output with what lies beside its weights is that of the layer with merged weights.

use candle_core::{DType, Device, Tensor};
use plimsoll_cache::{Addition, Cache, Convolution, Cpu, Leased};
use safetensors::Dtype;
use tempfile::TempDir;

use super::definitions::{ATTENTION, Base, Lora, WORDS, numbers};
use super::files::{File, KOHYA, folder};
use super::support::MIB;
use super::trainers::{of_diffusion, of_words};

fn input(dtype: Dtype, shape: &[usize]) -> Tensor {
    let numbers = numbers(dtype, "input", shape.iter().product());
    let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
    tensor.to_dtype(DType::F32).unwrap()
}

/// The largest difference, and the largest number.
fn compare(one: &Tensor, other: &Tensor) -> (f64, f64) {
    let largest = |tensor: &Tensor| -> f64 {
        let tensor = tensor.to_dtype(DType::F64).unwrap();
        let largest = tensor.abs().unwrap().max_all().unwrap();
        largest.to_scalar().unwrap()
    };
    assert_eq!(one.dims(), other.dims());
    (largest(&(one - other).unwrap()), largest(other))
}

/// Leases it both ways, and compares what `layer` makes of weights, and of what is beside them.
fn same_both_ways(
    base: &Base,
    with: &[(&Lora, f64)],
    name: &str,
    layer: impl Fn(&Tensor) -> Tensor,
    besides: impl Fn(&plimsoll_cache::Beside) -> Tensor,
) {
    let cache = Cache::builder().ram(MIB).build().unwrap();
    let wanted = || {
        let wanted = base.model.on(Cpu);
        with.iter()
            .fold(wanted, |wanted, (lora, by)| wanted.with(&lora.patch, *by))
    };
    let weights = |leased: &Leased<'_>| leased.tensor(name).unwrap().to_dtype(DType::F32).unwrap();
    let merged = cache.lease([wanted().merged()]).unwrap();
    let merged = layer(&weights(&merged.get(&base.model).unwrap()));
    let lease = cache.lease([wanted().beside()]).unwrap();
    let leased = lease.get(&base.model).unwrap();
    let mut output = layer(&weights(&leased));
    let plain = output.clone();
    let all = leased.beside(name).unwrap();
    assert!(!all.is_empty());
    for one in &all {
        output = (output + besides(one)).unwrap();
    }
    let (away, largest) = compare(&output, &merged);
    // What merging has rounded to the type of the weights, once for each of a few dozen products.
    let unit = match base.dtype {
        Dtype::F32 => 1e-5,
        Dtype::F16 => 2e-3,
        _ => 2e-2,
    };
    assert!(
        away <= unit * largest.max(1.0),
        "{name}: {away} of {largest}"
    );
    let (changed, _) = compare(&plain, &merged);
    assert!(changed > 10.0 * away, "{name}: it changes nothing");
}

#[test]
fn a_linear_layer_is_the_same_both_ways() {
    let folder = folder();
    let loras = of_diffusion(&folder);
    let name = format!("{ATTENTION}.attn1.to_q.weight");
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let base = Base::unet(&folder, dtype);
        for shape in [&[5, 8][..], &[2, 3, 8]] {
            let x = input(dtype, shape);
            same_both_ways(
                &base,
                &[(&loras[0], 0.8), (&loras[1], -1.5), (&loras[0], 0.3)],
                &name,
                |weights| x.broadcast_matmul(&weights.t().unwrap()).unwrap(),
                |beside| beside.linear(&x).unwrap(),
            );
        }
    }
}

#[test]
fn a_convolution_is_the_same_both_ways_plain_with_a_core_and_as_a_difference() {
    let folder = folder();
    let loras = of_diffusion(&folder);
    let hows = [(0, 1, 1), (1, 1, 1), (1, 2, 1), (2, 1, 2), (2, 2, 2)];
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let base = Base::unet(&folder, dtype);
        for (padding, stride, dilation) in hows {
            let how = Convolution {
                padding,
                stride,
                dilation,
            };
            for (name, inputs, lora) in [
                ("conv_in.weight", 4, 0),
                ("down_blocks.0.resnets.0.conv1.weight", 8, 0),
                ("conv_in.weight", 4, 2),
            ] {
                let x = input(dtype, &[2, inputs, 9, 7]);
                same_both_ways(
                    &base,
                    &[(&loras[lora], 0.7)],
                    name,
                    |weights| x.conv2d(weights, padding, stride, dilation, 1).unwrap(),
                    |beside| beside.conv2d(&x, how).unwrap(),
                );
            }
        }
    }
}

/// A trainer of linear layers, for a model that has convolutions of one point.
fn linear_for_a_point(folder: &TempDir) -> Lora {
    let (down, up) = (
        numbers(Dtype::F32, "d", 2 * 8),
        numbers(Dtype::F32, "u", 8 * 2),
    );
    let module = "lora_unet_down_blocks_0_attentions_0_proj_in";
    let patch = File::new()
        .with(&format!("{module}{}", KOHYA[0]), Dtype::F32, &[2, 8], &down)
        .with(&format!("{module}{}", KOHYA[1]), Dtype::F32, &[8, 2], &up)
        .patch(folder, "linear");
    Lora {
        patch,
        changes: Vec::new(),
    }
}

#[test]
fn a_convolution_of_one_point_takes_factors_of_a_linear_layer() {
    let folder = folder();
    let base = Base::unet(&folder, Dtype::F32);
    let lora = linear_for_a_point(&folder);
    let x = input(Dtype::F32, &[1, 8, 4, 5]);
    for (padding, stride) in [(0, 1), (1, 2)] {
        let how = Convolution {
            padding,
            stride,
            ..Convolution::default()
        };
        same_both_ways(
            &base,
            &[(&lora, 1.0)],
            "down_blocks.0.attentions.0.proj_in.weight",
            |weights| x.conv2d(weights, padding, stride, 1, 1).unwrap(),
            |beside| beside.conv2d(&x, how).unwrap(),
        );
    }
}

#[test]
fn rows_are_no_layer_and_say_so() {
    let folder = folder();
    let base = Base::clip(&folder, Dtype::F32);
    let words = of_words(&folder);
    let cache = Cache::builder().ram(MIB).build().unwrap();
    let wanted = base.model.on(Cpu).with(&words[0].patch, 1.0).beside();
    let lease = cache.lease([wanted]).unwrap();
    let leased = lease.get(&base.model).unwrap();
    let beside = leased.beside(WORDS).unwrap();
    assert!(matches!(&beside[0].addition, Addition::Rows(rows) if rows.len() == 1));
    let x = input(Dtype::F32, &[1, 8]);
    let error = beside[0].linear(&x).unwrap_err().to_string();
    assert!(error.contains("embedding"), "{error}");
    // The model's own has its own rows alone.
    assert_eq!(leased.tensor(WORDS).unwrap().dims(), [50, 8]);
}

fn doubles(tensor: &candle_core::Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(candle_core::DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// A tensor with all that lies beside it, in double precision.
pub fn added(leased: &Leased<'_>, name: &str, base: &[f64]) -> Vec<f64> {
    let mut all = base.to_vec();
    for beside in leased.beside(name).unwrap() {
        let scale = beside.scale;
        match &beside.addition {
            Addition::Difference(tensor) => {
                let numbers = doubles(tensor);
                all.iter_mut()
                    .zip(numbers)
                    .for_each(|(sum, x)| *sum += scale * x);
            }
            Addition::Rows(rows) => {
                let rows = rows.iter().flat_map(doubles);
                all.extend(rows.map(|x| scale * x));
            }
            Addition::LowRank { down, up, core } => {
                let rank = up.dim(1).unwrap();
                let (down, up) = (doubles(down), doubles(up));
                let first = match core {
                    None => down,
                    Some(core) => {
                        let (_, _, height, width) = core.dims4().unwrap();
                        let (core, points) = (doubles(core), height * width);
                        let inputs = down.len() / rank;
                        let element = |at: usize| {
                            let (p, column) = (at / (inputs * points), at % (inputs * points));
                            let (i, k) = (column / points, column % points);
                            let terms = (0..rank)
                                .map(|q| core[(p * rank + q) * points + k] * down[q * inputs + i]);
                            terms.sum()
                        };
                        (0..rank * inputs * points).map(element).collect()
                    }
                };
                let columns = first.len() / rank;
                for (at, sum) in all.iter_mut().enumerate() {
                    let (row, column) = (at / columns, at % columns);
                    let terms = (0..rank).map(|p| up[row * rank + p] * first[p * columns + column]);
                    *sum += scale * terms.sum::<f64>();
                }
            }
            other => panic!("{other:?}"),
        }
    }
    all
}
