//! Any process: its pulse, looks, other programs, its end.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use malloc_stats::inspect::TargetError;
use plimsoll_events::{Event, Kind, VERSION};
use plimsoll_tui::live::Source;
use plimsoll_tui::live::source::{Control, Heard, ProcessSource, SourceError, SourceKind};

use crate::program::Program;
use crate::{LONG, OFTEN, ended, looks, pulses, says, until};

fn open(pid: u32) -> ProcessSource {
    ProcessSource::open(pid, OFTEN).unwrap()
}

#[test]
fn the_stream_opens_with_the_process_and_goes_on_with_pulses_and_looks() {
    let mut program = Program::start(Command::new("sleep").arg("600"));
    let pid = program.pid();
    let mut source = open(pid);
    let about = source.about();
    assert_eq!(about.name, format!("sleep:{pid}"));
    assert_eq!((about.kind, about.pid), (SourceKind::Process, Some(pid)));
    assert!(!about.takes_requests);
    let enough = |events: &[Event]| pulses(events) >= 3 && looks(events) >= 1;
    let mut events = until(&mut source, "pulses and a look", enough);
    match &events[0].kind {
        Kind::Opened(opened) => {
            assert_eq!((opened.pid, opened.program.as_str()), (pid, "sleep"));
            assert_eq!(opened.allocator_name, "");
            assert!(opened.unix_ms > 1_500_000_000_000);
        }
        other => panic!("{other:?}"),
    }
    assert!(
        events
            .iter()
            .map(|event| event.seq)
            .eq(0..events.len() as u64)
    );
    assert!(events.is_sorted_by_key(|event| event.at_us));
    for event in &events {
        assert_eq!(event.v, VERSION);
        match &event.kind {
            Kind::Pulse(snapshot) => {
                assert!(snapshot.process.rss.bytes().unwrap() > 0);
                assert!(snapshot.limits.is_some() && snapshot.host.is_some());
            }
            Kind::Look(look) => {
                assert_eq!(look.inspection.pid, pid);
            }
            Kind::Opened(_) => {}
            other => panic!("{other:?}"),
        }
    }
    program.0.kill().unwrap();
    program.0.wait().unwrap();
    let ended = ended(&mut source, &mut events);
    assert!(!ended.in_order);
    assert!(
        ended.why.contains("ended") || ended.why.contains("signal 9"),
        "{ended:?}"
    );
    // It stays so.
    assert!(matches!(source.hear(OFTEN, &mut events), Ok(Heard::Ended(same)) if same == ended));
}

#[test]
fn pulses_keep_their_distance_and_hearing_does_not_wait_longer_than_asked() {
    let program = Program::shell("read line");
    let mut source = ProcessSource::open(program.pid(), LONG).unwrap();
    let mut events = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < 4 * OFTEN {
        source.hear(OFTEN / 10, &mut events).unwrap();
    }
    assert_eq!(pulses(&events), 1, "the next is due in a minute");
    assert!(looks(&events) <= 1);
    let shorter = ProcessSource::open(program.pid(), Duration::ZERO);
    let mut shorter = shorter.unwrap();
    let five = until(&mut shorter, "five pulses", |events| pulses(events) >= 5);
    let at: Vec<u64> = five
        .iter()
        .filter(|event| matches!(event.kind, Kind::Pulse(_)))
        .map(|event| event.at_us)
        .collect();
    let least = u64::try_from(OFTEN.as_micros()).unwrap();
    assert!(
        at.windows(2)
            .all(|pair| pair[1] - pair[0] >= least * 9 / 10),
        "{at:?}"
    );
}

#[test]
fn an_exit_in_order_is_told_from_others() {
    for code in [0, 7] {
        let mut program = Program::shell(&format!("read line; exit {code}"));
        let mut source = open(program.pid());
        let mut events = until(&mut source, "a pulse", |events| pulses(events) > 0);
        program.go_on();
        // Nobody waits for it yet: that is read of a zombie, by every kernel.
        let ended = ended(&mut source, &mut events);
        assert_eq!(ended.why, format!("ended with exit code {code}"));
        assert_eq!(ended.in_order, code == 0);
    }
}

#[test]
fn a_killed_process_is_told_with_the_signal() {
    let mut program = Program::shell("read line; kill -SEGV $$");
    let mut source = open(program.pid());
    let mut events = Vec::new();
    program.go_on();
    let ended = ended(&mut source, &mut events);
    assert!(
        ended.why.starts_with("killed by signal 11 (SIGSEGV)"),
        "{ended:?}"
    );
    assert!(!ended.in_order);
    assert_eq!(program.0.wait().unwrap().signal(), Some(11));
}

#[test]
fn another_program_in_the_same_process_is_gone_on_with() {
    let mut program = Program::shell("read line; exec sleep 600");
    let mut source = open(program.pid());
    until(&mut source, "a look", |events| looks(events) > 0);
    program.go_on();
    let events = until(&mut source, "a look into the other", |events| {
        let of_it = |event: &Event| match &event.kind {
            Kind::Look(look) => look.inspection.process.command == "sleep",
            _ => false,
        };
        says(events, "it runs another program now: sleep") && events.iter().any(of_it)
    });
    assert!(pulses(&events) > 0);
    assert_eq!(source.about().name, format!("sleep:{}", program.pid()));
}

#[test]
fn a_look_is_had_when_it_is_asked_for() {
    let program = Program::shell("read line");
    // By itself it looks once a minute at most.
    let mut source = ProcessSource::open(program.pid(), LONG).unwrap();
    until(&mut source, "the first look", |events| looks(events) == 1);
    for _ in 0..3 {
        source.control(Control::LookNow);
        let events = until(&mut source, "another look", |events| looks(events) > 0);
        assert_eq!(looks(&events), 1);
    }
}

#[test]
fn chunks_that_are_asked_for_are_answered() {
    let program = Program::shell("read line");
    let mut source = open(program.pid());
    source.control(Control::Chunks {
        arena: 0,
        from: 0,
        to: u64::MAX,
    });
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LONG, "no answer");
        let mut events = Vec::new();
        match source.hear(OFTEN, &mut events).unwrap() {
            Heard::Chunks(_) => break,
            Heard::Events => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn where_there_is_nothing_to_look_at_that_is_the_error() {
    let mut program = Program::shell("exit 0");
    program.0.wait().unwrap();
    match ProcessSource::open(program.pid(), OFTEN).unwrap_err() {
        SourceError::Target(TargetError::NoSuchProcess { pid }) => assert_eq!(pid, program.pid()),
        other => panic!("{other}"),
    }
}

#[test]
fn a_dropped_source_leaves_no_thread() {
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
        let names = tasks.flatten().filter_map(|task| name(task).ok());
        names.filter(|name| name == "plimsoll-look\n").count()
    };
    let program = Program::shell("read line");
    // Others run beside this test, but never so many.
    let many: Vec<_> = (0..40).map(|_| open(program.pid())).collect();
    let begun = Instant::now();
    while threads() < 40 {
        assert!(begun.elapsed() < LONG);
    }
    drop(many);
    while threads() >= 20 {
        assert!(begun.elapsed() < LONG, "{} threads are left", threads());
        std::thread::sleep(OFTEN / 10);
    }
}
