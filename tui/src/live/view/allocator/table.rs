//! The arenas, a row each; in diff with what changed of each in a row below it.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use malloc_stats::Metric;
use malloc_stats::heap::{Arena, Heap, Pin};

use super::order::{self, By, name, pin_texts};
use super::totals::{More, Share, change, severity};
use crate::inspect::prose::{compact, compact_metric, percent};
use crate::live::screen::theme::{Role, Theme};
use crate::live::view::draw::{Column, List, Pen};

/// The columns, in order; `None` is the bar.
const COLUMNS: [Option<By>; 9] = [
    Some(By::Arena),
    Some(By::System),
    Some(By::InUse),
    Some(By::Free),
    Some(By::Resident),
    Some(By::Waste),
    Some(By::Threads),
    None,
    Some(By::Pin),
];

pub(super) fn columns() -> [Column<'static>; 9] {
    [
        Column::right("ARENA", 6).sorts(),
        Column::right("SYSTEM", 7).rank(3).sorts(),
        Column::right("IN_USE", 7).sorts(),
        Column::right("FREE", 7).rank(5).sorts(),
        Column::right("RES", 7).rank(1).sorts(),
        Column::right("WASTE", 6).sorts(),
        Column::right("THR", 4).rank(6).sorts(),
        Column::left("", 10).rank(7).up_to(16),
        Column::left("PIN", 16).rank(2).up_to(u16::MAX).sorts(),
    ]
}

/// What a column sorts by.
pub(super) fn sorts_by(column: usize) -> Option<By> {
    COLUMNS.get(column).copied().flatten()
}

/// The column that is sorted by.
pub(super) fn column_of(by: By) -> Option<usize> {
    COLUMNS.iter().position(|column| *column == Some(by))
}

/// The arenas that are shown, in their order.
pub(super) struct Arenas<'a> {
    pub(super) arenas: Vec<&'a Arena>,
    pins: BTreeMap<usize, &'a Pin>,
    /// Where each arena was at the mark, in diff.
    before: Option<BTreeMap<usize, &'a Arena>>,
    /// What bars are drawn to.
    largest: u64,
}

impl<'a> Arenas<'a> {
    pub(super) fn of(
        heap: &'a Heap,
        before: Option<&'a Heap>,
        sorted: (By, bool),
        filter: &str,
    ) -> Arenas<'a> {
        let pins = order::pins(heap);
        let index = |heap: &'a Heap| {
            let arenas = heap.arenas.iter();
            arenas.map(|arena| (arena.index, arena)).collect()
        };
        let largest = heap.arenas.iter().map(|arena| arena.system_mem).max();
        Arenas {
            arenas: order::ordered(heap, &pins, sorted, filter),
            pins,
            before: before.map(index),
            largest: largest.unwrap_or(0),
        }
    }

    /// Lines that an arena takes.
    pub(super) const fn lines(diff: bool) -> usize {
        if diff { 2 } else { 1 }
    }

    fn step(&self) -> usize {
        Arenas::lines(self.before.is_some())
    }

    fn now(&self, arena: &Arena, column: Option<By>, pen: &mut Pen<'_>) {
        let paint = pen.theme.paint(0);
        let number = |metric: Metric, role| (role, compact_metric(&paint, metric));
        let (role, text) = match column {
            Some(By::Arena) => (Role::Strong, name(arena)),
            Some(By::System) => (Role::Text, compact(arena.system_mem)),
            Some(By::InUse) => number(arena.in_use, Role::Text),
            Some(By::Free) => number(arena.free, Role::Text),
            Some(By::Resident) => number(arena.free_resident, Role::Waste),
            Some(By::Waste) => match arena.waste() {
                None => (Role::Faint, "n/a".to_owned()),
                Some(waste) => (severity(waste), percent(waste)),
            },
            Some(By::Threads) => (Role::Text, arena.attached_threads.to_string()),
            Some(By::Pin) => return self.pin(arena, pen),
            None => return self.bar(arena, pen),
        };
        pen.write(role, &text);
    }

    /// As much of what is known of its pin as there is room for.
    fn pin(&self, arena: &Arena, pen: &mut Pen<'_>) {
        let pin = self.pins.get(&arena.index).copied();
        let role = match (pin, arena.locked) {
            (_, true) => Role::Warn,
            (None, _) => Role::Faint,
            (Some(_), _) => Role::Text,
        };
        let room = usize::from(pen.room());
        let texts = pin_texts(&Theme::plain(), arena, pin);
        let fits = texts.iter().find(|text| text.len() <= room);
        if let Some(text) = fits.or(texts.last()) {
            pen.write(role, text);
        }
    }

    fn bar(&self, arena: &Arena, pen: &mut Pen<'_>) {
        let released = arena.free.minus_saturating(arena.free_resident);
        let parts = [
            (Share::InUse, arena.in_use),
            (Share::Resident, arena.free_resident),
            (Share::Released, released),
        ];
        let parts = parts.map(|(share, metric)| {
            let (mark, role) = share.look();
            (role, mark, metric.bytes().unwrap_or(0))
        });
        pen.bar(pen.room(), &parts, self.largest);
    }

    fn since(&self, arena: &Arena, column: Option<By>, pen: &mut Pen<'_>) {
        let before = self.before.as_ref();
        let Some(before) = before.and_then(|before| before.get(&arena.index)) else {
            if column == Some(By::Pin) {
                pen.write(Role::Faint, "new since then");
            }
            return;
        };
        let by = |now, then, more| match change(now, then, more) {
            Some((text, role)) => (role, text),
            None => (Role::Faint, "n/a".to_owned()),
        };
        let exact = Metric::Exact;
        let (role, text) = match column {
            Some(By::System) => by(
                exact(arena.system_mem),
                exact(before.system_mem),
                More::Neutral,
            ),
            Some(By::InUse) => by(arena.in_use, before.in_use, More::Neutral),
            Some(By::Free) => by(arena.free, before.free, More::Neutral),
            Some(By::Resident) => by(arena.free_resident, before.free_resident, More::Bad),
            Some(By::Waste) => match arena.waste().zip(before.waste()) {
                None => (Role::Faint, "n/a".to_owned()),
                Some((now, then)) => {
                    let points = (now - then) * 100.0;
                    match points {
                        0.05.. => (Role::Bad, format!("{points:+.1}")),
                        ..=-0.05 => (Role::Good, format!("{points:+.1}")),
                        _ => (Role::Faint, "=".to_owned()),
                    }
                }
            },
            Some(By::Threads) => {
                let (now, then) = (arena.attached_threads, before.attached_threads);
                let text = match now.cmp(&then) {
                    Ordering::Equal => "=".to_owned(),
                    Ordering::Greater => format!("+{}", now - then),
                    Ordering::Less => format!("-{}", then - now),
                };
                (Role::Faint, text)
            }
            Some(By::Arena | By::Pin) | None => return,
        };
        pen.write(role, &text);
    }
}

impl List for Arenas<'_> {
    type Key = usize;

    fn len(&self) -> usize {
        self.arenas.len() * self.step()
    }

    fn key(&self, row: usize) -> Option<usize> {
        let (at, below) = (row / self.step(), row % self.step());
        let arena = self.arenas.get(at).filter(|_| below == 0);
        arena.map(|arena| arena.index)
    }

    fn find(&self, key: &usize) -> Option<usize> {
        let mut arenas = self.arenas.iter();
        let at = arenas.position(|arena| arena.index == *key);
        at.map(|at| at * self.step())
    }

    fn cell(&self, row: usize, column: usize, pen: &mut Pen<'_>) {
        let Some(arena) = self.arenas.get(row / self.step()) else {
            return;
        };
        let Some(column) = COLUMNS.get(column).copied() else {
            return;
        };
        match row % self.step() {
            0 => self.now(arena, column, pen),
            _ => self.since(arena, column, pen),
        }
    }
}
