//! What the cache tells, counted.

use std::sync::Mutex;

use plimsoll_events::{Event, Kind, Sink};

use crate::world::{ALL, MERGED};

/// Counts by events what is in each tier, beside the cache's own count.
#[derive(Default)]
pub struct Books(pub Mutex<Counts>);

#[derive(Default)]
pub struct Counts {
    pub bytes: [i64; 2],
    /// How often each model was evicted from each tier.
    pub evictions: [[u64; ALL]; 2],
}

/// Which of the models is called so.
pub fn index(name: &str) -> usize {
    match name.split_once(" + ") {
        Some(_) => MERGED,
        None => name[1..].parse().unwrap(),
    }
}

impl Sink for Books {
    fn event(&self, event: &Event) {
        let tier = |name: &str| usize::from(name != "ram");
        let mut books = self.0.lock().unwrap();
        match &event.kind {
            Kind::Load(load) if load.error.is_none() => {
                books.bytes[tier(&load.tier)] += load.charged_bytes as i64;
            }
            Kind::Evict(evict) => {
                books.bytes[tier(&evict.tier)] -= evict.freed_bytes as i64;
                books.evictions[tier(&evict.tier)][index(&evict.model)] += 1;
            }
            _ => {}
        }
    }
}
