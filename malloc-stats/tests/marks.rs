//! Marks between real processes: what a desk hears, and that nothing a client does harms it.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use malloc_stats::mark::{self, Desk, Mark, Told};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;

const WORDS: &str = "MALLOC_STATS_TEST_WORDS";

struct Place {
    folder: TempDir,
    desk: Desk,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::bind(folder.path().join("marks")).unwrap();
    Place { folder, desk }
}

impl Place {
    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.desk.path()).unwrap()
    }

    /// The next marks, waited for up to 30 seconds.
    fn next(&mut self) -> Vec<Mark> {
        for _ in 0..1000 {
            assert!(readable(&self.desk, 30), "no mark came");
            let marks = self.desk.take();
            if !marks.is_empty() {
                return marks;
            }
        }
        panic!("the desk stays readable and has nothing");
    }

    fn one(&mut self) -> Mark {
        let mut marks = self.next();
        assert_eq!(marks.len(), 1, "{marks:?}");
        marks.remove(0)
    }

    /// Takes until there is nothing more to do, and no mark may be among it.
    fn quiet(&mut self) {
        for _ in 0..1000 {
            assert_eq!(self.desk.take(), []);
            if !readable(&self.desk, 0) {
                return;
            }
        }
        panic!("the desk stays readable and has nothing");
    }
}

fn readable(desk: &Desk, seconds: i64) -> bool {
    let timeout = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let mut polled = [PollFd::from_borrowed_fd(desk.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&timeout)).unwrap() > 0
}

/// What comes until the other end closes.
fn the_rest(mut stream: UnixStream) -> String {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8(rest).unwrap(),
    }
}

fn answer_to(stream: &mut UnixStream) -> String {
    let mut answer = [0; 64];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// This test binary as a program that tells `words` and prints what became of each.
fn program(marks: Option<PathBuf>, words: &[&str]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "a_program_tells_its_words", "--nocapture"])
        .env(WORDS, words.join(","))
        .env_remove(mark::VARIABLE)
        .stdout(Stdio::piped());
    if let Some(marks) = marks {
        command.env(mark::VARIABLE, marks);
    }
    command.spawn().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The other programs of this file; by itself it is one that nobody watches.
#[test]
fn a_program_tells_its_words() {
    let Ok(words) = std::env::var(WORDS) else {
        if std::env::var_os(mark::VARIABLE).is_none() {
            assert!(matches!(mark::tell("cycle"), Told::Unasked));
        }
        return;
    };
    for word in words.split(',') {
        println!("{word}: {:?}", mark::tell(word));
    }
}

#[test]
fn a_program_waits_at_each_mark_until_it_is_answered() {
    let mut place = place();
    let child = program(
        Some(place.desk.path().into()),
        &["baseline", "cycle", "model 2 of 3", "dropped"],
    );
    for word in ["baseline", "cycle", "model 2 of 3", "dropped"] {
        let mark = place.one();
        assert_eq!(mark.text, word);
        assert_eq!(mark.pid.map(u32::from), Some(child.id()));
        place.quiet();
        place.desk.answer(&mark);
    }
    let out = printed(&child.wait_with_output().unwrap());
    assert_eq!(out.matches("Heard").count(), 4, "{out}");
}

#[test]
fn a_program_goes_on_where_nobody_listens_or_whoever_did_has_gone() {
    let nobody = tempfile::tempdir().unwrap();
    let output = program(Some(nobody.path().join("marks")), &["cycle"])
        .wait_with_output()
        .unwrap();
    assert!(printed(&output).contains("cycle: Unheard("), "{output:?}");
    let output = program(Some(PathBuf::new()), &["cycle"])
        .wait_with_output()
        .unwrap();
    assert!(printed(&output).contains("cycle: Unasked"), "{output:?}");

    let mut place = place();
    let child = program(Some(place.desk.path().into()), &["cycle", "cycle"]);
    place.one();
    drop(place);
    let out = printed(&child.wait_with_output().unwrap());
    assert_eq!(out.matches("cycle: Unheard(").count(), 2, "{out}");
}

#[test]
fn what_is_no_mark_is_not_even_sent() {
    let mut place = place();
    let long = "m".repeat(mark::LONGEST + 1);
    let child = program(Some(place.desk.path().into()), &["", "a\u{1b}[2J", &long]);
    let out = printed(&child.wait_with_output().unwrap());
    assert_eq!(out.matches("Unheard(").count(), 3, "{out}");
    place.quiet();
}

#[test]
fn a_server_that_says_no_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marks");
    let listener = UnixListener::bind(&path).unwrap();
    let child = program(Some(path), &["cycle"]);
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(answer_to(&mut stream), "cycle\n");
    // In two parts, as a stream may deliver it.
    stream.write_all(b"error not ").unwrap();
    stream.write_all(b"today\n").unwrap();
    let out = printed(&child.wait_with_output().unwrap());
    assert!(out.contains("error not today"), "{out}");
}

#[test]
fn python_tells_in_three_lines_over_one_connection() {
    let mut place = place();
    let program = "import os, socket\n\
        marks = socket.socket(socket.AF_UNIX); marks.connect(os.environ['PLIMSOLL_MARKS'])\n\
        for word in 'baseline', 'Zyklus größer', 'dropped':\n\
        \x20   marks.send(word.encode() + b'\\n')\n\
        \x20   assert marks.recv(16) == b'ok\\n'\n";
    let python = Command::new("python3")
        .args(["-c", program])
        .env(mark::VARIABLE, place.desk.path())
        .spawn();
    let mut python = match python {
        Ok(python) => python,
        Err(error) => return println!("skipped: no python3 ({error})"),
    };
    for word in ["baseline", "Zyklus größer", "dropped"] {
        let mark = place.one();
        assert_eq!(
            (mark.text.as_str(), mark.pid.map(u32::from)),
            (word, Some(python.id()))
        );
        place.desk.answer(&mark);
        // A second answer to the same mark is none.
        place.desk.answer(&mark);
    }
    assert!(python.wait().unwrap().success());
    place.quiet();
}

#[test]
fn the_longest_mark_is_heard_and_what_is_none_is_told_so_and_closed() {
    let mut place = place();
    let longest = "ü".repeat(mark::LONGEST / 2);
    let mut stream = place.connect();
    stream.write_all(format!("{longest}\n").as_bytes()).unwrap();
    let mark = place.one();
    assert_eq!(mark.text, longest);
    place.desk.answer(&mark);
    assert_eq!(answer_to(&mut stream), "ok\n");

    let too_long = vec![b'm'; mark::LONGEST + 1];
    let wrong: [(&[u8], &str); 6] = [
        (&too_long, "longer than 200 bytes"),
        (&[b'm'; 100_000], "longer than 200 bytes"),
        (b"\xff\xfe\n", "not UTF-8"),
        (b"a\x1b[2Jb\n", "control characters"),
        (b"\n", "empty"),
        (b" \r\n", "empty"),
    ];
    for (line, reason) in wrong {
        let mut stream = place.connect();
        stream.write_all(line).unwrap();
        place.quiet();
        let answer = the_rest(stream);
        assert!(
            answer.starts_with("error ") && answer.ends_with('\n') && answer.contains(reason),
            "{answer:?}"
        );
    }
}

#[test]
fn half_a_line_waits_for_the_other_half() {
    let mut place = place();
    let mut stream = place.connect();
    let halves: [&[u8]; 3] = [b"cy", b"c", b"le\r\n"];
    for half in &halves[..2] {
        stream.write_all(half).unwrap();
        place.quiet();
    }
    stream.write_all(halves[2]).unwrap();
    assert_eq!(place.one().text, "cycle");

    let mut leaves = place.connect();
    leaves.write_all(b"half").unwrap();
    place.quiet();
    drop(leaves);
    place.quiet();
}

#[test]
fn a_client_that_does_not_wait_is_heard_one_mark_at_a_time() {
    let mut place = place();
    let mut stream = place.connect();
    stream.write_all(b"one\ntwo\nthr").unwrap();
    stream.write_all(b"ee\n").unwrap();
    for word in ["one", "two", "three"] {
        let mark = place.one();
        assert_eq!(mark.text, word);
        assert!(!readable(&place.desk, 0), "polled though it waits");
        place.desk.answer(&mark);
    }
    // One that has told and gone is heard too, and is no client afterwards.
    stream.write_all(b"last").unwrap();
    stream.write_all(b"\n").unwrap();
    drop(stream);
    let mark = place.one();
    assert_eq!(mark.text, "last");
    place.desk.answer(&mark);
    place.quiet();
}

#[test]
fn whoever_floods_and_reads_no_answer_is_closed() {
    let mut place = place();
    let mut stream = place.connect();
    let flood = std::thread::spawn(move || {
        let lines = b"flood\n".repeat(10_000);
        (0..1000).any(|_| stream.write_all(&lines).is_err())
    });
    let mut heard = 0;
    while !flood.is_finished() && heard < 1_000_000 {
        if readable(&place.desk, 1) {
            for mark in place.desk.take() {
                heard += 1;
                place.desk.answer(&mark);
            }
        }
    }
    assert!(flood.join().unwrap(), "never closed; {heard} marks heard");
    place.quiet();
}

#[test]
fn there_are_sixty_four_clients_and_the_next_is_told_so() {
    let mut place = place();
    let mut clients: Vec<_> = (0..64).map(|_| place.connect()).collect();
    place.quiet();
    for _ in 0..200 {
        let more = place.connect();
        place.quiet();
        assert!(the_rest(more).starts_with("error 64 programs"));
    }
    for client in &mut clients {
        client.write_all(b"cycle\n").unwrap();
    }
    let marks = place.next();
    assert_eq!(marks.len(), 64);
    for mark in &marks {
        place.desk.answer(mark);
    }
    for client in &mut clients {
        assert_eq!(answer_to(client), "ok\n");
    }
    clients.pop();
    place.quiet();
    let mut late = place.connect();
    late.write_all(b"late\n").unwrap();
    assert_eq!(place.one().text, "late");
}

#[test]
fn a_desk_says_where_it_cannot_be_and_leaves_nothing_behind() {
    let place = place();
    let path = place.desk.path().to_owned();
    let taken = Desk::bind(&path).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    assert!(
        taken.to_string().contains(path.to_str().unwrap()),
        "{taken}"
    );
    let long = Desk::bind(place.folder.path().join("m".repeat(200))).unwrap_err();
    assert!(long.to_string().contains("mmm"), "{long}");
    let Place { folder, desk } = place;
    drop(desk);
    assert!(!path.exists());
    folder.close().unwrap();
}

/// In a process of its own: the limit is the process's.
#[test]
fn without_descriptors_a_desk_waits_and_does_not_spin() {
    const CHILD: &str = "MALLOC_STATS_TEST_DESCRIPTORS";
    let name = "without_descriptors_a_desk_waits_and_does_not_spin";
    if std::env::var_os(CHILD).is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(printed(&output).contains("1 passed"), "{output:?}");
        return;
    }
    let mut place = place();
    let mut waiting = place.connect();
    waiting.write_all(b"cycle\n").unwrap();
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let enough = limit.current;
    limit.current = Some(3);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    place.quiet();
    limit.current = enough;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let marks = place.desk.take();
    assert_eq!(marks.len(), 1, "{marks:?}");
    assert_eq!(marks[0].text, "cycle");
}
