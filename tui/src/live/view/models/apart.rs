//! Rows apart: totals, and memory that belongs to no model.

use malloc_stats::{Grade, Metric, Vram};
use plimsoll_events::TierPicture;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::device;
use super::list::Kind;
use super::measured::{RAM, tier_role};
use crate::inspect::prose::{compact, compact_metric, percent};
use crate::live::screen::theme::{Role, Theme};
use crate::live::state::{State, is_of};
use crate::live::view::Scene;
use crate::live::view::draw::{Fit, Line, Mark, Pen};

/// A row that is no model.
#[derive(Debug, Clone, Default)]
pub(super) struct Apart {
    pub(super) name: String,
    pub(super) role: Option<Role>,
    pub(super) ram: Option<Metric>,
    pub(super) device: Option<Metric>,
    /// The tier whose bar it has.
    pub(super) tier: Option<usize>,
    /// What follows.
    pub(super) says: Line,
}

/// All of them, the most telling first: those that there is no room for are the last.
pub(super) fn rows(scene: &Scene<'_>) -> Vec<Apart> {
    let state = scene.state;
    let mut rows: Vec<Apart> = state
        .tiers
        .iter()
        .enumerate()
        .map(|(at, tier)| total(state, at, tier))
        .collect();
    rows.extend(unattributed(state, &scene.theme));
    rows.extend(sums(state));
    for tier in &state.tiers {
        rows.extend(device::rows(scene, tier));
    }
    rows.extend(others(state, &scene.theme));
    rows
}

fn total(state: &State, at: usize, tier: &TierPicture) -> Apart {
    let used = Metric::Exact(tier.used_bytes);
    let is_ram = tier.tier == RAM;
    let mut says = Line::default();
    says = if tier.budget_bytes == u64::MAX {
        says.faint("no budget")
    } else {
        let fraction = tier.used_bytes as f64 / tier.budget_bytes.max(1) as f64;
        let role = match () {
            () if tier.used_bytes > tier.budget_bytes => Role::Bad,
            () if fraction > 0.9 => Role::Warn,
            () => Role::Text,
        };
        says.text(format!("of {} ", compact(tier.budget_bytes)))
            .and(role, percent(fraction))
    };
    if tier.simulated {
        says = says.faint(", ").and(Role::Simulated, "simulated");
    }
    if tier.pinned_bytes > 0 {
        says = says.faint(format!(", pinned {}", compact(tier.pinned_bytes)));
    }
    if tier.page_locked_bytes > 0 {
        let locked = compact(tier.page_locked_bytes);
        says = says.faint(format!(", page-locked {locked}"));
    }
    says = says.faint(format!(", {} resident", tier.resident_models));
    if let Some(waiting) = state.waiting.as_ref().filter(|_| is_ram)
        && waiting.value > 0
    {
        let words = match waiting.value {
            1 => "1 lease waits".to_owned(),
            many => format!("{many} leases wait"),
        };
        says = says.faint(", ").and(Role::Warn, words);
    }
    if tier.working_bytes > 0 {
        says = says.faint(format!(", working {}", compact(tier.working_bytes)));
    }
    if tier.reserve_bytes > 0 {
        says = says.faint(format!(", reserve {}", compact(tier.reserve_bytes)));
    }
    Apart {
        name: format!("total {}", tier.tier),
        role: Some(Role::Strong),
        ram: is_ram.then_some(used),
        device: (!is_ram).then_some(used),
        tier: Some(at),
        says,
    }
}

/// Anonymous resident memory, less everything that has a name; and what of the names is the
/// allocator's.
fn unattributed(state: &State, theme: &Theme) -> Vec<Apart> {
    let vitals = &state.vitals;
    let mut rows = Vec::new();
    if vitals.at_us.is_none() && state.look.is_none() {
        return rows;
    }
    let paint = theme.paint(0);
    let ram = state.tiers.iter().find(|tier| tier.tier == RAM);
    let told = vitals.memory.as_ref().map(|memory| memory.value);
    let (weights, churn) = match (told, ram) {
        (Some(memory), _) => (Metric::Exact(memory.live_bytes), memory.churn_bytes),
        // What counts against the budget is rounded, and reserved before it is there.
        (None, Some(ram)) => (Metric::Estimated(ram.used_bytes), 0),
        (None, None) => (Metric::Exact(0), 0),
    };
    let allocator = vitals.allocator.as_ref();
    let free = allocator.map_or(Metric::Unavailable, |read| read.value.cached_resident);
    let anon = vitals.process.anon;
    let rest = anon
        .minus_saturating(weights)
        .minus_saturating(Metric::Exact(churn));
    let rest = match free {
        // Without it the rest is too large.
        Metric::Unavailable => rest.at_best(Grade::Upper),
        free => rest.minus_saturating(free),
    };
    let mut says = Line::default()
        .faint("anonymous ")
        .text(compact_metric(&paint, anon))
        .faint(" - weights ")
        .text(compact_metric(&paint, weights));
    if churn > 0 {
        says = says.faint(" - churn ").text(compact(churn));
    }
    says = match free {
        Metric::Unavailable => says.faint("; the allocator does not tell its part"),
        free => says
            .faint(" - allocator, free ")
            .text(compact_metric(&paint, free)),
    };
    rows.push(Apart {
        name: "(unattributed)".to_owned(),
        ram: Some(rest),
        says,
        ..Apart::default()
    });
    if !free.is_unavailable() {
        rows.push(Apart {
            name: "(allocator, free)".to_owned(),
            ram: Some(free),
            says: Line::default().faint("free, and resident"),
            ..Apart::default()
        });
    }
    if churn > 0 {
        rows.push(Apart {
            name: "(churn)".to_owned(),
            ram: Some(Metric::Exact(churn)),
            says: Line::default().faint("blocks of the program that are alive"),
            ..Apart::default()
        });
    }
    rows
}

/// What tiers count beside their models.
fn sums(state: &State) -> Vec<Apart> {
    let sum = |ram: bool, read: fn(&TierPicture) -> u64| {
        let tiers = state.tiers.iter().filter(|tier| (tier.tier == RAM) == ram);
        tiers.map(read).fold(0, u64::saturating_add)
    };
    let several = state.tiers.len() > 1;
    let mut rows = Vec::new();
    let mut add = |name: &str, read: fn(&TierPicture) -> u64, words: &str| {
        let (ram, device) = (sum(true, read), sum(false, read));
        if ram > 0 || device > 0 {
            rows.push(Apart {
                name: name.to_owned(),
                ram: Some(Metric::Exact(ram)),
                device: several.then_some(Metric::Exact(device)),
                says: Line::default().faint(words),
                ..Apart::default()
            });
        }
    };
    let held = "evicted, and somebody still holds it";
    add("(held)", |tier| tier.held_bytes, held);
    let staging = "buffers of loads under way";
    add("(staging)", |tier| tier.staging_bytes, staging);
    let pinned = state.tiers.iter().filter_map(|tier| tier.device.as_ref());
    let pinned = pinned.filter_map(|figures| figures.staging.bytes());
    let pinned = pinned.fold(0, u64::saturating_add);
    if pinned > 0 {
        rows.push(Apart {
            name: "(pinned staging)".to_owned(),
            ram: Some(Metric::Exact(pinned)),
            says: Line::default().faint("page-locked, where weights pass on their way to devices"),
            ..Apart::default()
        });
    }
    rows
}

/// GPUs, and what others have of them.
fn others(state: &State, theme: &Theme) -> Vec<Apart> {
    let paint = theme.paint(0);
    // Those that are tiers are told of with them.
    let is_told = |gpu: &&Vram| !state.tiers.iter().any(|tier| is_of(gpu, tier));
    let gpus = state.vitals.vram.value.iter().filter(is_told);
    gpus.map(|gpu| {
        let name = Line::default().faint(format!("GPU {} {}: ", gpu.index, gpu.name));
        Apart {
            name: "(other processes)".to_owned(),
            device: Some(gpu.used.minus_saturating(gpu.process)),
            says: match &gpu.absent {
                Some(why) => name.and(Role::Warn, why.clone()),
                None => name
                    .text(compact_metric(&paint, gpu.used))
                    .faint(" of ")
                    .text(compact_metric(&paint, gpu.total))
                    .faint(" used, by this process ")
                    .text(compact_metric(&paint, gpu.process)),
            },
            ..Apart::default()
        }
    })
    .collect()
}

/// Draws them under the columns of the models.
pub(super) fn draw(
    scene: &Scene<'_>,
    area: Rect,
    buffer: &mut Buffer,
    rows: &[Apart],
    kinds: &[Kind],
    fit: &Fit,
) {
    let paint = scene.theme.paint(0);
    let lines = rows.iter().zip(0..area.height);
    for (row, y) in lines {
        let line = Rect {
            y: area.y + y,
            height: 1,
            ..area
        };
        let mut end = area.x;
        let mut named = line.x;
        for (at, (x, width)) in fit.shown() {
            let cell = Rect { x, width, ..line };
            let mut pen = Pen::new(buffer, scene.theme, cell);
            let right = x.saturating_add(width);
            match kinds.get(at) {
                Some(Kind::Name) => named = x,
                Some(Kind::Bar(tier)) if row.tier == Some(*tier) => {
                    end = right;
                    if let Some(tier) = scene.state.tiers.get(*tier) {
                        budget_bar(&mut pen, width.saturating_sub(1), tier);
                    }
                }
                Some(Kind::Bar(_)) => end = right,
                Some(kind @ (Kind::Ram | Kind::Device)) => {
                    end = right;
                    let bytes = if *kind == Kind::Ram {
                        row.ram
                    } else {
                        row.device
                    };
                    if let Some(bytes) = bytes {
                        let text = compact_metric(&paint, bytes);
                        pen.skip(width.saturating_sub(text.chars().count() as u16));
                        pen.write(row.role.unwrap_or(Role::Text), &text);
                    }
                }
                _ => {}
            }
        }
        // A name may run on into the state, which these have none of.
        let stop = fit.shown().filter_map(|(at, (x, _))| {
            let taken = match kinds.get(at)? {
                Kind::Bar(tier) => row.tier == Some(*tier),
                Kind::Ram => row.ram.is_some(),
                Kind::Device => row.device.is_some(),
                _ => false,
            };
            taken.then_some(x)
        });
        let stop = stop.min().unwrap_or(area.right()).max(named);
        let name = Rect {
            x: named,
            width: stop - named,
            ..line
        };
        let mut pen = Pen::new(buffer, scene.theme, name);
        pen.write(row.role.unwrap_or(Role::Faint), &row.name);
        let from = end.saturating_add(2).min(area.right());
        let rest = Rect {
            x: from,
            width: area.right() - from,
            ..line
        };
        if rest.width >= 8 {
            Pen::new(buffer, scene.theme, rest).say(&row.says);
        }
    }
}

/// What is used of a budget: what is pinned first.
fn budget_bar(pen: &mut Pen<'_>, columns: u16, tier: &TierPicture) {
    let role = tier_role(tier);
    let pinned = tier.pinned_bytes.min(tier.used_bytes);
    let loose = tier.used_bytes - pinned;
    let parts = [(role, Mark::Full, pinned), (role, Mark::Dense, loose)];
    match tier.budget_bytes {
        u64::MAX => pen.bar(columns, &parts, tier.used_bytes),
        budget => pen.bar(columns, &parts, budget),
    }
}
