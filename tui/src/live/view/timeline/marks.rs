//! What was decided, below the curves.

use std::ops::Range;

use crate::decision::joined;
use crate::inspect::prose::compact;
use crate::live::screen::theme::Role;
use crate::live::state::{Decision, State, What};

/// What a mark stands for; the greater is shown where several fall into a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sign {
    Budget,
    Reclaim,
    Load,
    Evict,
    /// A lease refused, a load failed.
    Refuse,
}

/// What happened in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) sign: Sign,
    count: usize,
}

impl Sign {
    pub(super) fn of(what: &What) -> Sign {
        match what {
            What::Load(load, ..) if load.error.is_some() => Sign::Refuse,
            What::Load(..) => Sign::Load,
            What::Evict(..) => Sign::Evict,
            What::Refuse(_) => Sign::Refuse,
            What::Budget(_) => Sign::Budget,
            What::Reclaim(_) => Sign::Reclaim,
        }
    }

    pub(super) fn letter(self) -> char {
        match self {
            Sign::Budget => 'b',
            Sign::Reclaim => 't',
            Sign::Load => '|',
            Sign::Evict => 'x',
            Sign::Refuse => '!',
        }
    }

    pub(super) fn role(self) -> Role {
        match self {
            Sign::Budget | Sign::Reclaim => Role::Text,
            Sign::Load => Role::Load,
            Sign::Evict => Role::Evict,
            Sign::Refuse => Role::Bad,
        }
    }
}

impl Mark {
    /// Its sign; or how many there are, in the colour of the gravest.
    pub(super) fn letter(self) -> char {
        match self.count {
            0 | 1 => self.sign.letter(),
            2..10 => char::from(b'0' + self.count as u8),
            _ => '+',
        }
    }
}

/// Which of so many columns a moment lies in.
pub(super) fn column(at_us: u64, range: &Range<u64>, columns: usize) -> Option<usize> {
    if !range.contains(&at_us) || columns == 0 {
        return None;
    }
    let (from, length) = (at_us - range.start, range.end - range.start);
    let column = u128::from(from) * columns as u128 / u128::from(length);
    usize::try_from(column).ok()
}

/// The decisions of a stretch of time, in so many columns.
pub(super) fn marks(state: &State, range: &Range<u64>, columns: usize) -> Vec<Option<Mark>> {
    let mut marks: Vec<Option<Mark>> = vec![None; columns];
    for decision in state.decisions.iter() {
        let at = column(decision.at_us, range, columns);
        let Some(mark) = at.and_then(|at| marks.get_mut(at)) else {
            continue;
        };
        let sign = Sign::of(&decision.what);
        *mark = Some(match *mark {
            None => Mark { sign, count: 1 },
            Some(before) => Mark {
                sign: before.sign.max(sign),
                count: before.count + 1,
            },
        });
    }
    marks
}

/// The decision that is nearest to a moment, of those in view.
pub(super) fn nearest<'a>(
    state: &'a State,
    at_us: u64,
    range: &Range<u64>,
) -> Option<&'a Decision> {
    let shown = state.decisions.iter().map(AsRef::as_ref);
    let shown = shown.filter(|it: &&Decision| range.contains(&it.at_us));
    shown.min_by_key(|it| it.at_us.abs_diff(at_us))
}

/// A decision in a few words.
pub(super) fn words(what: &What) -> String {
    match what {
        What::Load(load, ..) => {
            let done = if load.error.is_some() {
                "load failed:"
            } else {
                "load"
            };
            let (model, tier) = (&load.model, &load.tier);
            format!("{done} {model} {} into {tier}", compact(load.bytes))
        }
        What::Evict(evict, ..) => {
            let (model, tier) = (&evict.model, &evict.tier);
            format!("evict {model} {} from {tier}", compact(evict.bytes))
        }
        What::Refuse(refuse) => {
            format!("refuse {} in {}", joined(&refuse.models), refuse.tier)
        }
        What::Budget(change) => {
            format!("budget of {} {}", change.tier, compact(change.budget_bytes))
        }
        What::Reclaim(done) => format!("{} asked back", done.action),
    }
}
