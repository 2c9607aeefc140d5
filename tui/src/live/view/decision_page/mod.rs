//! A decision on a page of its own: all candidates, and memory before and after.
//!
//! | file | what |
//! |---|---|
//! | `facts` | what was decided, why, and what came of it |
//! | `tables` | memory around it, the candidates |

mod facts;
mod tables;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::draw::page::{Block, Scroll, say};
use super::{Scene, View, Wish};
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::state::{Decision, What};
use facts::facts;
use tables::{MEMORY, candidates, memory, order};

/// Columns of the facts, at most: what belongs together stays together.
const FACTS: u16 = 92;
/// From this width on memory stands beside the facts.
const WIDE: u16 = 110;

/// A decision on a page of its own.
#[derive(Debug, Clone, Default)]
pub struct DecisionPage {
    /// The number of its event.
    pub seq: u64,
    /// The kind that the next and the one before are of; `None` for any.
    pub kind: Option<&'static str>,
    scroll: Scroll,
    /// The decision that was drawn last, and its candidates in their order.
    drawn: Option<(Arc<Decision>, Vec<u32>)>,
}

impl DecisionPage {
    /// The page of a decision, by the number of its event.
    #[must_use]
    pub fn of(seq: u64) -> DecisionPage {
        DecisionPage {
            seq,
            ..DecisionPage::default()
        }
    }
}

fn find(state: &State, seq: u64) -> Option<&Arc<Decision>> {
    state.decisions.iter().rev().find(|one| one.seq == seq)
}

impl View for DecisionPage {
    fn title(&self) -> &'static str {
        "DECISION"
    }

    fn caption(&self, scene: &Scene<'_>) -> String {
        let kept = scene.state.decisions.iter();
        let newer = kept.rev().take_while(|one| one.seq > self.seq).count();
        let which = match newer {
            0 => "the newest".to_owned(),
            1 => "1 newer".to_owned(),
            _ => format!("{newer} newer"),
        };
        let of = self
            .kind
            .map_or(String::new(), |kind| format!(", {kind} only"));
        format!("event {}, {which}{of}; left older, right newer", self.seq)
    }

    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let Some(found) = find(scene.state, self.seq) else {
            self.drawn = None;
            let words = format!("decision {} is no longer kept", self.seq);
            return say(scene, area, buffer, &words);
        };
        let is_drawn = |(drawn, _): &(Arc<Decision>, Vec<u32>)| Arc::ptr_eq(drawn, found);
        if !self.drawn.as_ref().is_some_and(is_drawn) {
            let order = match &found.what {
                What::Evict(evict, ..) => order(&evict.considered),
                _ => Vec::new(),
            };
            self.drawn = Some((Arc::clone(found), order));
            self.scroll.reset();
        }
        let Some((decision, order)) = &self.drawn else {
            return;
        };
        let around = match &decision.what {
            What::Load(_, before, after) | What::Evict(_, before, after) => Some((before, after)),
            _ => None,
        };
        let mut blocks = Vec::new();
        match around {
            Some((before, after)) if area.width >= WIDE => {
                let left = (area.width - MEMORY).min(FACTS);
                let facts = facts(scene, decision, left.saturating_sub(2));
                blocks.push(Block::Beside(facts, memory(*before, *after), left));
            }
            Some((before, after)) => {
                blocks.push(Block::Facts(facts(scene, decision, area.width)));
                blocks.push(Block::Sheet(memory(*before, *after)));
            }
            None => blocks.push(Block::Facts(facts(scene, decision, area.width))),
        }
        if let What::Evict(evict, ..) = &decision.what
            && !order.is_empty()
        {
            blocks.push(Block::Sheet(candidates(evict, order)));
        }
        self.scroll.draw(scene, area, buffer, &blocks);
    }

    fn act(&mut self, action: Action, state: &State) -> Wish {
        let of_kind = |one: &&Arc<Decision>| match self.kind {
            Some(kind) => one.what.kind() == kind,
            None => true,
        };
        let mut all = state.decisions.iter().filter(of_kind);
        let to = match action {
            Action::Left => all.rev().find(|one| one.seq < self.seq),
            Action::Right => all.find(|one| one.seq > self.seq),
            Action::Open => {
                return match find(state, self.seq).map(|one| &one.what) {
                    Some(What::Load(load, ..)) => Wish::Model(load.model.clone()),
                    Some(What::Evict(evict, ..)) => Wish::Model(evict.model.clone()),
                    Some(What::Refuse(refuse)) => match refuse.models.first() {
                        Some(model) => Wish::Model(model.clone()),
                        None => Wish::Ignored,
                    },
                    _ => Wish::Ignored,
                };
            }
            _ if self.scroll.act(action) => return Wish::Redraw,
            _ => return Wish::Ignored,
        };
        match to {
            Some(one) => {
                self.seq = one.seq;
                Wish::Redraw
            }
            None => Wish::Ignored,
        }
    }
}
