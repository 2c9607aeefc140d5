//! Decisions, the newest first.
//!
//! | file | what |
//! |---|---|
//! | `list` | decisions and notes in their order: filter, cells |
//! | `sentence` | a decision in a sentence with its numbers |

mod list;
mod sentence;

#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::draw::{Column, Did, Head, Pen, Rows, figures};
use super::{Click, Scene, View, Wish};
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::Role;
use list::{Key, List};

pub(in crate::live::view) use sentence::{arrow, outcome, reason, sentence, subject, word};

/// Decisions, the newest first, with the notes of the stream between them.
#[derive(Debug, Clone, Default)]
pub struct DecisionList {
    /// The kind that is shown, as [`What::kind`](crate::live::state::What::kind) names it; `None`
    /// for all, and notes.
    pub kind: Option<&'static str>,
    rows: Rows<Key>,
    /// As at the last frame: keys move within what was shown.
    filter: String,
    mark_us: Option<u64>,
}

/// The kinds, in the order in which one after the other is shown.
const KINDS: [&str; 5] = ["load", "evict", "refuse", "budget", "reclaim"];

impl DecisionList {
    /// The decision that is selected, by the number of its event; `None` for a note, or where there
    /// is none.
    #[must_use]
    pub fn selected(&self) -> Option<u64> {
        match self.rows.selected() {
            Some(Key::Decision(seq)) => Some(*seq),
            _ => None,
        }
    }

    fn wish(did: Did<Key>) -> Wish {
        match did {
            Did::Open(Key::Decision(seq)) => Wish::Decision(seq),
            Did::Open(Key::Note(..)) | Did::Ignored => Wish::Ignored,
            Did::Moved => Wish::Redraw,
        }
    }
}

impl View for DecisionList {
    fn title(&self) -> &'static str {
        "DECISIONS"
    }

    fn caption(&self, scene: &Scene<'_>) -> String {
        let decisions = &scene.state.decisions;
        let kept = decisions.iter().len() as u64;
        let kind = match self.kind {
            Some(kind) => format!("{kind} only, "),
            None => String::new(),
        };
        match decisions.count {
            0 => format!("{kind}newest first"),
            count if count > kept => format!("{kind}newest first, last {kept} of {count}"),
            count => format!("{kind}newest first, {count}"),
        }
    }

    fn brief(&self, scene: &Scene<'_>) -> String {
        let Some(last) = scene.state.decisions.iter().next_back() else {
            return "nothing was decided yet".to_owned();
        };
        let age = figures::age(scene.now_us, last.at_us);
        let (_, word) = word(&last.what);
        let (model, _) = subject(&last.what);
        let said = sentence(&last.what, &scene.theme);
        let said: String = said.0.into_iter().map(|(_, text)| text).collect();
        format!("{age} ago: {word} {model}  {said}")
    }

    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        self.filter.clear();
        self.filter.push_str(scene.filter);
        self.mark_us = scene.since.map(|since| since.at_us);
        let list = List::of(scene.state, self.kind, scene.filter, self.mark_us);
        let list = list.at(scene.now_us);
        let tiers = scene.state.tiers.iter();
        let tier = tiers.map(|tier| tier.tier.chars().count()).max();
        let tier = tier.unwrap_or(4).clamp(4, 12) as u16;
        let names = (area.width / 6).clamp(8, 28);
        // Where all is of one tier its name says least.
        let least = if scene.state.tiers.len() < 2 { 40 } else { 30 };
        let columns = [
            Column::left(figures::clock_name(scene.state), 8),
            Column::left("WHAT", 7),
            Column::left("MODEL", 8).up_to(names),
            Column::left("TIER", tier).rank(1),
            Column::left("WHY, AND WHAT CAME OF IT", least).up_to(u16::MAX),
        ];
        let head = Head {
            columns: &columns,
            sorted: None,
        };
        self.rows.draw(scene, area, buffer, &head, &list);
        if list.is_empty() && area.height > 1 {
            let words = match (self.kind, scene.filter) {
                (None, "") => "nothing was decided yet",
                _ => "no decision matches the filter",
            };
            let line = Rect {
                y: area.y.saturating_add(1),
                height: 1,
                ..area
            };
            let mut pen = Pen::new(buffer, scene.theme, line.intersection(area));
            pen.skip(2);
            pen.write(Role::Faint, words);
        }
    }

    fn act(&mut self, action: Action, state: &State) -> Wish {
        if action == Action::Sort {
            self.kind = match self.kind {
                None => Some(KINDS[0]),
                Some(kind) => {
                    let at = KINDS.iter().position(|one| *one == kind);
                    at.and_then(|at| KINDS.get(at + 1)).copied()
                }
            };
            return Wish::Redraw;
        }
        let list = List::of(state, self.kind, &self.filter, self.mark_us);
        let did = self.rows.act(action, &list);
        DecisionList::wish(did)
    }

    fn click(&mut self, click: &Click, _: &State) -> Wish {
        DecisionList::wish(self.rows.click(click))
    }
}
