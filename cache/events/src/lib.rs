//! What happened?
//!
//! Everything a cache does is an [`Event`] with numbers: samples of memory, decisions, and hits in
//! aggregate (the fast path sends nothing; it is counted). The same JSON lines are what a recording
//! holds, what a live process sends, and what reports and screens are folded from.
//!
//! | module | what |
//! |---|---|
//! | [`event`] | the envelope, and the kinds of event |
//! | [`decision`] | loads, evictions, refusals: what was done, why, and what the system got back |
//! | [`figures`] | what a device's driver says of its memory |
//! | [`look`] | a process looked into from outside, in a form that a recording can hold |
//! | [`request`] | what a live screen may ask of a cache |
//! | [`record`] | JSON lines, written so that a killed process leaves whole ones, and read back |
//! | [`report`] | the fold that `run`, `replay` and a gate share |
//! | [`subscribe`] | hearing a stream from inside the process, without slowing it down |
//! | [`publish`] | the same from another process: a socket that a live screen connects to |
//!
//! # Versions
//!
//! [`VERSION`] is in every line. A reader takes lines of its own version and older; a kind of event
//! that it does not know is kept as [`Kind::Unknown`] and skipped by folds, so that kinds can be
//! added without a new version. A field is never given another meaning.

pub mod decision;
pub mod event;
pub mod figures;
pub mod look;
pub mod publish;
pub mod record;
pub mod report;
pub mod request;
mod stream;
pub mod subscribe;

pub use decision::{
    BudgetChange, Candidate, Evict, EvictReason, Load, Origin, PageCacheLeft, Reclaim, Refuse,
    RefuseReason, Settled, Skipped, Streamed,
};
pub use event::{
    Closed, DeviceSeen, Event, GroupSeen, Kind, Memory, ModelPicture, ModelSeen, Opened, PageCache,
    Picture, PlacePicture, Point, Sample, Sink, Tally, TierPicture,
};
pub use figures::{DeviceFigures, DeviceFreed};
pub use look::Look;
pub use publish::{
    Asker, Follow, Heard, Host, Peer, Publication, PublishError, Published, connect, published,
};
pub use record::{ReadError, Recorder, Replay};
pub use report::{CycleReport, ErrorReport, Report};
pub use request::{Answer, Ask, Request};
pub use stream::Stream;
pub use subscribe::{Received, RecvError, Subscription};

/// The version of the stream, in every event.
pub const VERSION: u32 = 3;
