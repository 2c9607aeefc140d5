//! A panel drawn as text. What is drawn beyond it fails.

use proptest::prelude::*;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;

use crate::live::State;
use crate::live::screen::theme::Theme;
use crate::live::view::{Hit, Scene, View};

/// What lies around a panel, and nothing may touch.
const BEYOND: &str = "\u{2588}\u{20dd}";
/// How far that reaches.
const BORDER: u16 = 2;

/// How a panel is drawn.
#[derive(Clone, Copy)]
pub(in crate::live::view) struct Frame<'a> {
    pub(in crate::live::view) size: (u16, u16),
    pub(in crate::live::view) unicode: bool,
    pub(in crate::live::view) focused: bool,
    pub(in crate::live::view) expanded: bool,
    /// What was known at the mark.
    pub(in crate::live::view) since: Option<&'a State>,
    pub(in crate::live::view) filter: &'a str,
    /// How long after the last event.
    pub(in crate::live::view) later_us: u64,
}

pub(in crate::live::view) const ASCII: Frame<'static> = Frame {
    size: (60, 8),
    unicode: false,
    focused: false,
    expanded: false,
    since: None,
    filter: "",
    later_us: 0,
};
pub(in crate::live::view) const UNICODE: Frame<'static> = Frame {
    unicode: true,
    ..ASCII
};

impl Frame<'static> {
    /// One that has the focus.
    pub(in crate::live::view) fn of(width: u16, height: u16) -> Frame<'static> {
        Frame {
            size: (width, height),
            focused: true,
            ..ASCII
        }
    }
}

/// What came of it.
struct Drawn {
    caption: String,
    lines: Vec<String>,
    hits: Vec<Hit>,
}

fn draw(view: &mut dyn View, state: &State, frame: Frame<'_>) -> Drawn {
    let (width, height) = frame.size;
    let area = Rect::new(BORDER, BORDER, width, height);
    let whole = Rect::new(0, 0, width + 2 * BORDER, height + 2 * BORDER);
    let mut buffer = Buffer::filled(whole, Cell::new(BEYOND));
    for place in area.positions() {
        buffer[place].reset();
    }
    let mut hits = Vec::new();
    let mut scene = Scene {
        state,
        since: frame.since,
        theme: Theme {
            unicode: frame.unicode,
            ..Theme::plain()
        },
        now_us: state.at_us.saturating_add(frame.later_us),
        focused: frame.focused,
        expanded: frame.expanded,
        filter: frame.filter,
        hits: &mut hits,
    };
    view.brief(&scene);
    view.draw(&mut scene, area, &mut buffer);
    let caption = view.caption(&scene);
    for place in whole.positions() {
        let is_untouched = buffer[place].symbol() == BEYOND;
        assert_ne!(area.contains(place), is_untouched, "{place} of {area}");
    }
    for hit in &hits {
        assert_eq!(hit.area, hit.area.intersection(area), "{hit:?} of {area}");
    }
    let row = |row: Rect| -> String {
        let cells = row.columns().map(|at| buffer[(at.x, at.y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    Drawn {
        caption,
        lines: area.rows().map(row).collect(),
        hits,
    }
}

/// A panel as text, and what can be clicked in it.
pub(in crate::live::view) fn drawn(
    view: &mut dyn View,
    state: &State,
    frame: Frame<'_>,
) -> (String, Vec<Hit>) {
    let drawn = draw(view, state, frame);
    (drawn.lines.join("\n"), drawn.hits)
}

/// The same, with its caption as a line before it.
pub(in crate::live::view) fn captioned(
    view: &mut dyn View,
    state: &State,
    frame: Frame<'_>,
) -> (String, Vec<Hit>) {
    let drawn = draw(view, state, frame);
    let mut text = format!("({})\n", drawn.caption);
    for line in &drawn.lines {
        text.push_str(line);
        text.push('\n');
    }
    (text, drawn.hits)
}

/// The text alone.
pub(in crate::live::view) fn text(
    view: &mut dyn View,
    state: &State,
    size: (u16, u16),
    frame: Frame<'_>,
) -> String {
    drawn(view, state, Frame { size, ..frame }).0
}

/// The text of a panel that has the focus, without what is empty at its end.
pub(in crate::live::view) fn shown(
    view: &mut dyn View,
    state: &State,
    width: u16,
    height: u16,
) -> String {
    drawn(view, state, Frame::of(width, height))
        .0
        .trim_end()
        .to_owned()
}

/// The same with more than ASCII.
pub(in crate::live::view) fn unicode(
    view: &mut dyn View,
    state: &State,
    width: u16,
    height: u16,
) -> String {
    let frame = Frame {
        unicode: true,
        ..Frame::of(width, height)
    };
    drawn(view, state, frame).0.trim_end().to_owned()
}

/// Compares a panel at four sizes, in ASCII and Unicode, with how it looked before.
pub(in crate::live::view) fn assert_looks(
    name: &str,
    state: &State,
    mut view: impl FnMut() -> Box<dyn View>,
) {
    let mut all = String::new();
    for size in [(60, 6), (80, 10), (118, 8), (200, 20)] {
        for (charset, frame) in [("Unicode", UNICODE), ("ASCII", ASCII)] {
            let text = text(&mut *view(), state, size, frame);
            let (width, height) = size;
            all.push_str(&format!("{width}x{height} {charset}\n{text}\n\n"));
        }
    }
    insta::assert_snapshot!(name, all);
}

/// Draws a panel in any rectangle; with more than ASCII what changed since this very moment.
pub(in crate::live::view) fn stays_inside(
    view: &mut dyn View,
    state: &State,
    area: (u16, u16),
    unicode: bool,
) {
    let (width, height) = area;
    let frame = Frame {
        unicode,
        since: unicode.then_some(state),
        ..Frame::of(width, height)
    };
    draw(view, state, frame);
}

/// Rectangles of any size.
pub(in crate::live::view) fn areas() -> impl Strategy<Value = (u16, u16)> {
    (0_u16..=300, 0_u16..=100)
}
