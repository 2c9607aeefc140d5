//! The terminal: keys, layout, frames, config.

pub mod keys;
pub mod theme;
