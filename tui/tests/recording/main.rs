//! What is heard of a recording, and of a run of our own.

#![allow(clippy::unwrap_used)]

mod child;
mod grow;
mod hostile;
mod play;
mod property;
mod seek;
mod take;
