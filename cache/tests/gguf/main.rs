//! GGUF files are read as candle reads them, and bad ones are refused.

#![allow(clippy::unwrap_used)]

mod agreement;
mod hostile;
mod lying;
#[path = "../model_files/mod.rs"]
mod model_files;
mod random;
mod split;
mod weight;
mod written;
