//! Who is at the other end of a socket, in PID namespaces too; and the last of what is asked.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use plimsoll_events::{
    Answer, Ask, Follow, Heard, Host, Kind, Publication, PublishError, Request, Stream, connect,
};
use rustix::process::geteuid;

/// Longer than anything here takes, unless it hangs.
const LONG: Duration = Duration::from_secs(30);

const PATH: &str = "PLIMSOLL_TEST_PEER";

fn note(text: &str) -> Kind {
    Kind::Note {
        text: text.to_owned(),
    }
}

fn heard(follow: &mut Follow) -> Kind {
    match follow.next_within(LONG).unwrap() {
        Heard::Event(event) => event.kind,
        other => panic!("{other:?} instead of an event"),
    }
}

fn answer(follow: &mut Follow) -> Answer {
    loop {
        if let Kind::Answer(answer) = heard(follow) {
            return *answer;
        }
    }
}

/// One of the tests here in a PID namespace of its own; `None` where none can be had.
fn apart(test: &str, path: &Path) -> Option<(Child, BufReader<std::process::ChildStdout>)> {
    let isolated = |program: &Path| {
        let mut command = Command::new("unshare");
        command
            .args(["-U", "-r", "-p", "--fork", "--kill-child"])
            .arg(program);
        command
    };
    let may = isolated(Path::new("true")).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no PID namespace can be made here");
        return None;
    }
    let mut child = isolated(&std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(PATH, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    Some((child, said))
}

fn path_given() -> PathBuf {
    PathBuf::from(std::env::var_os(PATH).unwrap())
}

#[test]
#[ignore = "what another test runs in a PID namespace of its own"]
fn publisher() {
    let stream = Stream::silent();
    let publication = Publication::begin(&stream, Some(path_given()), || vec![note("state")]);
    println!("\nready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    drop(publication.unwrap());
}

#[test]
#[ignore = "what another test runs in a PID namespace of its own"]
fn reader() {
    let mut follow = connect(&path_given()).unwrap();
    let peer = follow.peer().unwrap();
    assert_eq!(heard(&mut follow), note("state"));
    println!("\npeer {:?}", peer.pid);
}

/// What the other process says first that begins so.
fn first(said: &mut impl BufRead, begin: &str) -> String {
    let mut lines = said.lines().map(Result::unwrap);
    lines.find(|line| line.starts_with(begin)).unwrap()
}

#[test]
fn a_client_that_the_publisher_cannot_see_is_heard_by_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let Some((mut child, mut said)) = apart("publisher", &path) else {
        return;
    };
    first(&mut said, "ready");
    let mut follow = connect(&path).unwrap();
    assert_eq!(heard(&mut follow), note("state"));
    // From here it is seen: the namespace is below this one.
    let pid = follow.peer().unwrap().pid.unwrap().get();
    assert_ne!(pid, std::process::id());
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_publisher_that_cannot_be_seen_has_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let stream = Stream::silent();
    let begun = Publication::begin(&stream, Some(path.clone()), || vec![note("state")]);
    let _publication = begun.unwrap();
    let Some((mut child, mut said)) = apart("reader", &path) else {
        return;
    };
    assert_eq!(first(&mut said, "peer"), "peer None");
    assert!(child.wait().unwrap().success());
}

#[test]
fn who_publishes_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let stream = Stream::silent();
    let begun = Publication::begin(&stream, Some(path.clone()), Vec::new);
    let _publication = begun.unwrap();
    let peer = connect(&path).unwrap().peer().unwrap();
    assert_eq!(peer.pid.unwrap().get(), std::process::id());
    assert_eq!(peer.uid, geteuid().as_raw());
}

#[test]
fn a_reason_does_not_repeat_a_long_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let teller = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let long = "x".repeat(1 << 20);
        let line = format!(
            r#"{{"v":2,"seq":0,"at_us":0,"event":"sample","point":"{long}","snapshot":{{}}}}"#
        );
        let _ = client.write_all(format!("{line}\n").as_bytes());
    });
    let error = connect(&path).unwrap().next_event().unwrap_err();
    let PublishError::Broken {
        line: 1, reason, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert!(
        reason.contains("xxx") && reason.ends_with("..."),
        "{reason:.400}"
    );
    assert!(reason.len() < 400, "{} bytes", reason.len());
    teller.join().unwrap();
}

/// Says that it was asked, and waits.
struct Slow {
    begun: Mutex<Sender<()>>,
    go_on: Mutex<Receiver<()>>,
}

impl Host for Slow {
    fn greeting(&self) -> Vec<Kind> {
        vec![note("state")]
    }

    fn answer(&self, _: &Request) -> Answer {
        self.begun.lock().unwrap().send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        Answer::done("done")
    }
}

#[test]
fn once_requests_are_ended_none_is_under_way_and_events_are_told_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let stream = Stream::silent();
    let ((begin, begun), (go, go_on)) = (channel(), channel());
    let host = Slow {
        begun: Mutex::new(begin),
        go_on: Mutex::new(go_on),
    };
    let publication = Publication::begin_with(&stream, Some(path.clone()), host).unwrap();
    let mut follow = connect(&path).unwrap();
    assert_eq!(heard(&mut follow), note("state"));
    let mut ask = |id| {
        let request = Request::Trim;
        follow.ask(&Ask { id, request }).unwrap();
    };
    ask(1);
    begun.recv_timeout(LONG).unwrap();
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| publication.end_requests());
        // It may be there already when this one comes, or refuse it where it waits.
        ask(2);
        assert!(!ending.is_finished());
        go.send(()).unwrap();
        // Had the second one been begun, it would go on too.
        let _ = go.send(());
    });
    let (one, two) = (answer(&mut follow), answer(&mut follow));
    let mut ids = [one.id, two.id];
    ids.sort_unstable();
    assert_eq!(ids, [1, 2]);
    stream.emit(note("the end"));
    assert_eq!(heard(&mut follow), note("the end"));
    let request = Request::Trim;
    follow.ask(&Ask { id: 3, request }).unwrap();
    let refused = answer(&mut follow);
    assert!(
        refused.refused && refused.said.contains("no longer"),
        "{refused:?}"
    );
    // A second time is no matter, nor is the drop after it.
    publication.end_requests();
}
