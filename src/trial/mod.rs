//! Trials: one thing run under several profiles, or several times under one.
//!
//! | file | what |
//! |---|---|
//! | `subject` | what is run |
//! | `runner` | running it once, in numbers |
//! | `printed` | what it prints, of which the end is kept |
//! | `rounds` | running it in turns, with a bar |

mod printed;
mod rounds;
mod runner;
mod subject;

pub(crate) use rounds::{Named, Rounds, rounds};
pub(crate) use runner::{Runner, TrialError};
pub(crate) use subject::Subject;
