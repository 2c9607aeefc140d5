//! A cache of many models and what it tells, made up.

use std::collections::BTreeMap;

use malloc_stats::{Allocator, Metric, Reader, Snapshot};
use plimsoll_events::{
    Candidate, Event, Evict, EvictReason, GroupSeen, Kind, Load, Memory, ModelPicture, ModelSeen,
    Opened, Origin, Picture, PlacePicture, Point, Refuse, RefuseReason, Sample, Skipped, Tally,
    TierPicture, VERSION,
};

pub const MODELS: usize = 50;

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000;

/// Makes events up, in their order.
pub struct Made {
    bracket: Snapshot,
    full: Snapshot,
    seq: u64,
    pub at_us: u64,
}

pub fn name(model: usize) -> String {
    format!("meta-llama-3.1-8b-instruct-q4-{model:02}")
}

fn size(model: usize) -> u64 {
    (400 + 37 * model as u64) * MIB
}

impl Made {
    pub fn begin() -> Made {
        let reader = Reader::new(Allocator::default()).unwrap();
        let full = reader.full();
        Made {
            bracket: reader.bracket(),
            full,
            seq: 0,
            at_us: 0,
        }
    }

    /// The next event.
    pub fn event(&mut self, kind: Kind) -> Event {
        let seq = self.seq;
        self.seq += 1;
        Event {
            v: VERSION,
            seq,
            at_us: self.at_us,
            kind,
        }
    }

    pub fn opened(&self) -> Kind {
        let models = (0..MODELS).map(|model| ModelSeen {
            name: name(model),
            bytes: size(model),
            tensors: 291,
            groups: (0..34)
                .map(|layer| GroupSeen {
                    name: format!("model.layers.{layer}"),
                    dtypes: "BF16 F32".to_owned(),
                    tensors: 9,
                    bytes: size(model) / 34,
                })
                .collect(),
        });
        Kind::Opened(Box::new(Opened {
            unix_ms: 1_700_000_000_000,
            pid: std::process::id(),
            program: "serve".to_owned(),
            allocator_name: "glibc 2.36".to_owned(),
            storage: "anonymous".to_owned(),
            budget_bytes: Some(48 << 30),
            models: models.collect(),
            ..Opened::default()
        }))
    }

    /// Memory now: it swings, so that curves have something to draw.
    fn snapshot(&self, full: bool) -> Snapshot {
        let mut snapshot = if full {
            self.full.clone()
        } else {
            self.bracket.clone()
        };
        let swing = (self.at_us / SECOND * 7919) % 4096;
        snapshot.at_us = self.at_us;
        snapshot.process.rss = Metric::Exact((20_000 + swing) * MIB);
        snapshot.process.anon = Metric::Exact((19_000 + swing) * MIB);
        snapshot
    }

    pub fn sample(&self) -> Kind {
        // As a cache ticks: every fifth reading is a full one.
        let full = (self.at_us / SECOND).is_multiple_of(5);
        Kind::Sample(Box::new(Sample {
            point: Point::Tick,
            memory: Memory {
                live_bytes: 18_000 * MIB,
                ..Memory::default()
            },
            snapshot: self.snapshot(full),
        }))
    }

    pub fn tally(&self, models: usize) -> Kind {
        let first = (self.at_us / SECOND) as usize;
        let hits = (0..models).map(|model| (name((first + model) % MODELS), 3));
        Kind::Tally(Tally {
            hits: BTreeMap::from_iter(hits),
            ..Tally::default()
        })
    }

    pub fn picture(&self) -> Kind {
        let second = self.at_us / SECOND;
        let models = (0..MODELS).map(|model| {
            let is_leased = (model as u64 + second).is_multiple_of(5);
            ModelPicture {
                model: name(model),
                bytes: size(model),
                places: vec![PlacePicture {
                    tier: "ram".to_owned(),
                    phase: "resident".to_owned(),
                    charged_bytes: size(model) + 4096,
                    leases: u64::from(is_leased),
                    idle_ms: (!is_leased).then_some(second % 100 * 1000 + model as u64),
                    score: Some((model * 17 % 50) as f64 + 0.5),
                    reload_us: Some(1_900_000),
                    part_bytes: None,
                    page_cache: None,
                }],
                dropped: false,
            }
        });
        Kind::Picture(Box::new(Picture {
            policy: "lru".to_owned(),
            tiers: vec![TierPicture {
                tier: "ram".to_owned(),
                budget_bytes: 48 << 30,
                used_bytes: (30_000 + second % 1000) * MIB,
                pinned_bytes: 6 << 30,
                resident_models: MODELS as u64,
                ..TierPicture::default()
            }],
            models: models.collect(),
            waiting: 0,
        }))
    }

    pub fn load(&self, model: usize) -> Kind {
        Kind::Load(Box::new(Load {
            model: name(model),
            part_of: None,
            is_patch: false,
            tier: "ram".to_owned(),
            from: Origin::File,
            bytes: size(model),
            charged_bytes: size(model) + 4096,
            took_us: 1_400_000,
            recycled_bytes: 300 * MIB,
            gave_back: Metric::Exact(0),
            snapshots_us: 25,
            before: self.snapshot(false),
            after: self.snapshot(false),
            error: None,
            degraded: None,
        }))
    }

    pub fn evict(&self, model: usize) -> Kind {
        let candidate = |other: usize| Candidate {
            model: name((model + other) % MODELS),
            bytes: size(other),
            score: (other % 3 != 1).then_some(other as f64 + 0.25),
            skipped: match other {
                0 => None,
                _ if other % 3 == 1 => Some(Skipped::Leased { leases: 2 }),
                _ => Some(Skipped::NotNeeded),
            },
            reload_bytes: None,
        };
        Kind::Evict(Box::new(Evict {
            model: name(model),
            part_of: None,
            tier: "ram".to_owned(),
            reason: EvictReason::Room {
                wanted_for: vec![name((model + 1) % MODELS)],
                asked_bytes: size(model),
                free_bytes: 60 * MIB,
            },
            bytes: size(model),
            freed_bytes: size(model) + 4096,
            recycled_bytes: 300 * MIB,
            held_bytes: 0,
            returned: Metric::Exact(size(model) - 300 * MIB),
            took_us: 41_000,
            snapshots_us: 25,
            considered: (0..16).map(candidate).collect(),
            considered_besides: 34,
            page_cache: None,
            device: None,
            before: self.snapshot(false),
            after: self.snapshot(false),
        }))
    }

    pub fn refuse(&self, model: String) -> Kind {
        Kind::Refuse(Box::new(Refuse {
            models: vec![model],
            tier: "ram".to_owned(),
            reason: RefuseReason::Leased,
            asked_bytes: 4 << 30,
            budget_bytes: 48 << 30,
            pinned_bytes: 46 << 30,
        }))
    }

    /// What a busy cache tells in a second: a tick, and a model that makes room for another.
    pub fn second(&mut self) -> Vec<Event> {
        self.at_us += SECOND;
        let model = (self.at_us / SECOND) as usize % MODELS;
        let kinds = [
            self.evict(model),
            self.load((model + 1) % MODELS),
            self.tally(20),
            self.sample(),
            self.picture(),
        ];
        kinds.map(|kind| self.event(kind)).into()
    }
}

/// A line of the stream, with its end.
pub fn line(event: &Event) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).unwrap();
    line.push(b'\n');
    line
}
