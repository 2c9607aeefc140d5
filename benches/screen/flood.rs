//! Streams that come faster than any cache's: hours at once, and a hundred thousand events a second.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_events::Kind;

use crate::Results;
use crate::data::{MODELS, Made, line, name};
use crate::live::plimsoll;
use crate::terminal::Terminal;

const HOUR: u64 = 3600;
const RATE: u64 = 100_000;
const SECONDS: u64 = 10;
/// The longest line that is sent at that rate, bytes.
const LONGEST: usize = 300;
/// Between two bursts.
const BURST: Duration = Duration::from_millis(5);
const PER_BURST: u64 = RATE * BURST.as_millis() as u64 / 1000;
/// What stands before the number of a burst, in the notes among it.
const BURST_NUMBER: &str = "burst ";

/// A stream of our own, and the program that hears it.
struct Published {
    socket: UnixStream,
    screen: Terminal,
    made: Made,
    marks: u64,
    _folder: tempfile::TempDir,
}

impl Published {
    fn begin() -> Published {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let screen = Terminal::run(&mut plimsoll(&path));
        // Whoever looks whether somebody answers hangs up again.
        let (socket, _) = listener.accept().unwrap();
        let made = Made::begin();
        let mut published = Published {
            socket,
            screen,
            made,
            marks: 0,
            _folder: folder,
        };
        let opened = published.made.opened();
        let opened = published.made.event(opened);
        let picture = published.made.picture();
        let picture = published.made.event(picture);
        published.write(&line(&opened));
        published.write(&line(&picture));
        published.screen.wait_text("LIVE");
        published
    }

    fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// A decision that can be told from all others on the screen.
    fn mark(&mut self) -> (String, Vec<u8>) {
        self.marks += 1;
        let mark = format!("mark{:04}", self.marks);
        let refuse = self.made.refuse(mark.clone());
        let event = self.made.event(refuse);
        (mark, line(&event))
    }

    /// Waits until everything that was written is on the screen.
    fn settle(&mut self) -> Duration {
        let (mark, line) = self.mark();
        let written = Instant::now();
        self.write(&line);
        let shown = self.screen.wait_text(&mark);
        assert_eq!(unread(&self.socket), 0);
        shown - written
    }

    fn hour(&mut self) -> f64 {
        for _ in 0..HOUR {
            for event in self.made.second() {
                self.write(&line(&event));
            }
        }
        self.settle();
        // Frames of it, with everything that they keep.
        std::thread::sleep(Duration::from_secs(2));
        self.screen.anonymous()
    }
}

/// Bytes that the reader has not taken.
fn unread(socket: &UnixStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ, writes one int.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(done, 0);
    bytes
}

pub fn hours(results: &mut Results) {
    let mut published = Published::begin();
    let begun = Instant::now();
    let first = published.hour();
    let took = begun.elapsed();
    let more: Vec<f64> = (0..3).map(|_| published.hour()).collect();
    let most = more.iter().copied().fold(first, f64::max);
    results.row(
        "an hour of ticks, loads and evictions, anonymous memory",
        format!("{first:.1} MiB"),
        String::new(),
        "30 MB",
    );
    results.row(
        "  after the fourth, and the most of the four",
        format!("{:.1} MiB", more[2]),
        format!("{most:.1} MiB"),
        "30 MB",
    );
    results.row(
        "  an hour is read in",
        format!("{:.1} s", took.as_secs_f64()),
        String::new(),
        "",
    );
}

pub fn flood(results: &mut Results) {
    let mut published = Published::begin();
    published.settle();
    std::thread::sleep(Duration::from_secs(2));
    let anonymous = published.screen.anonymous();
    let bursts = bursts(&mut published.made);
    let count = bursts.len() as u64 * PER_BURST;
    let before = published.screen.used();
    let sent = send(&published, &bursts);
    let (_, share) = published.screen.used().since(&before);
    let last = published.settle();
    drop(bursts);
    std::thread::sleep(Duration::from_secs(1));
    let rate = count as f64 / sent.took.as_secs_f64();
    let mut lags = sent.lags;
    lags.push(last);
    lags.sort();
    let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    results.row(
        "100 000 events/s for 10 s: taken, events/s",
        format!("{rate:.0}"),
        format!("{} KiB unread", sent.most_unread / 1024),
        "100 000",
    );
    results.row(
        "  due until seen in the terminal",
        ms(lags[lags.len() / 2]),
        ms(lags[lags.len() - 1]),
        "1 s",
    );
    results.row(
        "  anonymous memory before, after",
        format!("{anonymous:.1} MiB"),
        format!("{:.1} MiB", published.screen.anonymous()),
        "",
    );
    results.row(
        "  share of a core meanwhile",
        format!("{share:.0} %"),
        String::new(),
        "",
    );
    let text = published.screen.text();
    assert!(!text.contains("are missing"), "{text}");
}

/// All that is sent, made before, so that only sending is timed.
fn bursts(made: &mut Made) -> Vec<Vec<u8>> {
    let count = SECONDS * RATE / PER_BURST;
    let mut bursts = Vec::new();
    for burst in 0..count {
        let mut bytes = Vec::new();
        for at in 0..PER_BURST {
            made.at_us += 1_000_000 / RATE;
            let kind = match at % 100 {
                // Always among the newest lines of the list of decisions.
                99 => Kind::Note {
                    text: format!("{BURST_NUMBER}{burst:06}.{at}"),
                },
                nth if nth % 10 == 9 => made.refuse(name(at as usize % MODELS)),
                _ => made.tally(1 + at as usize % 3),
            };
            let line = line(&made.event(kind));
            assert!(line.len() <= LONGEST, "{} bytes", line.len());
            bytes.extend(line);
        }
        bursts.push(bytes);
    }
    bursts
}

/// How sending went.
struct Sent {
    /// Looked at again and again: how long ago the newest that is on the screen was due.
    lags: Vec<Duration>,
    took: Duration,
    /// The most that was written and not read, bytes.
    most_unread: i32,
}

fn send(published: &Published, bursts: &[Vec<u8>]) -> Sent {
    let begun = Instant::now();
    let due = |burst: u32| begun + BURST * burst;
    let (screen, mut socket) = (&published.screen, &published.socket);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut lags = Vec::new();
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(BURST);
                // Due, not written: a writer that was held up is no excuse.
                if let Some(newest) = newest(&screen.text()) {
                    lags.push(due(newest).elapsed());
                }
            }
            lags
        });
        let mut most_unread = 0;
        for (burst, bytes) in (0..).zip(bursts) {
            std::thread::sleep(due(burst).saturating_duration_since(Instant::now()));
            most_unread = most_unread.max(unread(socket));
            socket.write_all(bytes).unwrap();
        }
        let took = begun.elapsed();
        done.store(true, Ordering::SeqCst);
        Sent {
            lags: watcher.join().unwrap(),
            took,
            most_unread,
        }
    })
}

/// The newest burst that is on the screen.
fn newest(text: &str) -> Option<u32> {
    let numbers = text.split(BURST_NUMBER).skip(1);
    numbers.filter_map(|rest| rest.get(..6)?.parse().ok()).max()
}
