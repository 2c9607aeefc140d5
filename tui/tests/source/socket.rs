//! A live cache by its socket: what it tells, what is seen of it beside, and how it ends.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use malloc_stats::Snapshot;
use plimsoll_events::{
    Closed, Event, Kind, Memory, Opened, Point, Publication, PublishError, Request, Sample, Stream,
    VERSION,
};
use plimsoll_tui::live::Source;
use plimsoll_tui::live::source::{
    Control, Heard, SocketSource, SourceError, SourceKind, candidates, socket_of,
};
use tempfile::TempDir;

use crate::program::Program;
use crate::{LONG, OFTEN, ended, looks, pulses, says, until};

const PUBLISH: &str = "PLIMSOLL_TEST_PUBLISH";

fn note(text: &str) -> Kind {
    Kind::Note {
        text: text.to_owned(),
    }
}

fn opened(pid: u32) -> Kind {
    Kind::Opened(Box::new(Opened {
        pid,
        program: "server".to_owned(),
        ..Opened::default()
    }))
}

fn sample() -> Kind {
    Kind::Sample(Box::new(Sample {
        point: Point::Tick,
        memory: Memory::default(),
        snapshot: Snapshot::default(),
    }))
}

fn connect(path: &Path) -> SocketSource {
    SocketSource::connect(path, OFTEN).unwrap()
}

fn begin(stream: &Stream, path: Option<PathBuf>) -> Publication {
    Publication::begin(stream, path, || vec![opened(std::process::id())]).unwrap()
}

/// A folder with room for a socket.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    (folder, path)
}

#[test]
#[ignore = "what other tests run in a process of its own"]
fn publisher() {
    let Some(path) = std::env::var_os(PUBLISH) else {
        panic!("{PUBLISH} names no socket");
    };
    let stream = Stream::silent();
    let path = (!path.is_empty()).then(|| PathBuf::from(path));
    let publication = begin(&stream, path);
    println!("\nready");
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "note" => stream.emit(note("it happened")),
            "sample" => stream.emit(sample()),
            "exit" => {
                drop(publication);
                std::process::exit(0);
            }
            _ => std::process::exit(3),
        }
    }
}

/// A process that publishes, at a path or at the default one.
fn publishing(path: Option<&Path>) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["socket::publisher", "--exact", "--ignored", "--nocapture"])
        .env(PUBLISH, path.unwrap_or(Path::new("")))
        .env_remove("XDG_RUNTIME_DIR");
    let mut program = Program::start(&mut command);
    while program.next_line() != "ready" {}
    program
}

fn tell(program: &mut Program, what: &str) {
    let input = program.0.stdin.as_mut().unwrap();
    writeln!(input, "{what}").unwrap();
}

#[test]
fn the_stream_is_heard_and_beside_it_the_process_is_looked_into() {
    let (_folder, path) = place();
    let mut server = publishing(Some(&path));
    let pid = server.pid();
    let mut source = connect(&path);
    let silent = |events: &[Event]| looks(events) > 0 && pulses(events) > 0;
    let mut events = until(&mut source, "a look and a pulse", silent);
    assert!(matches!(events[0].kind, Kind::Opened(_)));
    let about = source.about();
    assert_eq!((about.kind, about.pid), (SourceKind::Cache, Some(pid)));
    assert_eq!(about.name, format!("server:{pid}"));
    assert!(about.takes_requests && about.troubles.is_empty());
    for event in &events {
        match &event.kind {
            Kind::Look(look) => assert_eq!(look.inspection.pid, pid),
            Kind::Pulse(snapshot) => assert!(!snapshot.process.rss.is_unavailable()),
            _ => {}
        }
    }
    tell(&mut server, "note");
    tell(&mut server, "note");
    let told = |events: &[Event]| events.iter().any(|event| event.seq == 1) && pulses(events) > 0;
    let more = until(&mut source, "what happened", told);
    let before_it = events.last().unwrap();
    assert!(more.iter().all(|event| event.v == VERSION));
    // What is no part of the stream has the number of the event before, and a time after it.
    let mut place = (before_it.seq, 0);
    for event in &more {
        match event.kind {
            Kind::Pulse(_) | Kind::Look(_) => {
                assert_eq!(event.seq, place.0);
                assert!(event.at_us >= place.1);
            }
            _ => place = (event.seq, event.at_us),
        }
    }
    server.0.kill().unwrap();
    server.0.wait().unwrap();
    let ended = ended(&mut source, &mut events);
    assert!(
        ended.why.contains("signal 9") || ended.why.contains("Linux 6.15"),
        "{ended:?}"
    );
    assert!(!ended.in_order);
}

#[test]
fn no_pulse_is_taken_while_the_stream_has_samples() {
    let (_folder, path) = place();
    let stream = Stream::silent();
    let _publication = begin(&stream, Some(path.clone()));
    let interval = Duration::from_secs(20);
    let mut source = SocketSource::connect(&path, interval).unwrap();
    until(&mut source, "the greeting", |events| !events.is_empty());
    stream.emit(sample());
    let events = until(&mut source, "a sample and a look", |events| {
        looks(events) > 0
    });
    assert_eq!(pulses(&events), 0);
    source.control(Control::LookNow);
    let events = until(&mut source, "another look", |events| looks(events) > 0);
    assert_eq!((looks(&events), pulses(&events)), (1, 0));
}

#[test]
fn how_the_process_ended_is_how_the_stream_ended() {
    for (order, why) in [("exit", "exit code 0"), ("fail", "exit code 3")] {
        let (_folder, path) = place();
        let mut server = publishing(Some(&path));
        let mut source = connect(&path);
        let mut events = until(&mut source, "the greeting", |events| !events.is_empty());
        tell(&mut server, order);
        let ended = ended(&mut source, &mut events);
        assert!(ended.why.ends_with(why), "{ended:?}");
        assert_eq!(ended.in_order, order == "exit");
    }
}

#[test]
fn a_publisher_that_lives_on_has_hung_up_or_ended_its_stream() {
    for (last, why) in [
        (note("x"), "it hung up"),
        (Kind::Closed(Closed::default()), "stream"),
    ] {
        let (_folder, path) = place();
        let stream = Stream::silent();
        let publication = begin(&stream, Some(path.clone()));
        let mut source = connect(&path);
        let mut events = until(&mut source, "the greeting", |events| !events.is_empty());
        let in_order = matches!(last, Kind::Closed(_));
        stream.emit(last);
        drop(publication);
        let ended = ended(&mut source, &mut events);
        assert!(ended.why.contains(why), "{ended:?}");
        assert_eq!(ended.in_order, in_order);
        assert!(matches!(connect_error(&path), PublishError::Nobody { .. }));
    }
}

fn connect_error(path: &Path) -> PublishError {
    publish_error(SocketSource::connect(path, OFTEN).unwrap_err())
}

#[track_caller]
fn publish_error(error: SourceError) -> PublishError {
    match error {
        SourceError::Publish(error) => error,
        other => panic!("{other}"),
    }
}

/// Something that is no publication, and says `bytes` to the first who connects.
fn saying(bytes: Vec<u8>) -> (TempDir, SocketSource, JoinHandle<()>) {
    let (folder, path) = place();
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        // It hangs up as soon as it has had enough.
        let _ = client.write_all(&bytes);
    });
    let source = connect(&path);
    (folder, source, thread)
}

fn line(seq: u64, kind: Kind) -> Vec<u8> {
    let event = Event {
        v: VERSION,
        seq,
        at_us: seq,
        kind,
    };
    let mut line = serde_json::to_vec(&event).unwrap();
    line.push(b'\n');
    line
}

/// What the first error is, before any event was heard.
fn first_error(bytes: &[u8]) -> PublishError {
    let (_folder, mut source, _thread) = saying(bytes.to_vec());
    let begun = Instant::now();
    let mut events = Vec::new();
    loop {
        match source.hear(OFTEN, &mut events) {
            Err(error) => return publish_error(error),
            Ok(Heard::Events) => assert!(events.is_empty() && begun.elapsed() < LONG),
            Ok(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_makes_no_sense_from_the_beginning_is_an_error() {
    let newer = b"{\"v\":99,\"seq\":0,\"at_us\":0,\"event\":\"new\"}\n";
    assert!(matches!(
        first_error(newer),
        PublishError::Version { found: 99, .. }
    ));
    for bytes in [
        &b"HTTP/1.1 400\r\n"[..],
        b"\n",
        b"\xff\xfe\x00\n",
        b"{\"v\":1}\n",
    ] {
        assert!(matches!(
            first_error(bytes),
            PublishError::Broken { line: 1, .. }
        ));
    }
    assert!(matches!(first_error(b""), PublishError::Nobody { .. }));
    let whole = line(0, note("x"));
    let cut = first_error(&whole[..20]).to_string();
    assert!(
        cut.contains("line 1") && cut.contains("cut off after 20 bytes"),
        "{cut}"
    );
}

#[test]
fn what_makes_no_sense_later_ends_the_stream_with_its_position() {
    let good = [line(0, note("a")), line(1, note("b"))].concat();
    let (_folder, mut source, _thread) = saying([&good[..], b"nonsense\n"].concat());
    let mut events = Vec::new();
    let broken = ended(&mut source, &mut events);
    assert!(says(&events, "a") && says(&events, "b"));
    assert!(broken.why.contains("line 3: not an event"), "{broken:?}");
    assert!(!broken.in_order);

    let cut = &good[..good.len() - 5];
    let (_folder, mut source, _thread) = saying(cut.to_vec());
    let mut events = Vec::new();
    let cut = ended(&mut source, &mut events);
    assert!(says(&events, "a") && !says(&events, "b"));
    assert!(cut.why.contains("in the middle of a line"), "{cut:?}");
}

#[test]
fn what_is_no_live_socket_is_said() {
    let (folder, path) = place();
    assert!(matches!(connect_error(&path), PublishError::Nobody { .. }));
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(connect_error(&path), PublishError::Nobody { .. }));
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(
        connect_error(&file),
        PublishError::NotASocket { .. }
    ));
}

#[test]
fn a_stream_of_another_process_than_the_one_that_sends_it_is_not_looked_into() {
    let hello = [line(0, opened(1)), line(1, note("x"))].concat();
    let (_folder, mut source, _thread) = saying(hello);
    let mut events = Vec::new();
    ended(&mut source, &mut events);
    let about = source.about();
    assert_eq!(about.pid, Some(1));
    let through = format!("comes through {}", std::process::id());
    assert!(
        about.troubles.iter().any(|said| said.contains(&through)),
        "{about:?}"
    );
    assert_eq!((looks(&events), pulses(&events)), (0, 0));
}

#[test]
fn a_stream_whose_numbers_and_times_are_absurd_is_heard_to_its_end() {
    let absurd = |seq| line(seq, note("x")).repeat(2);
    let hello = line(u64::MAX, opened(std::process::id()));
    let (_folder, mut source, _thread) = saying([hello, absurd(u64::MAX), absurd(0)].concat());
    let mut events = Vec::new();
    let begun = Instant::now();
    while !matches!(source.hear(OFTEN, &mut events).unwrap(), Heard::Ended(_)) {
        assert!(begun.elapsed() < LONG);
    }
    let stream = events
        .iter()
        .filter(|event| matches!(event.kind, Kind::Note { .. }));
    assert_eq!(stream.count(), 4);
}

#[test]
fn a_flood_arrives_whole_in_batches() {
    const EVENTS: u64 = 50_000;
    let text = "x".repeat(200);
    let flood = (0..EVENTS).flat_map(|seq| line(seq, note(&text))).collect();
    let (_folder, mut source, _thread) = saying(flood);
    let begun = Instant::now();
    let (mut next, mut batch) = (0, Vec::new());
    loop {
        assert!(begun.elapsed() < 4 * LONG);
        let heard = source.hear(OFTEN, &mut batch).unwrap();
        assert!(batch.len() <= 2000);
        for event in batch.drain(..) {
            assert_eq!(event.seq, next);
            next += 1;
        }
        if matches!(heard, Heard::Ended(_)) {
            break;
        }
    }
    assert_eq!(next, EVENTS);
}

#[test]
fn a_request_that_cannot_be_granted_is_answered() {
    let (_folder, path) = place();
    let stream = Stream::silent();
    let _publication = begin(&stream, Some(path.clone()));
    let mut source = connect(&path);
    until(&mut source, "the greeting", |events| !events.is_empty());
    source.control(Control::Request {
        id: 42,
        request: Request::Trim,
    });
    let refused = |event: &Event| match &event.kind {
        Kind::Answer(answer) => answer.id == 42 && answer.refused && !answer.said.is_empty(),
        _ => false,
    };
    until(&mut source, "the answer", |events| {
        events.iter().any(refused)
    });
}

#[test]
fn what_publishes_is_offered_first_and_found_by_its_number() {
    let mut server = publishing(None);
    let pid = server.pid();
    let socket = socket_of(pid).unwrap();
    assert!(socket.ends_with(format!("{pid}.sock")), "{socket:?}");
    let found = candidates();
    let at = found.iter().position(|it| it.pid == pid).unwrap();
    assert!(
        found[..=at].iter().all(|it| it.socket.is_some()),
        "{found:?}"
    );
    assert_eq!(found.iter().filter(|it| it.pid == pid).count(), 1);
    assert_eq!(found[at].socket.as_deref(), Some(&*socket));
    assert!(!found[at].name.is_empty() && !found[at].rss.is_unavailable());
    let mut source = connect(&socket);
    let mut events = until(&mut source, "the greeting", |events| !events.is_empty());
    tell(&mut server, "exit");
    assert!(ended(&mut source, &mut events).in_order);
    assert_eq!(socket_of(pid), None);
}
