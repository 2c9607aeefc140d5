//! The file, read forward as a fold, and places to go back to.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::Path;

use plimsoll_events::{Event, Kind, ReadError, Replay};

use super::troubles::Troubles;
use crate::live::State;

/// Places to go back to, at most. They are as far apart as to cover what was read: at least a
/// sixteenth of it, at most an eighth.
const MOST_PLACES: usize = 16;

/// Bytes between two of them in a short file.
const SPACING: u64 = 256 << 10;

/// The kinds of decision, as [`What::kind`](crate::live::What::kind) names them.
const DECISIONS: [&str; 5] = ["load", "evict", "refuse", "budget", "reclaim"];

/// Some kinds of decision: a bit for each of [`DECISIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kinds(u8);

impl Kinds {
    /// One by its name, or all of them. What nobody knows by that name is none.
    pub(super) fn named(name: Option<&str>) -> Kinds {
        let bits = DECISIONS
            .iter()
            .enumerate()
            .filter(|(_, kind)| name.is_none_or(|name| name == **kind))
            .map(|(at, _)| 1 << at);
        Kinds(bits.sum())
    }

    fn of(event: &Event) -> Kinds {
        match &event.kind {
            Kind::Load(_) => Kinds::named(Some("load")),
            Kind::Evict(_) => Kinds::named(Some("evict")),
            Kind::Refuse(_) => Kinds::named(Some("refuse")),
            Kind::Budget(_) => Kinds::named(Some("budget")),
            Kind::Reclaim(_) => Kinds::named(Some("reclaim")),
            _ => Kinds::default(),
        }
    }

    /// Whether an event is one of them.
    pub(super) fn have(self, event: &Event) -> bool {
        self.meet(Kinds::of(event))
    }

    fn meet(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }
}

/// The fold of everything up to a place.
#[derive(Debug, Clone, Default)]
pub(super) struct Moment {
    state: State,
    at_us: u64,
    /// Where the line of the last event ends.
    offset: u64,
    lines: u64,
    /// Whether the last event was the end of the stream.
    closed: bool,
}

impl Moment {
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// When the last event happened. It never goes back.
    pub(super) fn at_us(&self) -> u64 {
        self.at_us
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// A moment to go back to, and what happened from there to the next one.
#[derive(Debug)]
struct Kept {
    from: Moment,
    kinds: Kinds,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// An event, and when.
    Event(u64),
    /// A line that is none.
    Skipped,
    /// Nothing more, for now.
    End,
}

/// What came of looking at a line for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scanned {
    /// It is none.
    Nothing,
    /// It is one, and ends here.
    Found(u64),
    /// The stretch is over.
    Through,
}

/// A recording, at some place.
pub(super) struct Tape {
    replay: Replay,
    now: Moment,
    /// The event after `now`, with its time and where its line ends.
    next: Option<(Event, u64, u64, u64)>,
    /// The end was met, and nobody asked to try again.
    at_end: bool,
    /// By their places; the first is the start.
    kept: Vec<Kept>,
    spacing: u64,
    /// How far was read: bytes, and the latest time.
    read: u64,
    read_us: u64,
    troubles: Troubles,
    failed: Option<String>,
}

impl Tape {
    pub(super) fn open(path: &Path) -> Result<Tape, ReadError> {
        let io = |source| ReadError::Io {
            path: path.to_owned(),
            source,
        };
        // To open a pipe is to wait for a writer, so it is looked at first.
        let kind = fs::metadata(path).map_err(io)?.file_type();
        if !kind.is_file() && !kind.is_dir() {
            let what = "not a regular file; only what can be gone back in can be played: \
                        copy it to a file first";
            return Err(io(Error::new(ErrorKind::NotSeekable, what)));
        }
        Ok(Tape {
            replay: Replay::open(path)?,
            now: Moment::default(),
            next: None,
            at_end: false,
            kept: vec![Kept {
                from: Moment::default(),
                kinds: Kinds::default(),
            }],
            spacing: SPACING,
            read: 0,
            read_us: 0,
            troubles: Troubles::default(),
            failed: None,
        })
    }

    pub(super) fn now(&self) -> &Moment {
        &self.now
    }

    pub(super) fn replay(&self) -> &Replay {
        &self.replay
    }

    /// How far was read, bytes.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// The latest time that was read.
    pub(super) fn read_us(&self) -> u64 {
        self.read_us
    }

    /// Why nothing more can be read, where that is not the end.
    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// What could not be read, in sentences.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut all = self.troubles.all();
        if self.at_end
            && let Some(bytes) = self.replay.cut_off()
        {
            all.push(format!(
                "cut off at the end: {bytes} bytes of a line without its end"
            ));
        }
        all
    }

    /// Looks at the file again for more.
    pub(super) fn try_again(&mut self) {
        self.at_end = false;
    }

    /// What comes next. What is no matter of a line, such as a disk that fails, is the end.
    pub(super) fn ahead(&mut self) -> Ahead {
        let error = match self.try_ahead() {
            Ok(Some(at_us)) => return Ahead::Event(at_us),
            Ok(None) => return Ahead::End,
            Err(error) => error,
        };
        match self.troubles.note(error) {
            Ok(()) => Ahead::Skipped,
            Err(error) => {
                self.failed = Some(error.to_string());
                self.at_end = true;
                Ahead::End
            }
        }
    }

    /// When the next event happened; `None` at the end. After an error it is the line after it.
    pub(super) fn try_ahead(&mut self) -> Result<Option<u64>, ReadError> {
        if self.next.is_some() || self.at_end {
            return Ok(self.next_us());
        }
        let read = self.replay.next_event();
        self.read = self.read.max(self.replay.offset());
        let Some(event) = read? else {
            self.at_end = true;
            return Ok(None);
        };
        self.failed = None;
        let at_us = event.at_us.max(self.now.at_us);
        self.read_us = self.read_us.max(at_us);
        self.next = Some((event, at_us, self.replay.offset(), self.replay.lines()));
        Ok(Some(at_us))
    }

    /// When the next event happened, where it was read already.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.next.as_ref().map(|(_, at_us, ..)| *at_us)
    }

    /// Folds the next event in, and gives it out.
    pub(super) fn advance(&mut self) -> Option<Event> {
        let (event, at_us, offset, lines) = self.next.take()?;
        self.keep_a_place();
        self.now.state.fold(&event);
        self.now.at_us = at_us;
        self.now.offset = offset;
        self.now.lines = lines;
        self.now.closed = matches!(event.kind, Kind::Closed(_));
        let stretch = self.stretch_of(offset);
        self.kept[stretch].kinds.0 |= Kinds::of(&event).0;
        Some(event)
    }

    /// Keeps this moment, if it is far enough from the last one kept. When there are too many,
    /// every other one goes, and the next are twice as far apart.
    fn keep_a_place(&mut self) {
        let last = self.kept.last().map_or(0, |kept| kept.from.offset);
        if self.now.offset < last.saturating_add(self.spacing) {
            return;
        }
        if self.kept.len() == MOST_PLACES {
            let mut thinned: Vec<Kept> = Vec::with_capacity(MOST_PLACES);
            for (at, kept) in self.kept.drain(..).enumerate() {
                match thinned.last_mut() {
                    Some(before) if at % 2 == 1 => before.kinds.0 |= kept.kinds.0,
                    _ => thinned.push(kept),
                }
            }
            self.kept = thinned;
            self.spacing = self.spacing.saturating_mul(2);
        }
        self.kept.push(Kept {
            from: self.now.clone(),
            kinds: Kinds::default(),
        });
    }

    /// The stretch in which a line ends here: from one of the places kept to the next.
    pub(super) fn stretch_of(&self, end: u64) -> usize {
        self.kept
            .partition_point(|kept| kept.from.offset < end)
            .saturating_sub(1)
    }

    /// Goes on from a moment.
    pub(super) fn restore(&mut self, moment: Moment) {
        self.now = moment;
        self.start_here();
    }

    /// Goes on from where it is, wherever was looked meanwhile.
    pub(super) fn start_here(&mut self) {
        self.next = None;
        self.at_end = false;
        self.place(self.now.offset, self.now.lines);
    }

    fn place(&mut self, offset: u64, lines: u64) {
        if let Err(error) = self.replay.go_to(offset, lines) {
            self.failed = Some(error.to_string());
            self.at_end = true;
        }
    }

    /// Goes to the nearest moment from which reading on leads to a time.
    pub(super) fn start_for_time(&mut self, at_us: u64) {
        self.start_where(|moment| moment.at_us <= at_us);
    }

    /// The same for a place.
    pub(super) fn start_for_place(&mut self, offset: u64) {
        self.start_where(|moment| moment.offset <= offset);
    }

    fn start_where(&mut self, is_before: impl Fn(&Moment) -> bool) {
        let after = self.kept.partition_point(|kept| is_before(&kept.from));
        let nearest = &self.kept[after.saturating_sub(1)].from;
        if !is_before(&self.now) || self.now.offset < nearest.offset {
            self.now = nearest.clone();
        }
        self.start_here();
    }

    /// Begins to look for decisions in a stretch. What is shown stays.
    pub(super) fn start_scan(&mut self, kinds: Kinds, stretch: usize) {
        self.next = None;
        self.at_end = !kinds.meet(self.kept[stretch].kinds);
        let from = &self.kept[stretch].from;
        self.place(from.offset, from.lines);
    }

    /// Looks at the next line of a stretch for a decision that ends before a place.
    pub(super) fn scan(&mut self, kinds: Kinds, before: u64, stretch: usize) -> Scanned {
        let next = self.kept.get(stretch + 1);
        let over = next.map_or(before, |next| {
            before.min(next.from.offset.saturating_add(1))
        });
        // Without a look at the file where it is known that there is none.
        if self.at_end || self.replay.offset() >= over {
            return Scanned::Through;
        }
        match self.replay.next_event() {
            Ok(Some(event)) if self.replay.offset() < over && kinds.have(&event) => {
                Scanned::Found(self.replay.offset())
            }
            Ok(Some(_)) | Err(ReadError::Broken { .. } | ReadError::Version { .. }) => {
                Scanned::Nothing
            }
            Ok(None) | Err(_) => Scanned::Through,
        }
    }
}
