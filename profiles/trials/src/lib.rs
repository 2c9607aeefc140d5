//! What does a profile cost a program, and is a difference real?
//!
//! A [`Trial`] is one run of a program, in numbers that every program has: [`Measure`]s, each with
//! a grade, or a reason for its absence. What a foreign program came to under `exec` is an
//! [`Outcome`]; what a run of the cache came to is a `Report` of the stream; both become trials.
//! Nothing here starts a process or reads a clock.
//!
//! | module | question |
//! |---|---|
//! | [`baseline`] | what did runs come to, when that was good? |
//! | [`check`] | is a program worse than its baseline? |
//! | [`compare`] | which profile is worth its price? |
//! | [`gate`] | how much worse may it get? |
//! | [`machine`] | where was it measured, and is that here? |
//! | [`measure`] | which numbers does a run have? |
//! | [`number`] | how is one written? |
//! | [`outcome`] | what did a foreign program come to? |
//! | [`search`] | which value of a knob? |
//! | [`statistics`] | is a difference more than noise? |
//! | [`trial`] | what did one run come to? |
//! | [`words`] | how is text from outside shown? |

pub mod baseline;
pub mod check;
pub mod compare;
mod from_outcome;
mod from_report;
pub mod gate;
pub mod machine;
pub mod measure;
pub mod number;
pub mod outcome;
pub mod search;
pub mod statistics;
pub mod trial;
pub mod words;

pub use baseline::{Baseline, BaselineError};
pub use check::Checked;
pub use compare::Comparison;
pub use gate::{Choice, Gate, GateError, Gates};
pub use machine::{Across, Difference, Machine};
pub use measure::{Measure, Unit, UnknownMeasure};
pub use outcome::Outcome;
pub use trial::{Trial, Value};
