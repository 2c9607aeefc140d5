//! Decisions and notes in their order.

use std::sync::Arc;

use super::sentence::{matched, sentence, subject, word};
use crate::live::screen::theme::Role;
use crate::live::state::{Dated, Decision, State};
use crate::live::view::draw::{self, Fit, Pen, figures, matches};

/// What tells a row from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// By the number of its event.
    Decision(u64),
    /// By its time, and which of that time.
    Note(u64, usize),
}

enum Entry<'a> {
    Decision(&'a Arc<Decision>),
    Note(&'a Dated<String>, usize),
    /// Where the mark lies.
    Mark(u64),
}

/// What is shown, the newest first.
pub(super) struct List<'a> {
    state: &'a State,
    now_us: u64,
    entries: Vec<Entry<'a>>,
}

impl<'a> List<'a> {
    pub(super) fn of(
        state: &'a State,
        kind: Option<&str>,
        filter: &str,
        mark_us: Option<u64>,
    ) -> List<'a> {
        let decisions = state.decisions.iter().rev();
        let mut decisions = decisions
            .filter(|one| kind.is_none_or(|kind| one.what.kind() == kind))
            .filter(|one| filter.is_empty() || matched(&one.what, filter))
            .peekable();
        let notes = state.notes.iter().rev();
        let mut notes = notes
            .filter(|note| kind.is_none() && matches(&note.value, filter))
            .peekable();
        let mut entries = Vec::with_capacity(decisions.size_hint().1.unwrap_or(0) + 1);
        let mut mark_us = mark_us;
        let mut last_note = None;
        loop {
            // Where both are of one moment the note was there first: it says what led to it.
            let is_note = match (decisions.peek(), notes.peek()) {
                (Some(decision), Some(note)) => note.at_us > decision.at_us,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (None, None) => break,
            };
            let entry = if is_note {
                let Some(note) = notes.next() else { break };
                let nth = match last_note {
                    Some((at_us, nth)) if at_us == note.at_us => nth + 1,
                    _ => 0,
                };
                last_note = Some((note.at_us, nth));
                Entry::Note(note, nth)
            } else {
                let Some(decision) = decisions.next() else {
                    break;
                };
                Entry::Decision(decision)
            };
            let at_us = match &entry {
                Entry::Decision(decision) => decision.at_us,
                Entry::Note(note, _) => note.at_us,
                Entry::Mark(at_us) => *at_us,
            };
            if let Some(mark) = mark_us.take_if(|mark| at_us <= *mark) {
                entries.push(Entry::Mark(mark));
            }
            entries.push(entry);
        }
        entries.extend(mark_us.filter(|_| !entries.is_empty()).map(Entry::Mark));
        List {
            state,
            now_us: state.at_us,
            entries,
        }
    }

    /// Seen from a later moment than that of the last event.
    pub(super) fn at(self, now_us: u64) -> List<'a> {
        List { now_us, ..self }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl draw::List for List<'_> {
    type Key = Key;

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn key(&self, row: usize) -> Option<Key> {
        match self.entries.get(row)? {
            Entry::Decision(decision) => Some(Key::Decision(decision.seq)),
            Entry::Note(note, nth) => Some(Key::Note(note.at_us, *nth)),
            Entry::Mark(_) => None,
        }
    }

    fn find(&self, key: &Key) -> Option<usize> {
        (0..self.entries.len()).find(|row| self.key(*row).as_ref() == Some(key))
    }

    fn cell(&self, row: usize, column: usize, pen: &mut Pen<'_>) {
        match (self.entries.get(row), column) {
            (Some(Entry::Decision(decision)), 0) => {
                pen.write(Role::Faint, &figures::moment(self.state, decision.at_us));
            }
            (Some(Entry::Decision(decision)), 1) => {
                let (role, word) = word(&decision.what);
                pen.write(role, word);
            }
            (Some(Entry::Decision(decision)), 2) => {
                pen.write(Role::Text, &subject(&decision.what).0);
            }
            (Some(Entry::Decision(decision)), 3) => {
                pen.write(Role::Faint, subject(&decision.what).1);
            }
            (Some(Entry::Decision(decision)), 4) => {
                pen.say(&sentence(&decision.what, &pen.theme));
            }
            _ => {}
        }
    }

    fn line(&self, row: usize, fit: &Fit, pen: &mut Pen<'_>) -> bool {
        match self.entries.get(row) {
            Some(Entry::Note(note, _)) => {
                // Under the first two columns, and on over all others.
                let mut places = fit.shown().map(|(_, (x, _))| x);
                let mut on = |pen: &mut Pen<'_>, role: Role, text: &str| {
                    if let Some(x) = places.next() {
                        pen.go(x);
                        pen.write(role, text);
                    }
                };
                let moment = figures::moment(self.state, note.at_us);
                on(pen, Role::Faint, &moment);
                on(pen, Role::Strong, "NOTE");
                on(pen, Role::Text, &note.value);
                true
            }
            Some(Entry::Mark(at_us)) => {
                let dash = if pen.theme.unicode { "─" } else { "-" };
                let age = figures::age(self.now_us, *at_us);
                let words = format!(" mark, {age} ago: newer above, older below ");
                pen.write(Role::Focus, &dash.repeat(2));
                pen.write(Role::Focus, &words);
                let rest = dash.repeat(pen.room().into());
                pen.write(Role::Focus, &rest);
                true
            }
            _ => false,
        }
    }
}
