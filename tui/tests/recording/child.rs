//! A run of our own: real programs, and a real socket.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll_events::Heard as Told;
use plimsoll_events::{Event, Follow, Kind, Publication, Stream, connect};
use plimsoll_tui::live::source::child::{ChildHandle, ChildSource, Connect, Stopped};
use plimsoll_tui::live::source::{About, Control, Heard, Source, SourceError};
use plimsoll_tui::live::state::Ended;
use tempfile::TempDir;

/// Hears a socket, as far as it takes to see what a child makes of it.
struct Socket {
    follow: Follow,
    told: Vec<Control>,
}

impl Source for Socket {
    fn about(&self) -> About {
        About {
            name: format!("{} controls", self.told.len()),
            ..About::default()
        }
    }

    fn hear(&mut self, within: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError> {
        Ok(match self.follow.next_within(within) {
            Ok(Told::Event(event)) => {
                into.push(*event);
                Heard::Events
            }
            Ok(Told::Nothing) => Heard::Events,
            Ok(Told::Closed) => Heard::Ended(Ended {
                why: "it has ended".into(),
                in_order: true,
            }),
            Err(error) => Heard::Ended(Ended {
                why: error.to_string(),
                in_order: false,
            }),
        })
    }

    fn control(&mut self, control: Control) {
        self.told.push(control);
    }
}

fn socket() -> Connect {
    Box::new(|path: &Path| {
        let follow = connect(path)?;
        let told = Vec::new();
        Ok(Box::new(Socket { follow, told }))
    })
}

fn note(text: &str) -> Kind {
    Kind::Note { text: text.into() }
}

fn has(events: &[Event], text: &str) -> bool {
    events.iter().any(|event| event.kind == note(text))
}

struct World {
    folder: TempDir,
    socket: PathBuf,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s.sock");
        World { folder, socket }
    }

    fn start(&self, script: &str, patience: Duration) -> ChildSource {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(self.folder.path());
        ChildSource::start(command, &self.socket, patience, socket()).unwrap()
    }

    /// Publishes in the child's stead.
    fn publish(&self) -> (Stream, Publication) {
        let stream = Stream::silent();
        let publication =
            Publication::begin(&stream, Some(self.socket.clone()), || vec![note("hello")]).unwrap();
        (stream, publication)
    }

    fn release(&self) {
        std::fs::write(self.folder.path().join("go"), "").unwrap();
    }
}

const LONG: Duration = Duration::from_secs(60);
/// Runs until it is released.
const HELD: &str = "until [ -e go ]; do sleep 0.02; done;";

/// Hears until it ends, and gives the events before.
fn to_the_end(source: &mut ChildSource) -> Result<(Ended, Vec<Event>), SourceError> {
    let mut events = Vec::new();
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        if let Heard::Ended(ended) = source.hear(Duration::from_millis(50), &mut events)? {
            return Ok((ended, events));
        }
    }
    panic!("it never ends");
}

fn printed(handle: &ChildHandle) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    handle.write_stdout(&mut stdout).unwrap();
    handle.write_stderr(&mut stderr).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(stdout), text(stderr))
}

/// Hears until something is there.
fn until(source: &mut ChildSource, mut is: impl FnMut(&ChildSource, &[Event]) -> bool) {
    let mut events = Vec::new();
    let until = Instant::now() + LONG;
    while !is(source, &events) {
        assert!(Instant::now() < until, "{events:?}");
        let heard = source.hear(Duration::from_millis(20), &mut events).unwrap();
        assert!(matches!(heard, Heard::Events), "{heard:?}");
    }
}

fn is_connected(source: &ChildSource, _: &[Event]) -> bool {
    source.about().name.ends_with("controls")
}

#[test]
fn a_program_that_fails_before_it_publishes_is_quoted() {
    let world = World::new();
    let mut source = world.start("echo report; echo no such model >&2; exit 3", LONG);
    let handle = source.handle();
    assert_eq!(source.about().pid, Some(handle.pid()));
    let error = to_the_end(&mut source).unwrap_err().to_string();
    assert_eq!(
        error,
        "/bin/sh failed with exit code 3 before it told anything:\nno such model"
    );
    assert_eq!(handle.outcome().unwrap().code(), Some(3));
    assert_eq!(
        printed(&handle),
        ("report\n".into(), "no such model\n".into())
    );
}

#[test]
fn a_program_that_is_killed_before_it_publishes_is_said_to_be() {
    let world = World::new();
    let mut source = world.start("kill -SEGV $$", LONG);
    let error = to_the_end(&mut source).unwrap_err().to_string();
    assert!(error.contains("was killed by SIGSEGV before"), "{error}");
}

#[test]
fn a_program_that_was_done_before_anybody_looked_has_not_failed() {
    let world = World::new();
    let mut source = world.start("echo report", LONG);
    let (ended, _) = to_the_end(&mut source).unwrap();
    assert!(
        ended.in_order && ended.why.contains("exit code 0"),
        "{}",
        ended.why
    );
    assert_eq!(printed(&source.handle()).0, "report\n");
    let more = source.hear(Duration::ZERO, &mut Vec::new()).unwrap();
    assert!(matches!(more, Heard::Events), "it ends once");
}

#[test]
fn a_program_that_does_not_exist_is_said_so() {
    let world = World::new();
    let command = Command::new("/no/such/program");
    let error = match ChildSource::start(command, &world.socket, LONG, socket()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it runs"),
    };
    assert!(
        error.starts_with("cannot run /no/such/program: No such file"),
        "{error}"
    );
}

#[test]
fn a_program_that_never_publishes_is_not_waited_for_for_ever_and_ended() {
    let world = World::new();
    let mut source = world.start(
        "echo thinking >&2; exec sleep 1000",
        Duration::from_millis(300),
    );
    let handle = source.handle();
    let error = to_the_end(&mut source).unwrap_err().to_string();
    assert!(
        error.contains("has told nothing at") && error.ends_with("thinking"),
        "{error}"
    );
    assert_eq!(handle.outcome(), None);
    drop(source);
    assert_eq!(handle.outcome().unwrap().signal(), Some(2));
    assert_eq!(handle.stopped(), Some(Stopped::Interrupted));
}

#[test]
fn what_is_at_the_socket_but_no_socket_is_told() {
    let world = World::new();
    std::fs::write(&world.socket, "a file").unwrap();
    let mut source = world.start("exec sleep 1000", Duration::from_millis(300));
    let error = to_the_end(&mut source).unwrap_err().to_string();
    assert!(error.contains("socket"), "{error}");
    assert!(error.contains("has told nothing"), "{error}");
}

#[test]
fn what_it_publishes_is_heard_and_then_how_it_ended() {
    for (end, why, in_order) in [
        ("exit 0", "the run ended in order, exit code 0", true),
        ("exit 7", "the run failed with exit code 7", false),
        ("kill -KILL $$", "the run was killed by SIGKILL", false),
    ] {
        let world = World::new();
        let mut source = world.start(&format!("{HELD} {end}"), LONG);
        let (stream, publication) = world.publish();
        // Only who was greeted hears what comes after.
        until(&mut source, |_, events| has(events, "hello"));
        source.control(Control::LookNow);
        assert_eq!(source.about().name, "1 controls");
        stream.emit(note("heard"));
        until(&mut source, |_, events| has(events, "heard"));
        stream.emit(note("last words"));
        drop(stream);
        drop(publication);
        world.release();
        let (ended, events) = to_the_end(&mut source).unwrap();
        assert_eq!((&*ended.why, ended.in_order), (why, in_order));
        assert!(has(&events, "last words"), "{events:?}");
        assert_eq!(source.handle().stopped(), None);
    }
}

#[test]
fn a_stream_that_breaks_says_so_and_the_end_is_still_told() {
    let world = World::new();
    let listener = std::os::unix::net::UnixListener::bind(&world.socket).unwrap();
    let mut source = world.start(&format!("{HELD} exit 4"), LONG);
    until(&mut source, is_connected);
    let (mut peer, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut peer, b"nonsense\n").unwrap();
    let (ended, _) = to_the_end(&mut source).unwrap();
    assert!(ended.why.ends_with("; the run goes on"), "{}", ended.why);
    assert!(!ended.in_order);
    world.release();
    let (ended, _) = to_the_end(&mut source).unwrap();
    assert!(
        ended.why.starts_with("the run failed with exit code 4 ("),
        "{}",
        ended.why
    );
}

#[test]
fn a_socket_that_outlives_its_program_does_not_hide_the_end() {
    let world = World::new();
    let mut source = world.start(&format!("{HELD} exit 5"), LONG);
    let (_stream, _publication) = world.publish();
    until(&mut source, is_connected);
    world.release();
    let (ended, _) = to_the_end(&mut source).unwrap();
    assert_eq!(ended.why, "the run failed with exit code 5");
}

#[test]
fn a_program_that_prints_much_is_neither_held_up_nor_cut() {
    let world = World::new();
    let script =
        "head -c 20000000 /dev/zero | tr '\\0' x; head -c 5000000 /dev/zero | tr '\\0' y >&2";
    let mut source = world.start(script, LONG);
    let handle = source.handle();
    to_the_end(&mut source).unwrap();
    drop(source);
    let (stdout, stderr) = printed(&handle);
    assert_eq!((stdout.len(), stderr.len()), (20_000_000, 5_000_000));
    assert!(stdout.bytes().all(|byte| byte == b'x') && stderr.bytes().all(|byte| byte == b'y'));
}

#[test]
fn what_it_prints_is_under_no_name() {
    let world = World::new();
    let source = world.start("exec sleep 1000", LONG);
    let pid = source.handle().pid();
    for number in [1, 2] {
        let to = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
        assert!(
            to.to_string_lossy().ends_with(" (deleted)"),
            "{}",
            to.display()
        );
        let mode = std::fs::metadata(format!("/proc/{pid}/fd/{number}")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    let stdin = std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
    assert_eq!(stdin, Path::new("/dev/null"));
}

#[test]
fn ctrl_c_on_the_terminal_does_not_reach_it() {
    let world = World::new();
    let source = world.start("exec sleep 1000", LONG);
    let pid = rustix::process::Pid::from_raw(source.handle().pid().cast_signed()).unwrap();
    assert_eq!(rustix::process::getpgid(Some(pid)).unwrap(), pid);
}

#[test]
fn it_is_interrupted_when_nobody_watches_any_more_and_may_end_in_order() {
    let world = World::new();
    let script =
        "trap 'echo the report; exit 9' INT; echo on > ready; while :; do sleep 0.02; done";
    let source = world.start(script, LONG);
    while !world.folder.path().join("ready").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let handle = source.handle();
    drop(source);
    assert_eq!(handle.outcome().unwrap().code(), Some(9));
    assert_eq!(handle.stopped(), Some(Stopped::Interrupted));
    assert_eq!(printed(&handle).0, "the report\n");
    handle.stop();
    assert_eq!(
        handle.stopped(),
        Some(Stopped::Interrupted),
        "there is nothing left to stop"
    );
}

#[test]
fn what_heeds_no_signal_is_killed_with_what_it_started() {
    let world = World::new();
    let script =
        "trap '' INT TERM; sleep 1000 & echo $! > pid; mv pid ready; wait; while :; do :; done";
    let source = world.start(script, LONG);
    while !world.folder.path().join("ready").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let handle = source.handle();
    drop(source);
    assert_eq!(handle.outcome().unwrap().signal(), Some(9));
    assert_eq!(handle.stopped(), Some(Stopped::Killed));
    assert!(handle.stopped().unwrap().to_string().contains("SIGKILL"));
    let pid = std::fs::read_to_string(world.folder.path().join("ready")).unwrap();
    let status = format!("/proc/{}/stat", pid.trim());
    // Whoever inherits it may not have waited for it yet.
    let gone = || std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "));
    let until = Instant::now() + LONG;
    while !gone() {
        assert!(Instant::now() < until, "it is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}
