//! The live screen in a real terminal.
#![allow(clippy::unwrap_used)]

mod agree;
mod bad;
mod bad_sockets;
mod frames;
mod keys;
mod manners;
mod mouse;
mod sizes;
mod terminal;
mod world;
