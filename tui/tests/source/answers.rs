//! What is asked of a source is answered, whatever becomes of what it looks at; and its end is
//! noticed.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use plimsoll_events::{Answer, Event, Host, Kind, Opened, Publication, Request, Stream, VERSION};
use plimsoll_tui::live::Source;
use plimsoll_tui::live::source::{Control, Heard, ProcessSource, SocketSource};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::Program;
use crate::{LONG, OFTEN, ended, looks, says, until};

const LEAVE: &str = "PLIMSOLL_TEST_LEAVE";

const CHUNKS: Control = Control::Chunks {
    arena: 0,
    from: 0,
    to: u64::MAX,
};

/// Why there are no chunks; what else is heard until then is left out.
#[track_caller]
fn denied(source: &mut dyn Source) -> String {
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        match source.hear(OFTEN, &mut Vec::new()).unwrap() {
            Heard::Chunks(chunks) => return chunks.unwrap_err(),
            Heard::Ended(ended) => panic!("no answer, but {ended:?}"),
            _ => {}
        }
    }
    panic!("no answer");
}

fn opened(pid: u32) -> Kind {
    Kind::Opened(Box::new(Opened {
        pid,
        ..Opened::default()
    }))
}

#[test]
fn chunks_of_a_process_that_has_ended_are_denied() {
    let mut program = Program::shell("read line");
    let mut source = ProcessSource::open(program.pid(), OFTEN).unwrap();
    until(&mut source, "a look", |events| looks(events) > 0);
    program.go_on();
    ended(&mut source, &mut Vec::new());
    source.control(CHUNKS);
    assert_eq!(denied(&mut source), "it has ended");
    // Once, and then it has ended as before.
    ended(&mut source, &mut Vec::new());
}

#[test]
fn chunks_of_a_stream_that_nobody_looks_beside_are_denied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let stream = Stream::silent();
    // Of another process than the one that sends it.
    let publication = Publication::begin(&stream, Some(path.clone()), || vec![opened(1)]);
    let publication = publication.unwrap();
    let mut source = SocketSource::connect(&path, OFTEN).unwrap();
    until(&mut source, "the greeting", |events| !events.is_empty());
    source.control(CHUNKS);
    assert_eq!(denied(&mut source), "nothing looks into it");
    drop(publication);
    ended(&mut source, &mut Vec::new());
    source.control(CHUNKS);
    assert_eq!(denied(&mut source), "it has ended");
}

/// Answers a trim by hanging up on everybody.
struct Closes(std::sync::Mutex<std::sync::mpsc::Sender<()>>);

impl Host for Closes {
    fn greeting(&self) -> Vec<Kind> {
        vec![opened(std::process::id())]
    }

    fn answer(&self, _: &Request) -> Answer {
        self.0.lock().unwrap().send(()).unwrap();
        std::thread::sleep(OFTEN * 15);
        Answer::done("too late")
    }
}

#[test]
fn a_request_that_the_end_overtakes_is_answered_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let (asked, is_asked) = std::sync::mpsc::channel();
    let stream = Stream::silent();
    let host = Closes(std::sync::Mutex::new(asked));
    let publication = Publication::begin_with(&stream, Some(path.clone()), host).unwrap();
    let mut source = SocketSource::connect(&path, OFTEN).unwrap();
    until(&mut source, "the greeting", |events| !events.is_empty());
    source.control(Control::Request {
        id: 7,
        request: Request::Trim,
    });
    is_asked.recv_timeout(LONG).unwrap();
    // Clients have a second, and the answer takes longer.
    drop(publication);
    let mut events = Vec::new();
    ended(&mut source, &mut events);
    let answers: Vec<(u64, bool)> = events
        .iter()
        .filter_map(|event| match &event.kind {
            Kind::Answer(answer) => Some((answer.id, answer.refused)),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [(7, true)]);
    source.control(Control::Request {
        id: 8,
        request: Request::Trim,
    });
    let mut late = Vec::new();
    source.hear(OFTEN, &mut late).unwrap();
    assert!(
        matches!(&late[..], [Event { kind: Kind::Answer(answer), .. }] if answer.id == 8 && answer.refused),
        "{late:?}"
    );
}

#[test]
#[ignore = "what another test runs in a process of its own"]
fn leaver() {
    let Some(path) = std::env::var_os(LEAVE) else {
        panic!("{LEAVE} names no socket");
    };
    let listener = UnixListener::bind(PathBuf::from(path)).unwrap();
    println!("\nready");
    let (mut client, _) = listener.accept().unwrap();
    let line = Event {
        v: VERSION,
        seq: 0,
        at_us: 0,
        kind: opened(std::process::id()),
    };
    let mut line = serde_json::to_vec(&line).unwrap();
    line.push(b'\n');
    client.write_all(&line).unwrap();
    let held = Stdio::from(OwnedFd::from(client));
    let holder = Command::new("sleep").arg("600").stdin(held).spawn();
    println!("\n{}", holder.unwrap().id());
    std::io::stdin().read_line(&mut String::new()).unwrap();
    std::process::exit(5);
}

/// A process that is none of ours any more, and ends with the test.
struct Holder(Pid);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn the_end_of_a_publisher_whose_socket_another_process_holds_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["answers::leaver", "--exact", "--ignored", "--nocapture"])
        .env(LEAVE, &path);
    let mut server = Program::start(&mut command);
    while server.next_line() != "ready" {}
    let mut source = SocketSource::connect(&path, OFTEN).unwrap();
    let mut events = until(&mut source, "the greeting", |events| !events.is_empty());
    let holder = loop {
        if let Ok(pid) = server.next_line().parse() {
            break Holder(Pid::from_raw(pid).unwrap());
        }
    };
    server.go_on();
    let ended = ended(&mut source, &mut events);
    drop(holder);
    assert_eq!(ended.why, "ended with exit code 5");
    assert!(!ended.in_order);
}

/// A 32-bit program that runs another one at the next byte of its input; `None` where none can be
/// made here.
fn program_of_32_bits(folder: &Path) -> Option<PathBuf> {
    const SOURCE: &str = r#"
        static int call(int n, int a, int b, int c) {
            int r;
            __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
            return r;
        }
        void _start(void) {
            char byte;
            char *arguments[] = {"sleep", "600", 0}, *environment[] = {0};
            call(3, 0, (int)&byte, 1);
            call(11, (int)"/bin/sleep", (int)arguments, (int)environment);
            call(1, 9, 0, 0);
        }"#;
    let (source, program) = (folder.join("p.c"), folder.join("p32"));
    std::fs::write(&source, SOURCE).unwrap();
    let made = Command::new("cc")
        .args(["-m32", "-nostdlib", "-static", "-no-pie", "-fno-pic"])
        .args(["-fno-stack-protector", "-o"])
        .args([&program, &source])
        .output();
    let runs = made.is_ok_and(|made| made.status.success())
        && Command::new(&program)
            .stdin(Stdio::null())
            .spawn()
            .is_ok_and(|mut child| child.kill().and_then(|()| child.wait()).is_ok());
    runs.then_some(program)
}

#[test]
fn a_process_that_was_no_program_to_look_into_for_a_while_is_looked_into_again() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = program_of_32_bits(folder.path()) else {
        eprintln!("skipped: no 32-bit program can be made, or run, here");
        return;
    };
    let mut shell = Program::shell(&format!("read line; exec {}", program.display()));
    let mut source = ProcessSource::open(shell.pid(), OFTEN).unwrap();
    until(&mut source, "a look", |events| looks(events) > 0);
    shell.go_on();
    let events = until(&mut source, "that it is not looked into", |events| {
        says(events, "another program now, which is not looked into")
    });
    assert_eq!(looks(&events), 0, "of the other program");
    // Of the one before there is nothing left; and that is said once.
    source.control(CHUNKS);
    let why = denied(&mut source);
    assert!(why.contains("another program"), "{why}");
    shell.go_on();
    let events = until(&mut source, "a look into the third", |events| {
        looks(events) > 0
    });
    assert!(says(&events, "it runs another program now: sleep"));
    assert!(!says(&events, "which is not looked into"));
}
