//! The allocator: in use, free, resident, trimmable, stuck; arenas with pins.
//!
//! | file | what |
//! |---|---|
//! | `totals` | the sums as bars, and what is wasted |
//! | `facts` | settings, what a trim would return, why there is no heap: a line each |
//! | `order` | which arenas are shown, in which order |
//! | `table` | the arenas, a row each |
//! | `more` | what there is room for on the whole screen |

mod facts;
mod more;
mod order;
mod table;
#[cfg(test)]
mod tests;
mod totals;

use malloc_stats::heap::Heap;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use self::order::By;
use self::table::Arenas;
use self::totals::{Bar, Sums};
use super::draw::{Did, Head, Pen, Rows};
use super::{Click, Scene, View, Wish};
use crate::inspect::prose::{compact_metric, lasting, percent};
use crate::live::State;
use crate::live::screen::keys::Action;
use crate::live::screen::theme::{Role, Theme};

/// The allocator: in use, free, resident, trimmable, stuck; arenas with pins.
#[derive(Debug, Clone, Default)]
pub struct Allocator {
    /// The arena that was opened, by its index: the screen takes it, and hands it to the heap map.
    pub chosen: Option<usize>,
    rows: Rows<usize>,
    by: By,
    reversed: bool,
    /// As at the last frame: keys move within what was shown.
    filter: String,
    /// The first line of what stands below, where it has the whole screen.
    line: usize,
    /// Whether the whole screen was drawn last, and lines were left over.
    more: bool,
}

impl View for Allocator {
    fn title(&self) -> &'static str {
        "ALLOCATOR"
    }

    fn caption(&self, scene: &Scene<'_>) -> String {
        let mut parts: Vec<String> = facts::name(scene.state).into_iter().collect();
        if let Some(look) = &scene.state.look {
            if let Some(heap) = &look.value.heap {
                let arenas = heap.arenas.len();
                let mmapped = match heap.mmapped.chunks {
                    0 => "",
                    _ => " + mmapped",
                };
                parts.push(match arenas {
                    1 => format!("1 arena{mmapped}"),
                    _ => format!("{arenas} arenas{mmapped}"),
                });
                let cost = crate::decision::seconds(look.value.cost_us);
                parts.push(match age(look.at_us, scene.now_us) {
                    Some(age) => format!("walk {age} ago, {cost}"),
                    None => format!("walk {cost}"),
                });
            } else if let Some(age) = age(look.at_us, scene.now_us) {
                parts.push(format!("look {age} ago"));
            }
        }
        if let Some(read) = totals::read_at(scene.state)
            && let Some(age) = age(read, scene.now_us)
        {
            parts.push(format!("sums of {age} ago"));
        }
        parts.join(", ")
    }

    fn brief(&self, scene: &Scene<'_>) -> String {
        let Some(sums) = Sums::of(scene.state) else {
            return self.caption(scene);
        };
        let paint = scene.theme.paint(0);
        let number = |metric| compact_metric(&paint, metric);
        let mut says = format!(
            "in use {}, free resident {}",
            number(sums.in_use),
            number(sums.free_resident)
        );
        if let Some(waste) = sums.waste() {
            says.push_str(&format!(", waste {}", percent(waste)));
        }
        if let Some(heap) = heap_of(scene.state) {
            says.push_str(&format!(", trim returns {}", number(heap.trim.releasable)));
        }
        says
    }

    fn draw(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let area = area.intersection(buffer.area);
        self.more = false;
        self.filter.clear();
        self.filter.push_str(scene.filter);
        if area.is_empty() {
            return;
        }
        if scene.expanded {
            let upper = upper_height(scene, area.height);
            let top = Rect {
                height: upper,
                ..area
            };
            self.draw_panel(scene, top, buffer);
            let lines = more::lines(scene, usize::from(area.width));
            let mut pen = Pen::new(buffer, scene.theme, area);
            let below = &mut pen.part((0, upper + 1), (area.width, area.height));
            self.line = more::draw(below, &lines, self.line);
            self.more = !lines.is_empty();
        } else {
            self.draw_panel(scene, area, buffer);
        }
    }

    fn act(&mut self, action: Action, state: &State) -> Wish {
        match action {
            // The arenas have few pages; what is below them has more.
            Action::PageUp if self.more => self.line = self.line.saturating_sub(10),
            Action::PageDown if self.more => self.line = self.line.saturating_add(10),
            Action::Sort => {
                self.by = self.by.next();
                self.reversed = false;
            }
            Action::Reverse => self.reversed = !self.reversed,
            _ => {
                let Some(heap) = heap_of(state) else {
                    return Wish::Ignored;
                };
                let arenas = Arenas::of(heap, None, (self.by, self.reversed), &self.filter);
                let did = self.rows.act(action, &arenas);
                return self.wish(did);
            }
        }
        Wish::Redraw
    }

    fn click(&mut self, click: &Click, _: &State) -> Wish {
        if let Click::SortBy(column) = click {
            let Some(by) = table::sorts_by(*column) else {
                return Wish::Ignored;
            };
            self.reversed = by == self.by && !self.reversed;
            self.by = by;
            return Wish::Redraw;
        }
        let did = self.rows.click(click);
        self.wish(did)
    }
}

fn heap_of(state: &State) -> Option<&Heap> {
    state.look.as_ref()?.value.heap.as_ref()
}

/// How old something is, where it is too old for now.
fn age(at_us: u64, now_us: u64) -> Option<String> {
    let age = now_us.saturating_sub(at_us);
    (age > 3_000_000).then(|| lasting(age as f64 / 1e6))
}

/// Lines of the panel, by what they are; the table takes the rest.
struct Budget {
    settings: bool,
    bars: usize,
    torn: bool,
    trim: bool,
    waste: bool,
    blank: bool,
}

impl Allocator {
    fn wish(&mut self, did: Did<usize>) -> Wish {
        match did {
            Did::Ignored => return Wish::Ignored,
            Did::Moved => {}
            Did::Open(arena) => self.chosen = Some(arena),
        }
        Wish::Redraw
    }

    fn draw_panel(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let heap = heap_of(scene.state);
        let mut pen = Pen::new(buffer, scene.theme, area);
        let Some(sums) = Sums::of(scene.state) else {
            facts::draw_absent(scene, &mut pen, 0);
            return;
        };
        let before = scene.since.and_then(Sums::of);
        let (bars, scale) = totals::bars(&sums, before.as_ref());
        let bars = (bars.as_slice(), scale);
        let (width, height) = (area.width, area.height);
        // A wide and low panel has the sums on the left and the arenas on the right.
        if let Some(heap) = heap
            && !scene.expanded
            && width >= 110
            && height < 15
            && height > 2
        {
            let half = (width / 2).min(62);
            let budget = budget(scene.state, height, bars.0.len(), false);
            let left = &mut pen.part((0, 0), (half, height));
            draw_sums(scene, left, &budget, &sums, before.as_ref(), bars);
            let right = pen.place((half + 2, 0), (width, height));
            self.draw_table(scene, right, buffer, heap);
            return;
        }
        let budget = budget(scene.state, height, bars.0.len(), true);
        let y = draw_sums(scene, &mut pen, &budget, &sums, before.as_ref(), bars);
        match heap {
            Some(heap) => {
                let below = pen.place((0, y + u16::from(budget.blank)), (width, height));
                self.draw_table(scene, below, buffer, heap);
            }
            // jemalloc's own numbers are all there is of it, and no walk is missed.
            None if sums.jemalloc.is_some() => {}
            None => facts::draw_absent(scene, &mut pen, y + u16::from(height > y + 2)),
        }
    }

    fn draw_table(&mut self, scene: &mut Scene<'_>, area: Rect, buffer: &mut Buffer, heap: &Heap) {
        if area.height < 2 {
            return;
        }
        let before = scene.since.and_then(heap_of);
        let arenas = Arenas::of(heap, before, (self.by, self.reversed), scene.filter);
        if arenas.arenas.is_empty() {
            let what = match scene.filter.is_empty() {
                true => "it has no arenas".to_owned(),
                false => format!("no arena has \"{}\"", scene.filter),
            };
            Pen::new(buffer, scene.theme, area).write(Role::Faint, &what);
            return;
        }
        let columns = table::columns();
        let sorted = table::column_of(self.by);
        let head = Head {
            columns: &columns,
            sorted: sorted.map(|column| (column, self.by.descends(self.reversed))),
        };
        self.rows.draw(scene, area, buffer, &head, &arenas);
    }
}

/// Lines of the whole screen that look as in the panel.
fn upper_height(scene: &Scene<'_>, height: u16) -> u16 {
    let heap = heap_of(scene.state);
    let rows = heap.map_or(0, |heap| heap.arenas.len());
    let rows = rows.saturating_mul(Arenas::lines(scene.since.is_some()));
    let rows = u16::try_from(rows).unwrap_or(u16::MAX);
    // Settings, bars, trim, waste, a blank, the header; jemalloc has more bars.
    let sums = match heap {
        Some(heap) => 8 + u16::from(facts::torn(heap).is_some()),
        None => 12,
    };
    let wanted = rows.saturating_add(sums);
    wanted.min((height / 2).max(12)).min(height)
}

/// What fits, the most important first.
fn budget(state: &State, height: u16, bars: usize, with_table: bool) -> Budget {
    let heap = heap_of(state);
    let has_settings = facts::settings(&Theme::plain(), state, u16::MAX).is_some();
    let mut budget = Budget {
        settings: false,
        bars: 0,
        torn: false,
        trim: false,
        waste: true,
        blank: false,
    };
    let mut left = usize::from(height).saturating_sub(1);
    let mut take = |wanted: usize| {
        let taken = wanted.min(left);
        left -= taken;
        taken
    };
    let rows = heap.map_or(0, |heap| heap.arenas.len());
    let has_table = with_table && rows > 0;
    budget.bars = take(2.min(bars));
    budget.torn = heap.is_some_and(|heap| facts::torn(heap).is_some()) && take(1) > 0;
    budget.trim = heap.is_some() && take(1) > 0;
    if has_table && height >= 6 {
        take(2);
    }
    budget.bars += take(bars - budget.bars);
    budget.settings = has_settings && height >= 9 && take(1) > 0;
    budget.blank = has_table && height >= 13 && take(1) > 0;
    budget
}

/// Draws the sums; the first line below them.
fn draw_sums(
    scene: &Scene<'_>,
    pen: &mut Pen<'_>,
    budget: &Budget,
    sums: &Sums,
    before: Option<&Sums>,
    (bars, scale): (&[Bar], u64),
) -> u16 {
    let heap = heap_of(scene.state);
    let mut y = 0;
    if budget.settings
        && let Some(line) = facts::settings(&scene.theme, scene.state, pen.width())
    {
        pen.line(y, &line);
        y += 1;
    }
    for bar in bars.iter().take(budget.bars) {
        bar.draw(pen, y, scale);
        y += 1;
    }
    if budget.trim
        && let Some(heap) = heap
    {
        let mark = scene.since.and_then(heap_of).map(|heap| &heap.trim);
        let line = facts::trim(&scene.theme, &heap.trim, mark, pen.width());
        pen.line(y, &line);
        y += 1;
    }
    if budget.waste {
        totals::draw_waste(pen, y, sums, before);
        y += 1;
    }
    if budget.torn
        && let Some(line) = heap.and_then(facts::torn)
    {
        pen.line(y, &line);
        y += 1;
    }
    y
}
