//! Which arenas are shown, in which order.

use std::collections::BTreeMap;

use malloc_stats::heap::{Arena, Heap, Pin};

use crate::inspect::arenas::{seems, wasted};
use crate::inspect::prose::compact;
use crate::live::screen::theme::Theme;

/// What rows are sorted by, in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum By {
    Arena,
    System,
    InUse,
    Free,
    /// Free and resident: the worst first.
    #[default]
    Resident,
    Waste,
    Threads,
    Pin,
}

const CYCLE: [By; 8] = [
    By::Arena,
    By::System,
    By::InUse,
    By::Free,
    By::Resident,
    By::Waste,
    By::Threads,
    By::Pin,
];

impl By {
    pub(super) fn next(self) -> By {
        let at = CYCLE.iter().position(|by| *by == self);
        CYCLE[at.map_or(0, |at| (at + 1) % CYCLE.len())]
    }

    /// Names count upwards, amounts downwards: the worst first.
    pub(super) fn descends(self, reversed: bool) -> bool {
        (self == By::Arena) == reversed
    }

    fn key(self, arena: &Arena, pins: &BTreeMap<usize, &Pin>) -> Option<u64> {
        match self {
            By::Arena => u64::try_from(arena.index).ok(),
            By::System => Some(arena.system_mem),
            By::InUse => arena.in_use.bytes(),
            By::Free => arena.free.bytes(),
            By::Resident => wasted(arena),
            // Between 0 and 1, in billionths.
            By::Waste => arena.waste().map(|waste| (waste * 1e9) as u64),
            By::Threads => Some(arena.attached_threads),
            By::Pin => pins.get(&arena.index).map(|pin| pin.below_free),
        }
    }
}

/// The pin of each arena.
pub(super) fn pins(heap: &Heap) -> BTreeMap<usize, &Pin> {
    let mut pins = BTreeMap::new();
    for pin in &heap.pins {
        pins.entry(pin.arena).or_insert(pin);
    }
    pins
}

/// What a row says of its pin: all of it, and less and less for where there is no room.
pub(super) fn pin_texts(theme: &Theme, arena: &Arena, pin: Option<&Pin>) -> Vec<String> {
    let locked = if arena.locked { "locked  " } else { "" };
    let Some(pin) = pin else {
        return vec![format!("{locked}-")];
    };
    let (size, at) = (compact(pin.size), pin.address.0);
    let what = seems(&theme.paint(usize::MAX), pin);
    vec![
        format!("{locked}{size}@{at:x} {what}"),
        format!("{locked}{size} {what}"),
        format!("{locked}{size}"),
    ]
}

/// The name of an arena; a star says that it is locked.
pub(super) fn name(arena: &Arena) -> String {
    let locked = if arena.locked { "*" } else { "" };
    if arena.is_main() {
        format!("{locked}main")
    } else {
        format!("{locked}{}", arena.index)
    }
}

/// The arenas that the filter lets through, in order.
pub(super) fn ordered<'a>(
    heap: &'a Heap,
    pins: &BTreeMap<usize, &Pin>,
    (by, reversed): (By, bool),
    filter: &str,
) -> Vec<&'a Arena> {
    let passes = |arena: &&Arena| {
        if filter.is_empty() {
            return true;
        }
        let pin = pin_texts(&Theme::plain(), arena, pins.get(&arena.index).copied());
        let pin = pin.first().map_or("", String::as_str);
        let words = format!("arena {} {} {pin}", arena.index, name(arena));
        words.to_lowercase().contains(filter)
    };
    let mut arenas: Vec<&Arena> = heap.arenas.iter().filter(passes).collect();
    // What is not known comes last either way.
    let falls = by.descends(reversed);
    arenas.sort_by_cached_key(|arena| {
        let key = by.key(arena, pins);
        key.map_or((true, 0), |key| (false, if falls { !key } else { key }))
    });
    arenas
}
