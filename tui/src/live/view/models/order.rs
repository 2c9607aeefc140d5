//! How models are sorted.

use super::list::Kind;
use super::measured::{bytes, rank, reload_us, score};
use crate::live::state::{Row, State};

/// What rows can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum By {
    Name,
    State,
    /// Changes with loads and evictions alone, so that rows stay where they are.
    #[default]
    Ram,
    Device,
    Last,
    Score,
    Reload,
}

const CYCLE: [By; 7] = [
    By::Name,
    By::State,
    By::Ram,
    By::Device,
    By::Last,
    By::Score,
    By::Reload,
];

/// How rows are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) by: By,
    pub(super) reversed: bool,
}

impl Order {
    /// By a column; once more, the other way round.
    pub(super) fn by(self, by: By) -> Order {
        Order {
            by,
            reversed: self.by == by && !self.reversed,
        }
    }

    /// By the next column that is there.
    pub(super) fn next(self, state: &State) -> Order {
        let at = CYCLE.iter().position(|by| *by == self.by).unwrap_or(0);
        let mut by = CYCLE[(at + 1) % CYCLE.len()];
        if by == By::Device && state.tiers.len() < 2 {
            by = By::Last;
        }
        Order {
            by,
            reversed: false,
        }
    }

    fn descends(self) -> bool {
        matches!(self.by, By::Ram | By::Device | By::Reload) != self.reversed
    }

    /// The column, and whether the largest comes first.
    pub(super) fn shown(self, kinds: &[Kind]) -> Option<(usize, bool)> {
        let at = kinds
            .iter()
            .position(|kind| kind.sorts() == Some(self.by))?;
        Some((at, self.descends()))
    }

    /// Where a row goes: the smallest first. What is not known comes last either way.
    pub(super) fn key(self, row: &Row) -> (bool, u64, u64) {
        let (ram, device) = bytes(row);
        let (known, beside) = match self.by {
            By::Name => (Some(0), 0),
            By::State => {
                let order = ["leased", "loading", "evicting", "warm", "unknown", "gone"];
                let at = order.iter().position(|state| *state == row.state());
                (Some(at.unwrap_or(order.len()) as u64), 0)
            }
            By::Ram => (Some(ram), !device),
            By::Device => (Some(device), !ram),
            By::Last if row.leases() > 0 => (Some(0), 0),
            By::Last => (row.used_us.map(|used| u64::MAX - used), 0),
            By::Score => (score(row).map(ordered), 0),
            By::Reload => (reload_us(row), 0),
        };
        let Some(known) = known else {
            return (true, 0, 0);
        };
        let key = if self.descends() { !known } else { known };
        (false, key, beside)
    }
}

/// A score as a number that sorts as it does.
fn ordered(score: f64) -> u64 {
    let bits = rank(score).to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | 1 << 63
    }
}
