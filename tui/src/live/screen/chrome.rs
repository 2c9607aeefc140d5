//! What stands around the panels: the line at the top, frames, the line at the bottom.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::symbols::border;
use ratatui::widgets::{Block, Widget};
use unicode_width::UnicodeWidthStr;

use super::keys::{Action, Keys};
use super::theme::{Role, Theme};
use crate::inspect::prose::lasting;
use crate::live::source::{About, SourceKind};
use crate::live::state::State;
use crate::live::view::{Click, Hit, fitting, put};
use crate::paint::{safe, shortened};

const ASCII: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// A reading older than this has its age told, seconds.
pub(super) const STALE: f64 = 3.0;

/// A frame with its title; where something fits in it.
pub(super) fn frame(
    theme: &Theme,
    (number, title, caption): (Option<u8>, &str, &str),
    focused: bool,
    area: Rect,
    buffer: &mut Buffer,
) -> Rect {
    let role = if focused { Role::Focus } else { Role::Frame };
    let set = if theme.unicode { border::PLAIN } else { ASCII };
    let block = Block::bordered()
        .border_set(set)
        .border_style(theme.style(role));
    let inner = block.inner(area);
    block.render(area, buffer);
    if area.width > 4 {
        heading(theme, (number, title, caption), focused, area, buffer);
    }
    inner
}

/// A title on the line at the top of an area: `1 HEADROOM  of what`.
fn heading(
    theme: &Theme,
    (number, title, caption): (Option<u8>, &str, &str),
    focused: bool,
    area: Rect,
    buffer: &mut Buffer,
) {
    let room = area.width.saturating_sub(3);
    let mut x = area.x + 1;
    let until = x + room;
    let mut say = |text: &str, role: Role| {
        x += put(
            buffer,
            (x, area.y),
            until.saturating_sub(x),
            text,
            theme,
            role,
        );
    };
    if let Some(number) = number {
        say(&number.to_string(), Role::Key);
        say(" ", Role::Frame);
    }
    say(title, if focused { Role::Focus } else { Role::Strong });
    if !caption.is_empty() {
        say("  ", Role::Frame);
        let before = title.width() + 4 + 2 * usize::from(number.is_some());
        let room = usize::from(area.width).saturating_sub(before + 2);
        say(&fitting(caption, room), Role::Faint);
    }
    say(" ", Role::Frame);
}

/// The title of a panel that has no room for more.
pub(super) fn collapsed(
    theme: &Theme,
    (number, title, caption): (u8, &str, &str),
    area: Rect,
    buffer: &mut Buffer,
) {
    let dash = if theme.unicode { "─" } else { "-" };
    let line = dash.repeat(area.width.into());
    put(
        buffer,
        (area.x, area.y),
        area.width,
        &line,
        theme,
        Role::Frame,
    );
    heading(theme, (Some(number), title, caption), false, area, buffer);
}

/// The line at the top: what is shown, and how live it is.
pub(super) fn header(
    theme: &Theme,
    (state, about): (&State, &About),
    (now_us, frozen): (u64, bool),
    area: Rect,
    buffer: &mut Buffer,
) {
    let (status, role) = status(theme, state, about, now_us, frozen);
    let status_width = status.width() as u16;
    let left = area.width.saturating_sub(status_width + 2);
    let mut x = area.x;
    x += put(buffer, (x, area.y), left, "plimsoll ", theme, Role::Strong);
    let mut parts = vec![about.name.clone()];
    parts.extend(identity(state));
    for (at, part) in parts.iter().enumerate() {
        let room = (area.x + left).saturating_sub(x);
        let part = safe(part);
        if room < 4 {
            break;
        }
        x += put(buffer, (x, area.y), room, " ", theme, Role::Text);
        let role = if at == 0 { Role::Strong } else { Role::Text };
        x += put(
            buffer,
            (x, area.y),
            room - 1,
            &shortened(&part, usize::from(room) - 1),
            theme,
            role,
        );
        x += put(buffer, (x, area.y), 1, " ", theme, Role::Text);
    }
    let x = area.right().saturating_sub(status_width + 1);
    put(buffer, (x, area.y), status_width, &status, theme, role);
}

/// Who it is, the most telling first.
fn identity(state: &State) -> Vec<String> {
    let mut parts = Vec::new();
    let told = state.opened.as_deref();
    let looked = state.inspection().map(|look| &look.allocator);
    let allocator = match (told.map(|told| told.allocator_name.as_str()), looked) {
        (Some(name), _) if !name.is_empty() => Some(name.to_owned()),
        (_, Some(found)) => Some(crate::inspect::heap::name(found)),
        _ => None,
    };
    parts.extend(allocator);
    if let Some(profile) = told
        .map(|told| &told.profile)
        .filter(|name| !name.is_empty())
    {
        parts.push(format!("profile {profile}"));
    }
    if let Some(storage) = told
        .map(|told| &told.storage)
        .filter(|name| !name.is_empty())
    {
        parts.push(format!("storage {storage}"));
    }
    let limits = state.vitals.limits.as_ref();
    let cgroup = limits.and_then(|limits| limits.value.cgroups.first());
    if let Some(cgroup) = cgroup {
        parts.push(format!("cgroup {}", cgroup.path));
    }
    if let Some(look) = state.inspection() {
        parts.push(format!("up {}", lasting(look.process.age_s)));
    }
    parts
}

/// How live it is.
fn status(
    theme: &Theme,
    state: &State,
    about: &About,
    now_us: u64,
    frozen: bool,
) -> (String, Role) {
    let seconds = |us: u64| us as f64 / 1e6;
    if frozen {
        return ("FROZEN (space: go on)".to_owned(), Role::Warn);
    }
    if let Some(playing) = &about.playing {
        let at = format!(
            "{:.1}/{:.1} s",
            seconds(playing.at_us),
            seconds(playing.end_us)
        );
        let (mark, role) = match (state.ended.is_some(), playing.speed == 0.0) {
            (true, _) => ("END", Role::Strong),
            (false, true) => (
                if theme.unicode {
                    "‖ PAUSED"
                } else {
                    "PAUSED"
                },
                Role::Warn,
            ),
            (false, false) => (if theme.unicode { "▶ PLAY" } else { "PLAY" }, Role::Good),
        };
        let speed = if playing.speed == 1.0 || playing.speed == 0.0 {
            String::new()
        } else {
            format!(" {}x", playing.speed)
        };
        let read = if playing.read < 0.995 {
            format!(" read {:.0} %", playing.read * 100.0)
        } else {
            String::new()
        };
        return (format!("{mark}{speed} {at}{read}"), role);
    }
    if state.ended.is_some() {
        return ("ENDED".to_owned(), Role::Bad);
    }
    let age = now_us.saturating_sub(state.at_us);
    if state.sums.events == 0 {
        ("waiting".to_owned(), Role::Warn)
    } else if seconds(age) > STALE {
        (
            format!("LIVE, last heard {} ago", lasting(seconds(age))),
            Role::Warn,
        )
    } else {
        ("LIVE".to_owned(), Role::Good)
    }
}

/// The line at the bottom: what can be done now.
pub(super) fn hints(
    theme: &Theme,
    keys: &Keys,
    (about, page_open, acts): (&About, bool, bool),
    area: Rect,
    hits: &mut Vec<Hit>,
    buffer: &mut Buffer,
) {
    let mut list: Vec<(Action, &str)> = vec![(Action::Help, "help"), (Action::Quit, "quit")];
    if page_open {
        list.push((Action::Back, "close"));
    }
    list.extend([
        (Action::NextPanel, "panel"),
        (Action::Expand, "expand"),
        (Action::Open, "open"),
        (Action::Filter, "filter"),
        (Action::Sort, "sort"),
        (Action::Freeze, "freeze"),
        (Action::Mark, "mark"),
        (Action::Diff, "diff"),
    ]);
    if about.kind == SourceKind::Recording {
        list.extend([
            (Action::SeekBack, "back"),
            (Action::SeekOn, "on"),
            (Action::JumpOn, "next decision"),
            (Action::Faster, "faster"),
        ]);
    } else {
        list.push((Action::Look, "walk now"));
    }
    if acts {
        list.extend([
            (Action::Trim, "trim"),
            (Action::Evict, "evict"),
            (Action::Budget, "budget"),
        ]);
    }
    list.push((Action::Save, "write"));
    let mut x = area.x;
    for (action, what) in list {
        let Some(key) = keys.of(action).next() else {
            continue;
        };
        let key = key.to_string();
        let columns = (key.width() + what.width() + 2) as u16;
        if x + columns > area.right() {
            break;
        }
        let begun = x;
        x += put(buffer, (x, area.y), columns, &key, theme, Role::Key);
        x += put(
            buffer,
            (x, area.y),
            columns,
            &format!(" {what}"),
            theme,
            Role::Faint,
        );
        hits.push(Hit {
            area: Rect::new(begun, area.y, x - begun, 1),
            does: Click::Action(action),
        });
        x += 2;
    }
}
