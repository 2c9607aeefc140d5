//! The report: a fold over the stream.

use std::collections::{BTreeMap, HashMap};

use malloc_stats::{Allocator, Metric};
use serde::{Deserialize, Serialize};

use crate::decision::{Evict, EvictReason, Load, RefuseReason};
use crate::event::{Event, Kind, ModelSeen, Point, Sample};

/// The version of the report's JSON form.
pub const SCHEMA: u32 = 1;

/// What a run came to. The JSON form of this is what `run --json` and `replay --json` print.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether the stream ended in order. If not, what follows is up to its last event.
    pub complete: bool,
    /// The program that wrote the stream.
    pub program: String,
    /// The profile's name.
    pub profile: String,
    /// The allocator that served, in words.
    pub allocator: String,
    /// The descriptor behind it, with the settings in force.
    pub settings: Option<Allocator>,
    /// Where weights were kept in RAM.
    pub storage: String,
    /// What the run was asked for.
    pub options: BTreeMap<String, String>,
    /// The RAM budget; absent where there was no cache.
    pub budget_bytes: Option<u64>,
    /// Resident memory before the first load.
    pub baseline_rss_bytes: Option<u64>,
    /// The most that was live at the end of a load or step, the churn's blocks included.
    pub live_peak_bytes: u64,
    /// The most that was resident (VmHWM).
    pub rss_peak_bytes: Option<u64>,
    /// The worst of resident − baseline − live after a step.
    pub excess_bytes: Option<i64>,
    /// Resident − baseline with everything dropped, after the time to settle.
    pub retained_bytes: Option<i64>,
    /// Bytes that evictions freed, by the cache's own count.
    pub freed_bytes: u64,
    /// Bytes that the system got back from evictions, and from what loads left over.
    pub returned_bytes: u64,
    /// Whether every part of `returned_bytes` is exact.
    pub returned_exact: bool,
    /// Bytes that were loaded into pages which evictions left behind.
    pub recycled_bytes: u64,
    /// Models loaded.
    pub loads: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// Leases of resident models.
    pub hits: u64,
    /// Models evicted, dropped or cleared.
    pub evictions: u64,
    /// Evictions to make room for another.
    pub evictions_for_room: u64,
    /// Leases refused.
    pub refusals: u64,
    /// Bytes of weights loaded.
    pub bytes_loaded: u64,
    /// Bytes copied into tensors because their memory could not be adopted.
    pub copied_bytes: u64,
    /// Page faults without I/O since the baseline.
    pub minor_faults: u64,
    /// Seconds spent loading.
    pub load_seconds: f64,
    /// Seconds from the first event to the last.
    pub wall_seconds: f64,
    /// Seconds that snapshots around loads and unloads took.
    pub snapshot_seconds: f64,
    /// Hash over all weights read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checksum: Option<String>,
    /// Hash of each model's weights.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub model_checksums: BTreeMap<String, String>,
    /// Each model, with what happened to it.
    pub models: Vec<ModelReport>,
    /// Resident above the baseline, and live, after each step.
    pub steps: Vec<StepReport>,
    /// What went wrong with loads, each error once with how often it came.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<ErrorReport>,
    /// Sentences worth reading.
    pub notes: Vec<String>,
    /// Events that are missing from the stream.
    pub missing_events: u64,
    /// Where each model is in `models`.
    #[serde(skip)]
    index: HashMap<String, usize>,
    #[serde(skip)]
    next_seq: u64,
    #[serde(skip)]
    baseline_faults: u64,
}

/// An error of loads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The model.
    pub model: String,
    /// The error, in words.
    pub error: String,
    /// How often it came.
    pub count: u64,
}

/// More distinct errors than this are counted as loads that failed, and not kept.
const MOST_ERRORS: usize = 100;

/// More notes than this nobody reads.
const MOST_NOTES: usize = 100;

/// What happened to one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The model.
    #[serde(flatten)]
    pub model: ModelSeen,
    /// How often it was loaded.
    pub loads: u64,
    /// Leases that found it resident.
    pub hits: u64,
    /// How often it was evicted.
    pub evictions: u64,
    /// How often its load failed.
    pub failed_loads: u64,
    /// How often a lease with it was refused.
    pub refusals: u64,
    /// Seconds spent loading it.
    pub load_seconds: f64,
}

/// Memory after a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Weights and churn that were live.
    pub live_bytes: u64,
}

impl Report {
    /// A report of nothing yet.
    #[must_use]
    pub fn new() -> Report {
        Report {
            schema: SCHEMA,
            returned_exact: true,
            ..Report::default()
        }
    }

    /// Folds an event in.
    pub fn fold(&mut self, event: &Event) {
        add(
            &mut self.missing_events,
            event.seq.saturating_sub(self.next_seq),
        );
        self.next_seq = event.seq.saturating_add(1);
        self.wall_seconds = self.wall_seconds.max(event.at_us as f64 / 1e6);
        match &event.kind {
            Kind::Opened(opened) => {
                if !self.program.is_empty() {
                    let note = "more than one stream is in this recording; numbers are of all";
                    self.note(note.to_owned());
                }
                self.program.clone_from(&opened.program);
                self.profile.clone_from(&opened.profile);
                self.storage.clone_from(&opened.storage);
                self.options.clone_from(&opened.options);
                self.budget_bytes = opened.budget_bytes;
                self.settings.clone_from(&opened.allocator);
                self.allocator.clone_from(&opened.allocator_name);
                for model in &opened.models {
                    self.model(&model.name).model = model.clone();
                }
            }
            Kind::Sample(sample) => self.sample(sample),
            Kind::Load(load) => self.load(load),
            Kind::Evict(evict) => self.evict(evict),
            Kind::Refuse(refuse) => {
                self.refusals += 1;
                for model in &refuse.models {
                    self.model(model).refusals += 1;
                }
                if refuse.reason == RefuseReason::ExceedsBudget {
                    let note = format!(
                        "{} needs {} and the budget is {}",
                        refuse.models.join(" + "),
                        malloc_stats::size::Size(refuse.asked_bytes),
                        malloc_stats::size::Size(refuse.budget_bytes)
                    );
                    self.note(note);
                }
            }
            Kind::Tally(tally) => {
                for (model, hits) in &tally.hits {
                    add(&mut self.hits, *hits);
                    add(&mut self.model(model).hits, *hits);
                }
                add(&mut self.copied_bytes, tally.copied_bytes);
                add(&mut self.returned_bytes, tally.gave_back_bytes);
            }
            Kind::Note { text } => self.note(text.clone()),
            Kind::Closed(closed) => {
                self.complete = !closed.interrupted;
                self.checksum.clone_from(&closed.checksum);
                self.model_checksums.clone_from(&closed.model_checksums);
                if closed.interrupted {
                    self.notes.push("interrupted".to_owned());
                }
            }
            Kind::Budget(_) | Kind::Reclaim(_) | Kind::Picture(_) | Kind::Unknown => {}
        }
    }

    fn model(&mut self, name: &str) -> &mut ModelReport {
        let at = self.index.get(name).copied().unwrap_or_else(|| {
            self.index.insert(name.to_owned(), self.models.len());
            self.models.push(ModelReport {
                model: ModelSeen {
                    name: name.to_owned(),
                    ..ModelSeen::default()
                },
                ..ModelReport::default()
            });
            self.models.len() - 1
        });
        &mut self.models[at]
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) && self.notes.len() < MOST_NOTES {
            self.notes.push(note);
        }
    }

    fn sample(&mut self, sample: &Sample) {
        let process = &sample.snapshot.process;
        let live = sample
            .memory
            .live_bytes
            .saturating_add(sample.memory.churn_bytes);
        self.live_peak_bytes = self.live_peak_bytes.max(live);
        self.rss_peak_bytes = self.rss_peak_bytes.max(process.hwm.bytes());
        let Some(rss) = process.rss.bytes() else {
            return;
        };
        if sample.point == Point::Baseline {
            self.baseline_rss_bytes = Some(rss);
            self.baseline_faults = process.minor_faults;
            return;
        }
        self.minor_faults = process.minor_faults.saturating_sub(self.baseline_faults);
        let Some(baseline) = self.baseline_rss_bytes else {
            return;
        };
        let above = difference(rss, baseline);
        match sample.point {
            Point::Step(step) => {
                let excess = above.saturating_sub_unsigned(live);
                self.excess_bytes = Some(self.excess_bytes.map_or(excess, |e| e.max(excess)));
                self.steps.push(StepReport {
                    step,
                    rss_bytes: rss,
                    live_bytes: live,
                });
            }
            Point::Dropped | Point::Settled => self.retained_bytes = Some(above),
            Point::Baseline | Point::Tick => {}
        }
    }

    fn load(&mut self, load: &Load) {
        let seconds = load.took_us as f64 / 1e6;
        self.snapshot_seconds += load.snapshots_us as f64 / 1e6;
        self.load_seconds += seconds;
        self.returned(load.gave_back);
        if let Some(error) = &load.error {
            self.failed_loads += 1;
            self.model(&load.model).failed_loads += 1;
            self.error(&load.model, error);
            return;
        }
        self.loads += 1;
        add(&mut self.bytes_loaded, load.bytes);
        add(&mut self.recycled_bytes, load.recycled_bytes);
        let model = self.model(&load.model);
        model.loads += 1;
        model.load_seconds += seconds;
    }

    fn error(&mut self, model: &str, error: &str) {
        let same = |known: &ErrorReport| known.model == model && known.error == error;
        if let Some(at) = self.errors.iter().position(same) {
            self.errors[at].count += 1;
        } else if self.errors.len() < MOST_ERRORS {
            self.errors.push(ErrorReport {
                model: model.to_owned(),
                error: error.to_owned(),
                count: 1,
            });
        }
    }

    fn evict(&mut self, evict: &Evict) {
        self.evictions += 1;
        if matches!(evict.reason, EvictReason::Room { .. }) {
            self.evictions_for_room += 1;
        }
        add(&mut self.freed_bytes, evict.freed_bytes);
        self.snapshot_seconds += evict.snapshots_us as f64 / 1e6;
        self.returned(evict.returned);
        self.model(&evict.model).evictions += 1;
    }

    fn returned(&mut self, bytes: Metric) {
        add(&mut self.returned_bytes, bytes.bytes().unwrap_or(0));
        self.returned_exact &= matches!(bytes, Metric::Exact(_));
    }

    /// What snapshots cost, as a share of the time spent loading.
    #[must_use]
    pub fn snapshot_share(&self) -> Option<f64> {
        (self.loads > 0 && self.load_seconds > 0.0)
            .then(|| self.snapshot_seconds / self.load_seconds)
    }
}

/// Adds up a number that a recording claims: an edited one must not overflow the report.
fn add(sum: &mut u64, number: u64) {
    *sum = sum.saturating_add(number);
}

fn difference(a: u64, b: u64) -> i64 {
    let difference = i128::from(a) - i128::from(b);
    difference.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
