//! How does it look now?
//!
//! Views over one stream of events, for people: a line per decision while a program runs, and the
//! report at its end. Everything shown is folded from `plimsoll-events`; nothing here knows a cache.
//!
//! | module | what |
//! |---|---|
//! | [`paint`] | colours that mean something and can be turned off |
//! | [`table`] | aligned columns |
//! | [`chart`] | curves in one or two lines of text |
//! | [`decision`] | an event in a line |
//! | [`inspect`] | another process, looked at from outside, in a page |
//! | [`live`] | the live screen |
//! | [`ps`] | processes by memory, a line each |
//! | [`report`] | a run in a page, with a verdict in words |
//! | [`snapshot`] | memory at a moment, in a page |
//! | [`trials`] | what programs came to: one run, profiles side by side, a gate |

pub mod chart;
pub mod decision;
pub mod inspect;
pub mod live;
pub mod paint;
pub mod ps;
pub mod report;
pub mod snapshot;
pub mod table;
pub mod trials;
