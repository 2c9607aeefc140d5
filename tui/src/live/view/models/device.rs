//! Rows of a device that has a driver.

#[cfg(test)]
mod tests;

use malloc_stats::Metric;
use plimsoll_events::TierPicture;

use super::apart::Apart;
use crate::inspect::prose::{compact_metric, percent};
use crate::live::screen::theme::Role;
use crate::live::view::draw::Line;
use crate::live::view::headroom::age;
use crate::live::view::{Scene, vram};

const OUTSIDE: &str = "outside the pool";

/// The memory of a device that has a driver, in parts that add up.
pub(super) fn rows(scene: &Scene<'_>, tier: &TierPicture) -> Vec<Apart> {
    let Some(account) = vram::account(scene.state, tier) else {
        return Vec::new();
    };
    let paint = scene.theme.paint(0);
    let figures = account.figures;
    let row = |name: &str, bytes: Metric, says: Line| Apart {
        name: name.to_owned(),
        device: Some(bytes),
        says,
        ..Apart::default()
    };
    let faint = |words: &str| Line::default().faint(words);
    let mut head = Line::default().text(figures.name.clone());
    if !figures.pci_bus.is_empty() {
        head = head.faint(format!(" at {}", figures.pci_bus));
    }
    if let Some(but) = account.but {
        head = head.faint(", ").and(Role::Warn, but);
    }
    let untold = match account.besides {
        Metric::Unavailable => Line::default(),
        both => Line::default()
            .text(compact_metric(&paint, both))
            .faint(" with other processes: not told apart here"),
    };
    let (context, context_says, others_say) = match &account.context {
        None => (Metric::Unavailable, untold, Line::default()),
        Some(context) => {
            let age = age(scene.now_us, context.at_us);
            let age = age.map_or(String::new(), |age| format!(", {age}"));
            (
                context.value,
                faint("what NVML counts for this process besides").faint(age),
                faint("what else is used"),
            )
        }
    };
    let largest = match (figures.largest_block.bytes(), account.free.bytes()) {
        (None, _) => faint("none was refused yet"),
        (Some(block), Some(free)) if block <= free && free > 0 => Line::default()
            .text(percent(block as f64 / free as f64))
            .faint(" of what is free, when one was last refused"),
        (Some(_), _) => faint("when one was last refused"),
    };
    let reserved = account.reserved;
    let reserved = reserved.map(|bytes| row("(driver)", bytes, faint("kept for itself")));
    let head = Apart {
        role: Some(Role::Strong),
        ..row(&format!("VRAM {}", tier.tier), account.total, head)
    };
    let before = [
        head,
        row(
            "held by tensors",
            account.tensors,
            faint("of the cache's pool, with what leases left behind"),
        ),
        row("pool, kept free", account.kept, faint("for the next load")),
        row(
            OUTSIDE,
            account.outside,
            faint("weights that the tensor library allocated"),
        ),
        row("(context and the rest)", context, context_says),
        row("(other processes)", account.others, others_say),
    ];
    let after = [
        row("free", account.free, Line::default()),
        row("largest block", figures.largest_block, largest),
    ];
    let all = before.into_iter().chain(reserved).chain(after);
    // Most have nothing there.
    let is_idle = |row: &Apart| row.name == OUTSIDE && row.device == Some(Metric::Exact(0));
    all.filter(|row| !is_idle(row)).collect()
}
