//! Streams: what is written comes back, and no recording, however edited, breaks a fold.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use malloc_stats::{Metric, Snapshot};
use plimsoll_events::{
    Answer, Candidate, Closed, DeviceFreed, Event, Evict, EvictReason, Kind, Load, Memory,
    ModelSeen, Opened, Origin, PageCacheLeft, Point, Recorder, Refuse, RefuseReason, Replay,
    Report, Sample, Sink, Skipped, Stream, Tally,
};

/// One of each kind, every number of it `n`.
fn kinds(n: u64) -> Vec<Kind> {
    let snapshot = Snapshot {
        cost_us: n,
        ..Snapshot::default()
    };
    let mut sample = Sample {
        point: Point::Baseline,
        memory: Memory {
            live_bytes: n,
            held_bytes: n,
            churn_bytes: n,
        },
        snapshot: snapshot.clone(),
    };
    sample.snapshot.process.rss = Metric::Exact(n);
    sample.snapshot.process.minor_faults = n;
    let mut step = sample.clone();
    step.point = Point::Step(n);
    let mut settled = sample.clone();
    settled.point = Point::Settled;
    settled.snapshot.process.rss = Metric::Estimated(0);
    vec![
        Kind::Opened(Box::new(Opened {
            unix_ms: n,
            models: vec![ModelSeen {
                name: "m".into(),
                bytes: n,
                tensors: n,
                groups: Vec::new(),
            }],
            budget_bytes: Some(n),
            ..Opened::default()
        })),
        Kind::Sample(Box::new(sample)),
        Kind::Pulse(Box::new(Snapshot {
            at_us: n,
            ..Snapshot::default()
        })),
        Kind::Look(Box::default()),
        Kind::Model(Box::new(ModelSeen {
            name: "m".into(),
            ..ModelSeen::default()
        })),
        Kind::Answer(Box::new(Answer {
            id: n,
            took_us: n,
            said: "done".into(),
            ..Answer::default()
        })),
        Kind::Load(Box::new(Load {
            model: "m".into(),
            part_of: None,
            is_patch: false,
            tier: "ram".into(),
            from: Origin::File,
            bytes: n,
            charged_bytes: n,
            took_us: n,
            recycled_bytes: n,
            gave_back: Metric::Exact(n),
            snapshots_us: n,
            before: snapshot.clone(),
            after: snapshot.clone(),
            error: None,
            degraded: None,
        })),
        Kind::Sample(Box::new(step)),
        Kind::Tally(Tally {
            hits: [("m".to_owned(), n)].into(),
            copied_tensors: n,
            copied_bytes: n,
            gave_back_bytes: n,
        }),
        Kind::Evict(Box::new(Evict {
            model: "m".into(),
            part_of: None,
            tier: "ram".into(),
            reason: EvictReason::Room {
                wanted_for: vec!["o".into()],
                asked_bytes: n,
                free_bytes: n,
            },
            bytes: n,
            freed_bytes: n,
            recycled_bytes: n,
            held_bytes: n,
            returned: Metric::Estimated(n),
            took_us: n,
            snapshots_us: n,
            considered: vec![Candidate {
                model: "m".into(),
                bytes: n,
                score: Some(1.5),
                skipped: Some(Skipped::Leased { leases: 3 }),
                reload_bytes: Some(n),
            }],
            considered_besides: n,
            page_cache: Some(PageCacheLeft {
                mapped_bytes: n,
                resident: Metric::Exact(n),
                left: Some(Metric::Upper(n)),
            }),
            device: Some(DeviceFreed {
                free_before: Metric::Exact(n),
                free_after: Metric::Unavailable,
                pool_before: Metric::Exact(n),
                pool_after: Metric::Exact(0),
            }),
            before: snapshot.clone(),
            after: snapshot,
        })),
        Kind::Refuse(Box::new(Refuse {
            models: vec!["m".into()],
            tier: "ram".into(),
            reason: RefuseReason::ExceedsBudget,
            asked_bytes: n,
            budget_bytes: n,
            pinned_bytes: n,
        })),
        Kind::Note {
            text: "a note".into(),
        },
        Kind::Sample(Box::new(settled)),
        Kind::Closed(Closed {
            checksum: Some("00".into()),
            ..Closed::default()
        }),
    ]
}

#[derive(Default)]
struct Kept(Mutex<Vec<Event>>);

impl Sink for Kept {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[test]
fn every_kind_of_event_comes_back_from_a_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let kept = Arc::new(Kept::default());
    let stream = Stream::new(Arc::clone(&kept));
    for kind in kinds(12_345) {
        stream.emit(kind);
    }
    let recorder = Recorder::create(&path).unwrap();
    let events = kept.0.lock().unwrap().clone();
    for event in &events {
        recorder.event(event);
    }
    let mut replay = Replay::open(&path).unwrap();
    let mut back = Vec::new();
    while let Some(event) = replay.next_event().unwrap() {
        back.push(event);
    }
    assert_eq!(back, events);
    let numbers: Vec<u64> = back.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_fold_of_the_largest_numbers_saturates() {
    let mut report = Report::new();
    for _ in 0..3 {
        for kind in kinds(u64::MAX) {
            report.fold(&Event {
                v: 1,
                seq: u64::MAX,
                at_us: u64::MAX,
                kind,
            });
        }
    }
    assert_eq!(report.bytes_loaded, u64::MAX);
    assert_eq!(report.retained_bytes, Some(i64::MIN));
}

#[test]
fn a_gap_in_the_numbers_is_counted() {
    let mut report = Report::new();
    for seq in [0, 1, 5, 6] {
        report.fold(&Event {
            v: 1,
            seq,
            at_us: 0,
            kind: Kind::Unknown,
        });
    }
    assert_eq!(report.missing_events, 3);
}
