//! Lines with a gauge.

use malloc_stats::{Metric, Vram};
use plimsoll_events::TierPicture;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::facts::{
    ANON, Approached, FILE, Facts, MOST, REST, about, age, change, fullness, short_label,
};
use crate::inspect::prose::{compact, compact_metric, middle};
use crate::live::screen::theme::Role;
use crate::live::state::is_of;
use crate::live::view::draw::{Line, Mark};
use crate::paint::safe;

/// Columns of a number, and of a space.
const NUMBER: usize = 9;
/// The tier that is RAM.
pub(super) const RAM: &str = "ram";

/// Which columns a line with a gauge has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    label: usize,
    gauge: usize,
    /// Numbers in columns of their own, rather than in words.
    in_columns: bool,
    /// Also what is used.
    has_used: bool,
}

/// A line with a gauge.
pub(super) struct Gauge {
    /// What it is in a word, and which: the end of a path matters more than its beginning.
    name: String,
    which: String,
    parts: Vec<(Role, Mark, u64)>,
    used: Metric,
    of: Metric,
    left: Metric,
    role: Role,
    /// What stands behind it, with the most important first.
    notes: Vec<(Role, String)>,
}

impl Columns {
    /// Those that suit gauges, in so many columns.
    pub(super) fn fit<'a>(width: usize, gauges: impl Iterator<Item = &'a Gauge>) -> Columns {
        let (mut label, mut notes) = (4, 8);
        for gauge in gauges {
            label = label.max(gauge.label().width());
            let widths = gauge.notes.iter().map(|(_, note)| note.width() + 2);
            notes = notes.max(widths.sum());
        }
        let label = label.min((width / 4).max(12));
        let (in_columns, has_used) = (width >= 60, width >= 72);
        let (numbers, notes) = match (in_columns, has_used) {
            (true, true) => (3 * NUMBER, notes),
            (true, false) => (2 * NUMBER, notes),
            // `61.00G left of 125.00G`, or the first note in place of the limit.
            _ => (24, 0),
        };
        let rest = width.saturating_sub(label + 1 + numbers);
        Columns {
            label,
            gauge: rest.saturating_sub(notes).max(12).min(rest).min(80),
            in_columns,
            has_used,
        }
    }

    /// What the columns are; `None` where the numbers say it themselves.
    pub(super) fn heading(&self) -> Option<Line> {
        if !self.in_columns {
            return None;
        }
        let mut end = self.label + 1 + self.gauge;
        let mut line = Line::default().and(Role::Faint, "limit");
        let names = ["used", "of", "left"];
        for name in &names[usize::from(!self.has_used)..] {
            end += NUMBER;
            line = line.until(end, Role::Faint, name);
        }
        Some(line.and(Role::Faint, "  in"))
    }
}

impl Gauge {
    pub(super) fn is_ram(&self) -> bool {
        self.name == "tier" && self.which == RAM
    }

    fn label(&self) -> String {
        format!("{} {}", self.name, self.which)
            .trim_end()
            .to_owned()
    }

    /// Its label in at most so many columns.
    fn label_in(&self, columns: usize) -> String {
        let whole = self.label();
        if whole.width() <= columns {
            return whole;
        }
        let room = columns.saturating_sub(self.name.width() + 3);
        let mut end: Vec<char> = Vec::new();
        let mut taken = 0;
        for c in self.which.chars().rev() {
            taken += c.width().unwrap_or(0);
            if taken > room {
                break;
            }
            end.push(c);
        }
        let end: String = end.into_iter().rev().collect();
        format!("{} ..{end}", self.name)
    }

    pub(super) fn line(&self, facts: &Facts<'_>, columns: Columns) -> Line {
        let text = |metric: Metric| compact_metric(&facts.paint, metric);
        let label = self.label_in(columns.label);
        let role = match self.role {
            Role::Good => Role::Text,
            worse => worse,
        };
        let mut line = Line::default().and(role, label).to(columns.label + 1);
        if let Some(of) = self.of.bytes().filter(|of| *of != u64::MAX) {
            line = line.gauge(&facts.theme, columns.gauge, &self.parts, of);
        }
        line = line.to(columns.label + 1 + columns.gauge);
        let of = match self.of {
            Metric::Exact(u64::MAX) => "no limit".to_owned(),
            of => text(of),
        };
        if !columns.in_columns {
            line = line
                .and(Role::Text, " ")
                .and(self.role, format!("{} left", text(self.left)));
            return match self.notes.first() {
                Some((role, note)) => line.and(Role::Text, ", ").and(*role, note),
                None => line.and(Role::Faint, format!(" of {of}")),
            };
        }
        let mut end = line.width();
        if columns.has_used {
            end += NUMBER;
            line = line.until(end, Role::Text, &text(self.used));
        }
        line = line.until(end + NUMBER, Role::Text, &of);
        line = line.until(end + 2 * NUMBER, self.role, &text(self.left));
        for (role, note) in &self.notes {
            line = line.and(Role::Text, "  ").and(*role, note);
        }
        line
    }

    pub(super) fn of_bound(facts: &Facts<'_>, bound: &Approached<'_>) -> Gauge {
        let row = &bound.row;
        let label = short_label(&row.bound);
        let (name, path) = label.split_once(' ').unwrap_or((&label, ""));
        let mut notes = Vec::new();
        if let Some(seconds) = bound.soon {
            let role = if seconds < 3_600.0 {
                Role::Bad
            } else {
                Role::Warn
            };
            notes.push((role, about(seconds)));
        }
        if let Some(change) = facts.since.and_then(|_| change(row.current, bound.was)) {
            notes.push((Role::Text, change));
        }
        Gauge {
            name: name.to_owned(),
            which: path.to_owned(),
            parts: bound.parts(facts.state),
            used: row.current,
            of: row.limit,
            left: row.left,
            role: bound.role(),
            notes,
        }
    }

    pub(super) fn of_gpu(facts: &Facts<'_>, gpu: &Vram) -> Gauge {
        let own = gpu.process;
        let others = gpu.used.minus_saturating(own);
        let used = gpu.used.bytes().unwrap_or(0);
        let own_bytes = own.bytes().unwrap_or(0).min(used);
        let text = |metric: Metric| compact_metric(&facts.paint, metric);
        let mut notes = Vec::new();
        match &gpu.absent {
            Some(why) => notes.push((Role::Bad, safe(why).into_owned())),
            None => notes.push((Role::Text, format!("own {}", text(own)))),
        }
        if gpu.mig {
            notes.push((Role::Faint, "all of it (MIG)".to_owned()));
        }
        if !others.is_unavailable() {
            notes.push((Role::Text, format!("others {}", text(others))));
        }
        let its = |tier: &&TierPicture| is_of(gpu, tier);
        let tier = facts.state.tiers.iter().take(MOST).find(its);
        let figures = tier.and_then(|tier| tier.device.as_ref());
        if let Some(block) = figures.map(|it| it.largest_block)
            && !block.is_unavailable()
        {
            notes.push((Role::Text, format!("largest block {}", text(block))));
        }
        let before = facts.since.and_then(|since| {
            let devices = since.vitals.vram.value.iter().take(MOST);
            devices.into_iter().find(|was| was.index == gpu.index)
        });
        if let Some(change) = before.and_then(|was| change(gpu.used, was.used)) {
            notes.push((Role::Text, change));
        }
        if let Some(age) = age(facts.now_us, facts.state.vitals.vram.at_us) {
            notes.push((Role::Faint, age));
        }
        Gauge {
            name: format!("gpu{}", gpu.index),
            which: safe(&gpu.name).into_owned(),
            parts: vec![
                (ANON.0, ANON.1, own_bytes),
                (REST.0, REST.1, used - own_bytes),
            ],
            used: gpu.used,
            of: gpu.total,
            left: gpu.free,
            role: match gpu.total.bytes() {
                Some(total) => fullness(used, total, Role::Bad),
                None => Role::Text,
            },
            notes,
        }
    }

    pub(super) fn of_tier(facts: &Facts<'_>, tier: &TierPicture) -> Gauge {
        let (used, budget) = (tier.used_bytes, tier.budget_bytes);
        let pinned = tier.pinned_bytes.min(used);
        let mut notes = Vec::new();
        if tier.simulated {
            notes.push((Role::Simulated, "simulated".to_owned()));
        }
        notes.push((Role::Text, format!("pinned {}", compact(pinned))));
        if tier.held_bytes > 0 {
            let held = format!("held {}", compact(tier.held_bytes));
            notes.push((Role::Warn, held));
        }
        if let Some(cached) = tier.page_cache {
            let mapped = compact(cached.mapped_bytes);
            let resident = compact_metric(&facts.paint, cached.resident);
            let said = format!("mapped {mapped}, {resident} in RAM, reclaimable");
            notes.push((Role::Text, said));
        }
        let tiers = facts.since.iter().flat_map(|since| &since.tiers);
        let before = tiers.take(MOST).find(|was| was.tier == tier.tier);
        let change =
            before.and_then(|was| change(Metric::Exact(used), Metric::Exact(was.used_bytes)));
        notes.extend(change.map(|change| (Role::Text, change)));
        Gauge {
            name: "tier".to_owned(),
            which: safe(&tier.tier).into_owned(),
            parts: vec![(ANON.0, ANON.1, pinned), (FILE.0, FILE.1, used - pinned)],
            used: Metric::Exact(used),
            of: Metric::Exact(budget),
            left: match budget {
                u64::MAX => Metric::Unavailable,
                budget => Metric::Exact(budget.saturating_sub(used)),
            },
            // A cache that fills its budget does as it should.
            role: Role::Text,
            notes,
        }
    }

    /// The same in a few words: `gpu0 71.20G/80.00G`.
    pub(super) fn brief(&self, facts: &Facts<'_>) -> Line {
        let name = match self.name.as_str() {
            "tier" => &self.which,
            name => name,
        };
        let text = |metric: Metric| compact_metric(&facts.paint, metric);
        let of = match self.of {
            Metric::Exact(u64::MAX) => String::new(),
            of => format!("/{}", text(of)),
        };
        let mut line = Line::default().and(Role::Faint, format!("{} ", middle(name, 16)));
        match (self.used, self.of) {
            (Metric::Unavailable, Metric::Unavailable) => line.push(self.role, "n/a"),
            (used, _) => line.push(self.role, format!("{}{of}", text(used))),
        }
        let says = |note: &str| !note.contains("n/a") && !name.contains(note);
        let first = self.notes.iter().find(|(_, note)| says(note));
        match first {
            Some((role, note)) => line.and(Role::Text, " ").and(*role, note),
            None => line,
        }
    }
}
