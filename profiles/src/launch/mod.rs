//! Applying a profile: to this process, which may have to start afresh, or to another program, by
//! the environment it is started with.

mod find;
mod foreign;
mod own;
mod variables;

pub use foreign::{ForeignEnvironment, exported_environment, foreign_environment};
pub use own::apply;

pub(crate) use variables::{JEMALLOC_CONF, PRELOAD, TUNABLES, preloads};
