//! What is done with leased weights.

use clap::ValueEnum;
use plimsoll_cache::observe::Trace;
use plimsoll_cache::{Error, Leased};
use xxhash_rust::xxh3::Xxh3;

/// What is done with leased weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Touch {
    /// Nothing
    None,
    /// Read a byte of every page
    #[default]
    Pages,
    /// Hash every byte: XXH3-64 over tensors in the order of their names
    Checksum,
}

impl std::fmt::Display for Touch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Touch::None => "none",
            Touch::Pages => "pages",
            Touch::Checksum => "checksum",
        })
    }
}

/// Reads a byte of every page of a model's weights, in this order of tensors, else in the file's.
pub(crate) fn pages(
    weights: &Leased<'_>,
    order: Option<&[String]>,
    trace: Option<&Trace>,
) -> Result<u64, Error> {
    let mut sum = 0_u64;
    let names: Vec<&str> = match order {
        Some(order) => order.iter().map(String::as_str).collect(),
        None => weights.tensors().iter().map(|one| &*one.name).collect(),
    };
    for name in names {
        let bytes = weights.bytes(name)?;
        let _span = trace.map(|trace| trace.span("compute", name));
        for byte in bytes.iter().step_by(4096) {
            sum = sum.wrapping_add(u64::from(*byte));
        }
    }
    Ok(std::hint::black_box(sum))
}

/// XXH3-64 over a model's tensors, in the order of their names.
pub(crate) fn checksum(weights: &Leased<'_>, trace: Option<&Trace>) -> Result<u64, Error> {
    let mut names: Vec<&str> = weights
        .tensors()
        .iter()
        .map(|tensor| &*tensor.name)
        .collect();
    names.sort_unstable();
    let mut hash = Xxh3::new();
    for name in names {
        let bytes = weights.bytes(name)?;
        let _span = trace.map(|trace| trace.span("compute", name));
        hash.update(&bytes);
    }
    Ok(hash.digest())
}
