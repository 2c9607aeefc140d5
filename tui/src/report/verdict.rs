//! What a run comes to, in sentences.

use malloc_stats::Size;
use plimsoll_events::Report;

use super::signed;
use crate::paint::Tone;

/// Below this, memory that stays is not worth a word: the program's own tables and stacks.
const NEGLIGIBLE: i64 = 16 << 20;

/// What it comes to, in sentences.
#[must_use]
pub fn verdict(report: &Report) -> Vec<(Tone, String)> {
    let mut sentences = Vec::new();
    if !report.complete {
        let what = "the stream ends early; the numbers are up to its last event".to_owned();
        sentences.push((Tone::Warn, what));
    }
    if report.missing_events > 0 {
        let what = format!("events missing from the stream: {}", report.missing_events);
        sentences.push((Tone::Warn, what));
    }
    let live = Size(report.live_peak_bytes);
    match report.retained_bytes {
        Some(kept) if kept > NEGLIGIBLE.max((report.live_peak_bytes / 50) as i64) => {
            // The cause and the cure are glibc's: a preloaded allocator has others.
            let is_glibc = report.allocator.starts_with("glibc");
            let advice = match (report.storage.as_str(), report.profile.as_str()) {
                ("heap", "glibc-default") if is_glibc => {
                    "; small live blocks pin freed ones below them: try `--profile \
                     glibc-mmap-1m-trim`, or `--storage anonymous`"
                }
                ("heap", profile) if profile.starts_with("jemalloc") => {
                    "; unused pages decay only while the program allocates: try `--profile \
                     jemalloc-purge`, or `--storage anonymous`"
                }
                _ => "",
            };
            let what = format!(
                "{} stayed resident after everything was dropped (live peak {live}){advice}",
                Size(kept.unsigned_abs())
            );
            sentences.push((Tone::Bad, what));
        }
        Some(_) if report.loads == 0 => {
            sentences.push((Tone::Warn, "nothing was ever loaded".to_owned()));
        }
        Some(kept) => {
            let what = format!(
                "everything dropped came back: {} above the baseline, of {live} that were live",
                signed(Some(kept))
            );
            sentences.push((Tone::Good, what));
        }
        None => {}
    }
    if let Some(excess) = report.excess_bytes
        && excess > NEGLIGIBLE.max((report.live_peak_bytes / 20) as i64)
    {
        let what = format!(
            "at its worst {} were resident beyond what was live",
            Size(excess.unsigned_abs())
        );
        sentences.push((Tone::Warn, what));
    }
    if report.failed_loads > 0 {
        sentences.push((
            Tone::Bad,
            format!("loads that failed: {}", report.failed_loads),
        ));
    }
    if report.refusals > 0 {
        let what = format!("leases refused: {}", report.refusals);
        sentences.push((Tone::Warn, what));
    }
    sentences
}
