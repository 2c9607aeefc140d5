//! What the limits leave, and for how long; what memory is; and whether the next load would fit.

mod facts;
mod gauges;
mod rows;
#[cfg(test)]
mod tests;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::draw::Line;
use super::{Scene, View, Wish, put};
use crate::inspect::prose::compact_metric;
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::Role;
use facts::{Approached, Facts, MOST};
use gauges::{Columns, Gauge};

pub(super) use facts::{about, age, short_label};

/// What the limits leave, and for how long.
#[derive(Debug, Clone, Default)]
pub struct Headroom {
    /// The first line that is shown, of all.
    offset: usize,
    /// Lines and rows when it was drawn last.
    lines: usize,
    rows: usize,
}

/// Everything that has a gauge, in order.
struct Gauges {
    bounds: Vec<Gauge>,
    gpus: Vec<Gauge>,
    tiers: Vec<Gauge>,
}

impl Gauges {
    fn of(facts: &Facts<'_>, bounds: &[Approached<'_>]) -> Gauges {
        let gpus = facts.state.vitals.vram.value.iter().take(MOST);
        let tiers = facts.state.tiers.iter().take(MOST);
        Gauges {
            bounds: bounds
                .iter()
                .map(|bound| Gauge::of_bound(facts, bound))
                .collect(),
            gpus: gpus.map(|gpu| Gauge::of_gpu(facts, gpu)).collect(),
            tiers: tiers.map(|tier| Gauge::of_tier(facts, tier)).collect(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Gauge> {
        self.bounds.iter().chain(&self.gpus).chain(&self.tiers)
    }
}

/// Where VRAM is not known, why.
fn vram_absent(facts: &Facts<'_>, width: usize) -> Option<Line> {
    let vitals = &facts.state.vitals;
    let line = Line::of(Role::Faint, "VRAM n/a");
    match &vitals.vram_absent {
        Some(why) if vitals.vram.value.is_empty() => {
            // In short there is none, or it was not looked for.
            let short = why.split([':', ',']).next().unwrap_or_default();
            let said = [why.as_str(), short];
            let said = said.map(|why| Line::of(Role::Faint, format!(": {why}")));
            let fits = said
                .into_iter()
                .find(|said| line.width() + said.width() <= width);
            Some(line.append(fits.unwrap_or_default()))
        }
        _ => None,
    }
}

/// Lines that belong together, under a word.
struct Section {
    name: &'static str,
    lines: Vec<Line>,
}

/// Everything, in its sections; with parts as bars where it has the whole screen.
fn sections(
    facts: &Facts<'_>,
    bounds: &[Approached<'_>],
    gauges: &Gauges,
    (width, in_full): (usize, bool),
) -> Vec<Section> {
    let columns = Columns::fit(width, gauges.iter());
    let line = |gauge: &Gauge| gauge.line(facts, columns);
    let mut limits = Vec::with_capacity(8);
    if !gauges.bounds.is_empty() {
        limits.extend(columns.heading());
    }
    limits.extend(gauges.bounds.iter().map(line));
    limits.push(rows::room(facts, width, false));
    let memory: Vec<Line> = match in_full {
        true => [
            rows::process_in_full(facts, width),
            rows::cgroup_in_full(facts, bounds, width),
        ]
        .concat(),
        false => {
            let process = rows::process(facts, width);
            let cgroup = rows::composition(facts, bounds, width);
            [process].into_iter().chain(cgroup).collect()
        }
    };
    let mut trouble = vec![rows::pressure_and_kills(facts, false)];
    trouble.extend(rows::host(facts));
    let mut devices: Vec<Line> = gauges.gpus.iter().map(line).collect();
    devices.extend(vram_absent(facts, width));
    devices.extend(gauges.tiers.iter().map(line));
    devices.extend(rows::next_load(facts, width));
    let names = [
        "LIMITS",
        "MEMORY",
        "PRESSURE, KILLS, HOST",
        "DEVICES AND TIERS",
    ];
    let all = names.into_iter().zip([limits, memory, trouble, devices]);
    all.map(|(name, lines)| Section { name, lines }).collect()
}

/// Sections one after the other, with their names where there is room for all of that.
fn joined(sections: Vec<Section>, rows: usize, with_names: bool) -> Vec<Line> {
    let count: usize = sections.iter().map(|section| section.lines.len() + 2).sum();
    let named = with_names && count <= rows + 1;
    let mut lines = Vec::with_capacity(count);
    for section in sections {
        if named && !lines.is_empty() {
            lines.push(Line::default());
        }
        if named {
            lines.push(Line::of(Role::Strong, section.name));
        }
        lines.extend(section.lines);
    }
    lines
}

/// What matters most, in six lines, and more bounds where there are more rows.
fn compact(
    facts: &Facts<'_>,
    bounds: &[Approached<'_>],
    gauges: &Gauges,
    (width, rows): (usize, usize),
) -> Vec<Line> {
    let columns = Columns::fit(width, gauges.bounds.iter());
    let is_narrow = width < 60;
    let of_cgroup = bounds
        .first()
        .is_some_and(|bound| bound.row.cgroup.is_some());
    let process = rows::process(facts, width);
    let cgroup = rows::composition(facts, bounds, width);
    // What the nearest limit counts comes first; what else there is, where there is room.
    let (first, besides) = match cgroup {
        Some(cgroup) if of_cgroup => (cgroup, Some(process)),
        cgroup => (process, cgroup),
    };
    let mut lines = Vec::with_capacity(rows.max(6));
    lines.push(first);
    let room = rows::room(facts, width, is_narrow);
    // A host that is itself the nearest bound is told of already.
    let host = match (of_cgroup, is_narrow) {
        (false, _) => None,
        (true, true) => rows::host_in_short(facts),
        (true, false) => rows::host(facts),
    };
    lines.push(match host {
        Some(host) => room.join(host, 2, width).unwrap_or_else(|(room, host)| {
            let host = rows::host_in_short(facts).unwrap_or(host);
            room.join(host, 2, width).unwrap_or_else(|(room, _)| room)
        }),
        None => room,
    });
    lines.push(rows::pressure_and_kills(facts, true));
    let at_kills = lines.len() - 1;
    let mut devices = devices(facts, gauges, width).into_iter();
    lines.extend(devices.next());
    lines.extend(rows::next_load(facts, width));
    // What has no row yet, by what it says.
    let mut free = rows.saturating_sub(lines.len() + 1);
    let besides = besides.filter(|_| free > 0 || !of_cgroup);
    match besides {
        Some(besides) if free > 0 => {
            lines.insert(1, besides);
            free -= 1;
        }
        _ if of_cgroup => {
            let kills = lines.remove(at_kills);
            let kills = kills.join(rows::rss(facts), 2, width);
            lines.insert(at_kills, kills.unwrap_or_else(|(kills, _)| kills));
        }
        _ => {}
    }
    let bounds = gauges.bounds.iter().take(1 + free.min(2));
    let bounds: Vec<_> = bounds.map(|gauge| gauge.line(facts, columns)).collect();
    free = free.saturating_sub(bounds.len().saturating_sub(1));
    let at = lines.len() - usize::from(lines.len() > 4);
    let devices: Vec<_> = devices.take(free).collect();
    lines.splice(at..at, devices);
    lines.splice(0..0, bounds);
    lines
}

/// GPUs and tiers in a few words each, those that are devices first.
fn devices(facts: &Facts<'_>, gauges: &Gauges, width: usize) -> Vec<Line> {
    let (ram, others): (Vec<_>, Vec<_>) = gauges.tiers.iter().partition(|tier| tier.is_ram());
    let mut lines: Vec<Line> = Vec::new();
    lines.extend(vram_absent(facts, width).filter(|_| others.is_empty()));
    for gauge in gauges.gpus.iter().chain(others).chain(ram) {
        let brief = gauge.brief(facts);
        match lines.pop() {
            None => lines.push(brief),
            Some(line) => match line.join(brief, 2, width) {
                Ok(both) => lines.push(both),
                Err((line, brief)) => lines.extend([line, brief]),
            },
        }
    }
    lines
}

impl View for Headroom {
    fn title(&self) -> &'static str {
        "HEADROOM"
    }

    fn brief(&self, scene: &Scene<'_>) -> String {
        let facts = Facts::of(scene);
        let bounds = facts.bounds();
        let Some(nearest) = bounds.first() else {
            return "no limit is known".to_owned();
        };
        let number = |metric| compact_metric(&facts.paint, metric);
        let (left, of) = (number(nearest.row.left), number(nearest.row.limit));
        let mut says = format!("{left} left of {of}, {}", short_label(&nearest.row.bound));
        if let Some(seconds) = nearest.soon {
            says.push_str(&format!(", {}", about(seconds)));
        }
        let kills = facts.limits().into_iter().flat_map(|it| &it.value.cgroups);
        let kills = kills.take(MOST).filter_map(|it| it.oom_kills.bytes()).max();
        if let Some(kills) = kills {
            says.push_str(&format!(", OOM kills {kills}"));
        }
        says
    }

    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        if area.is_empty() {
            return;
        }
        let facts = Facts::of(scene);
        let bounds = facts.bounds();
        let gauges = Gauges::of(&facts, &bounds);
        let (width, rows) = (usize::from(area.width), usize::from(area.height));
        let sections = |in_full| sections(&facts, &bounds, &gauges, (width, in_full));
        let mut lines = joined(sections(scene.expanded), rows, scene.expanded);
        if scene.expanded && lines.len() > rows {
            lines = joined(sections(false), rows, false);
        }
        (self.lines, self.rows) = (lines.len(), rows);
        let most = lines.len().saturating_sub(rows);
        self.offset = self.offset.min(most);
        if most > 0 && self.offset == 0 && !scene.expanded {
            lines = compact(&facts, &bounds, &gauges, (width, rows));
        }
        let shown = lines.iter().skip(self.offset).take(rows);
        for (y, line) in (area.y..).zip(shown) {
            line.draw(buffer, (area.x, y), area.width, &scene.theme);
        }
        if self.offset > 0 {
            let mark = format!(" {}/{} ", self.offset + 1, self.lines);
            let columns = u16::try_from(mark.len()).unwrap_or(0).min(area.width);
            let place = (area.right() - columns, area.bottom() - 1);
            put(buffer, place, columns, &mark, &scene.theme, Role::Faint);
        }
    }

    fn act(&mut self, action: Action, _: &State) -> Wish {
        let page = self.rows.max(1);
        let to = match action {
            Action::Up => self.offset.saturating_sub(1),
            Action::Down => self.offset.saturating_add(1),
            Action::PageUp => self.offset.saturating_sub(page),
            Action::PageDown => self.offset.saturating_add(page),
            Action::First => 0,
            Action::Last => usize::MAX,
            _ => return Wish::Ignored,
        };
        self.offset = to.min(self.lines.saturating_sub(self.rows));
        Wish::Redraw
    }
}
