//! How each kind of event counts.

use malloc_stats::{AllocatorReading, Metric, Process};

use super::{CycleReport, ErrorReport, ModelReport, RAM, Report, StepReport};
use crate::decision::{Evict, EvictReason, Load};
use crate::event::{Event, Kind, ModelSeen, Opened, Point, Sample};

/// More distinct errors than this are counted as loads that failed, and not kept.
const MOST_ERRORS: usize = 100;

/// More notes than this nobody reads.
const MOST_NOTES: usize = 100;

impl Report {
    /// Folds an event in.
    pub fn fold(&mut self, event: &Event) {
        // Whoever joins late has not missed what came before.
        let expected = self.next_seq.unwrap_or_else(|| {
            self.whole = event.seq == 0;
            event.seq
        });
        add(&mut self.missing_events, event.seq.saturating_sub(expected));
        self.next_seq = Some(event.seq.saturating_add(1));
        self.wall_seconds = self.wall_seconds.max(event.at_us as f64 / 1e6);
        match &event.kind {
            Kind::Opened(opened) => self.open(opened),
            Kind::Model(model) => self.model(&model.name).model = (**model).clone(),
            Kind::Sample(sample) => self.sample(sample),
            Kind::Load(load) => self.load(load),
            Kind::Evict(evict) => self.evict(evict),
            Kind::Refuse(refuse) => self.refuse(refuse),
            Kind::Streamed(streamed) => self.streamed(streamed),
            Kind::Budget(change) => self.budget(change),
            Kind::Reclaim(reclaim) => self.reclaims.fold(reclaim),
            Kind::Picture(picture) => self.see_tiers(picture),
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
            Kind::Pulse(snapshot) => self.pulse(&snapshot.process),
            Kind::Look(_) | Kind::Answer(_) | Kind::Unknown => {}
        }
    }

    fn open(&mut self, opened: &Opened) {
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
        self.open_tiers(opened);
        for model in &opened.models {
            self.model(&model.name).model = model.clone();
        }
    }

    pub(super) fn model(&mut self, name: &str) -> &mut ModelReport {
        let at = self.index.models.get(name).copied().unwrap_or_else(|| {
            self.index.models.insert(name.to_owned(), self.models.len());
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
            Point::Dropped | Point::Settled => {
                self.retained_bytes = Some(above);
                self.waste = waste(sample);
                if sample.point == Point::Dropped {
                    let reading = sample.snapshot.allocator.as_ref();
                    self.cycles.push(CycleReport {
                        rss_bytes: rss,
                        in_use: reading.map_or(Metric::Unavailable, |reading| reading.in_use),
                        live_bytes: live,
                    });
                }
            }
            Point::Purged => self.structural = waste(sample),
            Point::Baseline | Point::Tick => {}
        }
    }

    /// Memory seen from outside: all there is of a program that tells nothing itself.
    fn pulse(&mut self, process: &Process) {
        let Some(rss) = process.rss.bytes() else {
            return;
        };
        self.rss_peak_bytes = self.rss_peak_bytes.max(Some(rss));
        if self.baseline_rss_bytes.is_none() {
            self.baseline_rss_bytes = Some(rss);
            self.baseline_faults = process.minor_faults;
        }
        let faults = process.minor_faults.saturating_sub(self.baseline_faults);
        self.minor_faults = self.minor_faults.max(faults);
    }

    fn load(&mut self, load: &Load) {
        let name = load.part_of.as_ref().unwrap_or(&load.model);
        let seconds = load.took_us as f64 / 1e6;
        self.snapshot_seconds += load.snapshots_us as f64 / 1e6;
        self.load_seconds += seconds;
        self.came(load);
        if load.tier == RAM {
            self.returned(load.gave_back);
        }
        if let Some(error) = &load.error {
            self.failed_loads += 1;
            self.model(name).failed_loads += 1;
            self.error(&load.model, error);
            return;
        }
        self.loads += 1;
        if load.is_patch {
            add(&mut self.patched_bytes, load.bytes);
        }
        add(&mut self.bytes_loaded, load.bytes);
        if load.tier == RAM {
            add(&mut self.recycled_bytes, load.recycled_bytes);
        }
        let model = self.model(name);
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
        let reason = name(&evict.reason).to_owned();
        *self.evictions_by_reason.entry(reason).or_insert(0) += 1;
        self.left(evict);
        self.snapshot_seconds += evict.snapshots_us as f64 / 1e6;
        if evict.tier == RAM {
            add(&mut self.freed_bytes, evict.freed_bytes);
            self.returned(evict.returned);
        }
        let name = evict.part_of.as_ref().unwrap_or(&evict.model);
        self.model(name).evictions += 1;
    }

    fn returned(&mut self, bytes: Metric) {
        add(&mut self.returned_bytes, bytes.bytes().unwrap_or(0));
        self.returned_exact &= matches!(bytes, Metric::Exact(_));
    }
}

/// What is resident because of the allocator, and in no block in use.
fn waste(sample: &Sample) -> Metric {
    let reading = sample.snapshot.allocator.as_ref();
    let waste = reading.and_then(AllocatorReading::waste);
    waste.map_or(Metric::Unavailable, |waste| waste.bytes)
}

/// Adds up a number that a recording claims: an edited one must not overflow the report.
pub(super) fn add(sum: &mut u64, number: u64) {
    *sum = sum.saturating_add(number);
}

/// A reason by the name that the stream gives it.
fn name(reason: &EvictReason) -> &'static str {
    match reason {
        EvictReason::Room { .. } => "room",
        EvictReason::Dropped => "dropped",
        EvictReason::Cleared => "cleared",
        EvictReason::Idle { .. } => "idle",
        EvictReason::Pressure { .. } => "pressure",
        EvictReason::Requested { .. } => "requested",
        EvictReason::DeviceFull { .. } => "device_full",
        EvictReason::Offloaded => "offloaded",
        EvictReason::NotKept => "not_kept",
    }
}

fn difference(a: u64, b: u64) -> i64 {
    let difference = i128::from(a) - i128::from(b);
    difference.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}
