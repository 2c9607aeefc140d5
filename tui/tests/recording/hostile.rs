//! Files that are no recordings, or not whole ones.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use plimsoll_events::ReadError;
use plimsoll_tui::live::source::recording::{Options, RecordingSource};
use plimsoll_tui::live::source::{Control, SourceError};

use crate::take::{Watcher, append, event, file, fold, line, many, note, recording, same};

#[track_caller]
fn refused(path: &Path) -> ReadError {
    match RecordingSource::open(path, Options::default()) {
        Err(SourceError::Read(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

/// A line, and one of a later version.
fn lines() -> (String, String) {
    let good = line(&event(0, 1, note("fine".into())));
    let newer = good.replace("\"v\":2", "\"v\":77");
    (good, newer)
}

#[test]
fn what_is_no_recording_is_said_to_be_none() {
    let (good, newer) = lines();
    for content in [&b""[..], b"no end of line", good.trim_end().as_bytes()] {
        let (_folder, path) = file(content);
        let error = refused(&path);
        let is = matches!(&error, ReadError::Empty { bytes, .. } if *bytes == content.len() as u64);
        assert!(is, "{error}");
    }
    for content in [
        &b"hello\nworld\n"[..],
        b"\n\n\n",
        b"\xff\xfe\0\x01\n",
        b"{}\n",
        b"[[[[\n",
    ] {
        let (_folder, path) = file(content);
        let error = refused(&path);
        assert!(
            matches!(error, ReadError::Broken { line: 1, .. }),
            "{error}"
        );
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }
    let (_folder, path) = file(newer.as_bytes());
    let error = refused(&path);
    assert!(
        matches!(
            error,
            ReadError::Version {
                line: 1,
                found: 77,
                ..
            }
        ),
        "{error}"
    );
    let folder = tempfile::tempdir().unwrap();
    assert!(refused(folder.path()).to_string().contains("directory"));
    let none = folder.path().join("none");
    assert!(refused(&none).to_string().contains("No such file"));
}

#[test]
fn what_cannot_be_gone_back_in_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    let mode = rustix::fs::Mode::from(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    for path in [&*fifo, Path::new("/dev/zero"), Path::new("/dev/null")] {
        let error = refused(path).to_string();
        assert!(error.contains("not a regular file"), "{error}");
        assert!(error.contains("copy it to a file first"), "{error}");
    }
}

#[test]
fn a_file_of_nothing_but_zeros_is_given_up_soon() {
    let (_folder, path) = file(b"");
    // It takes no room on the disk. Reading it all would take minutes.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let error = refused(&path);
    assert!(
        matches!(error, ReadError::Broken { line: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_few_broken_lines_at_the_start_are_left_out_and_many_are_no_recording() {
    let (good, newer) = lines();
    let (_folder, path) = file(["junk\n".repeat(63), good.clone()].concat().as_bytes());
    let watcher = Watcher::still(&path);
    assert_eq!(watcher.state.sums.events, 1);
    assert_eq!(watcher.about().troubles.len(), 63);
    let (_folder, path) = file(["junk\n".repeat(64), good.clone()].concat().as_bytes());
    assert!(matches!(refused(&path), ReadError::Broken { line: 1, .. }));
    let (_folder, path) = file(["junk\n", &newer, &good].concat().as_bytes());
    assert!(matches!(refused(&path), ReadError::Version { line: 2, .. }));
}

#[test]
fn broken_lines_are_named_once_and_the_rest_is_shown() {
    let events = many(3000);
    let (good, newer) = lines();
    let mut content = String::new();
    for event in &events {
        content.push_str(&line(event));
        match event.seq {
            1000 => content.push_str("}{\n"),
            1500 => content.push_str(&newer),
            2000 => content.push_str(&format!("{}\n", "x".repeat(17 << 20))),
            _ => {}
        }
    }
    content.push_str(&good[..25]);
    let (_folder, path) = file(content.as_bytes());
    let mut watcher = Watcher::still(&path);
    for _ in 0..2 {
        watcher.go(Control::SeekTo(u64::MAX));
        same(&watcher.state, &fold(&events));
        let troubles = watcher.about().troubles;
        let [first, second, third, last] = &troubles[..] else {
            panic!("{troubles:?}");
        };
        assert!(
            first.starts_with("line 1002 is left out: not an event: "),
            "{first}"
        );
        assert!(
            second.starts_with("line 1503 is left out: version 77"),
            "{second}"
        );
        assert!(
            third.starts_with("line 2004 is left out: not an event: longer"),
            "{third}"
        );
        assert_eq!(
            last,
            "cut off at the end: 25 bytes of a line without its end"
        );
        for at in [1000, 1001, 2001, 1999, 2500, 0] {
            watcher.go(Control::SeekTo(at * 1000));
            same(
                &watcher.state,
                &fold(&events[..=usize::try_from(at).unwrap()]),
            );
        }
        // Decisions on both sides of a broken line are found across it.
        watcher.go(Control::SeekTo(2_010_000));
        watcher.jump(false, None);
        assert_eq!(watcher.state.seq, 1950);
        watcher.jump(true, None);
        assert_eq!(watcher.state.seq, 2050);
    }
}

#[test]
fn of_very_many_broken_lines_some_are_named_and_all_counted() {
    let (good, _) = lines();
    let end = line(&event(1, 2, note("end".into())));
    let content = [&*good, &"\u{1b}[31m\n".repeat(20_000), &end].concat();
    let (_folder, path) = file(content.as_bytes());
    let mut watcher = Watcher::still(&path);
    let calls = watcher.go(Control::SeekTo(u64::MAX));
    assert!(calls >= 4, "broken lines are no reason to take long either");
    assert_eq!(watcher.state.seq, 1);
    let troubles = watcher.about().troubles;
    assert_eq!(troubles.len(), 101);
    assert_eq!(troubles[100], "19900 more lines are left out");
}

#[test]
fn a_name_that_is_no_text_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(OsStr::from_bytes(b"r\xff\x1b[2J.jsonl"));
    let (good, _) = lines();
    std::fs::write(&path, good).unwrap();
    let watcher = Watcher::still(&path);
    assert_eq!(watcher.state.sums.events, 1);
    assert!(watcher.about().name.contains('\u{fffd}'));
    std::fs::write(&path, "junk\n").unwrap();
    assert!(matches!(refused(&path), ReadError::Broken { .. }));
}

#[test]
fn an_event_of_a_kind_from_the_future_is_passed_over() {
    let events = many(100);
    let (_folder, path) = recording(&events);
    let future = "{\"v\":2,\"seq\":100,\"at_us\":100000,\"event\":\"telepathy\",\"of\":[1]}\n";
    append(&path, future.as_bytes());
    let mut watcher = Watcher::still(&path);
    watcher.go(Control::SeekTo(u64::MAX));
    assert_eq!(watcher.state.seq, 100);
    assert_eq!(watcher.about().troubles, [""; 0]);
    watcher.watch(Duration::from_secs(4));
    assert!(!watcher.ended.unwrap().in_order);
}
