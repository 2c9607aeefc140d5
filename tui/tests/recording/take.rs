//! Recordings made by hand, and somebody who watches them by a clock that only waiting moves.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use malloc_stats::{Metric, Snapshot};
use plimsoll_events::{
    BudgetChange, Closed, Event, Evict, EvictReason, Kind, Load, Memory, Opened, Origin, Point,
    Reclaim, Recorder, Refuse, RefuseReason, Sample, Sink, Tally,
};
use plimsoll_tui::live::State;
use plimsoll_tui::live::source::recording::{Clock, Options, RecordingSource};
use plimsoll_tui::live::source::{About, Control, Heard, Playing, Source};
use plimsoll_tui::live::state::Ended;
use tempfile::TempDir;

pub const KINDS: [&str; 5] = ["load", "evict", "refuse", "budget", "reclaim"];

pub fn event(seq: u64, at_us: u64, kind: Kind) -> Event {
    Event {
        v: 2,
        seq,
        at_us,
        kind,
    }
}

pub fn note(text: String) -> Kind {
    Kind::Note { text }
}

pub fn closed() -> Kind {
    Kind::Closed(Closed::default())
}

fn snapshot(bytes: u64) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.process.rss = Metric::Exact(bytes);
    snapshot
}

/// A decision of a kind, as the stream names it.
pub fn decision(kind: &str, number: u64) -> Kind {
    let model = format!("model {}", number % 7);
    match kind {
        "load" => Kind::Load(Box::new(Load {
            model,
            part_of: None,
            is_patch: false,
            tier: "ram".into(),
            from: Origin::File,
            bytes: 1000 + number,
            charged_bytes: 4096,
            took_us: 10,
            recycled_bytes: 0,
            gave_back: Metric::Unavailable,
            snapshots_us: 1,
            before: snapshot(number),
            after: snapshot(number + 4096),
            error: None,
            degraded: None,
        })),
        "evict" => Kind::Evict(Box::new(Evict {
            model,
            part_of: None,
            tier: "ram".into(),
            reason: EvictReason::Dropped,
            bytes: 1000 + number,
            freed_bytes: 4096,
            recycled_bytes: 0,
            held_bytes: 0,
            returned: Metric::Estimated(number),
            took_us: 10,
            snapshots_us: 1,
            considered: Vec::new(),
            considered_besides: 0,
            page_cache: None,
            device: None,
            before: snapshot(number + 4096),
            after: snapshot(number),
        })),
        "refuse" => Kind::Refuse(Box::new(Refuse {
            models: vec![model],
            tier: "ram".into(),
            reason: RefuseReason::Leased,
            asked_bytes: number,
            budget_bytes: 500,
            pinned_bytes: 7,
        })),
        "budget" => Kind::Budget(Box::new(BudgetChange {
            tier: "ram".into(),
            was_bytes: Some(number),
            budget_bytes: number + 1,
            counted_bytes: 0,
            working_bytes: 0,
            unused: Metric::Exact(1),
            reclaimable: Metric::Unavailable,
            reserve_bytes: 0,
            bound: "a limit".into(),
            cause: "poll".into(),
        })),
        "reclaim" => Kind::Reclaim(Box::new(Reclaim {
            action: "trim".into(),
            missing_bytes: number,
            took_us: 9,
            gain: Metric::Estimated(400),
            settled: None,
        })),
        other => panic!("{other} is no decision"),
    }
}

/// So many events, a millisecond apart, every hundredth of them a decision.
pub fn many(count: u64) -> Vec<Event> {
    let kind = |seq: u64| match seq {
        0 => Kind::Opened(Box::new(Opened {
            program: "a test".into(),
            budget_bytes: Some(1 << 30),
            ..Opened::default()
        })),
        seq if seq % 100 == 50 => decision(KINDS[(seq / 100 % 5) as usize], seq),
        seq if seq % 10 == 1 => Kind::Sample(Box::new(Sample {
            point: Point::Tick,
            memory: Memory {
                live_bytes: seq,
                ..Memory::default()
            },
            snapshot: snapshot(seq << 12),
        })),
        seq => Kind::Tally(Tally {
            hits: [(format!("model {}", seq % 7), seq % 5 + 1)].into(),
            ..Tally::default()
        }),
    };
    (0..count)
        .map(|seq| event(seq, seq * 1000, kind(seq)))
        .collect()
}

/// A recording of some events, in a folder of its own.
pub fn recording(events: &[Event]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let recorder = Recorder::create(&path).unwrap();
    for event in events {
        recorder.event(event);
    }
    assert_eq!(recorder.failure(), None);
    (folder, path)
}

pub fn file(content: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

pub fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

pub fn line(event: &Event) -> String {
    serde_json::to_string(event).unwrap() + "\n"
}

/// What is known after some events.
pub fn fold(events: &[Event]) -> State {
    let mut state = State::default();
    for event in events {
        state.fold(event);
    }
    state
}

#[track_caller]
pub fn same(shown: &State, expected: &State) {
    // Numbers first: two states that differ are pages of text.
    assert_eq!((shown.seq, shown.at_us), (expected.seq, expected.at_us));
    assert_eq!(shown.sums, expected.sums);
    assert_eq!(format!("{shown:?}"), format!("{expected:?}"));
}

#[derive(Clone, Default)]
pub struct Virtual(Arc<Mutex<Duration>>);

impl Clock for Virtual {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn wait(&self, time: Duration) {
        assert!(!time.is_zero(), "waits for nothing");
        *self.0.lock().unwrap() += time;
    }
}

/// Watches a recording, and folds what it hears.
pub struct Watcher {
    pub source: RecordingSource,
    pub clock: Virtual,
    pub state: State,
    /// How it ended, the last time that this was heard.
    pub ended: Option<Ended>,
    /// Whether a whole state was heard by the last call.
    pub jumped: bool,
}

impl Watcher {
    pub fn new(path: &Path, options: Options) -> Watcher {
        let clock = Virtual::default();
        let by = Box::new(clock.clone());
        Watcher {
            source: RecordingSource::open_by(path, options, by).unwrap(),
            clock,
            state: State::default(),
            ended: None,
            jumped: false,
        }
    }

    /// One that stands still, with its first picture heard.
    pub fn still(path: &Path) -> Watcher {
        let mut watcher = Watcher::new(
            path,
            Options {
                paused: true,
                ..Options::default()
            },
        );
        watcher.arrive();
        watcher
    }

    /// Hears once, and gives how many events came.
    pub fn hear(&mut self, within: Duration) -> usize {
        let mut events = Vec::new();
        self.jumped = false;
        match self.source.hear(within, &mut events).unwrap() {
            Heard::Events => {}
            Heard::State(state) => {
                assert!(events.is_empty(), "events before a state are lost");
                self.jumped = true;
                self.ended = None;
                self.state = *state;
            }
            Heard::Ended(ended) => {
                assert_eq!(self.ended, None, "it ended already");
                self.ended = Some(ended);
            }
            Heard::Chunks(_) => panic!("nobody asked"),
        }
        assert!(events.len() <= 5000);
        for event in &events {
            self.state.fold(event);
        }
        events.len()
    }

    /// Hears until it is where it was to go; gives the number of calls.
    pub fn arrive(&mut self) -> usize {
        for calls in 1..10_000 {
            let heard = self.hear(Duration::ZERO);
            if self.jumped {
                return calls;
            }
            assert_eq!(heard, 0, "events on the way");
        }
        panic!("it never arrives");
    }

    pub fn tell(&mut self, control: Control) {
        self.jumped = false;
        self.source.control(control);
    }

    pub fn go(&mut self, control: Control) -> usize {
        self.tell(control);
        self.arrive()
    }

    pub fn jump(&mut self, on: bool, kind: Option<&str>) -> usize {
        self.go(Control::Jump {
            on,
            kind: kind.map(str::to_owned),
        })
    }

    /// Hears for so long, by its clock; gives how many events came.
    pub fn watch(&mut self, time: Duration) -> usize {
        let until = self.clock.now() + time;
        let mut heard = 0;
        while let now = self.clock.now()
            && now < until
        {
            heard += self.hear(until - now);
        }
        // What is due at the last moment.
        loop {
            match self.hear(Duration::ZERO) {
                0 if !self.jumped => return heard,
                more => heard += more,
            }
        }
    }

    pub fn about(&self) -> About {
        self.source.about()
    }

    pub fn playing(&self) -> Playing {
        self.about().playing.unwrap()
    }
}
