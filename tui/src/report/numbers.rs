//! What a run comes to, in numbers.

use std::fmt::Write;

use malloc_stats::{Metric, Size};
use plimsoll_events::Report;

use super::tiers::{has_device, reclaims, swing};
use super::{is_mapped, signed};
use crate::decision::seconds;
use crate::paint::{Paint, Tone, safe};
use crate::table::{Align, Table};

/// What there is to say of the RAM budget beside its bytes.
fn budget(report: &Report) -> String {
    let swing = swing(report.budget_low_bytes, report.budget_high_bytes);
    let ram = report.tiers.iter().find(|tier| tier.tier == "ram");
    let bound = ram.and_then(|ram| ram.budget_bound.as_deref());
    let of_ram = if has_device(report) { "of ram" } else { "" };
    let bound = bound.map(|bound| format!("bound: {}", safe(bound)));
    let parts = [of_ram.to_owned(), swing, bound.unwrap_or_default()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

/// From the first cycle to the last.
fn growth(report: &Report) -> String {
    let (Some(first), Some(last)) = (report.cycles.first(), report.cycles.last()) else {
        return String::new();
    };
    let resident = Metric::Exact(last.rss_bytes).since(Metric::Exact(first.rss_bytes));
    let in_use = last.in_use.since(first.in_use);
    format!(
        "dropped, from the first to the last: RSS {}, in use {}",
        signed(resident),
        signed(in_use)
    )
}

/// Evictions by reason, each followed by a comma.
fn evictions(report: &Report) -> String {
    let words = [
        ("room", "evicted for room"),
        ("idle", "idle"),
        ("pressure", "under pressure"),
        ("device_full", "for a full device"),
        ("not_kept", "not kept"),
        ("requested", "by request"),
        ("offloaded", "offloaded"),
        ("dropped", "dropped"),
        ("cleared", "cleared"),
    ];
    let count = |reason: &str| {
        let count = report.evictions_by_reason.get(reason);
        count.copied().unwrap_or(0)
    };
    words
        .iter()
        .filter(|(reason, _)| *reason == "room" || count(reason) > 0)
        .map(|(reason, words)| format!("{} {words}, ", count(reason)))
        .collect()
}

pub(super) fn write(out: &mut String, paint: &Paint, report: &Report) -> std::fmt::Result {
    let size = |bytes: Option<u64>| bytes.map_or("n/a".to_owned(), |b| Size(b).to_string());
    let mut table = Table::new([("", Align::Left), ("", Align::Right), ("", Align::Left)]);
    let mut row = |name: &str, value: String, note: String| {
        table.row([format!("  {name}"), value, note]);
    };
    row(
        "budget",
        report
            .budget_bytes
            .map_or("none".into(), |b| Size(b).to_string()),
        budget(report),
    );
    row(
        "baseline RSS",
        size(report.baseline_rss_bytes),
        "before the first load".into(),
    );
    row(
        "live, peak",
        size(Some(report.live_peak_bytes)),
        String::new(),
    );
    row(
        "RSS, peak",
        size(report.rss_peak_bytes),
        "VmHWM, baseline included".into(),
    );
    row(
        "excess",
        signed(report.excess_bytes),
        "worst of RSS - baseline - live after a step".into(),
    );
    row(
        "retained",
        signed(report.retained_bytes),
        "RSS - baseline with everything dropped".into(),
    );
    if !report.structural.is_unavailable() {
        row(
            "waste, structural",
            format!("{} / {}", report.waste, report.structural),
            "resident in no block in use; what of it a trim or purge leaves".into(),
        );
    }
    if report.cycles.len() > 1 {
        row("cycles", report.cycles.len().to_string(), growth(report));
    }
    let grade = if report.returned_exact { "" } else { "~" };
    row(
        "freed / returned",
        format!(
            "{} / {grade}{}",
            Size(report.freed_bytes),
            Size(report.returned_bytes)
        ),
        format!(
            "{} became the next model's without a fault",
            Size(report.recycled_bytes)
        ),
    );
    if let Some((value, remark)) = reclaims(report) {
        row("reclaimed", value, remark);
    }
    row(
        "loads / hits",
        format!("{} / {}", report.loads, report.hits),
        format!(
            "{}{} refused, {} failed",
            evictions(report),
            report.refusals,
            report.failed_loads
        ),
    );
    let rate = if is_mapped(report) {
        "mapped: what is not in the page cache is read when it is touched".to_owned()
    } else if report.load_seconds > 0.0 {
        format!(
            "{:.2} GB/s",
            report.bytes_loaded as f64 / report.load_seconds / 1e9
        )
    } else {
        String::new()
    };
    row(
        "loaded",
        format!(
            "{} in {}",
            Size(report.bytes_loaded),
            seconds((report.load_seconds * 1e6) as u64)
        ),
        rate,
    );
    if report.copied_bytes > 0 {
        row(
            "copied",
            Size(report.copied_bytes).to_string(),
            "tensors whose memory could not be adopted".into(),
        );
    }
    row(
        "minor faults",
        report.minor_faults.to_string(),
        String::new(),
    );
    row(
        "snapshots",
        seconds((report.snapshot_seconds * 1e6) as u64),
        report.snapshot_share().map_or(String::new(), |share| {
            format!("{:.2} % of load time", share * 100.0)
        }),
    );
    row(
        "wall",
        seconds((report.wall_seconds * 1e6) as u64),
        String::new(),
    );
    if let Some(checksum) = &report.checksum {
        row("checksum", checksum.clone(), "over all weights read".into());
    }
    writeln!(out, "\n{}", paint.tone(Tone::Strong, "numbers"))?;
    // The columns have no names.
    writeln!(out, "{}", table.to_string().trim_start_matches('\n'))
}
