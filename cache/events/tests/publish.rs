//! Publications, over real sockets: what clients are told, and that none of them is waited for.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plimsoll_events::{
    Event, Follow, Heard, Kind, Publication, PublishError, Stream, VERSION, connect,
};
use tempfile::TempDir;

/// Longer than anything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(30);

fn note(text: impl ToString) -> Kind {
    Kind::Note {
        text: text.to_string(),
    }
}

struct Published {
    stream: Stream,
    publication: Publication,
    path: PathBuf,
    _folder: TempDir,
}

fn publish(greet: impl Fn() -> Vec<Kind> + Send + Sync + 'static) -> Published {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let stream = Stream::silent();
    let publication = Publication::begin(&stream, Some(path.clone()), greet).unwrap();
    assert_eq!(publication.path(), path);
    Published {
        stream,
        publication,
        path,
        _folder: folder,
    }
}

/// Connects, and takes a greeting of one line: from then on events are heard.
fn greeted(path: &Path) -> Follow {
    let mut follow = connect(path).unwrap();
    heard(&mut follow);
    follow
}

/// Connects without a follower; what would hang fails instead.
fn raw(path: &Path) -> UnixStream {
    let socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.set_write_timeout(Some(LONG)).unwrap();
    socket
}

fn heard(follow: &mut Follow) -> Event {
    match follow.next_within(LONG).unwrap() {
        Heard::Event(event) => *event,
        other => panic!("{other:?} instead of an event"),
    }
}

fn text(event: &Event) -> &str {
    match &event.kind {
        Kind::Note { text } => text,
        other => panic!("{other:?} is no note"),
    }
}

fn numbered(follow: &mut Follow) -> (u64, String) {
    let event = heard(follow);
    assert_eq!(event.v, VERSION);
    (event.seq, text(&event).to_owned())
}

#[test]
fn a_late_joiner_is_greeted_and_hears_what_follows_until_the_end() {
    let Published {
        stream,
        publication,
        path,
        _folder,
    } = publish(|| vec![note("state"), note("more state")]);
    assert!(!stream.is_heard(), "nobody has connected");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    let mut early = connect(&path).unwrap();
    assert_eq!(numbered(&mut early), (0, "state".to_owned()));
    assert_eq!(numbered(&mut early), (0, "more state".to_owned()));
    let nothing = early.next_within(Duration::from_millis(1)).unwrap();
    assert_eq!(nothing, Heard::Nothing);
    stream.emit(note("a"));
    stream.emit(note("b"));
    assert_eq!(numbered(&mut early), (0, "a".to_owned()));
    assert_eq!(numbered(&mut early), (1, "b".to_owned()));

    let mut late = connect(&path).unwrap();
    assert_eq!(numbered(&mut late), (1, "state".to_owned()));
    assert_eq!(numbered(&mut late), (1, "more state".to_owned()));
    stream.emit(note("c"));
    drop(publication);
    assert!(!path.exists());
    for mut follow in [early, late] {
        let rest: Vec<Event> = follow.by_ref().map(Result::unwrap).collect();
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert_eq!((rest[0].seq, text(&rest[0])), (2, "c"));
        assert!(follow.next_event().unwrap().is_none());
    }
    assert!(!stream.is_heard());
    assert!(matches!(connect(&path), Err(PublishError::Nobody { .. })));
}

#[test]
fn nothing_falls_between_the_greeting_and_the_events() {
    let stream = Stream::silent();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let teller = stream.clone();
    let _publication = Publication::begin(&stream, Some(path.clone()), move || {
        teller.emit(note("while the greeting is made"));
        vec![note("state")]
    })
    .unwrap();
    let mut follow = connect(&path).unwrap();
    assert_eq!(numbered(&mut follow).1, "state");
    let live = (0, "while the greeting is made".to_owned());
    assert_eq!(numbered(&mut follow), live);
}

#[test]
fn the_end_of_the_stream_closes_clients_though_the_publication_lives() {
    let Published {
        stream,
        publication: _publication,
        path,
        _folder,
    } = publish(|| vec![note("state")]);
    let mut follow = greeted(&path);
    stream.emit(note("last"));
    drop(stream);
    assert_eq!(numbered(&mut follow).1, "last");
    assert_eq!(follow.next_within(LONG).unwrap(), Heard::Closed);
}

#[test]
fn a_greeting_that_panics_is_a_note_and_events_follow() {
    let published = publish(|| panic!("no state"));
    let mut follow = connect(&published.path).unwrap();
    assert!(numbered(&mut follow).1.contains("no state"));
    published.stream.emit(note("a"));
    assert_eq!(numbered(&mut follow).1, "a");
}

#[test]
fn a_client_that_does_not_read_loses_events_alone_is_told_how_many_and_is_disconnected() {
    const EVENTS: u64 = 2000;
    let published = publish(|| vec![note("state")]);
    let mut reads = greeted(&published.path);
    let mut late = greeted(&published.path);
    let mut never = raw(&published.path);
    never.read_exact(&mut [0; 1]).unwrap();
    for seq in 0..EVENTS {
        published.stream.emit(note("x".repeat(4096)));
        // One that keeps up loses nothing, whatever others do.
        if seq % 500 == 499 {
            (seq - 499..=seq).for_each(|seq| assert_eq!(heard(&mut reads).seq, seq));
        }
    }
    let (mut next, mut lost, mut gaps) = (0, 0, 0);
    while next < EVENTS {
        let event = heard(&mut late);
        match text(&event).split_once(" events were dropped") {
            Some((count, _)) => {
                let count: u64 = count.parse().unwrap();
                assert_eq!(event.seq, next - 1, "a note repeats the number before it");
                lost += count;
                next += count;
                gaps += 1;
            }
            None => {
                assert_eq!(event.seq, next);
                next += 1;
            }
        }
    }
    assert!(gaps > 0 && lost > 0 && lost < EVENTS, "{lost} in {gaps}");
    // Only that the server hung up ends this, and no read helped it on.
    let begun = Instant::now();
    while never.write_all(b"?").is_ok() {
        assert!(begun.elapsed() < LONG, "it is never disconnected");
        std::thread::sleep(Duration::from_millis(50));
    }
    published.stream.emit(note("still"));
    assert_eq!(numbered(&mut reads).1, "still");
    assert_eq!(numbered(&mut late).1, "still");
}

#[test]
fn a_client_may_stop_writing_and_is_told_what_follows_to_the_end() {
    let published = publish(|| vec![note("state")]);
    let mut client = raw(&published.path);
    client.shutdown(Shutdown::Write).unwrap();
    let mut other = greeted(&published.path);
    published.stream.emit(note("live"));
    assert_eq!(numbered(&mut other).1, "live");
    drop(published.publication);
    let mut told = String::new();
    client.read_to_string(&mut told).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].contains("state") && lines[1].contains("live"));
}

#[test]
fn what_was_told_before_the_end_is_sent_to_who_reads_and_who_does_not_read_delays_it_little() {
    let published = publish(|| vec![note("state")]);
    let mut reads = greeted(&published.path);
    let _never = greeted(&published.path);
    for _ in 0..500 {
        published.stream.emit(note("x".repeat(8192)));
    }
    let Published { publication, .. } = published;
    std::thread::scope(|scope| {
        scope.spawn(|| drop(publication));
        let rest = reads.by_ref().map(|event| event.unwrap().seq);
        assert!(rest.eq(0..500));
    });
}

#[test]
fn sixteen_are_served_the_next_is_told_and_a_free_place_is_taken() {
    let published = publish(|| vec![note("state")]);
    let mut all: Vec<Follow> = (0..16).map(|_| greeted(&published.path)).collect();
    let mut refused = connect(&published.path).unwrap();
    assert!(numbered(&mut refused).1.starts_with("16 readers"));
    assert_eq!(refused.next_within(LONG).unwrap(), Heard::Closed);
    published.stream.emit(note("to all"));
    for follow in &mut all {
        assert_eq!(numbered(follow).1, "to all");
    }
    all.pop();
    // The place is free once the server has seen the end of the connection.
    let greeting = || numbered(&mut connect(&published.path).unwrap()).1;
    while greeting() != "state" {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn another_user_is_not_served_though_the_mode_would_let_it_in() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can be another user");
        return;
    }
    let published = publish(|| vec![note("state")]);
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(published.path.parent().unwrap(), 0o755);
    open(&published.path, 0o666);
    let told = std::thread::spawn({
        let path = published.path.clone();
        move || {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
            let mut told = Vec::new();
            let mut client = raw(&path);
            client.read_to_end(&mut told).unwrap();
            told
        }
    });
    assert_eq!(told.join().unwrap(), b"");
    greeted(&published.path);
}

/// What a follower makes of bytes, sent by something that is no publication.
fn followed(bytes: &[u8]) -> Vec<Result<u64, String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It hangs up as soon as it has had enough.
            let _ = listener.accept().unwrap().0.write_all(bytes);
        });
        let follow = connect(&path).unwrap();
        follow
            .map(|event| match event {
                Ok(event) => Ok(event.seq),
                Err(error) => Err(error.to_string().replace(path.to_str().unwrap(), "PATH")),
            })
            .collect()
    })
}

#[test]
fn a_follower_takes_whole_lines_and_ends_at_the_first_bad_one() {
    let line = |v: u64, seq| format!("{{\"v\":{v},\"seq\":{seq},\"at_us\":0,\"event\":\"new\"}}\n");
    let good = line(1, 7) + &line(1, 8);
    assert_eq!(followed(b""), []);
    assert_eq!(followed(good.as_bytes()), [Ok(7), Ok(8)]);
    let cut_off = &good.as_bytes()[..good.len() - 1];
    assert_eq!(followed(cut_off), [Ok(7)]);
    for (bad, says) in [
        ("HTTP/1.1 400\n".to_owned(), "PATH, line 3: not an event"),
        (line(99, 9), "PATH: version 99 of the stream"),
        ("\n".to_owned(), "PATH, line 3: not an event"),
    ] {
        let all = followed((good.clone() + &bad + &good).as_bytes());
        assert_eq!(all[..2], [Ok(7), Ok(8)]);
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(all[2].as_ref().unwrap_err().starts_with(says), "{all:?}");
    }
    let endless = followed(&vec![b'['; 40 << 20]);
    assert_eq!(endless.len(), 1);
    assert!(endless[0].as_ref().unwrap_err().contains("longer than"));
}

#[test]
fn events_larger_than_any_buffer_arrive_whole() {
    let published = publish(|| vec![note("g".repeat(3 << 20))]);
    let mut follow = connect(&published.path).unwrap();
    assert_eq!(numbered(&mut follow).1.len(), 3 << 20);
    for length in [1, 5 << 20, 2, 3 << 20] {
        published.stream.emit(note("e".repeat(length)));
    }
    for length in [1, 5 << 20, 2, 3 << 20] {
        assert_eq!(numbered(&mut follow).1.len(), length);
    }
}
