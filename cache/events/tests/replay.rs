//! Reading a recording that is not as it should be, from any place, and while it grows.

#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use plimsoll_events::{Event, Kind, ReadError, Recorder, Replay, Sink, VERSION};
use tempfile::TempDir;

fn line(seq: u64) -> String {
    format!(
        "{{\"v\":2,\"seq\":{seq},\"at_us\":{},\"event\":\"note\",\"text\":\"t\"}}\n",
        seq * 10
    )
}

fn file(content: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

fn seq(replay: &mut Replay) -> Option<u64> {
    replay.next_event().unwrap().map(|event| event.seq)
}

/// The line that is broken, and why.
fn broken(replay: &mut Replay) -> (u64, String) {
    match replay.next_event() {
        Err(ReadError::Broken { line, reason, .. }) => (line, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pulse_keeps_its_own_time_and_the_events() {
    let mut pulse = Event {
        v: VERSION,
        seq: 7,
        at_us: 1_000,
        kind: Kind::Pulse(Box::default()),
    };
    if let Kind::Pulse(snapshot) = &mut pulse.kind {
        snapshot.at_us = 5;
    }
    let mut line = serde_json::to_vec(&pulse).unwrap();
    line.push(b'\n');
    let (_folder, path) = file(&line);
    let mut replay = Replay::open(&path).unwrap();
    assert_eq!(replay.next_event().unwrap(), Some(pulse));
}

#[test]
fn after_a_broken_line_it_goes_on_with_the_next() {
    let newer = line(3).replace("\"v\":2", "\"v\":99");
    let unread = line(4).replace("\"v\":2", "\"v\":99999999999");
    let content = [
        &line(1),
        "no event\n",
        "\n",
        "{\"v\":2}\n",
        &newer,
        &unread,
        &line(5),
    ]
    .concat();
    let (_folder, path) = file(content.as_bytes());
    let mut replay = Replay::open(&path).unwrap();
    assert_eq!(seq(&mut replay), Some(1));
    for number in 2..=4 {
        assert_eq!(broken(&mut replay).0, number);
    }
    for (number, version) in [(5, 99), (6, 99_999_999_999)] {
        match replay.next_event() {
            Err(ReadError::Version { line, found, .. }) => {
                assert_eq!((line, found), (number, version));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seq(&mut replay), Some(5));
    assert_eq!(seq(&mut replay), None);
    assert_eq!((replay.lines(), replay.offset()), (7, content.len() as u64));
    assert_eq!(replay.cut_off(), None);
}

#[test]
fn a_line_that_is_too_long_is_one_line_however_long() {
    let (_folder, path) = file(line(1).as_bytes());
    // 40 MiB without an end of line, which take no room on the disk.
    let long = 40 << 20;
    let before = line(1).len() as u64;
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(before + long)
        .unwrap();
    append(&path, format!("\n{}", line(2)).as_bytes());
    let mut replay = Replay::open(&path).unwrap();
    assert_eq!(seq(&mut replay), Some(1));
    for _ in 0..2 {
        let (number, reason) = broken(&mut replay);
        assert_eq!((number, &*reason), (2, "longer than 16777216 bytes"));
        assert_eq!(replay.offset(), before);
    }
    assert_eq!(seq(&mut replay), Some(2));
    assert_eq!(replay.lines(), 3);
    assert_eq!(replay.offset(), before + long + 1 + line(2).len() as u64);
    assert_eq!(seq(&mut replay), None);
}

#[test]
fn a_file_that_grows_is_read_on_also_from_within_a_line() {
    let (_folder, path) = file(line(1).as_bytes());
    let mut replay = Replay::open(&path).unwrap();
    assert_eq!(seq(&mut replay), Some(1));
    assert_eq!(seq(&mut replay), None);
    let next = line(2);
    let (head, tail) = next.split_at(20);
    append(&path, head.as_bytes());
    for _ in 0..2 {
        assert_eq!(seq(&mut replay), None);
        assert_eq!(replay.cut_off(), Some(20));
    }
    append(&path, tail.as_bytes());
    assert_eq!(seq(&mut replay), Some(2));
    assert_eq!(replay.cut_off(), None);
    assert_eq!(seq(&mut replay), None);
    assert_eq!(replay.size().unwrap(), replay.offset());
}

#[test]
fn any_place_that_was_told_can_be_gone_back_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let recorder = Recorder::create(&path).unwrap();
    for seq in 0..500 {
        let text = "x".repeat(usize::try_from(seq).unwrap() * 7 % 3000);
        let kind = Kind::Note { text };
        recorder.event(&Event {
            v: 2,
            seq,
            at_us: seq,
            kind,
        });
    }
    append(&path, b"{\"v\":2");
    let mut replay = Replay::open(&path).unwrap();
    let mut places = Vec::new();
    while let Some(event) = {
        places.push((replay.offset(), replay.lines()));
        replay.next_event().unwrap()
    } {
        assert_eq!(event.seq, replay.lines() - 1);
    }
    assert_eq!(replay.cut_off(), Some(6));
    for at in (0..500).rev().step_by(37) {
        let (offset, lines) = places[at];
        replay.go_to(offset, lines).unwrap();
        assert_eq!(replay.cut_off(), None);
        assert_eq!(seq(&mut replay), Some(at as u64));
        assert_eq!(replay.lines(), lines + 1);
    }
    assert_eq!(replay.last_at_us().unwrap(), Some(499));
}

#[test]
fn the_time_of_the_end_is_that_of_the_last_line_that_has_one() {
    let last = |content: &[u8]| {
        let (_folder, path) = file(content);
        Replay::open(&path).unwrap().last_at_us().unwrap()
    };
    assert_eq!(last(b""), None);
    assert_eq!(last(b"no time\n"), None);
    assert_eq!(last(line(1).trim_end().as_bytes()), None, "not whole");
    assert_eq!(last([line(1), line(2)].concat().as_bytes()), Some(20));
    assert_eq!(
        last([&line(1), "}{\n", &line(9)[..30]].concat().as_bytes()),
        Some(10)
    );
    // Further from the end than what is read at first.
    let junk = format!("{}\n", "x".repeat(300_000));
    assert_eq!(
        last([&*line(7), &*junk, &*junk].concat().as_bytes()),
        Some(70)
    );
}

#[test]
fn a_reason_does_not_repeat_megabytes_of_the_line() {
    let long = "n".repeat(1 << 20);
    let bad = format!(
        "{{\"v\":2,\"seq\":1,\"at_us\":1,\"event\":\"refuse\",\"models\":[],\"tier\":\"ram\",\
         \"reason\":\"{long}\",\"asked_bytes\":1,\"budget_bytes\":1,\"pinned_bytes\":1}}\n"
    );
    let (_folder, path) = file(bad.as_bytes());
    let (_, reason) = broken(&mut Replay::open(&path).unwrap());
    assert!(reason.starts_with("unknown variant"), "{reason}");
    assert!(reason.len() < 400, "{} bytes", reason.len());
}

#[test]
fn a_pipe_cannot_be_gone_back_in() {
    let (read, write) = std::io::pipe().unwrap();
    (&write).write_all(line(1).as_bytes()).unwrap();
    drop(write);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&read);
    let mut replay = Replay::open(Path::new(&format!("/proc/self/fd/{fd}"))).unwrap();
    assert_eq!(seq(&mut replay), Some(1));
    let error = replay.go_to(0, 0).unwrap_err().to_string();
    assert!(error.contains("Illegal seek"), "{error}");
    assert_eq!(seq(&mut replay), None);
}
