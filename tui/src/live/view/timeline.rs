//! Memory over time, with loads and evictions.

mod curves;
mod marks;
mod scale;
#[cfg(test)]
mod tests;
mod window;

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::draw::Line;
use super::{Click, Hit, Scene, View, Wish, put};
use crate::inspect::prose::compact;
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::{Role, Theme};
use crate::live::state::Column;
use curves::{Chart, Curve, GUTTER, Limit, MARGIN, SETS};
use marks::Sign;
use window::{Window, ago};

/// Dots that a line about all of it is told from.
const DOTS: usize = 100;

/// Memory over time, with loads and evictions.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// Whether what is shown is a recording, in which one can go to the cursor.
    pub seeks: bool,
    window: Window,
    /// Which set of curves.
    set: usize,
    /// The moment that the cursor is at, microseconds.
    cursor: Option<u64>,
    drawn: Drawn,
}

/// As it was drawn last; what a key or a click does follows from it.
#[derive(Debug, Clone, Default)]
struct Drawn {
    range: Range<u64>,
    columns: usize,
    now_us: u64,
    expanded: bool,
    has_names: bool,
}

/// What is where.
struct Plan {
    plot: Rect,
    has_gutter: bool,
    has_names: bool,
    marks: Option<u16>,
    axis: Option<u16>,
    cursor: Option<u16>,
}

impl Plan {
    fn of(area: Rect, wants_cursor: bool) -> Plan {
        let has_gutter = area.width >= 30 && area.height >= 2;
        let has_names = area.width >= 58 && area.height >= 3;
        let mut rows = area.height;
        let mut take = |least: u16| {
            (rows > least).then(|| {
                rows -= 1;
                area.y + rows
            })
        };
        let (cursor, axis) = if wants_cursor {
            (take(3), take(5))
        } else {
            (None, take(4))
        };
        let marks = take(3);
        let left = if has_gutter { GUTTER } else { 0 };
        let right = if has_names { MARGIN } else { 0 };
        let plot = Rect::new(area.x + left, area.y, area.width - left - right, rows);
        Plan {
            plot,
            has_gutter,
            has_names,
            marks,
            axis,
            cursor,
        }
    }
}

impl Timeline {
    fn curves(&self) -> &'static [Curve] {
        SETS[self.set % SETS.len()]
    }

    /// Everything in one line, where there is no room for more.
    fn draw_line(&self, scene: &Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let range = self.drawn.range.clone();
        let columns = scene.state.series.columns(range.clone(), 1);
        let mut line = Line::default();
        if let Some(column) = columns.first() {
            line = numbers(line, column, self.curves());
        }
        let mut counts = [(Sign::Load, 0), (Sign::Evict, 0), (Sign::Refuse, 0)];
        for decision in scene.state.decisions.iter() {
            let sign = Sign::of(&decision.what);
            let count = counts.iter_mut().find(|count| count.0 == sign);
            if let Some(count) = count.filter(|_| range.contains(&decision.at_us)) {
                count.1 += 1;
            }
        }
        for (sign, count) in counts {
            line = line.and(sign.role(), format!(" {}{count}", sign.letter()));
        }
        line.draw(buffer, (area.x, area.y), area.width, &scene.theme);
    }

    fn draw_marks(&self, scene: &Scene<'_>, plot: Rect, y: u16, buffer: &mut Buffer) {
        let marks = marks::marks(scene.state, &self.drawn.range, plot.width.into());
        for (x, mark) in (plot.x..).zip(marks) {
            let Some(mark) = mark else { continue };
            if let Some(cell) = buffer.cell_mut((x, y)) {
                let style = scene.theme.style(mark.sign.role());
                cell.set_char(mark.letter()).set_style(style);
            }
        }
    }

    fn draw_axis(&self, scene: &Scene<'_>, plot: Rect, y: u16, buffer: &mut Buffer) {
        let range = &self.drawn.range;
        let mut free = plot.right();
        for (at, before) in window::ticks(range, scene.now_us, plot.width, 14) {
            let name = ago(before);
            let columns = name.len() as u16;
            let column = marks::column(at, range, plot.width.into());
            let column = column.map_or(plot.width, |column| column as u16);
            let most = free.saturating_sub(columns);
            let x = (plot.x + column).saturating_sub(columns / 2).min(most);
            if x < plot.x || x + columns > free {
                continue;
            }
            put(buffer, (x, y), columns, &name, &scene.theme, Role::Faint);
            free = x.saturating_sub(1);
        }
    }

    /// A line down the chart, where nothing else is.
    fn draw_mark(&self, scene: &Scene<'_>, plot: Rect, buffer: &mut Buffer) {
        let Some(since) = scene.since else { return };
        let columns = usize::from(plot.width);
        let Some(column) = marks::column(since.at_us, &self.drawn.range, columns) else {
            return;
        };
        let mark = if scene.theme.unicode { "┊" } else { ":" };
        let x = plot.x + column as u16;
        for y in plot.y..plot.bottom() {
            put(buffer, (x, y), 1, mark, &scene.theme, Role::Focus);
        }
    }

    /// The numbers at the cursor, and what was decided near it.
    fn draw_cursor(
        &self,
        scene: &Scene<'_>,
        columns: &[Column],
        (plot, area, y): (Rect, Rect, Option<u16>),
        buffer: &mut Buffer,
    ) {
        let range = &self.drawn.range;
        let place = self.cursor.and_then(|at| {
            let column = marks::column(at, range, plot.width.into())?;
            Some((at, column))
        });
        let theme = &scene.theme;
        let Some((at, column)) = place else {
            if let Some(y) = y {
                let what = "left, right or a click: the numbers at a moment";
                put(buffer, (area.x, y), area.width, what, theme, Role::Faint);
            }
            return;
        };
        let x = plot.x + column as u16;
        let cursor = Rect::new(x, plot.y, 1, plot.height);
        buffer.set_style(cursor, theme.style(Role::Selected));
        let Some(y) = y else { return };
        let mut line = Line::default().and(Role::Key, ago(scene.now_us.saturating_sub(at)));
        let dots = columns.len() / usize::from(plot.width).max(1);
        let last = (column + 1) * dots;
        line.push(Role::Text, "  ");
        if let Some(column) = last.checked_sub(1).and_then(|last| columns.get(last)) {
            line = numbers(line, column, self.curves());
        }
        if let Some(decision) = marks::nearest(scene.state, at, range) {
            let sign = Sign::of(&decision.what);
            let apart = decision.at_us.abs_diff(at) / 1_000_000;
            let when = match decision.at_us.cmp(&at) {
                _ if apart == 0 => String::new(),
                std::cmp::Ordering::Less => format!(", {apart} s before"),
                _ => format!(", {apart} s after"),
            };
            let mut letter = [0; 4];
            line = line
                .and(sign.role(), sign.letter().encode_utf8(&mut letter))
                .and(Role::Text, " ")
                .and(Role::Text, marks::words(&decision.what))
                .and(Role::Faint, when);
        }
        line.draw(buffer, (area.x, y), area.width, theme);
    }

    /// By a column to the left, or the right, and the window with it where that is needed.
    fn move_cursor(&mut self, left: bool) {
        let Drawn { range, columns, .. } = &self.drawn;
        let step = ((range.end - range.start) / (*columns as u64).max(1)).max(1);
        let last = range.end.saturating_sub(1).max(range.start);
        let to = match self.cursor {
            None => last,
            Some(at) if left => at.saturating_sub(step),
            Some(at) => at.saturating_add(step),
        };
        let (range, now_us) = (range.clone(), self.drawn.now_us);
        if !range.contains(&to) && self.cursor.is_some() {
            let quarter = (range.end - range.start) / 4;
            self.window.pan(left, quarter, &range, now_us);
        }
        self.cursor = Some(to.min(now_us.max(range.start)));
    }

    fn open(&self, state: &State) -> Wish {
        let Some(at) = self.cursor else {
            return Wish::Ignored;
        };
        if self.seeks {
            return Wish::SeekTo(at);
        }
        match marks::nearest(state, at, &self.drawn.range) {
            Some(decision) => Wish::Decision(decision.seq),
            None => Wish::Ignored,
        }
    }
}

/// The numbers of a column, those that matter most first.
fn numbers(mut line: Line, column: &Column, curves: &[Curve]) -> Line {
    for curve in curves.iter().rev() {
        if let Some(bytes) = (curve.read)(&column.last) {
            let text = format!("{} {}  ", curve.name, compact(bytes));
            line = line.and(curve.role, text);
        }
    }
    line
}

fn legend(curves: &[Curve], theme: &Theme) -> String {
    let one = |curve: &Curve| format!("{}={}", &curve.name[..1], curve.name);
    let names: Vec<_> = curves.iter().rev().map(one).collect();
    let several = if theme.unicode { "" } else { " #=both" };
    format!("  {}{several}", names.join(" "))
}

impl View for Timeline {
    fn title(&self) -> &'static str {
        "TIMELINE"
    }

    fn caption(&self, scene: &Scene<'_>) -> String {
        let mut caption = self
            .window
            .name(&scene.state.series, scene.now_us)
            .to_owned();
        if let Some(end) = self.window.stands_at() {
            let before = ago(scene.now_us.saturating_sub(end));
            caption.push_str(&format!(" up to {before}"));
        }
        if !self.drawn.has_names || !scene.theme.unicode {
            caption.push_str(&legend(self.curves(), &scene.theme));
        }
        caption + "  | load  x evict  ! refuse"
    }

    fn brief(&self, scene: &Scene<'_>) -> String {
        let series = &scene.state.series;
        let range = self.window.range(series, scene.now_us, DOTS);
        let readings = series.columns(range, DOTS);
        let mut says = self.window.name(series, scene.now_us).to_owned();
        for curve in self.curves().iter().rev() {
            let last = readings.iter().rev();
            let last = last.filter_map(|column| (curve.read)(&column.last)).next();
            let most = readings
                .iter()
                .filter_map(|column| (curve.read)(&column.most));
            if let (Some(last), Some(most)) = (last, most.max()) {
                says.push_str(&format!(", {} {}", curve.name, compact(last)));
                if most > last {
                    says.push_str(&format!(" (most {})", compact(most)));
                }
            }
        }
        says
    }

    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        let wants_cursor = scene.focused && (scene.expanded || self.cursor.is_some());
        let plan = Plan::of(area, wants_cursor);
        let plot = plan.plot;
        let theme = scene.theme;
        let dots = usize::from(plot.width) * if theme.unicode { 2 } else { 1 };
        let series = &scene.state.series;
        self.drawn = Drawn {
            range: self.window.range(series, scene.now_us, dots),
            columns: plot.width.into(),
            now_us: scene.now_us,
            expanded: scene.expanded,
            has_names: plan.has_names,
        };
        if area.is_empty() || plot.is_empty() {
            return;
        }
        if series.span().is_none() && scene.state.decisions.iter().len() == 0 {
            let place = (area.x, area.y + area.height / 2);
            put(
                buffer,
                place,
                area.width,
                "no readings yet",
                &theme,
                Role::Faint,
            );
            return;
        }
        if area.height == 1 {
            self.draw_line(scene, area, buffer);
            return;
        }
        let columns = series.columns(self.drawn.range.clone(), dots);
        let chart = Chart {
            columns: &columns,
            curves: self.curves(),
            limit: Limit::tightest(scene.state),
            theme,
        };
        self.draw_mark(scene, plot, buffer);
        if let Some(scale) = chart.scale(plot.height) {
            if plan.has_gutter {
                chart.draw_labels(&scale, plot, area.x, buffer);
            }
            chart.draw(&scale, plot, buffer);
            if plan.has_names {
                chart.draw_names(&scale, plot, buffer);
            }
        } else {
            let place = (plot.x, plot.y + plot.height / 2);
            let what = "no readings in this stretch";
            put(buffer, place, plot.width, what, &theme, Role::Faint);
        }
        if let Some(y) = plan.marks {
            self.draw_marks(scene, plot, y, buffer);
        }
        if let Some(y) = plan.axis {
            self.draw_axis(scene, plot, y, buffer);
        }
        if wants_cursor {
            self.draw_cursor(scene, &columns, (plot, area, plan.cursor), buffer);
        }
        for at in 0..plot.width {
            scene.hits.push(Hit {
                area: Rect::new(plot.x + at, area.y, 1, area.height),
                does: Click::Select(at.into()),
            });
        }
    }

    fn act(&mut self, action: Action, state: &State) -> Wish {
        let Drawn { range, now_us, .. } = self.drawn.clone();
        let eighth = (range.end - range.start) / 8;
        match action {
            Action::Left | Action::Right if self.drawn.expanded => {
                self.move_cursor(action == Action::Left);
            }
            Action::Left => self.window.pan(true, eighth, &range, now_us),
            Action::Right => self.window.pan(false, eighth, &range, now_us),
            Action::ZoomIn => self.window.zoom(true, &state.series, &range, now_us),
            Action::ZoomOut => self.window.zoom(false, &state.series, &range, now_us),
            Action::First => self.window.first(&state.series, &range, now_us),
            Action::Last => {
                self.window.follow();
                self.cursor = None;
            }
            Action::Sort => self.set = (self.set + 1) % SETS.len(),
            Action::Reverse => self.set = (self.set + SETS.len() - 1) % SETS.len(),
            Action::Back if self.cursor.is_some() => self.cursor = None,
            Action::Open => return self.open(state),
            _ => return Wish::Ignored,
        }
        Wish::Redraw
    }

    fn click(&mut self, click: &Click, state: &State) -> Wish {
        let Click::Select(column) = click else {
            return Wish::Ignored;
        };
        let Drawn { range, columns, .. } = &self.drawn;
        let was = self
            .cursor
            .and_then(|at| marks::column(at, range, *columns));
        if was == Some(*column) {
            return self.open(state);
        }
        let length = u128::from(range.end - range.start);
        // The middle of the column, which is in it however narrow columns are.
        let column = (*column).min(*columns) as u128;
        let from = length * (2 * column + 1) / (2 * *columns as u128).max(1);
        self.cursor = Some(range.start.saturating_add(from as u64));
        Wish::Redraw
    }
}
