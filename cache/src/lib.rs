//! Which weights live where, and why?
//!
//! A [`Model`] is named tensors backed by files, opened by its headers alone. A [`Cache`] holds
//! weights in RAM within a budget. A [`Lease`] is the only way to them: it loads what is missing
//! and pins all of it in one step, until it is dropped, so there is no gap between load and lock in
//! which a model could be lost.
//!
//! ```no_run
//! use plimsoll_cache::device::{Cpu, Device, Simulated};
//! use plimsoll_cache::{Budget, Cache, Model};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Simulated::new(24 << 30);
//! let gpu = device.tier();
//! let cache = Cache::builder()
//!     .ram(Budget::auto())
//!     .device(device, Budget::auto().reserve(3 << 30))
//!     .build()?;
//! let unet = Model::open("unet.safetensors")?;                       // headers only
//! let clip = Model::open("clip.safetensors")?;
//! let lease = cache.lease([unet.on(gpu).or_on(Cpu), clip.on(Cpu)])?; // all or nothing
//! let weight = lease.get(&unet)?.tensor("time_embed.0.weight")?;     // a candle tensor
//! # Ok(()) }
//! ```
//!
//! | module | question |
//! |---|---|
//! | [`model`] | what is in the files? |
//! | [`patch`] | what does a LoRA change, and into what? |
//! | [`device`] | which memory can hold weights? |
//! | [`storage`] | how is a model kept in RAM? |
//! | [`budget`] | how much of it may there be? |
//! | [`driver`] | what does NVIDIA's driver say? |
//! | [`policy`] | which model goes first? |
//! | [`residency`] | in which state is a model, and what may follow? |
//! | [`observe`] | what does a load do while it does it? |
//!
//! Everything the cache does is an event (`plimsoll-events`) with the bytes asked, freed and really
//! returned, bracketed by two memory snapshots; each goes to `tracing` at debug level as well.

mod beside;
mod books;
mod bracket;
pub mod budget;
mod cache;
pub mod device;
pub mod driver;
mod error;
mod lease;
pub mod model;
pub mod observe;
pub mod patch;
pub mod policy;
pub mod residency;
pub mod storage;
mod sync;

pub use beside::{Addition, Beside, Convolution};
pub use bracket::Snapshots;
pub use budget::Budget;
pub use cache::{
    Builder, Cache, Cleared, LeaseFuture, MadeRoom, Partial, Prefetch, Residency, Usage, Wanted,
};
pub use device::{Cpu, Tier};
pub use error::{BuildError, Error, LoadError, PartialOffer};
pub use lease::{Lease, Leased};
pub use model::Model;
pub use observe::LoadObserver;
pub use storage::{Mapping, Storage, WeightBytes};

/// Compiles what the book says about embedding.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct Embedding;
