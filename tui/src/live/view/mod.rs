//! One file per panel. A view draws a [`State`] into a rectangle, keeps what the user chose in it
//! (selection, zoom, order), and knows nothing of terminals, threads or sources.
//!
//! | file | panel |
//! |---|---|
//! | [`verdict`] | what follows, the gravest first |
//! | [`headroom`] | what the limits leave, what memory is, whether the next load fits |
//! | [`timeline`] | memory over time, with decisions |
//! | [`allocator`] | in use, free, resident, given back; arenas with pins |
//! | [`heap_map`] | an arena, drawn, down to its chunks |
//! | [`models`] | the models tier by tier; of another process its files and kinds of memory |
//! | [`decisions`] | what was decided and what came of it |
//! | [`model_page`], [`decision_page`] | one of them in full |
//! | `draw` | what all of them are drawn with: lines, bars, tables, pages |
//! | `vram` | what a device's memory is taken by, reconciled with NVML |
//! | `made_up` | states and frames for tests |

pub mod allocator;
pub mod decision_page;
pub mod decisions;
mod draw;
pub mod headroom;
pub mod heap_map;
pub mod model_page;
pub mod models;
pub mod timeline;
pub mod verdict;
mod vram;

#[cfg(test)]
mod made_up;
#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::State;
use super::screen::keys::Action;
use super::screen::theme::{Role, Theme};

/// What a view draws with.
pub struct Scene<'a> {
    /// What is known.
    pub state: &'a State,
    /// What was known at the mark, where what changed since then is to be shown.
    pub since: Option<&'a State>,
    /// How things look.
    pub theme: Theme,
    /// The time that ages are told from, microseconds by the stream's clock: at least that of the
    /// last event, and later where nothing was heard for a while.
    pub now_us: u64,
    /// Whether it has the focus: its selection is shown.
    pub focused: bool,
    /// Whether it has the whole screen: there is room for more.
    pub expanded: bool,
    /// The text that rows are filtered by, in lower case; empty for all.
    pub filter: &'a str,
    /// What can be clicked.
    pub hits: &'a mut Vec<Hit>,
}

/// A place that can be clicked.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Where.
    pub area: Rect,
    /// What that does.
    pub does: Click,
}

/// What a click does.
#[derive(Debug, Clone, PartialEq)]
pub enum Click {
    /// As a key.
    Action(Action),
    /// Selects the row of this number, of those that are shown now; a second click opens it.
    Select(usize),
    /// Sorts by a column; once more, the other way round.
    SortBy(usize),
}

/// What a view asks of the screen, in answer to an action.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Wish {
    /// Nothing; the action was of no use here.
    #[default]
    Ignored,
    /// Draw again.
    Redraw,
    /// Open the page of a model.
    Model(String),
    /// Open the page of a decision, by the number of its event.
    Decision(u64),
    /// Go to a moment of a recording.
    SeekTo(u64),
    /// Read the chunks of a stretch of an arena.
    Chunks {
        /// The arena's index.
        arena: usize,
        /// From here.
        from: u64,
        /// To here.
        to: u64,
    },
}

/// A panel.
pub trait View {
    /// Its title, without numbers: `HEADROOM`.
    fn title(&self) -> &'static str;

    /// What stands behind the title, such as a unit, a legend, an order.
    fn caption(&self, scene: &Scene<'_>) -> String {
        let _ = scene;
        String::new()
    }

    /// What matters most of it, where only its title has room.
    fn brief(&self, scene: &Scene<'_>) -> String {
        self.caption(scene)
    }

    /// Draws itself into a rectangle, which may be of any size, 0 included.
    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer);

    /// Does as a key says.
    fn act(&mut self, action: Action, state: &State) -> Wish {
        let _ = (action, state);
        Wish::Ignored
    }

    /// Does as a click says, at a place that it drew.
    fn click(&mut self, click: &Click, state: &State) -> Wish {
        let _ = (click, state);
        Wish::Ignored
    }
}

/// A caption in so many columns: without its last parts, where all of them have no room.
#[must_use]
pub fn fitting(caption: &str, columns: usize) -> String {
    let caption = crate::paint::safe(caption);
    let ends = ["  ", ", "].iter();
    let ends = ends.flat_map(|joint| caption.match_indices(joint).map(|(at, _)| at));
    let width = |text: &str| unicode_width::UnicodeWidthStr::width(text);
    let fits = |at: &usize| (columns / 2..=columns).contains(&width(&caption[..*at]));
    if width(&caption) <= columns {
        return caption.trim_end().to_owned();
    }
    match ends.filter(fits).max() {
        Some(end) => caption[..end].trim_end().to_owned(),
        None => {
            let cut = draw::Line::of(Role::Faint, caption).cut(columns);
            cut.0.into_iter().map(|(_, text)| text).collect()
        }
    }
}

/// Writes text at a place, cut to so many columns; the columns that it took.
pub fn put(
    buffer: &mut Buffer,
    (x, y): (u16, u16),
    columns: u16,
    text: &str,
    theme: &Theme,
    role: Role,
) -> u16 {
    let area = buffer.area;
    if y < area.top() || y >= area.bottom() || x < area.left() || x >= area.right() || columns == 0
    {
        return 0;
    }
    let text = crate::paint::safe(text);
    let text = crate::paint::shortened(&text, columns.into());
    let (end, _) = buffer.set_stringn(x, y, &text, columns.into(), theme.style(role));
    end - x
}
