//! A recording that is still written.

use std::time::Duration;

use plimsoll_tui::live::source::Control;
use plimsoll_tui::live::source::recording::Options;

use crate::take::{Watcher, append, closed, event, fold, line, many, note, recording, same};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_added_is_shown_as_it_comes() {
    let mut events = many(100);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::new(
        &path,
        Options {
            at: Some(u64::MAX),
            ..Options::default()
        },
    );
    watcher.arrive();
    watcher.watch(SECOND);
    // However far apart by their own time: whoever is at the end sees what comes.
    for (seq, at_us) in [(100, 200_000), (101, 3_600_000_000), (102, 3_600_000_001)] {
        let next = event(seq, at_us, note(format!("{seq}")));
        append(&path, line(&next).as_bytes());
        events.push(next);
        watcher.watch(SECOND);
        same(&watcher.state, &fold(&events));
        assert_eq!(watcher.playing().at_us, at_us);
        assert_eq!(watcher.playing().end_us, at_us);
        assert_eq!(watcher.ended, None);
    }
    let end = event(103, 3_600_000_002, closed());
    append(&path, line(&end).as_bytes());
    watcher.watch(SECOND);
    assert!(watcher.ended.unwrap().in_order);
}

#[test]
fn a_file_is_asked_at_most_twice_a_second() {
    let events = many(100);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::new(
        &path,
        Options {
            at: Some(u64::MAX),
            ..Options::default()
        },
    );
    watcher.arrive();
    watcher.hear(Duration::ZERO);
    let next = event(100, 200_000, note("next".into()));
    append(&path, line(&next).as_bytes());
    let mut waited = Duration::ZERO;
    while watcher.hear(Duration::from_millis(10)) == 0 {
        waited += Duration::from_millis(10);
        assert!(waited < SECOND, "it is never seen");
    }
    assert!(waited >= Duration::from_millis(400), "{waited:?}");
}

#[test]
fn an_end_that_was_none_is_taken_back() {
    let mut events = many(100);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::new(
        &path,
        Options {
            speed: 1000.0,
            ..Options::default()
        },
    );
    watcher.arrive();
    watcher.watch(10 * SECOND);
    assert!(watcher.ended.is_some());
    let next = event(100, 900_000, note("after all".into()));
    append(&path, line(&next).as_bytes());
    events.push(next);
    watcher.watch(SECOND);
    assert_eq!(watcher.ended, None);
    same(&watcher.state, &fold(&events));
    watcher.watch(10 * SECOND);
    assert!(watcher.ended.is_some(), "and it ends again");
}

#[test]
fn whoever_is_elsewhere_sees_the_end_move_and_stays() {
    let events = many(100);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::still(&path);
    watcher.go(Control::SeekTo(50_000));
    let read = watcher.playing().read;
    for seq in 100..10_000 {
        append(
            &path,
            line(&event(seq, seq * 1000, note("more".into()))).as_bytes(),
        );
    }
    watcher.watch(SECOND);
    assert_eq!(watcher.playing().end_us, 9_999_000);
    assert!(watcher.playing().read < read, "of a longer file it is less");
    same(&watcher.state, &fold(&events[..=50]));
    watcher.go(Control::SeekTo(9_000_000));
    assert_eq!(watcher.state.seq, 9000);
}

#[test]
fn a_line_that_is_half_written_is_read_when_it_is_whole() {
    let mut events = many(100);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::new(
        &path,
        Options {
            at: Some(u64::MAX),
            ..Options::default()
        },
    );
    watcher.arrive();
    watcher.watch(SECOND);
    let next = event(100, 200_000, note("in two parts".into()));
    let text = line(&next);
    let (head, tail) = text.split_at(31);
    append(&path, head.as_bytes());
    watcher.watch(SECOND);
    same(&watcher.state, &fold(&events));
    assert_eq!(
        watcher.about().troubles,
        ["cut off at the end: 31 bytes of a line without its end"]
    );
    // Going back and forth in between loses nothing of it.
    watcher.go(Control::SeekTo(3000));
    watcher.go(Control::SeekTo(u64::MAX));
    append(&path, tail.as_bytes());
    watcher.watch(SECOND);
    events.push(next);
    same(&watcher.state, &fold(&events));
    assert_eq!(watcher.about().troubles, [""; 0]);
}

#[test]
fn a_file_that_is_cut_short_while_it_plays_is_no_disaster() {
    let events = many(30_000);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::still(&path);
    watcher.go(Control::SeekTo(20_000_000));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1000).unwrap();
    watcher.go(Control::SeekTo(u64::MAX));
    watcher.jump(true, None);
    watcher.jump(false, None);
    watcher.go(Control::SeekTo(0));
    same(&watcher.state, &fold(&events[..1]));
    file.set_len(0).unwrap();
    watcher.go(Control::SeekTo(u64::MAX));
    watcher.tell(Control::Pause(false));
    watcher.watch(5 * SECOND);
    assert!(!watcher.ended.unwrap().in_order);
}
