//! The report of a program that tells nothing itself, and was seen from outside.

#![allow(clippy::unwrap_used)]

use malloc_stats::{Metric, Process, Snapshot};
use plimsoll_events::{Event, Kind, Report, VERSION};

fn pulse(seq: u64, rss: u64, minor_faults: u64) -> Event {
    let process = Process {
        rss: Metric::Exact(rss),
        minor_faults,
        ..Process::default()
    };
    Event {
        v: VERSION,
        seq,
        at_us: seq * 100_000,
        kind: Kind::Pulse(Box::new(Snapshot {
            process,
            ..Snapshot::default()
        })),
    }
}

#[test]
fn its_peak_and_faults_are_those_that_were_seen() {
    let mut report = Report::new();
    for (seq, (rss, faults)) in [(10, 100), (70, 900), (30, 950)].into_iter().enumerate() {
        report.fold(&pulse(seq as u64, rss, faults));
    }
    assert_eq!(report.baseline_rss_bytes, Some(10));
    assert_eq!(report.rss_peak_bytes, Some(70));
    assert_eq!(report.minor_faults, 850);
    // Nobody said what was live, so nothing is said of what stayed.
    assert_eq!(report.retained_bytes, None);
    assert_eq!(report.excess_bytes, None);
}
