//! The smallest program that embeds the cache: open, lease, use.
//!
//! `cargo run -p plimsoll-cache --example smallest`

use plimsoll_cache::{Budget, Cache, Model};
use safetensors::tensor::{Dtype, TensorView};

/// Lets tensors be views of the cache's memory. Without it they are copies.
#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Any safetensors file will do; this one is made here.
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tiny.safetensors");
    let values = [1.0_f32, 2.0, 3.0, 4.0];
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let view = TensorView::new(Dtype::F32, vec![2, 2], &bytes)?;
    safetensors::serialize_to_file([("linear.weight", view)], None, &path)?;

    let cache = Cache::builder().ram(Budget::fixed(64 << 20)).build()?;
    let model = Model::open(&path)?; // reads the header only
    let lease = cache.lease([&model])?; // loads, and pins until it is dropped
    let weight = lease.get(&model)?.tensor("linear.weight")?; // a candle tensor

    let sum = weight.sum_all()?.to_scalar::<f32>()?;
    println!("linear.weight {:?} sums to {sum}", weight.dims());
    if sum != 10.0 {
        return Err(format!("the sum is {sum}, not 10").into());
    }
    Ok(())
}
