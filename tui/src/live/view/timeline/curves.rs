//! The curves: which there are, and how they are drawn.

use malloc_stats::limits::Bound;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::scale::{Scale, round};
use crate::inspect::headroom::{row_of_host, rows_of_cgroups};
use crate::inspect::prose::compact;
use crate::live::State;
use crate::live::screen::theme::{Role, Theme};
use crate::live::state::{Column, Reading};
use crate::live::view::draw::braille::Canvas;
use crate::live::view::put;

/// Columns of the numbers at the left.
pub(super) const GUTTER: u16 = 7;
/// Columns of the names and numbers at the right.
pub(super) const MARGIN: u16 = 13;
/// No host nests cgroups deeper; an edited recording may.
const MOST: usize = 32;

/// A curve.
#[derive(Clone, Copy)]
pub(super) struct Curve {
    /// Its name begins with its letter.
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) read: fn(&Reading) -> Option<u64>,
}

impl Curve {
    fn letter(&self) -> char {
        self.name.chars().next().unwrap_or('*')
    }
}

const RSS: Curve = Curve {
    name: "rss",
    role: Role::Rss,
    read: |reading| reading.rss,
};
const IN_USE: Curve = Curve {
    name: "use",
    role: Role::InUse,
    read: |reading| reading.in_use,
};
const LIVE: Curve = Curve {
    name: "live",
    role: Role::Live,
    read: |reading| reading.live,
};
const CHARGED: Curve = Curve {
    name: "cgrp",
    role: Role::Charged,
    read: |reading| reading.charged,
};
const DEVICE: Curve = Curve {
    name: "dev",
    role: Role::Device,
    read: |reading| reading.device,
};

/// Sets of curves to choose from; what matters most is last, and drawn above the others.
pub(super) const SETS: [&[Curve]; 5] = [
    &[LIVE, IN_USE, RSS],
    &[CHARGED, IN_USE, RSS],
    &[DEVICE, IN_USE, RSS],
    &[DEVICE, CHARGED, LIVE, IN_USE, RSS],
    &[IN_USE, RSS],
];

/// A limit, as a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    name: &'static str,
    bytes: u64,
    role: Role,
}

impl Limit {
    /// That of the bound that leaves least.
    pub(super) fn tightest(state: &State) -> Option<Limit> {
        let limits = &state.vitals.limits.as_ref()?.value;
        let bound = limits.tightest()?.bound;
        let rows = rows_of_cgroups(limits).take(MOST);
        let mut rows = rows.chain([row_of_host(limits)]);
        let bytes = rows.find(|row| row.bound == bound)?.limit.bytes()?;
        let (name, role) = match bound {
            Bound::CgroupMax(_) => ("max", Role::Bad),
            Bound::CgroupHigh(_) => ("high", Role::Warn),
            Bound::CgroupMemorySwap(_) => ("swap", Role::Bad),
            Bound::Host => ("host", Role::Bad),
        };
        Some(Limit { name, bytes, role })
    }
}

/// What is drawn in a chart.
pub(super) struct Chart<'a> {
    pub(super) columns: &'a [Column],
    pub(super) curves: &'a [Curve],
    pub(super) limit: Option<Limit>,
    pub(super) theme: Theme,
}

impl Chart<'_> {
    /// The scale that suits it; `None` where there is nothing to draw.
    pub(super) fn scale(&self, rows: u16) -> Option<Scale> {
        let values = self.columns.iter().flat_map(|column| {
            let readings = [&column.least, &column.most, &column.last];
            let of = move |curve: &Curve| readings.map(|reading| (curve.read)(reading));
            self.curves.iter().flat_map(of).flatten()
        });
        let ends = values.fold(None, |ends: Option<(u64, u64)>, value| {
            let (least, most) = ends.unwrap_or((value, value));
            Some((least.min(value), most.max(value)))
        });
        let (least, most) = ends?;
        // A limit that is near belongs into the picture.
        let limit = self.limit.map(|limit| limit.bytes);
        let limit = limit.filter(|limit| *limit <= most.saturating_add(most / 4));
        let most = limit.map_or(most, |limit| most.max(limit));
        let labels = usize::from(rows.div_ceil(2)).clamp(1, 4);
        Some(Scale::of(&(least..=most), labels))
    }

    /// Draws the curves and the limit.
    pub(super) fn draw(&self, scale: &Scale, plot: Rect, buffer: &mut Buffer) {
        let mut canvas = Canvas::new(self.theme.unicode, plot.width, plot.height);
        let up = canvas.up();
        for curve in self.curves {
            let dot = |bytes: u64| scale.dot(bytes, up);
            let mut before: Option<usize> = None;
            for (at, column) in self.columns.iter().enumerate() {
                let last = (curve.read)(&column.last);
                let least = (curve.read)(&column.least).or(last);
                let most = (curve.read)(&column.most).or(last);
                let (Some(least), Some(most)) = (least, most) else {
                    before = None;
                    continue;
                };
                let (mut from, mut to) = (dot(least), dot(most));
                if let Some(before) = before {
                    // Joined to what was there before, so that a jump is one line.
                    from = from.min(before + 1);
                    to = to.max(before.saturating_sub(1));
                }
                canvas.upright(at, from, to, curve.letter(), curve.role);
                before = last.map(dot);
            }
        }
        if let Some(limit) = self.limit.filter(|limit| scale.shows(limit.bytes)) {
            let row = canvas.row(scale.dot(limit.bytes, up)) as u16;
            let mark = if self.theme.unicode { "╌" } else { "-" };
            let line = mark.repeat(plot.width.into());
            let place = (plot.x, plot.y + row);
            put(buffer, place, plot.width, &line, &self.theme, limit.role);
        }
        canvas.draw(buffer, (plot.x, plot.y), &self.theme);
    }

    /// Round numbers at the left, where they lie in the chart.
    pub(super) fn draw_labels(&self, scale: &Scale, plot: Rect, x: u16, buffer: &mut Buffer) {
        let canvas = Canvas::new(self.theme.unicode, 0, plot.height);
        for bytes in scale.labels() {
            let row = canvas.row(scale.dot(bytes, canvas.up())) as u16;
            let name = format!("{:>6}", round(bytes));
            let place = (x, plot.y + row);
            put(buffer, place, GUTTER, &name, &self.theme, Role::Faint);
        }
    }

    /// Names and numbers at the right, each as near as it can be to the end of its curve.
    pub(super) fn draw_names(&self, scale: &Scale, plot: Rect, buffer: &mut Buffer) {
        let canvas = Canvas::new(self.theme.unicode, 0, plot.height);
        let row = |bytes: u64| canvas.row(scale.dot(bytes, canvas.up()));
        let mut names: Vec<(usize, u64, &str, Role)> = Vec::with_capacity(6);
        for curve in self.curves {
            let mut last = self.columns.iter().rev();
            if let Some(bytes) = last.find_map(|column| (curve.read)(&column.last)) {
                names.push((row(bytes), bytes, curve.name, curve.role));
            }
        }
        if let Some(limit) = self.limit.filter(|limit| scale.shows(limit.bytes)) {
            names.push((row(limit.bytes), limit.bytes, limit.name, limit.role));
        }
        names.sort_by(|a, b| (a.0, b.1).cmp(&(b.0, a.1)));
        let rows = usize::from(plot.height);
        names.truncate(rows);
        for at in 1..names.len() {
            names[at].0 = names[at].0.max(names[at - 1].0 + 1);
        }
        let mut below = rows;
        for (row, bytes, name, role) in names.iter_mut().rev() {
            *row = (*row).min(below.saturating_sub(1));
            below = *row;
            let text = format!(" {name:<4} {:>7}", compact(*bytes));
            let place = (plot.right(), plot.y + *row as u16);
            put(buffer, place, MARGIN, &text, &self.theme, *role);
        }
    }
}
