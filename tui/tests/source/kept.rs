//! What is recorded while it is heard: all of it, and how it ended.

use plimsoll_events::{Event, Kind, Replay};
use plimsoll_tui::live::source::recording::{Options, RecordingSource};
use plimsoll_tui::live::source::{ProcessSource, Recorded};

use crate::program::Program;
use crate::{OFTEN, ended, pulses, until};

fn lines(path: &std::path::Path) -> Vec<Event> {
    let mut replay = Replay::open(path).unwrap();
    std::iter::from_fn(|| replay.next_event().unwrap()).collect()
}

#[test]
fn how_a_process_ended_is_in_its_recording() {
    for (script, in_order) in [("read line", true), ("read line; kill -SEGV $$", false)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        let mut program = Program::shell(script);
        let source = ProcessSource::open(program.pid(), OFTEN).unwrap();
        let mut source = Recorded::begin(Box::new(source), &path).unwrap();
        let mut events = until(&mut source, "a pulse", |events| pulses(events) > 0);
        program.go_on();
        let ended = ended(&mut source, &mut events);
        drop(source);
        let lines = lines(&path);
        let (told, after) = lines.split_at(events.len());
        assert_eq!(told.len(), events.len());
        assert_eq!(after[0].kind, Kind::Note { text: ended.why });
        let closed = after
            .iter()
            .any(|line| matches!(line.kind, Kind::Closed(_)));
        assert_eq!((closed, after.len()), (in_order, 1 + usize::from(in_order)));
    }
}

#[test]
fn a_recording_that_is_ended_before_what_it_is_of_has_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let program = Program::shell("read line");
    let source = ProcessSource::open(program.pid(), OFTEN).unwrap();
    let mut source = Recorded::begin(Box::new(source), &path).unwrap();
    until(&mut source, "a pulse", |events| pulses(events) > 0);
    drop(source);
    let last = lines(&path).pop().unwrap();
    assert!(matches!(last.kind, Kind::Closed(_)), "{last:?}");
}

#[test]
fn a_recording_is_not_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.jsonl");
    let line = br#"{"v":2,"seq":0,"at_us":0,"event":"note","text":"x"}"#;
    std::fs::write(&path, [line, &b"\n"[..]].concat()).unwrap();
    let source = RecordingSource::open(&path, Options::default()).unwrap();
    let copy = folder.path().join("copy.jsonl");
    let Err(error) = Recorded::begin(Box::new(source), &copy) else {
        panic!("it is recorded");
    };
    let said = error.to_string();
    assert!(
        said.contains("copy.jsonl") && said.contains("a recording already"),
        "{said}"
    );
    assert!(!copy.exists());
}
