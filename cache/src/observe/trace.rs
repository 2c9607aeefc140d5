//! Transfers beside what a program computes meanwhile, for a trace viewer.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{LoadObserver, Transferred, Unobserved};
use crate::model::{Model, TensorInfo};

/// How many transfers and spans are kept, unless [`Trace::at_most`] says otherwise.
const MOST: usize = 1 << 18;

/// So many bytes of a name are kept; files can claim names of any length.
const LONGEST_NAME: usize = 120;

/// More threads and devices than this share one line.
const MOST_LINES: usize = 1 << 10;

/// Gathers transfers, and the spans in which a program computes, and writes them as Chrome's trace
/// events (the JSON array of [the format]), which Perfetto and `chrome://tracing` show: a line for
/// each device and model, and one for each thread that computes.
///
/// ```
/// # use std::sync::Arc;
/// # use plimsoll_cache::{Cache, observe::Trace};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let trace = Arc::new(Trace::new());
/// let cache = Cache::builder().ram(1 << 30).observer(trace.clone()).build()?;
/// {
///     let _span = trace.span("compute", "layer 1");
/// }
/// trace.write(std::io::sink())?;
/// # Ok(()) }
/// ```
///
/// [the format]: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
pub struct Trace {
    next: Arc<dyn LoadObserver>,
    began: Instant,
    most: usize,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    events: Vec<Event>,
    /// How many there was no room for.
    missed: u64,
    /// What each line is called.
    lines: Vec<String>,
    transfers: HashMap<(String, String), usize>,
    threads: HashMap<ThreadId, usize>,
}

struct Event {
    line: usize,
    category: &'static str,
    name: Box<str>,
    /// Since the trace began.
    at: Duration,
    took: Duration,
    transfer: Option<Transfer>,
}

#[derive(Clone, Copy)]
struct Transfer {
    bytes: u64,
    tensors: usize,
    from_ram: bool,
}

/// How much of the time that transfers took lies under computing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overlap {
    /// What transfers took, one after the other.
    pub transfers: Duration,
    /// The part of it during which some thread computed.
    pub hidden: Duration,
}

impl Overlap {
    /// That part, from 0 to 1; 1 where nothing was transferred.
    #[must_use]
    pub fn share(self) -> f64 {
        if self.transfers.is_zero() {
            return 1.0;
        }
        self.hidden.as_secs_f64() / self.transfers.as_secs_f64()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gathered = self.gathered();
        f.debug_struct("Trace")
            .field("events", &gathered.events.len())
            .field("missed", &gathered.missed)
            .finish_non_exhaustive()
    }
}

impl Default for Trace {
    fn default() -> Trace {
        Trace::new()
    }
}

impl Trace {
    /// A trace that begins now.
    #[must_use]
    pub fn new() -> Trace {
        Trace {
            next: Arc::new(Unobserved),
            began: Instant::now(),
            most: MOST,
            gathered: Mutex::default(),
        }
    }

    /// The same; another observer is told of everything too.
    #[must_use]
    pub fn and(mut self, next: Arc<dyn LoadObserver>) -> Trace {
        self.next = next;
        self
    }

    /// The same, for at most so many transfers and spans: what comes later is counted, not kept.
    #[must_use]
    pub fn at_most(mut self, events: usize) -> Trace {
        self.most = events;
        self
    }

    /// Something that this thread does until the result is dropped. Spans of the category `compute`
    /// are what [`overlap`](Self::overlap) looks for.
    pub fn span(&self, category: &'static str, name: &str) -> Span<'_> {
        Span {
            trace: self,
            category,
            name: shortened(name).into(),
            began: Instant::now(),
        }
    }

    /// How many transfers and spans there was no room for.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.gathered().missed
    }

    /// How much of the time that transfers took lies under spans of the category `compute`, by what
    /// has been gathered until now.
    #[must_use]
    pub fn overlap(&self) -> Overlap {
        let gathered = self.gathered();
        let spans = |is_wanted: fn(&Event) -> bool| {
            let events = gathered.events.iter().filter(move |event| is_wanted(event));
            let spans = events.map(|event| (event.at, event.at.saturating_add(event.took)));
            let mut spans: Vec<(Duration, Duration)> = spans.collect();
            spans.sort_unstable();
            spans
        };
        let computing = spans(|event| event.category == "compute" && event.transfer.is_none());
        let mut merged: Vec<(Duration, Duration)> = Vec::new();
        for (begin, end) in computing {
            match merged.last_mut() {
                Some(last) if begin <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((begin, end)),
            }
        }
        let mut overlap = Overlap::default();
        let mut from = 0;
        for (begin, end) in spans(|event| event.transfer.is_some()) {
            overlap.transfers += end - begin;
            // Transfers come in the order of their beginnings.
            while merged.get(from).is_some_and(|span| span.1 <= begin) {
                from += 1;
            }
            let under = merged[from..].iter().take_while(|span| span.0 < end);
            let under = under.map(|span| span.1.min(end) - span.0.max(begin));
            overlap.hidden += under.sum::<Duration>();
        }
        overlap
    }

    /// Writes what has been gathered until now.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut to = io::BufWriter::new(to);
        let gathered = self.gathered();
        write!(to, "[")?;
        let names = gathered.lines.iter().enumerate();
        for (line, name) in names {
            let name = Named { name };
            let before = if line == 0 { "\n" } else { ",\n" };
            write!(to, "{before}")?;
            serde_json::to_writer(
                &mut to,
                &Written {
                    name: "thread_name",
                    phase: "M",
                    args: Args::Line(name),
                    ..Written::at(line)
                },
            )?;
        }
        for event in &gathered.events {
            writeln!(to, ",")?;
            let args = event.transfer.map_or(Args::None {}, |transfer| {
                Args::Transfer(Carried {
                    bytes: transfer.bytes,
                    tensors: transfer.tensors,
                    from: if transfer.from_ram { "ram" } else { "file" },
                })
            });
            serde_json::to_writer(
                &mut to,
                &Written {
                    name: &event.name,
                    category: Some(event.category),
                    phase: "X",
                    at_us: Some(microseconds(event.at)),
                    took_us: Some(microseconds(event.took)),
                    args,
                    ..Written::at(event.line)
                },
            )?;
        }
        writeln!(to, "\n]")?;
        to.flush()
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since_begin(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }
}

impl Gathered {
    /// Whether there is room for one more; counts it where there is none.
    fn has_room(&mut self, most: usize) -> bool {
        let has_room = self.events.len() < most;
        self.missed += u64::from(!has_room);
        has_room
    }

    fn line(&mut self, name: impl FnOnce() -> String) -> usize {
        if self.lines.len() < MOST_LINES {
            self.lines.push(name());
        } else if self.lines.len() == MOST_LINES {
            self.lines.push("others".to_owned());
        } else {
            return MOST_LINES;
        }
        self.lines.len() - 1
    }

    fn line_of_transfers(&mut self, device: &str, model: &str) -> usize {
        let key = (device.to_owned(), shortened(model).into_owned());
        if let Some(line) = self.transfers.get(&key) {
            return *line;
        }
        let line = self.line(|| format!("transfers of {} to {}", key.1, key.0));
        if line < MOST_LINES {
            self.transfers.insert(key, line);
        }
        line
    }

    fn line_of_thread(&mut self) -> usize {
        let thread = std::thread::current();
        if let Some(line) = self.threads.get(&thread.id()) {
            return *line;
        }
        let line = self.line(|| match thread.name() {
            Some(name) => format!("thread {}", shortened(name)),
            None => format!("{:?}", thread.id()),
        });
        if line < MOST_LINES {
            self.threads.insert(thread.id(), line);
        }
        line
    }
}

/// Something that a thread does, until this is dropped.
#[derive(Debug)]
#[must_use = "it ends where this is dropped"]
pub struct Span<'a> {
    trace: &'a Trace,
    category: &'static str,
    name: Box<str>,
    began: Instant,
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let mut gathered = self.trace.gathered();
        if gathered.has_room(self.trace.most) {
            let line = gathered.line_of_thread();
            gathered.events.push(Event {
                line,
                category: self.category,
                name: std::mem::take(&mut self.name),
                at: self.trace.since_begin(self.began),
                took,
                transfer: None,
            });
        }
    }
}

impl LoadObserver for Trace {
    fn before_tensor(&self, model: &Model, tensor: &TensorInfo) {
        self.next.before_tensor(model, tensor);
    }

    fn after_tensor(&self, model: &Model, tensor: &TensorInfo) {
        self.next.after_tensor(model, tensor);
    }

    fn recycled(&self, bytes: u64) {
        self.next.recycled(bytes);
    }

    fn before_read(&self, path: &Path, offset: u64, bytes: u64) -> io::Result<()> {
        self.next.before_read(path, offset, bytes)
    }

    fn bytes_read(&self, bytes: u64) {
        self.next.bytes_read(bytes);
    }

    fn transferred(&self, transferred: &Transferred<'_>) {
        let first = shortened(&transferred.first.name);
        let name = match transferred.tensors {
            0 | 1 => first.into_owned(),
            more => format!("{first} and {} more", more - 1),
        };
        let mut gathered = self.gathered();
        if gathered.has_room(self.most) {
            let line = gathered.line_of_transfers(transferred.device, transferred.model.name());
            gathered.events.push(Event {
                line,
                category: "transfer",
                name: name.into(),
                at: self.since_begin(transferred.began),
                took: transferred.took,
                transfer: Some(Transfer {
                    bytes: transferred.bytes,
                    tensors: transferred.tensors,
                    from_ram: transferred.from_ram,
                }),
            });
        }
        drop(gathered);
        self.next.transferred(transferred);
    }
}

fn shortened(name: &str) -> Cow<'_, str> {
    if name.len() <= LONGEST_NAME {
        return Cow::Borrowed(name);
    }
    let end = name.floor_char_boundary(LONGEST_NAME);
    Cow::Owned(format!("{}…", &name[..end]))
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// An event, as viewers read it.
#[derive(Serialize)]
struct Written<'a> {
    name: &'a str,
    #[serde(rename = "cat", skip_serializing_if = "Option::is_none")]
    category: Option<&'static str>,
    #[serde(rename = "ph")]
    phase: &'static str,
    #[serde(rename = "ts", skip_serializing_if = "Option::is_none")]
    at_us: Option<f64>,
    #[serde(rename = "dur", skip_serializing_if = "Option::is_none")]
    took_us: Option<f64>,
    #[serde(rename = "pid")]
    process: u32,
    #[serde(rename = "tid")]
    line: usize,
    args: Args<'a>,
}

impl Written<'_> {
    fn at(line: usize) -> Written<'static> {
        Written {
            name: "",
            category: None,
            phase: "",
            at_us: None,
            took_us: None,
            process: std::process::id(),
            // Viewers take line 0 for the process itself.
            line: line + 1,
            args: Args::None {},
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Args<'a> {
    None {},
    Line(Named<'a>),
    Transfer(Carried),
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Carried {
    bytes: u64,
    tensors: usize,
    from: &'static str,
}
