//! How each kind of event counts.

use std::sync::Arc;

use malloc_stats::inspect::Inspection;
use malloc_stats::{Metric, Snapshot};
use plimsoll_events::{
    BudgetChange, DeviceSeen, Event, Evict, Kind, Load, Look, Memory, Opened, Picture, Refuse,
    Tally, TierPicture,
};

use super::bounds::cut;
use super::decisions::{Around, What};
use super::models::{Moved, Row};
use super::{Dated, Reading, State};

/// Notes that are kept.
const MOST_NOTES: usize = 256;
/// A longer note is cut: it comes from a stream.
const LONGEST_NOTE: usize = 2_000;
/// No cache has more tiers; an edited recording may.
const MOST_TIERS: usize = 64;
/// A reading of the allocator that is older was of another moment, microseconds.
const FRESH: u64 = 100_000;
/// The tier that is RAM.
const RAM: &str = "ram";

impl State {
    /// Folds an event in. [`conclude`](State::conclude) is for when there are no more at hand.
    pub fn fold(&mut self, event: &Event) {
        self.count(event.seq);
        // A clock that jumps back stands still instead.
        self.at_us = self.at_us.max(event.at_us);
        match &event.kind {
            Kind::Opened(opened) => self.open(opened),
            Kind::Sample(sample) => self.read(&sample.snapshot, Some(&sample.memory)),
            Kind::Pulse(snapshot) => self.read(snapshot, None),
            Kind::Look(look) => self.look(look),
            Kind::Load(load) => self.load(event.seq, load),
            Kind::Evict(evict) => self.evict(event.seq, evict),
            Kind::Refuse(refuse) => self.refuse(event.seq, refuse),
            Kind::Budget(change) => self.budget(event.seq, change),
            Kind::Reclaim(done) => self.decide(event.seq, What::Reclaim(done.clone())),
            Kind::Picture(picture) => self.picture(picture),
            Kind::Model(model) => {
                let at_us = self.at_us;
                if let Some(row) = self.models.row(&model.name, at_us) {
                    row.describe(model);
                }
            }
            Kind::Tally(tally) => self.tally(tally),
            Kind::Answer(answer) => self.note(&answer.said),
            Kind::Note { text } => self.note(text),
            // What ends a source is told by the source; and a kind may be newer than this screen.
            _ => {}
        }
    }

    fn count(&mut self, seq: u64) {
        let first = *self.first_seq.get_or_insert(seq);
        let expected = self.seq.saturating_add(1);
        // Lines beside the stream repeat the number of the last event before them.
        if self.sums.events > 0 && seq > expected && seq > first {
            self.sums.missing = self.sums.missing.saturating_add(seq - expected);
        }
        self.seq = self.seq.max(seq);
        self.sums.events += 1;
    }

    fn open(&mut self, opened: &Opened) {
        if let Some(bytes) = opened.budget_bytes
            && let Some(tier) = self.tier(RAM)
        {
            tier.budget_bytes = bytes;
        }
        for DeviceSeen {
            tier: name,
            budget_bytes,
            simulated,
        } in &opened.devices
        {
            if let Some(tier) = self.tier(name) {
                tier.budget_bytes = *budget_bytes;
                tier.simulated = *simulated;
            }
        }
        let at_us = self.at_us;
        for model in &opened.models {
            if let Some(row) = self.models.row(&model.name, at_us) {
                row.describe(model);
            }
        }
        self.opened = Some(Arc::new(opened.clone()));
    }

    /// A tier by its name; `None` beyond any number that makes sense.
    fn tier(&mut self, name: &str) -> Option<&mut TierPicture> {
        let found = self.tiers.iter().position(|tier| tier.tier == name);
        let at = match found {
            Some(at) => at,
            None if self.tiers.len() >= MOST_TIERS => return None,
            None => {
                let at = if name == RAM { 0 } else { self.tiers.len() };
                let tier = TierPicture {
                    tier: name.to_owned(),
                    budget_bytes: u64::MAX,
                    ..TierPicture::default()
                };
                self.tiers.insert(at, tier);
                at
            }
        };
        self.tiers.get_mut(at)
    }

    fn read(&mut self, snapshot: &Snapshot, memory: Option<&Memory>) {
        self.vitals.read(self.at_us, snapshot, memory);
        self.plot(self.at_us, snapshot);
        if snapshot.limits.is_some() {
            self.remember();
        }
    }

    /// Puts a snapshot on the curves.
    fn plot(&mut self, at_us: u64, snapshot: &Snapshot) {
        // What was read a while ago is no reading of this moment.
        let heap = snapshot.allocator.as_ref();
        let heap = heap.filter(|_| snapshot.allocator_age_us < FRESH);
        let in_use = heap.and_then(|heap| heap.in_use.bytes());
        self.plot_reading(at_us, snapshot.process.rss, in_use, snapshot.cgroup_current);
    }

    fn plot_reading(&mut self, at_us: u64, rss: Metric, in_use: Option<u64>, charged: Metric) {
        let (ram, devices) = match self.tiers.split_first() {
            Some((ram, devices)) => (Some(ram.used_bytes), devices),
            None => (None, &[][..]),
        };
        let on_devices = devices.iter().map(|tier| tier.used_bytes);
        let reading = Reading {
            rss: rss.bytes(),
            in_use,
            live: ram,
            charged: charged.bytes(),
            device: (!devices.is_empty()).then(|| on_devices.fold(0, u64::saturating_add)),
        };
        self.series.push(at_us, &reading);
    }

    fn look(&mut self, look: &Look) {
        let inspection = &look.inspection;
        self.vitals.look(self.at_us, inspection);
        let charged = inspection.limits.cgroups.first();
        let in_use = inspection
            .heap
            .as_ref()
            .and_then(|heap| heap.totals.in_use.bytes());
        let rss = inspection.process.memory.rss;
        let charged = charged.map_or(Metric::Unavailable, |cgroup| cgroup.current);
        self.plot_reading(self.at_us, rss, in_use, charged);
        self.remember();
        self.look = Some(Dated {
            at_us: self.at_us,
            value: Arc::new(inspection.clone()),
        });
    }

    fn load(&mut self, seq: u64, load: &Load) {
        self.surround(&load.before, load.took_us);
        if load.error.is_none() {
            self.sums.loads += 1;
            // A picture has counted it already, where it was taken while this was under way.
            let counted = self.is_in(&load.model, &load.tier);
            // Of parts it cannot be told; the next picture says.
            let counted = counted || load.part_of.is_some();
            if let Some(tier) = self.tier(&load.tier).filter(|_| !counted) {
                tier.used_bytes = tier.used_bytes.saturating_add(load.charged_bytes);
                tier.resident_models = tier.resident_models.saturating_add(1);
            }
        } else {
            self.sums.failed_loads += 1;
        }
        let at_us = self.at_us;
        let name = load.part_of.as_ref().unwrap_or(&load.model);
        if let Some(row) = self.models.row(name, at_us) {
            row.load(at_us, load);
        }
        self.read(&load.after, None);
        let (before, after) = (Around::of(&load.before), Around::of(&load.after));
        let load = Load {
            before: lean(&load.before),
            after: lean(&load.after),
            ..load.clone()
        };
        self.decide(seq, What::Load(Box::new(load), before, after));
    }

    fn evict(&mut self, seq: u64, evict: &Evict) {
        self.surround(&evict.before, evict.took_us);
        self.sums.evictions += 1;
        if evict.tier == RAM {
            let returned = evict.returned.bytes().unwrap_or(0);
            self.sums.freed_bytes = self.sums.freed_bytes.saturating_add(evict.freed_bytes);
            self.sums.returned_bytes = self.sums.returned_bytes.saturating_add(returned);
        }
        let counted = evict.part_of.is_none() && self.is_in(&evict.model, &evict.tier);
        if let Some(tier) = self.tier(&evict.tier).filter(|_| counted) {
            // What is still held goes on counting.
            let freed = evict.freed_bytes.saturating_sub(evict.held_bytes);
            tier.used_bytes = tier.used_bytes.saturating_sub(freed);
            tier.pinned_bytes = tier.pinned_bytes.min(tier.used_bytes);
            tier.held_bytes = tier.held_bytes.saturating_add(evict.held_bytes);
            tier.resident_models = tier.resident_models.saturating_sub(1);
        }
        let at_us = self.at_us;
        for candidate in &evict.considered {
            if let Some(row) = self.models.known(&candidate.model)
                && candidate.score.is_some()
            {
                row.score = candidate.score;
            }
        }
        let name = evict.part_of.as_ref().unwrap_or(&evict.model);
        if let Some(row) = self.models.row(name, at_us) {
            row.evict(at_us, evict);
        }
        self.read(&evict.after, None);
        let (before, after) = (Around::of(&evict.before), Around::of(&evict.after));
        let evict = Evict {
            before: lean(&evict.before),
            after: lean(&evict.after),
            ..evict.clone()
        };
        self.decide(seq, What::Evict(Box::new(evict), before, after));
    }

    /// Whether a model is known to be in a tier, or on its way.
    fn is_in(&self, model: &str, tier: &str) -> bool {
        let row = self.models.get(model);
        row.is_some_and(|row| row.place(tier).is_some())
    }

    /// Puts what was read before a load or an unload on the curves.
    fn surround(&mut self, before: &Snapshot, took_us: u64) {
        let begun = self.at_us.saturating_sub(took_us);
        let last = self.series.span().map_or(0, |span| span.end);
        self.plot(begun.max(last).min(self.at_us), before);
    }

    fn refuse(&mut self, seq: u64, refuse: &Refuse) {
        self.sums.refusals += 1;
        let at_us = self.at_us;
        for model in &refuse.models {
            if let Some(row) = self.models.row(model, at_us) {
                row.refusals += 1;
            }
        }
        self.decide(seq, What::Refuse(Box::new(refuse.clone())));
    }

    fn budget(&mut self, seq: u64, change: &BudgetChange) {
        if let Some(tier) = self.tier(&change.tier) {
            tier.budget_bytes = change.budget_bytes;
            tier.reserve_bytes = change.reserve_bytes;
        }
        self.decide(seq, What::Budget(Box::new(change.clone())));
    }

    fn picture(&mut self, picture: &Picture) {
        self.tiers = picture.tiers.iter().take(MOST_TIERS).cloned().collect();
        self.waiting = Some(Dated {
            at_us: self.at_us,
            value: picture.waiting,
        });
        if !picture.policy.is_empty() {
            self.policy.clone_from(&picture.policy);
        }
        self.models.picture(picture, self.at_us);
        self.contexts.picture(&self.tiers, &self.vitals, self.at_us);
    }

    fn tally(&mut self, tally: &Tally) {
        let at_us = self.at_us;
        for (model, hits) in &tally.hits {
            self.sums.hits = self.sums.hits.saturating_add(*hits);
            if let Some(row) = self.models.row(model, at_us) {
                row.hits = row.hits.saturating_add(*hits);
                row.used_us = Some(at_us);
            }
        }
    }

    fn decide(&mut self, seq: u64, what: What) {
        self.decisions.push(seq, self.at_us, what);
    }

    fn note(&mut self, text: &str) {
        let mut text = text.to_owned();
        if text.len() > LONGEST_NOTE {
            text.truncate(text.floor_char_boundary(LONGEST_NOTE));
            text.push_str("..");
        }
        // The same again is not news.
        if self.notes.back().is_some_and(|last| last.value == text) {
            return;
        }
        if self.notes.len() == MOST_NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(Dated {
            at_us: self.at_us,
            value: text,
        });
    }

    /// The newest look that has a heap.
    #[must_use]
    pub fn inspection(&self) -> Option<&Inspection> {
        self.look.as_ref().map(|look| &*look.value)
    }
}

/// A snapshot without what takes memory: decisions are kept by the thousand.
fn lean(snapshot: &Snapshot) -> Snapshot {
    Snapshot {
        depth: snapshot.depth,
        at_us: snapshot.at_us,
        cost_us: snapshot.cost_us,
        process: snapshot.process,
        cgroup_current: snapshot.cgroup_current,
        ..Snapshot::default()
    }
}

impl Row {
    fn load(&mut self, at_us: u64, load: &Load) {
        self.bytes = self.bytes.max(load.bytes);
        if load.part_of.is_none() {
            self.places.retain(|place| place.tier != load.tier);
        }
        self.moved = Some(Moved {
            at_us,
            came: true,
            tier: cut(&load.tier),
            took_us: load.took_us,
            bytes: load.charged_bytes,
            returned: Metric::Unavailable,
            due_bytes: 0,
            error: load.error.as_deref().map(cut),
        });
        if load.error.is_some() {
            self.failed_loads += 1;
            return;
        }
        self.loads += 1;
        self.used_us = Some(at_us);
        if self.reload_us.len() < MOST_TIERS || self.reload_us.contains_key(&load.tier) {
            self.reload_us.insert(cut(&load.tier), load.took_us);
        }
        match load.part_of {
            None => self.arrive(at_us, &load.tier, load.charged_bytes),
            Some(_) => self.part_arrives(at_us, load),
        }
    }

    fn evict(&mut self, at_us: u64, evict: &Evict) {
        self.evictions += 1;
        self.bytes = self.bytes.max(evict.bytes);
        match evict.part_of {
            None => self.places.retain(|place| place.tier != evict.tier),
            Some(_) => self.part_leaves(evict),
        }
        self.moved = Some(Moved {
            at_us,
            came: false,
            tier: cut(&evict.tier),
            took_us: evict.took_us,
            bytes: evict.freed_bytes,
            returned: evict.returned,
            due_bytes: evict.due_bytes(),
            error: None,
        });
    }
}
