//! Frames: everything that is shown into a buffer, what differs from the last, and that as the bytes
//! that a terminal gets.

use std::collections::VecDeque;
use std::io::{BufWriter, Sink, Write, sink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll_events::Event;
use plimsoll_tui::live::screen::theme::Depth;
use plimsoll_tui::live::screen::{Config, Script, Still};
use plimsoll_tui::live::source::recording::{Options, RecordingSource};
use plimsoll_tui::live::source::{
    About, Control, Heard, ProcessSource, Source, SourceError, SourceKind,
};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};

use crate::data::{MODELS, Made, line};
use crate::heap::{PAGES, Target};
use crate::{Results, SIZE, thread_time};

const FRAMES: usize = 400;
const FIRST_FRAMES: usize = 15;
const DAY: u64 = 86_400;
const PATIENCE: Duration = Duration::from_secs(600);

const PANELS: [(&str, &str); 9] = [
    ("all panels", ""),
    ("verdict expanded", "0 e"),
    ("headroom expanded", "1 e"),
    ("timeline expanded", "2 e"),
    ("allocator expanded", "3 e"),
    ("heap map expanded", "4 e"),
    ("models expanded", "5 e"),
    ("decisions expanded", "6 e"),
    ("page of a model", "5 enter"),
];

type Screen = Terminal<CrosstermBackend<BufWriter<Sink>>>;

/// Events that are there already.
struct Told<I> {
    events: I,
    about: About,
    told: Arc<AtomicBool>,
}

impl<I: Iterator<Item = Event> + Send> Source for Told<I> {
    fn about(&self) -> About {
        self.about.clone()
    }

    fn hear(&mut self, _: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError> {
        let before = into.len();
        into.extend(self.events.by_ref().take(2000));
        self.told.store(into.len() == before, Ordering::SeqCst);
        Ok(Heard::Events)
    }

    fn control(&mut self, _: Control) {}
}

fn config() -> Config {
    Config {
        colours: Some(Depth::True),
        unicode: Some(true),
        ..Config::default()
    }
}

fn still(kind: SourceKind, events: impl Iterator<Item = Event> + Send + 'static) -> Still {
    let told = Arc::new(AtomicBool::new(false));
    let source = Told {
        events,
        about: About {
            name: "serve:4121".to_owned(),
            kind,
            pid: Some(4121),
            takes_requests: kind == SourceKind::Cache,
            ..About::default()
        },
        told: Arc::clone(&told),
    };
    let enough = move |_: &_| told.load(Ordering::SeqCst);
    Still::take(Box::new(source), &config(), PATIENCE, enough).unwrap()
}

fn screen() -> Screen {
    let viewport = Viewport::Fixed(Rect::new(0, 0, SIZE.0, SIZE.1));
    let backend = CrosstermBackend::new(BufWriter::with_capacity(256 << 10, sink()));
    Terminal::with_options(backend, TerminalOptions { viewport }).unwrap()
}

/// Draws one; milliseconds of processor time: a frame waits for nothing, and what else the machine
/// does is no part of it.
fn draw(screen: &mut Screen, still: &mut Still) -> f64 {
    let begun = thread_time();
    screen.draw(|frame| still.draw(frame.buffer_mut())).unwrap();
    (thread_time() - begun).as_secs_f64() * 1e3
}

/// Moments in turn, so that there is something to write in every frame.
fn steady(results: &mut Results, what: &str, stills: &mut [Still]) {
    let mut screen = screen();
    let mut turn = |times: usize| -> Vec<f64> {
        let one = |at: usize| draw(&mut screen, &mut stills[at % stills.len()]);
        (0..times).map(one).collect()
    };
    turn(20);
    told(results, what, turn(FRAMES));
}

fn told(results: &mut Results, what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let ms = |at: usize| format!("{:.2} ms", times[at.min(times.len() - 1)]);
    results.row(
        &format!("frame, {what}"),
        ms(times.len() / 2),
        ms(times.len() * 99 / 100),
        "1 ms",
    );
}

pub fn frames(results: &mut Results) {
    a_day(results);
    a_heap(results);
    a_recording(results);
}

/// A day of readings, and decisions enough to fill what is kept of them.
fn day(seconds: u64) -> impl Iterator<Item = Event> + Send {
    let mut made = Made::begin();
    let mut ready = VecDeque::new();
    let opened = made.opened();
    ready.push_back(made.event(opened));
    std::iter::from_fn(move || {
        if ready.is_empty() && made.at_us < seconds * 1_000_000 {
            if made.at_us < (DAY - 3600) * 1_000_000 {
                made.at_us += 1_000_000;
                let sample = made.sample();
                ready.push_back(made.event(sample));
            } else {
                ready.extend(made.second());
            }
        }
        ready.pop_front()
    })
}

fn a_day(results: &mut Results) {
    let moments = || [DAY, DAY + 1].map(|end| still(SourceKind::Cache, day(end)));
    for (panel, keys) in PANELS {
        let mut stills = moments();
        let script: Script = keys.parse().unwrap();
        for still in &mut stills {
            still.text(SIZE, &script).unwrap();
        }
        let what = format!("{MODELS} models and a day: {panel}");
        steady(results, &what, &mut stills);
    }
}

fn a_heap(results: &mut Results) {
    let target = Target::start();
    let events = |count: usize| -> Vec<Event> {
        let mut source = ProcessSource::open(target.pid(), config().interval).unwrap();
        let mut events = Vec::new();
        let looks = |events: &[Event]| {
            let looks = events
                .iter()
                .filter(|event| matches!(event.kind, plimsoll_events::Kind::Look(_)));
            looks.count()
        };
        while looks(&events) < count {
            source
                .hear(Duration::from_millis(100), &mut events)
                .unwrap();
            source.control(Control::LookNow);
        }
        events
    };
    let told_of = |events: Vec<Event>| still(SourceKind::Process, events.into_iter());
    let events = events(2);
    let before_last = &events[..events.len() - 1];
    let granules: usize = {
        let still = told_of(events.clone());
        let heap = still
            .state()
            .inspection()
            .and_then(|look| look.heap.as_ref());
        let arenas = heap.iter().flat_map(|heap| &heap.arenas);
        arenas.map(|arena| arena.coverage.granules()).sum()
    };
    assert!(granules > PAGES * 9 / 10, "{granules} granules");
    for (panel, keys) in [PANELS[0], PANELS[5]] {
        let script: Script = keys.parse().unwrap();
        let mut first = Vec::new();
        for _ in 0..FIRST_FRAMES {
            let mut still = told_of(events.clone());
            first.push(draw(&mut screen(), &mut still));
        }
        if keys.is_empty() {
            told(results, "a heap of 10^6 pages: first of a look", first);
        }
        let mut stills = [told_of(events.clone()), told_of(before_last.to_vec())];
        for still in &mut stills {
            still.text(SIZE, &script).unwrap();
        }
        let what = format!("a heap of 10^6 pages: {panel}");
        steady(results, &what, &mut stills);
    }
}

fn a_recording(results: &mut Results) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hour.jsonl");
    let mut file = BufWriter::new(std::fs::File::create(&path).unwrap());
    let mut made = Made::begin();
    let opened = made.opened();
    file.write_all(&line(&made.event(opened))).unwrap();
    for _ in 0..600 {
        for event in made.second() {
            file.write_all(&line(&event)).unwrap();
        }
    }
    file.flush().unwrap();
    let at = |seconds: u64| {
        let options = Options {
            paused: true,
            at: Some(seconds * 1_000_000),
            ..Options::default()
        };
        let source = RecordingSource::open(&path, options).unwrap();
        let there = move |state: &plimsoll_tui::live::State| state.at_us >= seconds * 1_000_000;
        Still::take(Box::new(source), &config(), PATIENCE, there).unwrap()
    };
    let mut stills = [at(500), at(501)];
    steady(results, "a recording: all panels", &mut stills);
}
