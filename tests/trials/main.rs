//! `compare` and `check` as their users run them: real commands, real files. Nothing here depends on
//! how fast anything is, and no number on how much memory a machine has.

#![allow(clippy::unwrap_used)]

mod baselines;
mod book;
mod check;
mod compare;
mod endings;
mod search;
mod unreached;
mod verdicts;
mod world;
