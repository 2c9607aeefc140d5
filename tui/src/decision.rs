//! An event in a line.

use std::time::Duration;

use malloc_stats::{Metric, Size};
use plimsoll_events::{Event, EvictReason, Kind, Point, RefuseReason};

use crate::paint::{Paint, Tone, padded, safe, shortened};

/// Columns of a model's name, and of the names it made room for.
const NAME: usize = 24;
const NAMES: usize = 40;

/// The columns of the lines, to be printed above them.
#[must_use]
pub fn heading(paint: &Paint) -> String {
    paint.tone(
        Tone::Faint,
        &format!(
            "{:>8}  {:<6} {:<24} {:>10} {:>9} {:>10} {:>10} {:>10} {:>10}",
            "time", "", "model", "bytes", "took", "RSS", "recycled", "freed", "returned"
        ),
    )
}

/// A load, an unload, a refusal or a note as a line; `None` for other events.
#[must_use]
pub fn line(paint: &Paint, event: &Event) -> Option<String> {
    let at = clock(Duration::from_micros(event.at_us));
    let row = |what: &str, tone: Tone, model: &str, cells: [String; 6], why: &str| {
        let [bytes, took, rss, recycled, freed, returned] = cells;
        format!(
            "{at:>8}  {} {} {bytes:>10} {took:>9} {rss:>10} {recycled:>10} {freed:>10} {returned:>10}{why}",
            paint.tone(tone, &format!("{what:<6}")),
            padded(&shortened(&safe(model), NAME), NAME),
        )
    };
    let none = || "-".to_owned();
    let size = |bytes: u64| Size(bytes).to_string();
    match &event.kind {
        Kind::Load(load) => {
            let why = match &load.error {
                Some(error) => format!("  {}", paint.tone(Tone::Bad, &safe(error))),
                None => String::new(),
            };
            let given = match load.gave_back {
                Metric::Exact(0) => none(),
                other => other.to_string(),
            };
            Some(row(
                if load.error.is_some() {
                    "FAILED"
                } else {
                    "load"
                },
                if load.error.is_some() {
                    Tone::Bad
                } else {
                    Tone::Good
                },
                &load.model,
                [
                    size(load.bytes),
                    seconds(load.took_us),
                    load.after.process.rss.to_string(),
                    size(load.recycled_bytes),
                    none(),
                    given,
                ],
                &why,
            ))
        }
        Kind::Evict(evict) => {
            let why = match &evict.reason {
                EvictReason::Room { wanted_for, .. } => {
                    format!("  for {}", shortened(&joined(wanted_for), NAMES))
                }
                EvictReason::Dropped => "  dropped".to_owned(),
                EvictReason::Cleared => "  cleared".to_owned(),
            };
            let held = if evict.held_bytes > 0 {
                let held = format!(", {} still held", Size(evict.held_bytes));
                paint.tone(Tone::Warn, &held)
            } else {
                String::new()
            };
            Some(row(
                "evict",
                Tone::Warn,
                &evict.model,
                [
                    size(evict.bytes),
                    seconds(evict.took_us),
                    evict.after.process.rss.to_string(),
                    size(evict.recycled_bytes),
                    size(evict.freed_bytes),
                    evict.returned.to_string(),
                ],
                &(paint.tone(Tone::Faint, &why) + &held),
            ))
        }
        Kind::Refuse(refuse) => {
            let why = match refuse.reason {
                RefuseReason::ExceedsBudget => "exceeds the budget",
                RefuseReason::Leased => "leases pin what could make room",
                RefuseReason::Timeout => "waited too long",
            };
            let text = format!(
                "{} asked, budget {}, {} pinned: {why}",
                Size(refuse.asked_bytes),
                Size(refuse.budget_bytes),
                Size(refuse.pinned_bytes)
            );
            Some(format!(
                "{at:>8}  {} {} {text}",
                paint.tone(Tone::Bad, "REFUSE"),
                padded(&shortened(&joined(&refuse.models), NAME), NAME),
            ))
        }
        Kind::Note { text } => Some(format!(
            "{at:>8}  {} {}",
            paint.tone(Tone::Warn, "note  "),
            safe(text)
        )),
        Kind::Sample(sample) => {
            let what = match sample.point {
                Point::Baseline => "baseline",
                Point::Dropped => "everything dropped",
                Point::Settled => "settled",
                Point::Step(_) | Point::Tick => return None,
            };
            Some(paint.tone(
                Tone::Faint,
                &format!("{at:>8}  {what}: RSS {}", sample.snapshot.process.rss),
            ))
        }
        _ => None,
    }
}

/// Names, joined and made safe.
fn joined(models: &[String]) -> String {
    models
        .iter()
        .map(|model| safe(model))
        .collect::<Vec<_>>()
        .join(" + ")
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.3}", time.as_secs_f64())
    } else {
        format!(
            "{}:{:02}.{}",
            seconds / 60,
            seconds % 60,
            time.subsec_millis() / 100
        )
    }
}

/// A duration in the unit that suits it.
#[must_use]
pub fn seconds(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} us"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => format!("{:.2} s", microseconds as f64 / 1e6),
    }
}
