//! The sums: which source has them, and how they are drawn.

use std::cmp::Ordering;

use malloc_stats::{Grade, JemallocStats, Metric};

use crate::inspect::prose::{compact, compact_metric, percent};
use crate::live::State;
use crate::live::screen::theme::Role;
use crate::live::view::draw::{Mark, Pen, stretch};

/// What an allocator holds, whoever says so.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) in_use: Metric,
    pub(super) free_resident: Metric,
    pub(super) returned: Metric,
    pub(super) heap_rss: Metric,
    /// jemalloc counts in words of its own.
    pub(super) jemalloc: Option<JemallocStats>,
}

impl Sums {
    /// Those of the newest source: the walk, or the allocator's own where that is newer.
    pub(super) fn of(state: &State) -> Option<Sums> {
        let reading = state.vitals.allocator.as_ref();
        let look = state.look.as_ref();
        let heap = look.and_then(|look| Some((look.at_us, look.value.heap.as_ref()?)));
        if let Some(reading) = reading {
            let is_newest = heap.is_none_or(|(at, _)| reading.at_us > at);
            let reading = &reading.value;
            // A walk finds glibc's heap, which is not the one that serves then.
            if is_newest || reading.jemalloc.is_some() {
                let sums = Sums {
                    in_use: reading.in_use,
                    free_resident: reading.cached_resident,
                    returned: reading.returned_virtual,
                    heap_rss: reading.heap_rss,
                    jemalloc: reading.jemalloc,
                };
                return (sums != Sums::default()).then_some(sums);
            }
        }
        let totals = &heap?.1.totals;
        Some(Sums {
            in_use: totals.in_use,
            free_resident: totals.cached_resident,
            returned: totals.returned_virtual,
            heap_rss: totals.heap_rss,
            jemalloc: None,
        })
    }

    /// `max(0, 1 − in_use / heap_rss)`; `None` where either is unavailable or nothing is resident.
    pub(super) fn waste(&self) -> Option<f64> {
        let (in_use, rss) = (self.in_use.bytes()?, self.heap_rss.bytes()?);
        (rss > 0).then(|| (1.0 - in_use as f64 / rss as f64).max(0.0))
    }
}

/// When the allocator itself was asked, where its answer is what is shown.
pub(super) fn read_at(state: &State) -> Option<u64> {
    let reading = state.vitals.allocator.as_ref()?;
    let look = state.look.as_ref();
    let heap = look.and_then(|look| look.value.heap.as_ref().map(|_| look.at_us));
    let shown = heap.is_none_or(|at| reading.at_us > at) || reading.value.jemalloc.is_some();
    shown.then_some(reading.at_us)
}

/// How bad a share of waste is.
pub(super) fn severity(fraction: f64) -> Role {
    match fraction {
        0.5.. => Role::Bad,
        0.2.. => Role::Warn,
        _ => Role::Good,
    }
}

/// Whether more of something is good, bad, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    Bad,
    Neutral,
}

/// How a number changed since the mark, with its sign; `None` where either is not known.
pub(super) fn change(now: Metric, before: Metric, more: More) -> Option<(String, Role)> {
    let by = now.since(before)?;
    let size = compact(by.unsigned_abs());
    let (text, role) = match (by.cmp(&0), more) {
        (Ordering::Equal, _) => ("=".to_owned(), Role::Faint),
        (Ordering::Greater, More::Bad) => (format!("+{size}"), Role::Bad),
        (Ordering::Less, More::Bad) => (format!("-{size}"), Role::Good),
        (Ordering::Greater, More::Neutral) => (format!("+{size}"), Role::Text),
        (Ordering::Less, More::Neutral) => (format!("-{size}"), Role::Text),
    };
    // A difference of numbers that are not exact is none either.
    let is_exact = by == 0 || now.grade().max(before.grade()) == Grade::Exact;
    Some((if is_exact { text } else { format!("~{text}") }, role))
}

/// A bar with its name and its number. Bars of one picture have one scale; each may begin where
/// the one before it ended, so that all of them together are the whole.
pub(super) struct Bar {
    pub(super) name: &'static str,
    pub(super) value: Metric,
    pub(super) before: Option<Metric>,
    pub(super) more: More,
    /// Where it begins, in bytes.
    pub(super) from: u64,
    pub(super) mark: Share,
    pub(super) remark: &'static str,
}

/// What a bar is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    InUse,
    Resident,
    Released,
}

impl Share {
    pub(super) const fn look(self) -> (Mark, Role) {
        match self {
            Share::InUse => (Mark::Full, Role::InUse),
            Share::Resident => (Mark::Half, Role::Waste),
            Share::Released => (Mark::Light, Role::Released),
        }
    }
}

/// The bars of an allocator, and the value that is as long as all the room.
pub(super) fn bars(sums: &Sums, before: Option<&Sums>) -> (Vec<Bar>, u64) {
    match &sums.jemalloc {
        Some(stats) => jemalloc(stats, before.and_then(|before| before.jemalloc.as_ref())),
        None => stacked(sums, before),
    }
}

fn stacked(sums: &Sums, before: Option<&Sums>) -> (Vec<Bar>, u64) {
    let bytes = |metric: Metric| metric.bytes().unwrap_or(0);
    let resident_from = bytes(sums.in_use);
    let returned_from = resident_from.saturating_add(bytes(sums.free_resident));
    let bars = vec![
        Bar {
            name: "in use",
            value: sums.in_use,
            before: before.map(|before| before.in_use),
            more: More::Neutral,
            from: 0,
            mark: Share::InUse,
            remark: "",
        },
        Bar {
            name: "free, resident",
            value: sums.free_resident,
            before: before.map(|before| before.free_resident),
            more: More::Bad,
            from: resident_from,
            mark: Share::Resident,
            remark: "costs RAM",
        },
        Bar {
            name: "given back",
            value: sums.returned,
            before: before.map(|before| before.returned),
            more: More::Neutral,
            from: returned_from,
            mark: Share::Released,
            remark: "free, costs none",
        },
    ];
    (bars, returned_from.saturating_add(bytes(sums.returned)))
}

fn jemalloc(stats: &JemallocStats, before: Option<&JemallocStats>) -> (Vec<Bar>, u64) {
    type Field = fn(&JemallocStats) -> u64;
    let rows: [(&'static str, Field, Share, More, &'static str); 7] = [
        (
            "allocated",
            |s| s.allocated,
            Share::InUse,
            More::Neutral,
            "",
        ),
        (
            "active",
            |s| s.active,
            Share::InUse,
            More::Neutral,
            "pages with any of it",
        ),
        (
            "dirty",
            |s| s.dirty,
            Share::Resident,
            More::Bad,
            "free, a purge returns it",
        ),
        (
            "muzzy",
            |s| s.muzzy,
            Share::Resident,
            More::Bad,
            "the kernel's if it wants",
        ),
        (
            "resident",
            |s| s.resident,
            Share::Resident,
            More::Neutral,
            "at most",
        ),
        (
            "metadata",
            |s| s.metadata,
            Share::InUse,
            More::Neutral,
            "its own records",
        ),
        (
            "retained",
            |s| s.retained,
            Share::Released,
            More::Neutral,
            "addresses, no memory",
        ),
    ];
    let graded = |name: &str, bytes: u64| match name {
        "resident" => Metric::Upper(bytes),
        "dirty" | "muzzy" => Metric::Estimated(bytes),
        _ => Metric::Exact(bytes),
    };
    let bars: Vec<Bar> = rows
        .into_iter()
        .map(|(name, of, mark, more, remark)| Bar {
            name,
            value: graded(name, of(stats)),
            before: before.map(|before| graded(name, of(before))),
            more,
            from: 0,
            mark,
            remark,
        })
        .collect();
    let most = bars.iter().filter_map(|bar| bar.value.bytes()).max();
    (bars, most.unwrap_or(0))
}

/// Columns of names and numbers before a bar.
const NAME: u16 = 15;
const NUMBER: u16 = 9;

impl Bar {
    pub(super) fn draw(&self, pen: &mut Pen<'_>, y: u16, scale: u64) {
        let theme = pen.theme;
        let width = pen.width();
        let paint = theme.paint(width.into());
        let (mark, role) = self.mark.look();
        pen.text((0, y), NAME, self.name, Role::Text);
        pen.right(
            (NAME, y),
            NUMBER,
            &compact_metric(&paint, self.value),
            Role::Strong,
        );
        let mut x = NAME + NUMBER + 1;
        if let Some(before) = self.before {
            match change(self.value, before, self.more) {
                Some((text, role)) => pen.right((x, y), NUMBER, &text, role),
                None => pen.right((x, y), NUMBER, "n/a", Role::Faint),
            }
            x += NUMBER + 1;
        }
        x += 1;
        let remark = u16::try_from(self.remark.len()).unwrap_or(0);
        // The remark stands at the end where bars keep most of the room.
        let beside = width > 88;
        let room = width.saturating_sub(x + if beside { 26 } else { 0 });
        if beside {
            let at = width - 25;
            pen.text((at, y), remark, self.remark, Role::Faint);
        }
        if let Some(bytes) = self.value.bytes() {
            let to = self.from.saturating_add(bytes);
            let (from, columns) = stretch(self.from, to, scale, room);
            pen.marks((x + from, y), columns, mark.symbol(theme.unicode), role);
        }
    }
}

/// The share of what is resident that is in no block in use.
pub(super) fn draw_waste(pen: &mut Pen<'_>, y: u16, sums: &Sums, before: Option<&Sums>) {
    let theme = pen.theme;
    pen.text((0, y), NAME, "WASTE", Role::Text);
    let Some(waste) = sums.waste() else {
        pen.right((NAME, y), NUMBER, "n/a", Role::Faint);
        return;
    };
    pen.right((NAME, y), NUMBER, &percent(waste), severity(waste));
    let mut x = NAME + NUMBER + 1;
    if let Some(before) = before {
        let (text, role) = match before.waste() {
            None => ("mark n/a".to_owned(), Role::Faint),
            Some(then) => {
                let points = (waste - then) * 100.0;
                let role = match points {
                    0.05.. => Role::Bad,
                    ..=-0.05 => Role::Good,
                    _ => Role::Faint,
                };
                let at_mark = percent(then);
                (format!("mark {at_mark} ({points:+.1} pt)"), role)
            }
        };
        x += pen.text((x + 1, y), 24, &text, role) + 2;
    }
    let paint = theme.paint(pen.width().into());
    let beyond = compact_metric(&paint, sums.heap_rss.minus_saturating(sums.in_use));
    let rss = compact_metric(&paint, sums.heap_rss);
    let minus = if theme.unicode { '−' } else { '-' };
    let long = format!("1 {minus} in_use/heap_rss: {beyond} of {rss} resident");
    let short = format!("{beyond} of {rss} resident");
    let room = pen.width().saturating_sub(x + 1);
    let words = if usize::from(room) >= long.chars().count() {
        long
    } else {
        short
    };
    pen.text((x + 1, y), room, &words, Role::Faint);
}
