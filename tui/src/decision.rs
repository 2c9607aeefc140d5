//! An event in a line.

use std::time::Duration;

use malloc_stats::{Metric, Size};
use plimsoll_events::{
    BudgetChange, DeviceFreed, Event, EvictReason, Kind, Origin, PageCacheLeft, Point, Reclaim,
    RefuseReason, Streamed,
};

use crate::paint::{Paint, Tone, padded, safe, shortened};

/// Columns of a model's name, and of the names it made room for.
const NAME: usize = 24;
const NAMES: usize = 40;
/// Columns of a tier's name.
const TIER: usize = 9;

/// The columns of the lines, to be printed above them.
#[must_use]
pub fn heading(paint: &Paint) -> String {
    paint.tone(
        Tone::Faint,
        &format!(
            "{:>8}  {:<6} {:<24} {:<9} {:>10} {:>9} {:>10} {:>10} {:>10} {:>10}",
            "time", "", "model", "tier", "bytes", "took", "RSS", "recycled", "freed", "returned"
        ),
    )
}

/// A load, an unload, a refusal, a change of a budget, a reclaim or a note as a line; `None` for
/// other events.
#[must_use]
pub fn line(paint: &Paint, event: &Event) -> Option<String> {
    let at = clock(Duration::from_micros(event.at_us));
    let row = |what: &str,
               tone: Tone,
               (model, tier): (&str, &str),
               cells: [String; 6],
               why: &str| {
        let [bytes, took, rss, recycled, freed, returned] = cells;
        format!(
            "{at:>8}  {} {} {} {bytes:>10} {took:>9} {rss:>10} {recycled:>10} {freed:>10} {returned:>10}{why}",
            paint.tone(tone, &format!("{what:<6}")),
            padded(&shortened(&safe(model), NAME), NAME),
            padded(&safe(tier), TIER),
        )
    };
    let none = || "-".to_owned();
    let size = |bytes: u64| Size(bytes).to_string();
    match &event.kind {
        // What a lease of a part has brought is told when it ends.
        Kind::Load(load) if load.part_of.is_some() && load.error.is_none() => None,
        Kind::Streamed(streamed) => Some(format!(
            "{at:>8}  {} {} {} {}",
            paint.tone(Tone::Good, "stream"),
            padded(&shortened(&safe(&streamed.model), NAME), NAME),
            padded(&safe(&streamed.tier), TIER),
            part(streamed)
        )),
        Kind::Load(load) => {
            let why = match &load.error {
                Some(error) => format!("  {}", paint.tone(Tone::Bad, &safe(error))),
                None if load.tier == "ram" => String::new(),
                None => match load.from {
                    Origin::Ram => paint.tone(Tone::Faint, "  from ram"),
                    Origin::File => paint.tone(Tone::Faint, "  from file"),
                },
            };
            let degraded = load.degraded.as_ref().map_or(String::new(), |why| {
                paint.tone(Tone::Warn, &format!("  {}", safe(why)))
            });
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
                (&load.model, &load.tier),
                [
                    size(load.bytes),
                    seconds(load.took_us),
                    load.after.process.rss.to_string(),
                    size(load.recycled_bytes),
                    none(),
                    given,
                ],
                &(why + &degraded),
            ))
        }
        Kind::Evict(evict) => {
            let why = format!("  {}", evicted(&evict.reason));
            let held = if evict.held_bytes > 0 {
                let held = format!(", {} still held", Size(evict.held_bytes));
                paint.tone(Tone::Warn, &held)
            } else {
                String::new()
            };
            let cached = evict.page_cache.as_ref().map_or(String::new(), cached);
            let device = evict.device.map_or(String::new(), on_device);
            Some(row(
                "evict",
                Tone::Warn,
                (&evict.model, &evict.tier),
                [
                    size(evict.bytes),
                    seconds(evict.took_us),
                    evict.after.process.rss.to_string(),
                    size(evict.recycled_bytes),
                    size(evict.freed_bytes),
                    evict.returned.to_string(),
                ],
                &(paint.tone(Tone::Faint, &(why + &cached + &device)) + &held),
            ))
        }
        Kind::Refuse(refuse) => {
            let why = refused(refuse.reason);
            let text = format!(
                "{} asked, budget {}, {} pinned: {why}",
                Size(refuse.asked_bytes),
                Size(refuse.budget_bytes),
                Size(refuse.pinned_bytes)
            );
            Some(format!(
                "{at:>8}  {} {} {} {text}",
                paint.tone(Tone::Bad, "REFUSE"),
                padded(&shortened(&joined(&refuse.models), NAME), NAME),
                padded(&safe(&refuse.tier), TIER),
            ))
        }
        Kind::Budget(change) => Some(format!(
            "{at:>8}  {} {}",
            paint.tone(Tone::Warn, "budget"),
            budget(change)
        )),
        Kind::Reclaim(done) => Some(format!(
            "{at:>8}  {} {}",
            paint.tone(Tone::Warn, "reclaim"),
            reclaimed(done)
        )),
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
                Point::Purged => "purged",
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

/// What a lease of a part of a model came to.
fn part(streamed: &Streamed) -> String {
    let share = percent(streamed.resident_bytes, streamed.bytes);
    let there = format!(
        "{} of {} there ({share}), pool {}",
        Size(streamed.resident_bytes),
        Size(streamed.bytes),
        Size(streamed.pool_bytes)
    );
    let order = match streamed.out_of_order {
        0 => String::new(),
        times => format!(", {times} times out of order"),
    };
    format!(
        "{there}: {} streamed in {} transfers, {} waited{order}",
        Size(streamed.streamed_bytes),
        streamed.transfers,
        seconds(streamed.waited_us)
    )
}

/// A share as a whole number of hundredths; `n/a` of nothing.
#[must_use]
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "n/a".to_owned(),
        _ => format!("{:.0} %", part as f64 / whole as f64 * 100.0),
    }
}

/// Why a model was evicted, in words.
fn evicted(reason: &EvictReason) -> String {
    match reason {
        EvictReason::Room { wanted_for, .. } => {
            format!("for {}", shortened(&joined(wanted_for), NAMES))
        }
        EvictReason::Dropped => "dropped".to_owned(),
        EvictReason::Cleared => "cleared".to_owned(),
        EvictReason::Idle { keep_alive_ms } => {
            let time = Duration::from_millis(*keep_alive_ms);
            format!("idle for {} s", time.as_secs_f64())
        }
        EvictReason::Pressure {
            budget_bytes,
            used_bytes,
        } => format!(
            "budget now {}, {} used",
            Size(*budget_bytes),
            Size(*used_bytes)
        ),
        EvictReason::Requested { asked_bytes } => {
            format!("the program asked for {}", Size(*asked_bytes))
        }
        EvictReason::DeviceFull { asked_bytes } => {
            format!("the device refused {}", Size(*asked_bytes))
        }
        EvictReason::Offloaded => "offloaded to ram".to_owned(),
        EvictReason::NotKept => "no copy kept in ram".to_owned(),
    }
}

/// Why a lease was refused, in words.
#[must_use]
pub fn refused(reason: RefuseReason) -> &'static str {
    match reason {
        RefuseReason::ExceedsBudget => "exceeds the budget",
        RefuseReason::Leased => "leases pin what could make room",
        RefuseReason::Timeout => "waited too long",
        RefuseReason::Deadlock => "waited for leases of threads that wait themselves",
    }
}

/// A budget with what it is made of.
fn budget(change: &BudgetChange) -> String {
    let was = change.was_bytes;
    let was = was.map_or(String::new(), |was| format!("{} -> ", Size(was)));
    let reclaimable = if change.reclaimable.is_unavailable() {
        String::new()
    } else {
        format!(" + reclaimable {} (page cache)", change.reclaimable)
    };
    format!(
        "{} {was}{}: unused {}{reclaimable} + counted {} - reserve {}, bound: {} ({})",
        safe(&change.tier),
        Size(change.budget_bytes),
        change.unused,
        Size(change.counted_bytes),
        Size(change.reserve_bytes),
        safe(&change.bound),
        safe(&change.cause)
    )
}

/// A reclaim, or what became of it.
fn reclaimed(done: &Reclaim) -> String {
    let action = safe(&done.action);
    match done.settled {
        None => format!(
            "{action}: {} missing, {} gained in {}",
            Size(done.missing_bytes),
            done.gain,
            seconds(done.took_us)
        ),
        Some(settled) => format!(
            "{action}, {} s ago: {} gained then, {}{} of it left",
            settled.after_s,
            done.gain,
            if settled.net_bytes < 0 { "-" } else { "" },
            Size(settled.net_bytes.unsigned_abs())
        ),
    }
}

/// Names, joined and made safe.
pub(crate) fn joined(models: &[String]) -> String {
    models
        .iter()
        .map(|model| safe(model))
        .collect::<Vec<_>>()
        .join(" + ")
}

/// A time since the beginning: `9.250`, `3:12.4`.
pub(crate) fn clock(time: Duration) -> String {
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

/// What a device's driver said was free, before and after.
fn on_device(freed: DeviceFreed) -> String {
    let (before, after) = (freed.free_before, freed.free_after);
    format!(", free on the device {before} -> {after}")
}

/// What became of the page cache of mapped files.
fn cached(seen: &PageCacheLeft) -> String {
    let resident = seen.resident;
    match seen.left {
        Some(left) => format!(", page cache {resident} -> {left}"),
        None => format!(", page cache {resident}, still mapped"),
    }
}

#[cfg(test)]
mod tests {
    use malloc_stats::Snapshot;
    use plimsoll_events::Evict;

    use super::*;

    #[test]
    fn a_load_says_why_it_is_not_kept_as_was_asked_for() {
        let nothing = serde_json::to_value(Snapshot::default()).unwrap();
        let told = serde_json::json!({
            "event": "load", "v": plimsoll_events::VERSION, "seq": 0, "at_us": 0,
            "model": "sdxl", "tier": "ram", "bytes": 4096, "charged_bytes": 4096, "took_us": 9,
            "recycled_bytes": 0, "gave_back": { "grade": "exact", "bytes": 0 }, "snapshots_us": 1,
            "before": nothing, "after": nothing,
            "degraded": "not page-locked: \u{1b}[2J1.0 GiB may be",
        });
        let event: Event = serde_json::from_value(told).unwrap();
        let said = line(&Paint::plain(), &event).unwrap();
        assert!(said.contains("not page-locked: "), "{said}");
        assert!(
            said.ends_with("1.0 GiB may be") && !said.contains('\u{1b}'),
            "{said:?}"
        );
    }

    #[test]
    fn an_eviction_says_what_was_free_on_its_device() {
        let nothing = serde_json::to_value(Snapshot::default()).unwrap();
        let told = serde_json::json!({
            "model": "sdxl", "tier": "cuda:0", "why": "dropped", "bytes": 4096,
            "freed_bytes": 4096, "recycled_bytes": 0, "held_bytes": 0,
            "returned": { "grade": "unavailable" }, "took_us": 9, "snapshots_us": 1,
            "before": nothing, "after": nothing,
        });
        let mut evict: Evict = serde_json::from_value(told).unwrap();
        let said = |evict: &Evict| {
            let event = Event {
                v: plimsoll_events::VERSION,
                seq: 0,
                at_us: 0,
                kind: Kind::Evict(Box::new(evict.clone())),
            };
            line(&Paint::plain(), &event).unwrap()
        };
        // Written before there was a device.
        assert!(said(&evict).ends_with("dropped"), "{}", said(&evict));
        evict.device = Some(DeviceFreed {
            free_before: Metric::Exact(60 << 30),
            free_after: Metric::Exact(75 << 30),
            ..DeviceFreed::default()
        });
        let words = "dropped, free on the device 60.00 GiB -> 75.00 GiB";
        assert!(said(&evict).ends_with(words), "{}", said(&evict));
    }
}
