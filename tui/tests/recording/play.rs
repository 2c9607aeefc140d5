//! The clock of a recording.

use std::time::Duration;

use plimsoll_tui::live::source::recording::Options;
use plimsoll_tui::live::source::{Control, Heard, Source, SourceKind};

use crate::take::{Watcher, closed, event, fold, many, note, recording, same};

const SECOND: Duration = Duration::from_secs(1);

fn playing(path: &std::path::Path, speed: f64) -> Watcher {
    let mut watcher = Watcher::new(
        path,
        Options {
            speed,
            ..Options::default()
        },
    );
    watcher.arrive();
    watcher
}

#[test]
fn it_plays_as_it_was_recorded_and_faster_and_slower() {
    // A millisecond apart.
    let events = many(20_000);
    let (_folder, path) = recording(&events);
    for (speed, in_a_second) in [(1.0, 1000), (0.1, 100), (10.0, 10_000), (0.25, 250)] {
        let mut watcher = playing(&path, speed);
        assert_eq!(watcher.watch(SECOND), in_a_second, "{speed}");
        same(&watcher.state, &fold(&events[..=in_a_second]));
        assert_eq!(watcher.playing().speed, speed);
        assert_eq!(watcher.playing().at_us, in_a_second as u64 * 1000);
    }
}

#[test]
fn a_speed_is_kept_within_bounds_and_what_is_no_number_changes_nothing() {
    let (_folder, path) = recording(&many(10));
    let mut watcher = playing(&path, 0.0);
    for (asked, got) in [
        (1e9, 1000.0),
        (f64::NAN, 1000.0),
        (-1.0, 0.1),
        (2.0, 2.0),
        (f64::INFINITY, 1000.0),
        (f64::NEG_INFINITY, 0.1),
    ] {
        watcher.tell(Control::Speed(asked));
        assert_eq!(watcher.playing().speed, got, "{asked}");
    }
}

#[test]
fn a_change_of_speed_counts_from_then_on() {
    let (_folder, path) = recording(&many(20_000));
    let mut watcher = playing(&path, 1.0);
    assert_eq!(watcher.watch(SECOND), 1000);
    watcher.tell(Control::Speed(4.0));
    assert_eq!(watcher.watch(SECOND), 4000);
    watcher.tell(Control::Speed(0.5));
    assert_eq!(watcher.watch(SECOND), 500);
    assert_eq!(watcher.playing().at_us, 5_500_000);
}

#[test]
fn it_stands_still_while_paused_and_goes_on_from_there() {
    let events = many(20_000);
    let (_folder, path) = recording(&events);
    let mut watcher = playing(&path, 1.0);
    assert_eq!(watcher.watch(SECOND), 1000);
    watcher.tell(Control::Pause(true));
    assert_eq!(watcher.watch(100 * SECOND), 0);
    assert_eq!(
        (watcher.playing().speed, watcher.playing().at_us),
        (0.0, 1_000_000)
    );
    watcher.tell(Control::Pause(false));
    assert_eq!(watcher.watch(SECOND), 1000);
    same(&watcher.state, &fold(&events[..=2000]));
    // A seek neither starts it nor stops it.
    watcher.go(Control::Seek(1_000_000));
    assert_eq!(watcher.watch(SECOND), 1000);
    same(&watcher.state, &fold(&events[..=4000]));
}

#[test]
fn what_cannot_be_read_as_fast_as_asked_is_shown_in_order_and_time_does_not_go_back() {
    let events = many(30_000);
    let (_folder, path) = recording(&events);
    let mut watcher = playing(&path, 1000.0);
    let mut shown = 0;
    while watcher.state.seq < 29_999 {
        watcher.hear(SECOND);
        // As if somebody had been busy elsewhere.
        plimsoll_tui::live::source::recording::Clock::wait(&watcher.clock, SECOND);
        let at_us = watcher.playing().at_us;
        assert!(at_us >= shown, "{at_us} after {shown}");
        shown = at_us;
    }
    same(&watcher.state, &fold(&events));
}

#[test]
fn the_end_is_told_once_and_one_can_go_back_from_it() {
    let mut events = many(500);
    events.push(event(500, 600_000, closed()));
    let (_folder, path) = recording(&events);
    let mut watcher = playing(&path, 1.0);
    watcher.watch(SECOND);
    let ended = watcher.ended.clone().unwrap();
    assert_eq!(
        (&*ended.why, ended.in_order),
        ("end of the recording", true)
    );
    same(&watcher.state, &fold(&events));
    assert_eq!(
        (watcher.playing().speed, watcher.playing().at_us),
        (0.0, 600_000)
    );
    assert_eq!(watcher.watch(10 * SECOND), 0);
    watcher.go(Control::SeekTo(100_000));
    same(&watcher.state, &fold(&events[..=100]));
    assert_eq!(watcher.ended, None);
    assert_eq!(watcher.watch(SECOND / 10), 100, "it still plays");
    watcher.watch(SECOND);
    assert!(watcher.ended.is_some(), "and ends again");
}

#[test]
fn a_recording_without_its_end_is_given_up_after_a_while() {
    let (_folder, path) = recording(&many(500));
    let mut watcher = playing(&path, 1.0);
    watcher.watch(SECOND);
    assert_eq!(watcher.ended, None, "it may still be written");
    watcher.watch(4 * SECOND);
    let ended = watcher.ended.clone().unwrap();
    assert!(ended.why.contains("without its end"), "{}", ended.why);
    assert!(!ended.in_order);
}

#[test]
fn a_recording_says_what_it_is_and_that_the_past_takes_no_requests() {
    let events = [event(0, 5, note("a".into())), event(1, 9, closed())];
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::still(&path);
    let about = watcher.about();
    assert_eq!(about.name, path.to_str().unwrap());
    assert_eq!(about.kind, SourceKind::Recording);
    assert_eq!((about.pid, about.takes_requests), (None, false));
    watcher.tell(Control::LookNow);
    watcher.tell(Control::Chunks {
        arena: 0,
        from: 0,
        to: 4096,
    });
    let heard = watcher
        .source
        .hear(Duration::ZERO, &mut Vec::new())
        .unwrap();
    assert!(matches!(heard, Heard::Chunks(Err(_))), "{heard:?}");
    assert_eq!(watcher.hear(Duration::ZERO), 0);
}
