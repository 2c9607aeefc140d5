//! The command as its users run it: real processes, real files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod budgets;
mod devices;
mod faults;
mod inspect;
mod mounted;
mod profiles;
mod recording;
mod run;
mod scan;
mod shown;
mod terms;
mod world;
