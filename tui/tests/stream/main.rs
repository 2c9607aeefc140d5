//! What a stream leads to on the screen: by hand-made events, and by nonsense.
#![allow(clippy::unwrap_used)]

mod events;
mod fold;
mod listed;
mod nonsense;
