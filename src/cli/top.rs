//! `plimsoll top`: the live screen.

use std::cell::Cell;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use malloc_stats::inspect::Target;
use plimsoll_tui::live::screen::{
    Choice, Chosen, Config, Finished, Script, Still, choose, config, run as show,
};
use plimsoll_tui::live::source::recording::{Options, RecordingSource};
use plimsoll_tui::live::source::{
    Candidate, ProcessSource, Recorded, SocketSource, Source, candidates, socket_of,
};
use plimsoll_tui::paint::safe;
use plimsoll_tui::table::{Align, Table};

use super::{BAD_INPUT, Done};
use crate::output::{Output, complain, terminal_size};

const EXAMPLES: &str = "\
Examples:
  plimsoll top                              what can be looked at; Enter attaches
  plimsoll top 4121                         a process, or the cache it publishes
  plimsoll top python3                      by name, where one process is called so
  plimsoll top trace.jsonl                  a recording: [ ] seek, n the next decision
  plimsoll run --live                       a run of our own
  plimsoll top 4121 --record day.jsonl      and keep what is seen
  COLUMNS=120 LINES=36 plimsoll top 4121 --once
  plimsoll top trace.jsonl --at 3.5s --keys '6 e' --once --svg decisions.svg
  plimsoll top 4121 --once --json | jq .findings";

const DETAILS: &str = "\
? on the screen has all keys. A process is looked at from outside, as by `plimsoll inspect`: nothing
is injected. Readings are taken each interval; walks of its heap take at most 1 % of the time. What
is not fresh has its age told.

A cache that publishes (Cache::publish, `plimsoll run`) can be asked to trim, evict, drop, or change
a budget, by the same user, and is asked only after a question that says what it cost last time.
--readonly takes that away; a process that does not publish is always read only.

Grades: a plain number is exact, `≤` (`<=`) an upper bound, `~` an estimate, `n/a` not known, which
is not zero. K, M, G and T are powers of 1024.

Exit codes:
  0    left, or printed
  2    bad usage or bad input, no terminal (say --once), or nothing can be seen of it; and where a
       recording is broken or cut off somewhere: the rest was shown, and stderr says where
  129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM; the terminal is as it was";

/// See a live cache, any process, or a recording on one screen: which limit kills, how soon, what
/// holds memory, what pins it, what was evicted and why
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{DETAILS}"))]
pub(crate) struct Top {
    /// A process by number or name, a recording, or the socket of a cache [default: choose]
    #[arg(value_name = "PID|NAME|FILE|SOCKET")]
    subject: Option<PathBuf>,
    /// Between two readings: 100ms to 60s [default: the config's, or 1s]
    #[arg(long, value_name = "DURATION", value_parser = config::interval)]
    interval: Option<Duration>,
    /// Print one frame, as large as COLUMNS and LINES say or the terminal is, and leave
    #[arg(long, short = '1')]
    once: bool,
    /// With --once: watch so long before, such as 15s; how fast it grows takes 10 s
    #[arg(long, value_name = "DURATION", requires = "once", value_parser = moment)]
    after: Option<u64>,
    /// Print everything that is known as one JSON object
    #[arg(long, requires = "once")]
    json: bool,
    /// Draw the frame as a picture in a file
    #[arg(long, value_name = "FILE", requires = "once", conflicts_with = "json")]
    svg: Option<PathBuf>,
    /// Press keys before the frame is drawn, as the config names them, such as '6 down enter'
    #[arg(long, value_name = "KEYS", requires = "once", conflicts_with = "json")]
    keys: Option<Script>,
    /// Begin a recording at a moment, such as 3.5s, 250ms or 12m; with --once that is shown
    /// [default: its beginning; with --once its end]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<u64>,
    /// Play a recording so many times as fast
    #[arg(long, value_name = "X", value_parser = speed)]
    speed: Option<f64>,
    /// Record what is seen in a new file, which this and `plimsoll replay` read
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Change nothing: no trim, no evict, no drop, no budget
    #[arg(long)]
    readonly: bool,
    /// The config file [default: $XDG_CONFIG_HOME/plimsoll/top.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a config file with everything in it, commented, and leave
    #[arg(long, exclusive = true)]
    print_config: bool,
}

/// What is looked at.
enum Subject {
    Socket(PathBuf),
    Process(u32),
    Recording(PathBuf),
}

/// A frame without a terminal, where nothing says how large.
const FRAME: (u16, u16) = (120, 36);
/// What a walk of a heap may take before a frame is printed without it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a cache has, to say where everything is.
const GREETING: Duration = Duration::from_secs(5);
/// What a recording has, to be read to its end.
const READING: Duration = Duration::from_secs(3600);
/// A source is heard for so long after it said the first thing.
const MORE: Duration = Duration::from_millis(300);

pub(crate) fn run(options: &Top) -> Done {
    let output = Output::new(options.json);
    if options.print_config {
        output.text(&Config::printed())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = configured(options)?;
    let subject = match &options.subject {
        Some(subject) => find(subject)?,
        None if options.once => return list(&output),
        None => match choose(&config, || candidates().into_iter().map(choice).collect())? {
            Chosen::One(choice) => match choice.socket {
                Some(socket) => Subject::Socket(socket),
                None => Subject::Process(choice.pid),
            },
            Chosen::Left(signal) => return Ok(left(signal)),
        },
    };
    if options.once {
        return once(options, &config, &subject, &output);
    }
    plimsoll_tui::live::screen::terminal::check()?;
    let source = open(options, &config, &subject)?;
    let finished = show(source, &config, None)?;
    Ok(finish(&finished))
}

/// What is said once the screen is gone, and the exit code.
fn finish(finished: &Finished) -> ExitCode {
    if let Some(failed) = &finished.failed {
        complain(failed);
        return ExitCode::from(BAD_INPUT);
    }
    if let Some(signal) = finished.signal {
        return left(Some(signal));
    }
    say(&finished.about.troubles)
}

fn left(signal: Option<i32>) -> ExitCode {
    let code = signal.and_then(|signal| u8::try_from(128 + signal).ok());
    ExitCode::from(code.unwrap_or(0))
}

/// What was wrong, though something could be shown.
fn say(troubles: &[String]) -> ExitCode {
    for trouble in troubles {
        complain(trouble);
    }
    ExitCode::from(if troubles.is_empty() { 0 } else { BAD_INPUT })
}

pub(crate) fn read_config(path: Option<&Path>) -> Result<Config, config::ConfigError> {
    match (path, Config::default_path()) {
        (Some(path), _) => Config::read(path, true),
        (None, Some(path)) => Config::read(&path, false),
        (None, None) => Ok(Config::default()),
    }
}

fn configured(options: &Top) -> Result<Config, config::ConfigError> {
    let mut config = read_config(options.config.as_deref())?;
    config.interval = options.interval.unwrap_or(config.interval);
    config.readonly |= options.readonly;
    Ok(config)
}

/// What is meant: a number is a process, what is there is a file, anything else a name.
fn find(subject: &Path) -> Result<Subject, Box<dyn std::error::Error + Send + Sync>> {
    let text = subject.to_str();
    if let Some(pid) = text.and_then(|text| text.parse().ok()) {
        return Ok(match socket_of(pid) {
            Some(socket) => Subject::Socket(socket),
            None => Subject::Process(pid),
        });
    }
    match std::fs::metadata(subject) {
        Ok(there) if there.file_type().is_socket() => Ok(Subject::Socket(subject.into())),
        Ok(_) => Ok(Subject::Recording(subject.into())),
        Err(error) => {
            let names_a_file = subject.as_os_str().len() > 15
                || subject.extension().is_some()
                || subject.components().count() > 1;
            match text.filter(|_| !names_a_file) {
                Some(name) => {
                    let pid = Target::find(name)?.pid();
                    Ok(match socket_of(pid) {
                        Some(socket) => Subject::Socket(socket),
                        None => Subject::Process(pid),
                    })
                }
                None => Err(format!(
                    "{}: {error}; a process by number or name, a recording, or a socket",
                    safe(&subject.to_string_lossy())
                )
                .into()),
            }
        }
    }
}

fn open(
    options: &Top,
    config: &Config,
    subject: &Subject,
) -> Result<Box<dyn Source>, Box<dyn std::error::Error + Send + Sync>> {
    let is_recording = matches!(subject, Subject::Recording(_));
    if is_recording && options.record.is_some() {
        return Err("--record: this is a recording already; copy the file".into());
    }
    if is_recording && options.after.is_some() {
        return Err("--after: a recording is shown --at a moment".into());
    }
    if !is_recording && (options.at.is_some() || options.speed.is_some()) {
        return Err("--at and --speed are for recordings".into());
    }
    let source: Box<dyn Source> = match subject {
        Subject::Socket(path) => Box::new(SocketSource::connect(path, config.interval)?),
        Subject::Process(pid) => Box::new(ProcessSource::open(*pid, config.interval)?),
        Subject::Recording(path) => {
            let play = Options {
                speed: options.speed.unwrap_or(1.0),
                paused: options.at.is_some(),
                at: options.at.or(options.once.then_some(u64::MAX)),
            };
            Box::new(RecordingSource::open(path, play)?)
        }
    };
    Ok(match &options.record {
        Some(path) => Box::new(Recorded::begin(source, path)?),
        None => source,
    })
}

/// One frame.
fn once(options: &Top, config: &Config, subject: &Subject, output: &Output) -> Done {
    let source = open(options, config, subject)?;
    let first: Cell<Option<Instant>> = Cell::new(None);
    let more = MORE.max(Duration::from_micros(options.after.unwrap_or(0)));
    let since = move |is_there: bool| {
        if is_there && first.get().is_none() {
            first.set(Some(Instant::now()));
        }
        first.get().is_some_and(|first| first.elapsed() >= more)
    };
    let mut still = match subject {
        Subject::Recording(_) => Still::take(source, config, READING, |state| {
            since(state.sums.events > 0)
        }),
        Subject::Socket(_) => Still::take(source, config, GREETING + more, |state| {
            since(state.look.is_some() && state.vitals.at_us.is_some())
        }),
        Subject::Process(_) => Still::take(source, config, PATIENCE + more, |state| {
            since(state.look.is_some())
        }),
    }?;
    if options.json {
        output.value(&still.summary())?;
        return Ok(say(still.troubles()));
    }
    let script = options.keys.clone().unwrap_or_default();
    if let Some(path) = &options.svg {
        let picture = still.svg(size(), &script)?;
        std::fs::write(path, picture)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    } else {
        output.text(&still.text(size(), &script)?)?;
    }
    Ok(say(still.troubles()))
}

/// How large a frame is: what COLUMNS and LINES say, else the terminal, else 120 by 36.
fn size() -> (u16, u16) {
    let variable = |name| std::env::var(name).ok()?.trim().parse::<u16>().ok();
    let terminal = terminal_size();
    let of_terminal = |pick: fn((usize, usize)) -> usize| {
        terminal.and_then(|size| u16::try_from(pick(size)).ok())
    };
    (
        variable("COLUMNS")
            .or(of_terminal(|size| size.0))
            .unwrap_or(FRAME.0),
        variable("LINES")
            .or(of_terminal(|size| size.1))
            .unwrap_or(FRAME.1),
    )
}

fn choice(candidate: Candidate) -> Choice {
    let (left, bound) = match candidate.nearest {
        Some(nearest) => (nearest.headroom, nearest.bound.to_string()),
        None => (malloc_stats::Metric::Unavailable, String::new()),
    };
    Choice {
        pid: candidate.pid,
        name: candidate.name,
        user: candidate.user,
        rss: candidate.rss,
        left,
        bound,
        socket: candidate.socket,
    }
}

/// What can be looked at, as a table.
fn list(output: &Output) -> Done {
    let choices: Vec<Choice> = candidates().into_iter().map(choice).collect();
    if output.json {
        output.value(&choices)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new([
        ("PID", Align::Right),
        ("NAME", Align::Left),
        ("USER", Align::Left),
        ("RSS", Align::Right),
        ("LEFT", Align::Right),
        ("", Align::Left),
    ]);
    for choice in &choices {
        let socket = choice
            .socket
            .as_deref()
            .map(|socket| format!("publishes at {}", safe(&socket.to_string_lossy())));
        table.row([
            choice.pid.to_string(),
            safe(&choice.name).into_owned(),
            safe(&choice.user).into_owned(),
            choice.rss.to_string(),
            choice.left.to_string(),
            socket.unwrap_or_else(|| safe(&choice.bound).into_owned()),
        ]);
    }
    output.text(&table.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// A moment of a recording, in microseconds.
fn moment(text: &str) -> Result<u64, String> {
    let units = [("ms", 1e3), ("s", 1e6), ("m", 60e6), ("h", 3600e6)];
    let parsed = units.iter().find_map(|(unit, us)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        (number >= 0.0 && number.is_finite()).then_some(number * us)
    });
    // Casting saturates: beyond the end is the end.
    parsed.map(|us| us as u64).ok_or_else(|| {
        format!(
            "`{}` is no moment: a number with ms, s, m or h, such as 3.5s",
            text.escape_debug()
        )
    })
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok();
    speed
        .filter(|speed| (0.1..=1000.0).contains(speed))
        .ok_or_else(|| format!("`{}` is no speed: 0.1 to 1000", text.escape_debug()))
}
