//! Requests through a publication's socket: done one at a time, answered to who asked alone, and no
//! way to slow anybody down.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plimsoll_events::request::LONGEST_REQUEST;
use plimsoll_events::{
    Answer, Ask, Event, Follow, Heard, Host, Kind, Publication, PublishError, Request, Stream,
    connect,
};
use tempfile::TempDir;

/// Longer than anything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(30);

fn note(text: impl ToString) -> Kind {
    Kind::Note {
        text: text.to_string(),
    }
}

/// Does what it is told by the test: a drop waits for it, an eviction tells events, and a budget
/// panics.
struct Office {
    stream: Stream,
    begun: Mutex<Sender<String>>,
    go_on: Mutex<Receiver<()>>,
    attended: Mutex<Sender<usize>>,
}

impl Host for Office {
    fn greeting(&self) -> Vec<Kind> {
        vec![note("state")]
    }

    fn answer(&self, request: &Request) -> Answer {
        match request {
            Request::Trim => Answer::done("trimmed"),
            Request::Drop { model } => {
                self.begun.lock().unwrap().send(model.clone()).unwrap();
                self.go_on.lock().unwrap().recv().unwrap();
                Answer::done(format!("dropped {model}"))
            }
            Request::Evict { model, .. } => {
                self.stream.emit(note(format!("{model} goes")));
                self.stream.emit(note(format!("{model} is gone")));
                Answer::done(format!("evicted {model}"))
            }
            _ => panic!("no budgets here"),
        }
    }

    fn attended(&self, clients: usize) {
        let _ = self.attended.lock().unwrap().send(clients);
    }
}

struct World {
    stream: Stream,
    path: PathBuf,
    /// The models of drops, as they begin.
    begun: Receiver<String>,
    /// Lets one drop end. It goes before the publication, lest a failure waits for a drop.
    go_on: Sender<()>,
    publication: Option<Publication>,
    attended: Receiver<usize>,
    _folder: TempDir,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let stream = Stream::silent();
    let (begun, has_begun) = channel();
    let (go_on, goes_on) = channel();
    let (attended, attendance) = channel();
    let office = Office {
        stream: stream.clone(),
        begun: Mutex::new(begun),
        go_on: Mutex::new(goes_on),
        attended: Mutex::new(attended),
    };
    let publication = Publication::begin_with(&stream, Some(path.clone()), office).unwrap();
    World {
        stream,
        publication: Some(publication),
        path,
        begun: has_begun,
        go_on,
        attended: attendance,
        _folder: folder,
    }
}

impl World {
    fn client(&self) -> Follow {
        let mut follow = connect(&self.path).unwrap();
        assert_eq!(text(&next(&mut follow)), "state");
        follow
    }

    /// Connects without a follower; what would hang fails instead.
    fn raw(&self) -> UnixStream {
        let socket = UnixStream::connect(&self.path).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.set_write_timeout(Some(LONG)).unwrap();
        socket
    }

    fn begins(&self) -> String {
        self.begun.recv_timeout(LONG).unwrap()
    }
}

fn next(follow: &mut Follow) -> Event {
    match follow.next_within(LONG).unwrap() {
        Heard::Event(event) => *event,
        other => panic!("{other:?} instead of an event"),
    }
}

fn text(event: &Event) -> String {
    match &event.kind {
        Kind::Note { text } => text.clone(),
        Kind::Answer(answer) => {
            let refused = if answer.refused { " refused" } else { "" };
            format!("{}{refused}: {}", answer.id, answer.said)
        }
        other => panic!("{other:?} is neither a note nor an answer"),
    }
}

fn answer(follow: &mut Follow) -> Answer {
    loop {
        if let Kind::Answer(answer) = next(follow).kind {
            return *answer;
        }
    }
}

fn ask(id: u64, request: Request) -> Ask {
    Ask { id, request }
}

fn evict(id: u64, model: &str) -> Ask {
    let model = model.to_owned();
    ask(id, Request::Evict { model, tier: None })
}

fn drop_of(id: u64, model: &str) -> Ask {
    let model = model.to_owned();
    ask(id, Request::Drop { model })
}

#[test]
fn an_answer_comes_to_who_asked_alone_after_the_events_that_it_is_about() {
    let world = world();
    let (mut asks, mut hears) = (world.client(), world.client());
    world.stream.emit(note("before"));
    asks.ask(&evict(7, "clip")).unwrap();
    let told: Vec<String> = (0..4).map(|_| text(&next(&mut asks))).collect();
    assert_eq!(
        told,
        ["before", "clip goes", "clip is gone", "7: evicted clip"]
    );
    world.stream.emit(note("after"));
    let told: Vec<String> = (0..4).map(|_| text(&next(&mut hears))).collect();
    assert_eq!(told, ["before", "clip goes", "clip is gone", "after"]);
    let after = next(&mut asks);
    assert_eq!((after.seq, text(&after).as_str()), (3, "after"));
}

#[test]
fn requests_are_done_in_their_order_while_events_flow_and_others_connect() {
    let world = world();
    let mut first = world.client();
    let mut second = world.client();
    first.ask(&drop_of(1, "a")).unwrap();
    assert_eq!(world.begins(), "a");
    second.ask(&drop_of(1, "b")).unwrap();
    // The first request takes as long as it likes.
    for number in 0..2000 {
        world.stream.emit(note(number));
        assert_eq!(text(&next(&mut first)), number.to_string());
        assert_eq!(text(&next(&mut second)), number.to_string());
    }
    let mut late = world.client();
    late.ask(&ask(9, Request::Trim)).unwrap();
    assert!(world.begun.try_recv().is_err(), "one at a time");
    world.go_on.send(()).unwrap();
    assert_eq!(answer(&mut first).said, "dropped a");
    assert_eq!(world.begins(), "b");
    world.go_on.send(()).unwrap();
    assert_eq!(answer(&mut second).said, "dropped b");
    assert_eq!(answer(&mut late).said, "trimmed");
}

#[test]
fn one_thread_asks_while_another_reads_and_asking_ends_with_the_reader() {
    let world = world();
    let mut follow = world.client();
    let asker = follow.asker();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| answer(&mut follow));
        asker.clone().ask(&ask(u64::MAX, Request::Trim)).unwrap();
        let answer = reader.join().unwrap();
        assert_eq!((answer.id, answer.said.as_str()), (u64::MAX, "trimmed"));
    });
    let long = evict(1, &"x".repeat(LONGEST_REQUEST));
    let refused = asker.ask(&long).unwrap_err();
    assert!(
        matches!(refused, PublishError::LongRequest { .. }),
        "{refused}"
    );
    asker.ask(&ask(2, Request::Trim)).unwrap();
    assert_eq!(
        answer(&mut follow).id,
        2,
        "nothing of the long one was sent"
    );
    drop(follow);
    let ended = asker.ask(&ask(3, Request::Trim)).unwrap_err();
    assert!(matches!(ended, PublishError::Nobody { .. }), "{ended}");
}

#[test]
fn what_is_no_request_is_refused_with_its_number_and_the_reason() {
    let world = world();
    let mut client = world.raw();
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
    let mut said = || {
        let line = lines.next().unwrap().unwrap();
        text(&serde_json::from_str(&line).unwrap())
    };
    assert_eq!(said(), "state");
    for (line, says) in [
        ("\n", "0 refused: not a request: EOF"),
        ("hello\n", "0 refused: not a request: expected"),
        (
            "{\"id\":4}\n",
            "4 refused: not a request: missing field `do`",
        ),
        (
            "{\"id\":5,\"do\":\"format\"}\n",
            "5 refused: not a request: unknown variant `format`",
        ),
        (
            "{\"id\":6,\"do\":\"evict\"}\n",
            "6 refused: not a request: missing field `model`",
        ),
        ("{\"id\":-1,\"do\":\"trim\"}\n", "0 refused: not a request"),
        ("{\"id\":7,\"do\":\"trim\"}\n", "7: trimmed"),
        (
            "{\"id\":8,\"do\":\"budget\",\"tier\":\"ram\"}\n",
            "8 refused: it ended in a panic: no budgets",
        ),
        ("{\"do\":\"trim\",\"id\":9}\n", "9: trimmed"),
    ] {
        client.write_all(line.as_bytes()).unwrap();
        let said = said();
        assert!(said.starts_with(says), "{line}: {said}");
    }
    let nested = format!("{{\"id\":1,\"do\":\"trim\",\"x\":{}\n", "[".repeat(60_000));
    client.write_all(nested.as_bytes()).unwrap();
    assert!(said().contains("recursion limit"));
    client.write_all(b"\xff\xfe\0\n").unwrap();
    assert!(said().starts_with("0 refused"));
    let variant = format!("{{\"id\":1,\"do\":\"{}\"}}\n", "é".repeat(20_000));
    client.write_all(variant.as_bytes()).unwrap();
    assert!(said().len() < 300, "what was wrong is not repeated whole");
}

#[test]
fn half_a_line_is_no_request_until_its_other_half_comes() {
    let world = world();
    let mut client = world.raw();
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap();
    for byte in b"{\"id\":1,\"do\":\"tr" {
        client.write_all(&[*byte]).unwrap();
    }
    world.stream.emit(note("meanwhile"));
    assert!(lines.next().unwrap().unwrap().contains("meanwhile"));
    client
        .write_all(b"im\"}\n{\"id\":2,\"do\":\"trim\"}\n{\"id\":3")
        .unwrap();
    assert!(lines.next().unwrap().unwrap().contains("\"id\":1"));
    assert!(lines.next().unwrap().unwrap().contains("\"id\":2"));
    // Who writes no more is answered still, and a line without an end never was one.
    client
        .write_all(b",\"do\":\"trim\"}\n{\"id\":4,\"do\":\"trim\"}")
        .unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(lines.next().unwrap().unwrap().contains("\"id\":3"));
    world.stream.emit(note("still heard"));
    assert!(lines.next().unwrap().unwrap().contains("still heard"));
}

#[test]
fn a_line_that_is_too_long_is_refused_and_hung_up_on_and_nobody_else_is() {
    let world = world();
    let mut other = world.client();
    let mut client = world.raw();
    let whole = format!(
        "{{\"id\":1,\"do\":\"evict\",\"model\":\"{}\"}}\n",
        "x".repeat(60_000)
    );
    client.write_all(whole.as_bytes()).unwrap();
    // It hangs up as soon as it has had enough.
    let _ = client.write_all(&vec![b'x'; 8 << 20]);
    let mut told = String::new();
    client.read_to_string(&mut told).unwrap();
    let lines: Vec<String> = told
        .lines()
        .map(|line| text(&serde_json::from_str(line).unwrap()))
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last, "0 refused: a request has at most 65536 bytes");
    other.ask(&ask(1, Request::Trim)).unwrap();
    assert_eq!(answer(&mut other).said, "trimmed");
}

#[test]
fn more_requests_than_may_wait_are_refused_and_those_of_others_are_not() {
    let world = world();
    let (mut greedy, mut modest) = (world.client(), world.client());
    greedy.ask(&drop_of(0, "first")).unwrap();
    world.begins();
    for id in 1..10 {
        greedy.ask(&ask(id, Request::Trim)).unwrap();
    }
    let refused: Vec<Answer> = (4..10).map(|_| answer(&mut greedy)).collect();
    assert!(
        refused.iter().map(|answer| answer.id).eq(4..10),
        "{refused:?}"
    );
    assert!(refused.iter().all(|answer| answer.refused));
    assert_eq!(refused[0].said, "4 requests of this client wait already");
    modest.ask(&ask(1, Request::Trim)).unwrap();
    world.go_on.send(()).unwrap();
    let done: Vec<u64> = (0..4).map(|_| answer(&mut greedy).id).collect();
    assert_eq!(done, [0, 1, 2, 3]);
    assert!(!answer(&mut modest).refused);
    greedy.ask(&ask(10, Request::Trim)).unwrap();
    assert!(!answer(&mut greedy).refused, "there is room again");
}

#[test]
fn who_floods_and_reads_nothing_waits_alone() {
    let world = world();
    let mut other = world.client();
    let flood = world.raw();
    flood.set_nonblocking(true).unwrap();
    // Until nothing more is taken: what it wrote does not pile up in the program.
    let (mut written, begun) = (0_usize, Instant::now());
    let mut refusals = 0;
    while refusals < 50 && begun.elapsed() < LONG {
        match (&flood).write(&b"nonsense\n".repeat(1000)) {
            Ok(bytes) => (written, refusals) = (written + bytes, 0),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                refusals += 1;
                world.stream.emit(note("live"));
                assert_eq!(text(&next(&mut other)), "live");
                other.ask(&ask(refusals, Request::Trim)).unwrap();
                assert_eq!(answer(&mut other).id, refusals);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(refusals, 50);
    assert!(written < 4 << 20, "{written} bytes were taken");
}

#[test]
fn what_a_client_asked_that_is_gone_is_not_begun_and_what_was_begun_harms_nobody() {
    let world = world();
    let mut stays = world.client();
    let mut leaves = world.client();
    leaves.ask(&drop_of(1, "begun")).unwrap();
    assert_eq!(world.begins(), "begun");
    leaves.ask(&drop_of(2, "not begun")).unwrap();
    stays.ask(&drop_of(3, "of another")).unwrap();
    drop(leaves);
    while world.attended.recv_timeout(LONG).unwrap() != 2 {}
    assert_eq!(world.attended.recv_timeout(LONG).unwrap(), 1);
    world.go_on.send(()).unwrap();
    assert_eq!(world.begins(), "of another");
    world.go_on.send(()).unwrap();
    assert_eq!(answer(&mut stays).id, 3);
}

#[test]
fn the_host_is_told_how_many_are_there() {
    let mut world = world();
    let is_told = |clients| assert_eq!(world.attended.recv_timeout(LONG).unwrap(), clients);
    let [one, two] = [(); 2].map(|()| connect(&world.path).unwrap());
    is_told(1);
    is_told(2);
    drop(one);
    is_told(1);
    world.publication = None;
    is_told(0);
    assert!(world.attended.try_recv().is_err());
    drop(two);
}

#[test]
fn the_end_waits_for_what_was_begun_answers_it_and_refuses_the_rest() {
    let mut world = world();
    let mut client = world.client();
    client.ask(&drop_of(1, "begun")).unwrap();
    world.begins();
    client.ask(&ask(2, Request::Trim)).unwrap();
    // Once a third client was served, what the first wrote was read.
    world.client();
    let publication = world.publication.take();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(publication));
        while world.path.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        world.go_on.send(()).unwrap();
        assert_eq!(answer(&mut client).said, "dropped begun");
        let refused = answer(&mut client);
        assert_eq!((refused.id, refused.refused), (2, true));
        assert_eq!(client.next_within(LONG).unwrap(), Heard::Closed);
    });
}

/// Waits to be let go, without keeping the stream.
struct Waits(Mutex<Receiver<()>>);

impl Host for Waits {
    fn greeting(&self) -> Vec<Kind> {
        vec![note("state")]
    }

    fn answer(&self, _: &Request) -> Answer {
        self.0.lock().unwrap().recv().unwrap();
        Answer::done("done")
    }
}

#[test]
fn the_end_of_the_stream_comes_after_the_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let stream = Stream::silent();
    let (go_on, goes_on) = channel();
    let host = Waits(Mutex::new(goes_on));
    let _publication = Publication::begin_with(&stream, Some(path.clone()), host).unwrap();
    // Dropped before it, lest a failure waits for a request that waits for this.
    let go_on = go_on;
    let [mut asks, mut other] = [(); 2].map(|()| {
        let mut follow = connect(&path).unwrap();
        assert_eq!(text(&next(&mut follow)), "state");
        follow
    });
    asks.ask(&ask(1, Request::Trim)).unwrap();
    asks.ask(&ask(
        2,
        Request::Drop {
            model: String::new(),
        },
    ))
    .unwrap();
    asks.ask(&ask(3, Request::Trim)).unwrap();
    stream.emit(note("last"));
    assert_eq!(text(&next(&mut asks)), "last");
    drop(stream);
    assert_eq!(text(&next(&mut other)), "last");
    assert_eq!(other.next_within(LONG).unwrap(), Heard::Closed);
    for id in 1..=3 {
        go_on.send(()).unwrap();
        assert_eq!(text(&next(&mut asks)), format!("{id}: done"));
    }
    assert_eq!(asks.next_within(LONG).unwrap(), Heard::Closed);
}

/// Ends its own publication when asked anything.
struct Ends(Arc<Mutex<Option<Publication>>>, Arc<AtomicUsize>);

impl Host for Ends {
    fn greeting(&self) -> Vec<Kind> {
        Vec::new()
    }

    fn answer(&self, _: &Request) -> Answer {
        drop(self.0.lock().unwrap().take());
        self.1.fetch_add(1, Ordering::SeqCst);
        Answer::done("ended")
    }
}

#[test]
fn a_request_may_end_the_publication_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let (place, ended) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let host = Ends(Arc::clone(&place), Arc::clone(&ended));
    let stream = Stream::silent();
    *place.lock().unwrap() =
        Some(Publication::begin_with(&stream, Some(path.clone()), host).unwrap());
    let mut client = connect(&path).unwrap();
    client.ask(&ask(1, Request::Trim)).unwrap();
    assert_eq!(answer(&mut client).said, "ended");
    assert_eq!(client.next_within(LONG).unwrap(), Heard::Closed);
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    assert!(!path.exists());
}

#[test]
fn a_publication_without_a_host_says_that_nothing_can_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let stream = Stream::silent();
    let publication = Publication::begin(&stream, Some(path.clone()), Vec::new).unwrap();
    let mut client = connect(&path).unwrap();
    client.ask(&ask(1, Request::Trim)).unwrap();
    let refused = answer(&mut client);
    assert!(refused.refused && refused.said.contains("nothing can be asked"));
    drop(publication);
    assert_eq!(client.next_within(LONG).unwrap(), Heard::Closed);
    let nobody = client.ask(&ask(2, Request::Trim)).unwrap_err();
    assert!(matches!(nobody, PublishError::Nobody { .. }), "{nobody}");
}

#[test]
fn a_publisher_that_takes_nothing_is_an_error_and_asks_no_more_in_vain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut client = connect(&path).unwrap();
    let _never_reads = listener.accept().unwrap();
    let long = evict(1, &"x".repeat(60_000));
    let mut stuck = || loop {
        if let Err(error) = client.ask(&long) {
            return error.to_string();
        }
    };
    assert!(stuck().contains("no answer in 3 s"));
    let again = stuck();
    assert!(
        again.contains("cut off") || again.contains("no answer"),
        "{again}"
    );
}

#[test]
fn a_fork_neither_answers_nor_ends_what_is_asked() {
    use std::os::unix::process::CommandExt;

    let mut world = world();
    let mut client = world.client();
    client.ask(&drop_of(1, "a")).unwrap();
    world.begins();
    let mut publication = world.publication.take();
    let mut command = std::process::Command::new("true");
    // SAFETY: in the fork this only closes descriptors and frees memory.
    unsafe {
        command.pre_exec(move || {
            drop(publication.take());
            Ok(())
        });
    }
    assert!(command.status().unwrap().success());
    world.go_on.send(()).unwrap();
    assert_eq!(answer(&mut client).said, "dropped a");
    // The publication of this process is in the closure.
    drop(command);
    assert_eq!(client.next_within(LONG).unwrap(), Heard::Closed);
}
