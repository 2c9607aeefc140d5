//! `plimsoll inspect`: another process, looked at from outside.

use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use malloc_stats::inspect::{Ask, Growth, InspectError, Inspection, Look, Target, Users, judge};
use plimsoll_tui::inspect::{self as view, MapSize, View};

use super::{Done, FAILED};
use crate::output::{Output, complain, terminal_size};
use crate::run::tiers::KeepAlive;
use crate::run::{INTERRUPTED, interruptible};

const EXAMPLES: &str = "\
Examples:
  plimsoll inspect 4121                     the verdict, and what it follows from
  plimsoll inspect python3                  by name, where one process is called so
  plimsoll inspect 4121 --map               where its worst arena is in use, free, given back
  plimsoll inspect 4121 --arena 0           the main arena, drawn
  plimsoll inspect 4121 --for 30s           how fast it grows, and when it meets a limit
  plimsoll inspect 4121 --json | jq .trim";

const DETAILS: &str = "\
Nothing is injected, and nothing of the process is changed: its memory is read from outside, only
pages that are resident, 64 KiB at a time. It goes on running meanwhile, so a part of its heap may
be caught in the middle of a change; that part is read again, and what could not be read whole is
said under `walk`.

--pause stops all threads of the process for the time of the walk, so that every part is whole. The
time it stood still is printed. It notices more than the delay: epoll_wait, semop, sigtimedwait, and
reads and writes of sockets with a timeout may return early with EINTR, as after SIGSTOP and SIGCONT
(signal(7)), and a program that takes that for an error may fail. Its clocks go on, so timeouts may
pass. It is let go whatever happens, this command being killed included.

Permission: the same as to attach a debugger. For processes of the same user that is
kernel.yama.ptrace_scope=0; for all others, root or CAP_SYS_PTRACE. In a container that is
`docker run --cap-add SYS_PTRACE`, and --pid=container:NAME to see another one's. What everybody may
know, such as RSS and limits, is shown in any case.

Grades: a plain number is exact, `≤` an upper bound, `~` an estimate, `n/a` not known, which is not
zero. In tables K, M, G and T are powers of 1024.

Exit codes:
  0    done; where malloc is not glibc's, what can be known without its heap
  1    looked, but the heap could not be: it is glibc's, or --map or --arena ask for it, or its
       memory may not be read; or the process ended before the second look of --for
  2    bad usage, no such process or arena, or nothing of it can be read
  130  --for was interrupted; growth is that of the time until then";

/// See inside a live process: what its malloc holds, what of it is resident, what pins it, how
/// near its limits are, and what could be done.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{DETAILS}"))]
pub(crate) struct Inspect {
    /// The process: its number, or its name where only one is called so
    #[arg(value_name = "PID|NAME")]
    process: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Draw an arena, as large as the terminal or in so many columns and rows, such as 100x30
    #[arg(
        long,
        value_name = "WxH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "fit",
        conflicts_with = "json"
    )]
    map: Option<Map>,
    /// Which arena to draw; implies --map [default: the one with the most waste]
    #[arg(long, value_name = "N", conflicts_with = "json")]
    arena: Option<usize>,
    /// Stop the process for the time of the walk; see --help for what it may notice
    #[arg(long)]
    pause: bool,
    /// Look twice, so far apart, such as 30s or 5m: how fast it grows
    #[arg(long = "for", value_name = "DURATION")]
    span: Option<Span>,
}

/// How large to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Map {
    Fit,
    Cells(MapSize),
}

/// The most columns, and rows, of a map: more is no picture any more.
const LARGEST_MAP: usize = 1000;
/// Rows of a map where the terminal has no height, and the least that are of use.
const MAP_ROWS: usize = 16;
const LEAST_MAP_ROWS: usize = 4;

impl FromStr for Map {
    type Err = String;

    fn from_str(text: &str) -> Result<Map, String> {
        if text == "fit" {
            return Ok(Map::Fit);
        }
        let number = |text: &str| text.parse().ok().filter(|n| (1..=LARGEST_MAP).contains(n));
        let size = text.split_once(['x', 'X']).and_then(|(columns, rows)| {
            Some(MapSize {
                columns: number(columns)?,
                rows: number(rows)?,
            })
        });
        size.map(Map::Cells).ok_or_else(|| {
            format!(
                "`{}` is no size of a map: columns and rows of 1 to {LARGEST_MAP}, such as 100x30",
                text.escape_debug()
            )
        })
    }
}

impl Map {
    fn size(self, output: &Output) -> MapSize {
        match self {
            Map::Cells(size) => size,
            Map::Fit => {
                // Its heading, its legend and the prompt are to stay in sight.
                let height = terminal_size().map(|(_, rows)| rows.saturating_sub(5));
                let rows = height.unwrap_or(MAP_ROWS).max(LEAST_MAP_ROWS);
                MapSize::of_width(&output.paint, rows)
            }
        }
    }
}

/// How far two looks are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let time = text.parse::<KeepAlive>().ok();
        let time = time.map(|time| time.0).filter(|time| !time.is_zero());
        time.map(Span).ok_or_else(|| {
            format!(
                "`{}` is no time between two looks: a whole number with ms, s, m or h, such as \
                 30s or 5m, at most 24h",
                text.escape_debug()
            )
        })
    }
}

pub(crate) fn run(options: &Inspect) -> Done {
    let output = Output::new(options.json);
    let target = Target::find(&options.process)?;
    let first = look(&target, options.pause)?;
    let (inspection, ending) = match options.span {
        None => (first, Ending::Done),
        Some(span) => look_again(&target, options.pause, first, span.0)?,
    };
    if let Some(index) = options.arena {
        there_is(&inspection, index)?;
    }
    if output.json {
        output.value(&inspection)?;
    } else {
        let users = Users::read();
        let map = options.map.or(options.arena.map(|_| Map::Fit));
        let view = View {
            user: users.name(inspection.process.uid),
            map: map.map(|map| map.size(&output)),
            arena: options.arena,
        };
        output.text(&view::text(&output.paint, &inspection, &view))?;
    }
    let asked_for_heap = options.map.is_some() || options.arena.is_some();
    // Whose malloc it is stays unknown where the memory may not be read.
    let denied = inspection.allocator.reason.is_none() && !inspection.allocator.walkable;
    let expected = asked_for_heap || inspection.allocator.walkable || denied;
    let unread = inspection.heap.is_none() && expected;
    if unread {
        let reason = inspection.heap_absent.as_deref().unwrap_or("not known why");
        let pid = inspection.pid;
        complain(&format!(
            "the heap of process {pid} could not be read: {reason}"
        ));
    }
    Ok(ExitCode::from(match ending {
        Ending::Interrupted => INTERRUPTED,
        Ending::Gone => FAILED,
        Ending::Done if unread => FAILED,
        Ending::Done => 0,
    }))
}

/// The one place that looks. Where that lasts, a line on stderr says what is being done.
fn look(target: &Target, pause: bool) -> Result<Inspection, InspectError> {
    let ask = Ask {
        pause,
        ..Ask::default()
    };
    let (done, until_done) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if until_done.recv_timeout(SHORT) == Err(RecvTimeoutError::Timeout) {
                let bar = ProgressBar::new_spinner();
                bar.set_message(format!("reading the heap of process {}", target.pid()));
                bar.enable_steady_tick(LISTEN);
                let _ = until_done.recv();
                bar.finish_and_clear();
            }
        });
        let looked = malloc_stats::inspect::inspect(target, &ask);
        drop(done);
        looked
    })
}

fn there_is(inspection: &Inspection, index: usize) -> Result<(), String> {
    let Some(heap) = &inspection.heap else {
        return Ok(());
    };
    if heap.arenas.iter().any(|arena| arena.index == index) {
        return Ok(());
    }
    let last = heap.arenas.iter().map(|arena| arena.index).max();
    let known = match last {
        None | Some(0) => "it has only arena 0, the main one".to_owned(),
        Some(last) => format!("it has those from 0, the main one, to {last}"),
    };
    let pid = inspection.pid;
    Err(format!("process {pid} has no arena {index}: {known}"))
}

/// How the time between two looks ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Done,
    Interrupted,
    Gone,
}

/// So long nobody needs to be told what is being done.
const SHORT: Duration = Duration::from_secs(1);
/// How often to listen for a signal, and for the end of the process.
const LISTEN: Duration = Duration::from_millis(100);

/// The second look, with the growth since the first; or the first, where there is nothing left to
/// look at.
fn look_again(
    target: &Target,
    pause: bool,
    mut first: Inspection,
    span: Duration,
) -> std::io::Result<(Inspection, Ending)> {
    let interrupted = interruptible()?;
    let begun = Instant::now();
    let before = Look::of(&first, Duration::ZERO);
    let waited = wait(target, span, &interrupted);
    match look(target, pause) {
        Ok(mut second) => {
            let after = Look::of(&second, begun.elapsed());
            second.growth = Some(Growth::between(&before, &after));
            second.verdicts = judge(&second);
            let ending = if interrupted.load(Ordering::Relaxed) {
                Ending::Interrupted
            } else {
                Ending::Done
            };
            Ok((second, ending))
        }
        Err(error) => {
            let note = format!(
                "no second look after {:.1} s: {error}; this is the first",
                waited.as_secs_f64()
            );
            complain(&note);
            first.notes.push(note);
            Ok((first, Ending::Gone))
        }
    }
}

/// Waits so long, or until a signal comes or the process goes; with a bar where stderr is a
/// terminal.
fn wait(target: &Target, span: Duration, interrupted: &AtomicBool) -> Duration {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let bar = ProgressBar::with_draw_target(Some(milliseconds(span)), ProgressDrawTarget::stderr());
    let template = "second look {wide_bar:.dim} {msg} (Ctrl-C: now)";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let begun = Instant::now();
    loop {
        let waited = begun.elapsed();
        let left = span.saturating_sub(waited);
        if left.is_zero() || interrupted.load(Ordering::Relaxed) || target.file("stat").is_err() {
            bar.finish_and_clear();
            return waited;
        }
        bar.set_position(milliseconds(waited));
        bar.set_message(format!("in {} s", left.as_secs() + 1));
        std::thread::sleep(left.min(LISTEN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_maps_are_columns_and_rows() {
        let size = MapSize {
            columns: 100,
            rows: 30,
        };
        assert_eq!("100x30".parse(), Ok(Map::Cells(size)));
        assert_eq!("fit".parse(), Ok(Map::Fit));
        for wrong in [
            "", "x", "0x5", "5x0", "5", "-1x5", "1001x5", "5x5x5", "\u{1b}x1",
        ] {
            let said = wrong.parse::<Map>().unwrap_err();
            assert!(
                said.contains("100x30") && !said.contains('\u{1b}'),
                "{said}"
            );
        }
    }

    #[test]
    fn times_between_looks_are_not_zero() {
        assert_eq!("5m".parse(), Ok(Span(Duration::from_secs(300))));
        for wrong in ["0", "0s", "", "5", "1.5s", "25h", "-3s"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
