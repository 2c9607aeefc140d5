//! The terminal: keys, layout, frames, config.
//!
//! | file | what |
//! |---|---|
//! | [`keys`] | the one table of keys, which the help is made from |
//! | [`theme`] | what colours mean, and how they look here |
//! | [`config`] | the config file |
//! | [`layout`] | where the panels lie, by the size of the terminal |
//! | `chooser` | what to look at, where nothing was named |
//! | `ui` | what the user chose; what keys and clicks do to it |
//! | `mouse`, `orders` | clicks; what keys ask of the source |
//! | `prompt` | questions before something is done |
//! | `draw`, `chrome`, `help` | a frame |
//! | [`session`] | the live screen: threads, frames, signals |
//! | `wakes` | what wakes it: keys, clicks, signals |
//! | `reader` | the thread that reads the source |
//! | [`terminal`] | the terminal, taken over and given back |
//! | [`once`], `svg` | one frame without a terminal |
//! | `save` | what is shown, as a file |

mod chooser;
mod chrome;
pub mod config;
mod draw;
mod help;
pub mod keys;
pub mod layout;
mod mouse;
pub mod once;
mod orders;
mod prompt;
mod reader;
mod save;
pub mod session;
mod svg;
pub mod terminal;
pub mod theme;
mod ui;
mod wakes;

pub use chooser::{Choice, Chosen, choose};
pub use config::{Config, ConfigError};
pub use once::{Script, Still};
pub use session::{Finished, run};
pub use terminal::TerminalError;
