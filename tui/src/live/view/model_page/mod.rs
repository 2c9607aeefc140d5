//! A model on a page of its own: its tensors by tier.
//!
//! | file | what |
//! |---|---|
//! | `fits` | whether it would fit into a tier now |

mod fits;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use plimsoll_events::TierPicture;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::decisions::{sentence, subject, word};
use super::draw::page::{Block, Facts, Scroll, Sheet, say};
use super::draw::{Column, Line, Mark, figures};
use super::models::{bar_of, state_role, tier_role};
use super::{Scene, View, Wish};
use crate::decision::seconds;
use crate::inspect::prose::{compact, compact_metric, percent};
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::Role;
use crate::live::state::{Decision, Row, What};
use fits::fits;

/// Columns of the words before facts.
const LABEL: u16 = 9;
/// Tiers that have a bar of their own beside the groups.
const BARS: usize = 6;
/// Loads and unloads that are shown.
const MOVES: usize = 20;

/// A model on a page of its own.
#[derive(Debug, Clone, Default)]
pub struct ModelPage {
    /// The model's name.
    pub model: String,
    scroll: Scroll,
    /// Whose page was drawn last.
    drawn: String,
}

impl ModelPage {
    /// The page of a model.
    #[must_use]
    pub fn of(model: impl Into<String>) -> ModelPage {
        ModelPage {
            model: model.into(),
            ..ModelPage::default()
        }
    }
}

impl View for ModelPage {
    fn title(&self) -> &'static str {
        "MODEL"
    }

    fn caption(&self, _: &Scene<'_>) -> String {
        self.model.clone()
    }

    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        if self.drawn != self.model {
            self.drawn.clone_from(&self.model);
            self.scroll.reset();
        }
        let Some(row) = scene.state.models.get(&self.model) else {
            let words = format!("{}: nothing is known of this model any more", self.model);
            return say(scene, area, buffer, &words);
        };
        let moves = moves(scene.state, &row.name);
        let mut blocks = vec![Block::Facts(facts(scene, row, area.width))];
        if !scene.state.tiers.is_empty() {
            blocks.push(Block::Sheet(tiers(scene, row)));
        }
        if !row.groups.is_empty() {
            blocks.push(Block::Sheet(groups(scene, row)));
        }
        if !moves.is_empty() {
            blocks.push(Block::Sheet(loads(scene, moves)));
        }
        self.scroll.draw(scene, area, buffer, &blocks);
    }

    fn act(&mut self, action: Action, state: &State) -> Wish {
        let neighbour = match action {
            Action::Left => state.models.rows.range(..self.model.clone()).next_back(),
            Action::Right => {
                let after = state.models.rows.range(self.model.clone()..);
                after
                    .skip_while(|(name, _)| **name == self.model)
                    .take(1)
                    .next()
            }
            Action::Open => {
                let last = moves(state, &self.model);
                return last
                    .first()
                    .map_or(Wish::Ignored, |one| Wish::Decision(one.seq));
            }
            _ if self.scroll.act(action) => return Wish::Redraw,
            _ => return Wish::Ignored,
        };
        match neighbour {
            Some((name, _)) => {
                self.model.clone_from(name);
                Wish::Redraw
            }
            None => Wish::Ignored,
        }
    }
}

/// Its loads and unloads, the newest first.
fn moves<'a>(state: &'a State, model: &str) -> Vec<&'a Arc<Decision>> {
    let all = state.decisions.iter().rev();
    let its = all.filter(|one| match &one.what {
        What::Load(load, ..) => load.model == model,
        What::Evict(evict, ..) => evict.model == model,
        What::Refuse(refuse) => refuse.models.iter().any(|one| one == model),
        What::Budget(_) | What::Reclaim(_) => false,
    });
    its.take(MOVES).collect()
}

fn facts(scene: &Scene<'_>, row: &Row, width: u16) -> Facts {
    let mut facts = Facts::new(LABEL, width.saturating_sub(1));
    let state = if row.dropped { "dropped" } else { row.state() };
    let role = if row.dropped {
        Role::Warn
    } else {
        state_role(state)
    };
    let mut name = Line::of(Role::Strong, row.name.clone())
        .text("  ")
        .and(role, state);
    if row.dropped {
        name = name.faint(", there until its leases end");
    }
    facts.add("model", &name);
    let mut size = Line::default();
    size = match row.bytes {
        0 => size.faint("not told"),
        bytes => size.text(compact(bytes)),
    };
    if row.tensors > 0 {
        size = size.faint(format!(" in {} tensors", row.tensors));
    }
    let types = row.groups.iter();
    let types = types.flat_map(|group| group.dtypes.split_whitespace());
    let mut types: Vec<&str> = types.collect();
    types.sort_unstable();
    types.dedup();
    for (at, name) in types.iter().take(6).enumerate() {
        size = size.faint(if at == 0 { ", " } else { " " }).text(*name);
    }
    facts.add("weights", &size);
    let counts = [
        (row.hits, "hits", Role::Text),
        (row.loads, "loads", Role::Load),
        (row.failed_loads, "failed", Role::Bad),
        (row.evictions, "evictions", Role::Evict),
        (row.refusals, "refusals", Role::Bad),
    ];
    let mut counted = Line::default();
    for (count, word, role) in counts {
        let role = if count > 0 { role } else { Role::Faint };
        counted = counted
            .then("  ")
            .and(role, count.to_string())
            .faint(match count {
                1 => format!(" {}", word.trim_end_matches('s')),
                _ => format!(" {word}"),
            });
    }
    facts.add("counts", &counted);
    let used = match row.used_us {
        _ if row.leases() > 0 => Line::default().text("now").faint(", leased"),
        Some(used) => Line::default()
            .text(figures::age(scene.now_us, used))
            .faint(" ago"),
        None => Line::default().faint("not that anybody told"),
    };
    facts.add("used", &used);
    if let Some(cached) = row.places.iter().find_map(|place| place.page_cache) {
        let paint = scene.theme.paint(0);
        let says = Line::default()
            .text(compact(cached.mapped_bytes))
            .faint(", ")
            .text(compact_metric(&paint, cached.resident))
            .faint(" of it in RAM and reclaimable; coming back reads ")
            .text(compact_metric(&paint, cached.reload));
        facts.add("mapped", &says);
    }
    if let Some(before) = scene.since.map(|since| since.models.get(&row.name)) {
        facts.add("mark", &since(row, before));
    }
    facts
}

/// What changed since the mark.
fn since(row: &Row, before: Option<&Row>) -> Line {
    let nothing = Row::default();
    let before = before.unwrap_or(&nothing);
    let charged = |row: &Row| {
        let places = row.places.iter();
        places
            .map(|place| i128::from(place.charged_bytes))
            .sum::<i128>()
    };
    let grown = figures::change(charged(row) - charged(before));
    let counts = [
        (row.loads, before.loads, "loads"),
        (row.evictions, before.evictions, "evictions"),
        (row.hits, before.hits, "hits"),
        (row.refusals, before.refusals, "refusals"),
    ];
    let mut says = Line::of(Role::Strong, grown).faint(" since the mark");
    for (now, then, word) in counts {
        says = says
            .faint(", ")
            .text(now.saturating_sub(then).to_string())
            .faint(format!(" {word}"));
    }
    says
}

/// Each tier: whether it is there, since when, and whether it would fit.
fn tiers<'a>(scene: &Scene<'a>, row: &'a Row) -> Sheet<'a> {
    let state = scene.state;
    let now_us = scene.now_us;
    let names = state.tiers.iter();
    let names = names.map(|tier| tier.tier.chars().count() + usize::from(tier.simulated) * 10);
    let names = names.max().unwrap_or(0).clamp(4, 24) as u16;
    let columns = vec![
        Column::left("TIER", names),
        Column::left("PHASE", 9),
        Column::left("", 8).rank(6).up_to(16),
        Column::right("CHARGED", 8),
        Column::right("LEASES", 6).rank(3),
        Column::right("IDLE", 5).rank(4),
        Column::right("LOADED", 6).rank(5),
        Column::right("SCORE", 9).rank(2),
        Column::right("RELOAD", 8).rank(1),
        Column::left("WOULD IT FIT NOW", 36).up_to(60),
    ];
    Sheet {
        title: Line::of(Role::Strong, "TIERS"),
        columns,
        rows: state.tiers.len(),
        cell: Box::new(move |at, column, pen| {
            let Some(tier) = state.tiers.get(at) else {
                return;
            };
            let place = row.places.iter().find(|place| place.tier == tier.tier);
            let dash = "-".to_owned();
            let (role, text) = match (column, place) {
                (0, _) if tier.simulated => {
                    pen.write(Role::Simulated, &tier.tier);
                    (Role::Faint, " simulated".to_owned())
                }
                (0, _) => (tier_role(tier), tier.tier.clone()),
                (1, Some(place)) => (Role::Text, place.phase.clone()),
                (1, None) => (Role::Faint, "absent".to_owned()),
                (2, _) => {
                    let room = pen.room();
                    return bar_of(pen, room, row, place, tier);
                }
                (3, Some(place)) => (Role::Text, compact(place.charged_bytes)),
                (4, Some(place)) => (Role::Text, place.leases.to_string()),
                (5, Some(place)) => match place.idle_ms {
                    Some(idle) => {
                        let told = idle.saturating_mul(1000);
                        let since = now_us.saturating_sub(row.placed_us);
                        (Role::Text, figures::lasted(told.saturating_add(since)))
                    }
                    None if place.leases > 0 => (Role::Text, "now".to_owned()),
                    None => (Role::Faint, dash),
                },
                (6, Some(_)) => match loaded_us(state, row, tier) {
                    Some(then) => (Role::Text, figures::age(now_us, then)),
                    None => (Role::Faint, dash),
                },
                (7, Some(place)) => match place.score {
                    Some(score) => (Role::Text, figures::score(score)),
                    None => (Role::Faint, dash),
                },
                (8, _) => {
                    let told = place.and_then(|place| place.reload_us);
                    match told.or_else(|| row.reload_us.get(&tier.tier).copied()) {
                        Some(reload) => (Role::Text, seconds(reload)),
                        None => (Role::Faint, dash),
                    }
                }
                (9, Some(_)) => (Role::Faint, "it is there".to_owned()),
                (9, None) => return pen.say(&fits(tier, row.bytes)),
                _ => (Role::Faint, dash),
            };
            pen.write(role, &text);
        }),
    }
}

/// When it came into a tier last, as far back as decisions are kept.
fn loaded_us(state: &State, row: &Row, tier: &TierPicture) -> Option<u64> {
    let came = |one: &&Arc<Decision>| match &one.what {
        What::Load(load, ..) => {
            load.model == row.name && load.tier == tier.tier && load.error.is_none()
        }
        _ => false,
    };
    state.decisions.iter().rev().find(came).map(|one| one.at_us)
}

/// Its tensors in groups, and the tiers where they are.
fn groups<'a>(scene: &Scene<'a>, row: &'a Row) -> Sheet<'a> {
    let state = scene.state;
    let mut columns = vec![
        Column::left("TENSORS", 12).up_to(48),
        Column::left("TYPE", 5).up_to(12).rank(2),
        Column::right("COUNT", 6).rank(4),
        Column::right("BYTES", 8),
        Column::right("SHARE", 6).rank(1),
        Column::left("", 8).up_to(24).rank(3),
    ];
    let tiers = state.tiers.iter().take(BARS);
    columns.extend(tiers.map(|tier| Column::left(tier.tier.as_str(), 6).up_to(10).rank(5)));
    let bytes = row.groups.iter().map(|group| group.bytes);
    let total = bytes.fold(0, u64::saturating_add).max(1);
    let title = Line::of(Role::Strong, "TENSORS").faint(format!("  {} groups", row.groups.len()));
    Sheet {
        title,
        columns,
        rows: row.groups.len(),
        cell: Box::new(move |at, column, pen| {
            let Some(group) = row.groups.get(at) else {
                return;
            };
            let share = group.bytes as f64 / total as f64;
            match column {
                0 if group.name.is_empty() => pen.write(Role::Faint, "(others)"),
                0 => pen.write(Role::Text, &group.name),
                1 => pen.write(Role::Text, &group.dtypes),
                2 => pen.write(Role::Faint, &group.tensors.to_string()),
                3 => pen.write(Role::Text, &compact(group.bytes)),
                4 => pen.write(Role::Faint, &percent(share)),
                5 => {
                    let room = pen.room();
                    pen.bar(room, &[(Role::Text, Mark::Dense, group.bytes)], total);
                }
                _ => {
                    let Some(tier) = state.tiers.get(column - 6) else {
                        return;
                    };
                    let place = row.places.iter().find(|place| place.tier == tier.tier);
                    let alone = Row {
                        bytes: row.bytes,
                        ..Row::default()
                    };
                    let room = pen.room();
                    bar_of(pen, room, &alone, place, tier);
                }
            }
        }),
    }
}

/// What happened to it last.
fn loads<'a>(scene: &Scene<'a>, moves: Vec<&'a Arc<Decision>>) -> Sheet<'a> {
    let state = scene.state;
    Sheet {
        title: Line::of(Role::Strong, "LAST LOADS AND UNLOADS"),
        columns: vec![
            Column::left(figures::clock_name(state), 8),
            Column::left("WHAT", 7),
            Column::left("TIER", 4).up_to(10).rank(1),
            Column::left("WHY, AND WHAT CAME OF IT", 24).up_to(u16::MAX),
        ],
        rows: moves.len(),
        cell: Box::new(move |at, column, pen| {
            let Some(one) = moves.get(at) else { return };
            match column {
                0 => pen.write(Role::Faint, &figures::moment(state, one.at_us)),
                1 => {
                    let (role, word) = word(&one.what);
                    pen.write(role, word);
                }
                2 => pen.write(Role::Faint, subject(&one.what).1),
                _ => pen.say(&sentence(&one.what, &pen.theme)),
            }
        }),
    }
}
