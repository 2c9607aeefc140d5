//! The models, tier by tier.
//!
//! | file | what |
//! |---|---|
//! | `list` | a row per model: filter, columns, cells |
//! | `order` | how they are sorted |
//! | `measured` | what is measured of a model: bytes by tier, who goes next |
//! | `apart` | rows apart: totals, and memory that belongs to no model |
//! | `device` | rows apart of a device that has a driver: what its memory is taken by |
//! | `process` | what is shown of a process that is no cache |

mod apart;
mod device;
mod list;
mod measured;
mod order;
mod process;

#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::draw::{Did, Head, Pen, Rows};
use super::{Click, Scene, View, Wish};
use crate::inspect::prose::compact;
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::Role;
use list::{List, columns};
use order::{By, Order};
use process::Files;

pub(in crate::live::view) use list::{enough, state_role};
pub(in crate::live::view) use measured::{bar_of, rank, tier_role};

/// The models, tier by tier; of a process that is no cache, its model files and kinds of memory.
#[derive(Debug, Clone, Default)]
pub struct ModelTable {
    rows: Rows<String>,
    order: Order,
    /// What each column that was drawn last sorts by.
    heads: Vec<Option<By>>,
    files: Files,
    /// As at the last frame: keys move within what was shown.
    filter: String,
}

impl ModelTable {
    /// The model that is selected; `None` where there is none.
    #[must_use]
    pub fn selected(&self) -> Option<&str> {
        self.rows.selected().map(String::as_str)
    }
}

/// Whether there is nothing of a cache to show.
fn is_no_cache(state: &State) -> bool {
    state.tiers.is_empty() && state.models.iter().len() == 0
}

impl View for ModelTable {
    fn title(&self) -> &'static str {
        "MODELS"
    }

    fn caption(&self, scene: &Scene<'_>) -> String {
        let state = scene.state;
        if is_no_cache(state) {
            return "no cache: its memory by what it is, its model files".to_owned();
        }
        let mut parts = Vec::new();
        let known = state.models.iter().len();
        let at_home = state.models.iter().filter(|row| !row.places.is_empty());
        parts.push(format!("{} of {known} resident", at_home.count()));
        if state.models.beyond > 0 {
            parts.push(format!("{} more not kept", state.models.beyond));
        }
        let pretending = state.tiers.iter().filter(|tier| tier.simulated);
        let pretending: Vec<&str> = pretending.map(|tier| tier.tier.as_str()).collect();
        match pretending.as_slice() {
            [] => {}
            // Its name may say so itself.
            [one] if one.contains("simulated") => {}
            [one] => parts.push(format!("{one} is simulated")),
            all => parts.push(format!("{} devices are simulated", all.len())),
        }
        let (here, next) = match scene.theme.unicode {
            true => ("▶", "◂"),
            false => (">", "<"),
        };
        parts.push(format!("{here} selected"));
        parts.push(format!("{next} is evicted next"));
        parts.join(", ")
    }

    fn brief(&self, scene: &Scene<'_>) -> String {
        let state = scene.state;
        if is_no_cache(state) {
            return process::brief(state);
        }
        let known = state.models.iter().len();
        let here = state.models.iter().filter(|row| !row.places.is_empty());
        let mut says = format!("{} of {known} resident", here.count());
        for tier in state.tiers.iter().take(3) {
            let (name, used) = (&tier.tier, compact(tier.used_bytes));
            says.push_str(&match tier.budget_bytes {
                u64::MAX => format!(", {name} {used}"),
                budget => format!(", {name} {used} of {}", compact(budget)),
            });
        }
        says
    }

    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        if is_no_cache(scene.state) {
            self.heads.clear();
            self.files.draw(scene, area, buffer);
            return;
        }
        self.filter.clear();
        self.filter.push_str(scene.filter);
        let columns = columns(scene.state, scene.since.is_some());
        let (kinds, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        self.heads = kinds.iter().map(|kind| kind.sorts()).collect();
        let list = List::of(scene, &self.filter, self.order, &kinds);
        let apart = apart::rows(scene);
        let room = usize::from(area.height.saturating_sub(1));
        // Models come first, and leave a third to what is no model where there is much of both.
        let models = list.rows().max(1);
        let spare = room.saturating_sub(models).max(room / 3);
        let below = apart.len().min(spare);
        let above = Rect {
            height: area.height.min((models.min(room - below) + 1) as u16),
            ..area
        };
        let head = Head {
            columns: &columns,
            sorted: self.order.shown(&kinds),
        };
        let fit = self.rows.draw(scene, above, buffer, &head, &list);
        if scene.focused {
            self.rows.hold();
        }
        if list.rows() == 0 && above.height > 1 {
            let words = match scene.filter {
                "" => "no models yet",
                _ => "no model matches the filter",
            };
            let line = Rect {
                y: above.y + 1,
                height: 1,
                ..above
            };
            let mut pen = Pen::new(buffer, scene.theme, line);
            pen.skip(2);
            pen.write(Role::Faint, words);
        }
        let rest = Rect {
            y: above.bottom(),
            height: area.bottom() - above.bottom(),
            ..area
        };
        apart::draw(scene, rest, buffer, &apart, &kinds, &fit);
    }

    fn act(&mut self, action: Action, state: &State) -> Wish {
        if is_no_cache(state) {
            return self.files.act(action, state);
        }
        match action {
            Action::Sort => {
                self.order = self.order.next(state);
                return Wish::Redraw;
            }
            Action::Reverse => {
                self.order.reversed = !self.order.reversed;
                return Wish::Redraw;
            }
            _ => {}
        }
        let filter = std::mem::take(&mut self.filter);
        let list = List::keys_of(state, &filter, self.order);
        let did = self.rows.act(action, &list);
        self.filter = filter;
        wish(did)
    }

    fn click(&mut self, click: &Click, state: &State) -> Wish {
        if is_no_cache(state) {
            return self.files.click(click);
        }
        if let Click::SortBy(column) = click {
            let Some(Some(by)) = self.heads.get(*column) else {
                return Wish::Ignored;
            };
            self.order = self.order.by(*by);
            return Wish::Redraw;
        }
        wish(self.rows.click(click))
    }
}

fn wish(did: Did<String>) -> Wish {
    match did {
        Did::Ignored => Wish::Ignored,
        Did::Moved => Wish::Redraw,
        Did::Open(model) => Wish::Model(model),
    }
}
