//! Where models went, and what it took.

use std::collections::HashMap;
use std::fmt::{Result, Write};

use malloc_stats::Size;
use plimsoll_events::report::{RefusalReport, TierReport};
use plimsoll_events::{Origin, Report};

use super::{LONGEST_NAME, is_mapped, signed};
use crate::decision::{joined, refused, seconds};
use crate::paint::{Paint, Tone, safe, shortened};
use crate::table::{Align, Table};

/// Columns of the names of several models.
const LONGEST_NAMES: usize = 60;

/// Whether loads into a tier have a speed: mapping reads nothing.
fn has_rate(report: &Report, tier: &str) -> bool {
    tier != "ram" || !is_mapped(report)
}

/// Whether anything but RAM is in play.
pub(super) fn has_device(report: &Report) -> bool {
    report.tiers.iter().any(|tier| tier.tier != "ram")
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

fn mean(total: f64, count: u64) -> String {
    if count == 0 {
        "-".to_owned()
    } else {
        seconds(micros(total / count as f64))
    }
}

fn rate(gb_per_second: Option<f64>) -> String {
    gb_per_second.map_or("-".to_owned(), |rate| format!("{rate:.2}"))
}

/// The budget of a tier that follows the machine, as far as it went.
pub(super) fn swing(low: Option<u64>, high: Option<u64>) -> String {
    match (low, high) {
        (Some(low), Some(high)) if low < high => {
            format!("automatic, {} to {}", Size(low), Size(high))
        }
        (Some(_), Some(_)) => "automatic".to_owned(),
        _ => String::new(),
    }
}

fn bound(tier: &TierReport) -> String {
    let swing = swing(tier.budget_low_bytes, tier.budget_high_bytes);
    match &tier.budget_bound {
        Some(bound) => format!("{swing}, bound: {}", safe(bound)),
        None => swing,
    }
}

/// Budgets and use, tier by tier.
pub(super) fn write_tiers(out: &mut String, paint: &Paint, report: &Report) -> Result {
    if !has_device(report) {
        return Ok(());
    }
    let mut table = Table::new([
        ("  tier", Align::Left),
        ("budget", Align::Right),
        ("peak", Align::Right),
        ("loads", Align::Right),
        ("failed", Align::Right),
        ("evictions", Align::Right),
        ("loaded", Align::Right),
        ("in", Align::Right),
        ("GB/s", Align::Right),
        ("unloads in", Align::Right),
        ("", Align::Left),
    ]);
    let size = |bytes: Option<u64>| bytes.map_or("n/a".to_owned(), |b| Size(b).to_string());
    for tier in &report.tiers {
        let per_second = tier.bytes_loaded as f64 / tier.load_seconds / 1e9;
        table.row([
            format!("  {}", safe(&tier.tier)),
            size(tier.budget_bytes),
            size(tier.resident_peak_bytes),
            tier.loads.to_string(),
            tier.failed_loads.to_string(),
            tier.evictions.to_string(),
            Size(tier.bytes_loaded).to_string(),
            seconds(micros(tier.load_seconds)),
            rate(
                Some(per_second)
                    .filter(|_| tier.load_seconds > 0.0 && has_rate(report, &tier.tier)),
            ),
            seconds(micros(tier.unload_seconds)),
            bound(tier),
        ]);
    }
    writeln!(out, "\n{}", paint.tone(Tone::Strong, "tiers"))?;
    write!(out, "{table}")
}

/// How each model came into each tier and left it.
pub(super) fn write_transfers(out: &mut String, paint: &Paint, report: &Report) -> Result {
    if !has_device(report) || report.transfers.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        ("  model", Align::Left),
        ("tier", Align::Left),
        ("from", Align::Left),
        ("times", Align::Right),
        ("size", Align::Right),
        ("mean time", Align::Right),
        ("GB/s", Align::Right),
        ("unloads", Align::Right),
        ("mean time", Align::Right),
    ]);
    let mut rows: Vec<_> = report.transfers.iter().collect();
    rows.sort_by_key(|one| (&one.model, &one.tier, one.from == Origin::Ram));
    let unloads = report.unloads.iter();
    let unloads: HashMap<_, _> = unloads.map(|one| ((&one.model, &one.tier), one)).collect();
    let mut last = None;
    for one in rows {
        let place = (&one.model, &one.tier);
        // Where it came from makes no difference to leaving, which is told once.
        let unload = unloads.get(&place).filter(|_| last != Some(place));
        table.row([
            format!("  {}", shortened(&safe(&one.model), LONGEST_NAME)),
            safe(&one.tier).into_owned(),
            match one.from {
                Origin::File => "file".to_owned(),
                Origin::Ram => "ram".to_owned(),
            },
            one.count.to_string(),
            Size(one.bytes).to_string(),
            mean(one.seconds, one.count),
            rate(one.gb_per_second.filter(|_| has_rate(report, &one.tier))),
            unload.map_or("-".to_owned(), |unload| unload.count.to_string()),
            unload.map_or("-".to_owned(), |unload| mean(unload.seconds, unload.count)),
        ]);
        last = Some(place);
    }
    writeln!(out, "\n{}", paint.tone(Tone::Strong, "transfers"))?;
    write!(out, "{table}")
}

/// Leases that were refused, with why.
pub(super) fn write_refusals(out: &mut String, paint: &Paint, report: &Report) -> Result {
    for one in &report.refused {
        writeln!(
            out,
            "{} {}",
            paint.tone(Tone::Warn, "refused:"),
            refusal(one)
        )?;
    }
    Ok(())
}

fn refusal(one: &RefusalReport) -> String {
    let times = if one.count > 1 {
        format!(" ({} times)", one.count)
    } else {
        String::new()
    };
    format!(
        "{} in {}: {}; {} asked, budget {}, {} pinned{times}",
        shortened(&joined(&one.models), LONGEST_NAMES),
        safe(&one.tier),
        refused(one.reason),
        Size(one.asked_bytes),
        Size(one.budget_bytes),
        Size(one.pinned_bytes)
    )
}

/// What reclaims came to: a value and a remark.
pub(super) fn reclaims(report: &Report) -> Option<(String, String)> {
    let reclaims = &report.reclaims;
    if reclaims.is_empty() {
        return None;
    }
    let net = reclaims.net_bytes.map_or(String::new(), |net| {
        format!(
            "; of {} that settled {} is left",
            reclaims.settled,
            signed(Some(net))
        )
    });
    let remark = format!(
        "gained by {} in {}{net}",
        reclaims.count,
        seconds(micros(reclaims.seconds))
    );
    Some((reclaims.gained.to_string(), remark))
}
