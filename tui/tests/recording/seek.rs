//! Wherever one goes, it is as if everything before had been read.

use std::time::Duration;

use plimsoll_tui::live::source::Control;
use plimsoll_tui::live::source::recording::Options;

use crate::take::{KINDS, Watcher, closed, decision, event, fold, many, note, recording, same};

#[test]
fn a_long_recording_shows_the_same_wherever_one_seeks() {
    let events = many(100_000);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::still(&path);
    same(&watcher.state, &fold(&events[..1]));
    assert_eq!(
        watcher.playing().end_us,
        99_999_000,
        "the end is known from the start"
    );
    let mut read = watcher.playing().read;
    assert!(read < 0.1);

    let through = watcher.go(Control::SeekTo(u64::MAX));
    assert!(through >= 20, "{through} calls: one did too much");
    same(&watcher.state, &fold(&events));
    assert_eq!(watcher.playing().read, 1.0);
    for at in [
        50_000_u64, 49_999, 1, 0, 99_000, 12_345, 77_777, 77_700, 3, 99_999,
    ] {
        let calls = watcher.go(Control::SeekTo(at * 1000 + 999));
        same(
            &watcher.state,
            &fold(&events[..=usize::try_from(at).unwrap()]),
        );
        assert_eq!(watcher.playing().at_us, (at * 1000 + 999).min(99_999_000));
        assert!(
            calls <= through / 8 + 2,
            "{calls} calls of {through} to {at}"
        );
    }
    // A long way is shown while it is gone.
    let mut fresh = Watcher::still(&path);
    fresh.tell(Control::SeekTo(90_000_000));
    let mut shown = 0;
    while !fresh.jumped {
        fresh.hear(Duration::ZERO);
        let playing = fresh.playing();
        assert!(playing.read >= read && (playing.at_us > shown || fresh.jumped));
        (read, shown) = (playing.read, playing.at_us);
    }
    assert_eq!(shown, 90_000_000);
}

#[test]
fn a_recording_can_begin_anywhere() {
    let events = many(1000);
    let (_folder, path) = recording(&events);
    for (at, seen) in [(0, 1), (500_000, 501), (500_999, 501), (u64::MAX, 1000)] {
        let options = Options {
            at: Some(at),
            paused: true,
            ..Options::default()
        };
        let mut watcher = Watcher::new(&path, options);
        watcher.arrive();
        same(&watcher.state, &fold(&events[..seen]));
    }
}

#[test]
fn jumps_find_every_decision_of_a_kind_in_order_and_back() {
    let events = many(20_000);
    let (_folder, path) = recording(&events);
    let of_kind = |kind: &str| -> Vec<u64> {
        let is = |seq: u64| seq % 100 == 50 && KINDS[(seq / 100 % 5) as usize] == kind;
        (0..20_000).filter(|seq| is(*seq)).collect()
    };
    for kind in KINDS {
        let all = of_kind(kind);
        let mut watcher = Watcher::still(&path);
        for seq in &all {
            watcher.jump(true, Some(kind));
            assert_eq!(watcher.state.seq, *seq);
            let newest = watcher.state.decisions.iter().next_back().unwrap();
            assert_eq!((newest.what.kind(), newest.seq), (kind, *seq));
        }
        // There is no other: it stays, and says why.
        watcher.jump(true, Some(kind));
        assert_eq!(watcher.state.seq, *all.last().unwrap());
        assert_eq!(
            watcher.about().troubles,
            [format!("no {kind} after this moment")]
        );
        for seq in all.iter().rev().skip(1) {
            watcher.jump(false, Some(kind));
            same(
                &watcher.state,
                &fold(&events[..=usize::try_from(*seq).unwrap()]),
            );
            assert_eq!(watcher.about().troubles, [""; 0]);
        }
        watcher.jump(false, Some(kind));
        assert_eq!(watcher.state.seq, all[0]);
        assert_eq!(
            watcher.about().troubles,
            [format!("no {kind} before this moment")]
        );
    }
}

#[test]
fn jumps_to_any_decision_find_the_next_whatever_its_kind() {
    let events = many(1000);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::still(&path);
    let mut seen = Vec::new();
    for _ in 0..10 {
        watcher.jump(true, None);
        seen.push(watcher.state.seq);
    }
    assert_eq!(seen, [50, 150, 250, 350, 450, 550, 650, 750, 850, 950]);
    watcher.go(Control::SeekTo(400_000));
    watcher.jump(false, None);
    assert_eq!(watcher.state.seq, 350);
    // Of decisions at one moment each has its turn.
    watcher.jump(true, Some("no such kind"));
    assert_eq!(watcher.state.seq, 350);
    assert_eq!(
        watcher.about().troubles,
        ["no no such kind after this moment"]
    );
}

#[test]
fn decisions_of_one_moment_are_shown_one_by_one() {
    let mut events = many(1000);
    for event in &mut events {
        event.at_us = 7;
    }
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::still(&path);
    assert_eq!(
        watcher.state.seq, 999,
        "all that happened at the first moment"
    );
    for seq in [950, 850, 750] {
        watcher.jump(false, None);
        same(&watcher.state, &fold(&events[..=seq]));
    }
    watcher.jump(true, None);
    same(&watcher.state, &fold(&events[..=850]));
    // It stands still there, though the rest is due.
    assert_eq!(watcher.watch(Duration::from_secs(9)), 0);
    watcher.tell(Control::Pause(false));
    assert_eq!(watcher.watch(Duration::from_secs(1)), 149);
    same(&watcher.state, &fold(&events));
}

#[test]
fn a_jump_stands_still_where_it_arrives() {
    let (_folder, path) = recording(&many(1000));
    let mut watcher = Watcher::new(&path, Options::default());
    watcher.arrive();
    watcher.jump(true, Some("load"));
    assert_eq!(watcher.playing().speed, 0.0);
    assert_eq!(watcher.playing().at_us, 50_000);
    assert_eq!(watcher.watch(Duration::from_secs(5)), 0);
    assert_eq!(watcher.playing().at_us, 50_000);
}

#[test]
fn a_seek_that_comes_before_another_has_arrived_counts_from_where_that_was_to_go() {
    let events = many(30_000);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::still(&path);
    for _ in 0..5 {
        watcher.tell(Control::Seek(5_000_000));
        watcher.hear(Duration::ZERO);
    }
    watcher.arrive();
    same(&watcher.state, &fold(&events[..=25_000]));
    for _ in 0..4 {
        watcher.tell(Control::Seek(-6_000_000));
    }
    watcher.arrive();
    same(&watcher.state, &fold(&events[..=1_000]));
    watcher.go(Control::Seek(i64::MIN));
    same(&watcher.state, &fold(&events[..1]));
    watcher.go(Control::Seek(i64::MAX));
    same(&watcher.state, &fold(&events));
}

#[test]
fn what_is_under_way_gives_way_to_the_next() {
    let events = many(30_000);
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::still(&path);
    watcher.tell(Control::SeekTo(u64::MAX));
    watcher.hear(Duration::ZERO);
    watcher.tell(Control::Jump {
        on: true,
        kind: Some("no such".into()),
    });
    watcher.hear(Duration::ZERO);
    watcher.tell(Control::Jump {
        on: false,
        kind: Some("no such".into()),
    });
    watcher.hear(Duration::ZERO);
    watcher.go(Control::SeekTo(2_000_000));
    same(&watcher.state, &fold(&events[..=2000]));
    // A jump before anything was shown.
    let mut watcher = Watcher::new(
        &path,
        Options {
            paused: true,
            ..Options::default()
        },
    );
    watcher.jump(false, None);
    same(&watcher.state, &fold(&events[..1]));
}

#[test]
fn times_that_jump_are_shown_as_ones_that_never_go_back() {
    let at = [
        5_000_000,
        6_000_000,
        1,
        2_000_000,
        1 << 60,
        7_000_000,
        u64::MAX,
        8_000_000,
    ];
    let mut events: Vec<_> = (0..)
        .zip(at)
        .map(|(n, at)| event(n, at, note(n.to_string())))
        .collect();
    events.push(event(8, 9, decision("load", 1)));
    events.push(event(9, 0, closed()));
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::new(
        &path,
        Options {
            speed: 1000.0,
            ..Options::default()
        },
    );
    watcher.arrive();
    assert_eq!(
        watcher.playing().at_us,
        5_000_000,
        "it begins with its first event"
    );
    assert_eq!(watcher.watch(Duration::from_millis(10)), 3);
    same(&watcher.state, &fold(&events[..4]));
    let mut shown = watcher.playing().at_us;
    assert_eq!(
        watcher.watch(Duration::from_secs(1000)),
        0,
        "nobody waits for that"
    );
    assert!(watcher.playing().at_us > shown);
    shown = watcher.playing().at_us;
    // What lies ahead can be skipped to, and what is behind it gone back to.
    watcher.jump(true, None);
    same(&watcher.state, &fold(&events[..9]));
    assert_eq!(watcher.playing().at_us, u64::MAX);
    watcher.go(Control::SeekTo(shown));
    same(&watcher.state, &fold(&events[..4]));
    watcher.go(Control::SeekTo(u64::MAX - 1));
    same(&watcher.state, &fold(&events[..6]));
}

#[test]
fn a_lone_decision_far_back_is_found_from_the_end() {
    // Each kind once, early on, in different stretches between the places that are kept.
    let lone = [20, 33, 46, 60, 73];
    let kind = |seq: u64| match lone.iter().position(|at| *at == seq) {
        Some(at) => decision(KINDS[at], seq),
        None => note("n".repeat(20_000)),
    };
    let events: Vec<_> = (0..900).map(|seq| event(seq, seq, kind(seq))).collect();
    let (_folder, path) = recording(&events);
    let mut watcher = Watcher::still(&path);
    for (kind, seq) in KINDS.into_iter().zip(lone) {
        watcher.go(Control::SeekTo(u64::MAX));
        watcher.jump(false, Some(kind));
        assert_eq!(watcher.state.seq, seq, "{kind}");
    }
}
