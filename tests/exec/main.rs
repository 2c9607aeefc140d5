//! `plimsoll exec` against the bare program: each case runs the same program once by itself and
//! once under it, in the same setting, and compares what the program and its parent saw.
#![allow(clippy::unwrap_used)]

mod bad;
mod children;
mod differs;
mod ends;
mod inherited;
mod jobs;
mod namespaces;
mod probe;
mod sessions;
mod shell;
mod signals;
mod streams;
mod world;
