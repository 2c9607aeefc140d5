//! Everything that is known at a moment, as JSON: what `--once --json` prints, and what is written
//! from the screen.

use malloc_stats::inspect::{Growth, Inspection, Verdict};
use plimsoll_events::{Opened, TierPicture};
use serde::Serialize;

use super::source::{About, SourceKind};
use super::state::{Dated, Decision, Ended, Row, State, Sums, Vitals};

/// The form of the JSON; raised when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Everything that is known at a moment.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What is shown: `cache`, `process`, `recording`.
    pub kind: SourceKind,
    /// Its name.
    pub name: &'a str,
    /// The process, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The number of the last event.
    pub seq: u64,
    /// Its time, microseconds by the stream's clock.
    pub at_us: u64,
    /// How the stream began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<&'a Opened>,
    /// How it ended, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<&'a Ended>,
    /// What follows, the gravest first.
    pub findings: &'a [Verdict],
    /// Memory, limits and the allocator, the newest of each.
    pub vitals: &'a Vitals,
    /// How fast it grows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// Every tier, RAM first.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub tiers: &'a [TierPicture],
    /// Leases that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<&'a Dated<u64>>,
    /// The models, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<&'a Row>,
    /// What was decided, the latest 1024, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<&'a Decision>,
    /// Sums over the whole stream.
    pub sums: Sums,
    /// Sentences worth reading.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<&'a Dated<String>>,
    /// What was wrong with the source, without ending it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub troubles: &'a [String],
    /// The newest look into the process from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<Dated<&'a Inspection>>,
}

impl<'a> Summary<'a> {
    /// What is known of a source.
    #[must_use]
    pub fn of(state: &'a State, about: &'a About) -> Summary<'a> {
        Summary {
            schema: SCHEMA,
            kind: about.kind,
            name: &about.name,
            pid: about.pid,
            seq: state.seq,
            at_us: state.at_us,
            opened: state.opened.as_deref(),
            ended: state.ended.as_ref(),
            findings: &state.findings,
            vitals: &state.vitals,
            growth: state.growth(),
            tiers: &state.tiers,
            waiting: state.waiting.as_ref(),
            models: state.models.iter().collect(),
            decisions: state.decisions.iter().map(|one| &**one).collect(),
            sums: state.sums,
            notes: state.notes.iter().collect(),
            troubles: &about.troubles,
            look: state.look.as_ref().map(|look| Dated {
                at_us: look.at_us,
                value: &*look.value,
            }),
        }
    }
}
