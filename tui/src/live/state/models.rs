//! The models, where they are, and what happened to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use malloc_stats::Metric;
use plimsoll_events::{Evict, GroupSeen, Load, ModelSeen, Picture, PlacePicture};
use serde::Serialize;

use super::bounds;

/// The models of a stream: at most [`MOST`](Models::MOST), those that something happened to last.
#[derive(Debug, Clone, Default)]
pub struct Models {
    pub(crate) rows: BTreeMap<String, Row>,
    /// How many were left out.
    pub beyond: u64,
    /// The moment at which none could be forgotten: whatever else is told of it finds no room
    /// either, without another look at all.
    full_us: Option<u64>,
}

/// Groups of tensors that are kept of a model, at most.
const MOST_GROUPS: usize = 64;

/// One model.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// Its name, control characters and all.
    pub name: String,
    /// Bytes of its tensors; 0 where that was not told.
    pub bytes: u64,
    /// How many tensors; 0 where that was not told.
    pub tensors: u64,
    /// Its tensors in groups; empty where that was not told.
    #[serde(serialize_with = "as_slice")]
    pub groups: Arc<[GroupSeen]>,
    /// The tiers where it is, or on its way in or out.
    pub places: Vec<PlacePicture>,
    /// When `places` was told, microseconds.
    pub placed_us: u64,
    /// Dropped, and there only until its leases end.
    pub dropped: bool,
    /// Loads, into any tier.
    pub loads: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// Evictions, from any tier.
    pub evictions: u64,
    /// Leases that found it resident.
    pub hits: u64,
    /// Leases refused that asked for it.
    pub refusals: u64,
    /// When something was last done with it: a lease, a load.
    pub used_us: Option<u64>,
    /// What it was worth when the policy was last asked; the lowest goes first.
    pub score: Option<f64>,
    /// What the last load into each tier took, microseconds.
    pub reload_us: BTreeMap<String, u64>,
    /// The last load or unload.
    pub moved: Option<Moved>,
    /// When anything was last heard of it, microseconds.
    pub heard_us: u64,
}

/// A load or an unload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moved {
    /// When, microseconds.
    pub at_us: u64,
    /// Whether it came, rather than went.
    pub came: bool,
    /// The tier.
    pub tier: String,
    /// What it took, microseconds.
    pub took_us: u64,
    /// What it counted: charged by a load, freed by an unload, bytes.
    pub bytes: u64,
    /// For an unload: what the system got back.
    pub returned: Metric,
    /// For an unload: what the system should have got back.
    pub due_bytes: u64,
    /// Why it failed, where it did.
    pub error: Option<String>,
}

fn as_slice<S: serde::Serializer>(groups: &Arc<[GroupSeen]>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(groups.iter())
}

impl Models {
    /// More models than this are counted and not kept.
    pub const MOST: usize = 4096;

    /// All that are kept, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.rows.values()
    }

    /// One by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Row> {
        self.rows.get(name)
    }

    /// One that is known already.
    pub(super) fn known(&mut self, name: &str) -> Option<&mut Row> {
        self.rows.get_mut(name)
    }

    /// One that something happened to; `None` where there are too many of them.
    pub(super) fn row(&mut self, name: &str, at_us: u64) -> Option<&mut Row> {
        if !self.rows.contains_key(name) {
            if name.len() > bounds::LONGEST || !self.has_room(at_us) {
                self.beyond = self.beyond.saturating_add(1);
                return None;
            }
            let row = Row {
                name: name.to_owned(),
                ..Row::default()
            };
            self.rows.insert(name.to_owned(), row);
        }
        let row = self.rows.get_mut(name)?;
        row.heard_us = at_us;
        Some(row)
    }

    /// Whether there is room for another, or was made.
    fn has_room(&mut self, at_us: u64) -> bool {
        if self.rows.len() < Models::MOST {
            return true;
        }
        if self.full_us == Some(at_us) {
            return false;
        }
        let made = self.forget();
        self.full_us = (!made).then_some(at_us);
        made
    }

    /// Forgets the eighth of the models that are nowhere and were heard of least recently: not one
    /// at a time, or each new name would cost a look at all.
    fn forget(&mut self) -> bool {
        let gone = self.rows.values().filter(|row| row.places.is_empty());
        let mut gone: Vec<(u64, String)> =
            gone.map(|row| (row.heard_us, row.name.clone())).collect();
        gone.sort();
        gone.truncate(Models::MOST / 8);
        for (_, name) in &gone {
            self.rows.remove(name);
        }
        self.beyond = self.beyond.saturating_add(gone.len() as u64);
        !gone.is_empty()
    }

    /// Where everything is.
    pub(super) fn picture(&mut self, picture: &Picture, at_us: u64) {
        self.full_us = None;
        for row in self.rows.values_mut() {
            row.places.clear();
            row.dropped = false;
            row.placed_us = at_us;
        }
        for model in &picture.models {
            let Some(row) = self.row(&model.model, at_us) else {
                continue;
            };
            // A model that was dropped and one of the same name that came after it.
            row.places
                .extend(model.places.iter().take(MOST_PLACES).cloned());
            row.places.truncate(MOST_PLACES);
            row.bytes = row.bytes.max(model.bytes);
            row.dropped |= model.dropped;
            for place in &model.places {
                row.score = place.score.or(row.score);
                if let Some(idle_ms) = place.idle_ms {
                    let used_us = at_us.saturating_sub(idle_ms.saturating_mul(1000));
                    row.used_us = row.used_us.max(Some(used_us));
                }
                if place.leases > 0 {
                    row.used_us = Some(at_us);
                }
            }
        }
    }
}

/// Tiers of one model, at most.
const MOST_PLACES: usize = 64;

impl Row {
    /// Takes over what a stream tells of the model itself.
    pub(super) fn describe(&mut self, model: &ModelSeen) {
        self.bytes = model.bytes;
        self.tensors = model.tensors;
        if !model.groups.is_empty() {
            let groups = model.groups.iter().take(MOST_GROUPS);
            self.groups = groups
                .map(|group| GroupSeen {
                    name: bounds::cut(&group.name),
                    dtypes: bounds::cut(&group.dtypes),
                    ..*group
                })
                .collect();
        }
    }

    /// It is in a tier now.
    pub(super) fn arrive(&mut self, at_us: u64, tier: &str, charged_bytes: u64) {
        self.placed_us = at_us;
        if self.places.len() < MOST_PLACES {
            self.places.push(PlacePicture {
                tier: bounds::cut(tier),
                phase: "resident".to_owned(),
                charged_bytes,
                ..PlacePicture::default()
            });
        }
    }

    /// A part of it is in a tier now.
    pub(super) fn part_arrives(&mut self, at_us: u64, part: &Load) {
        let known = self.places.iter_mut().find(|place| place.tier == part.tier);
        if let Some(place) = known {
            place.charged_bytes = place.charged_bytes.saturating_add(part.charged_bytes);
            let bytes = place.part_bytes.unwrap_or(0);
            place.part_bytes = Some(bytes.saturating_add(part.bytes));
            return;
        }
        self.arrive(at_us, &part.tier, part.charged_bytes);
        if let Some(place) = self.places.last_mut() {
            place.part_bytes = Some(part.bytes);
        }
    }

    /// A part of it has left a tier.
    pub(super) fn part_leaves(&mut self, part: &Evict) {
        self.places.retain_mut(|place| {
            if place.tier != part.tier {
                return true;
            }
            place.charged_bytes = place.charged_bytes.saturating_sub(part.freed_bytes);
            let bytes = place
                .part_bytes
                .map(|bytes| bytes.saturating_sub(part.bytes));
            place.part_bytes = bytes;
            place.charged_bytes > 0
        });
    }

    /// Where it is in a tier, if it is.
    #[must_use]
    pub fn place(&self, tier: &str) -> Option<&PlacePicture> {
        self.places.iter().find(|place| place.tier == tier)
    }

    /// Leases that hold it, in all tiers.
    #[must_use]
    pub fn leases(&self) -> u64 {
        let leases = self.places.iter().map(|place| place.leases);
        leases.fold(0, u64::saturating_add)
    }

    /// In a word: `leased`, `warm`, `loading`, `evicting`, `gone`, `unknown`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        let is = |phase: &str| self.places.iter().any(|place| place.phase == phase);
        if self.places.is_empty() {
            "gone"
        } else if is("loading") {
            "loading"
        } else if self.leases() > 0 {
            "leased"
        } else if is("evicting") {
            "evicting"
        } else if is("resident") {
            "warm"
        } else {
            "unknown"
        }
    }
}
