//! A source that tells what bytes say, and does as bytes say.

use std::time::Duration;

use malloc_stats::heap::{Chunk, ChunkState, ChunksSeen};
use plimsoll_events::{Answer, Event, Kind, VERSION};
use plimsoll_tui::live::State;
use plimsoll_tui::live::source::{About, Control, Heard, Playing, Source, SourceError, SourceKind};
use plimsoll_tui::live::state::Ended;

use crate::dice::Dice;

/// Events that are heard at a time.
const BATCH: usize = 16;

pub struct Told {
    about: About,
    events: std::vec::IntoIter<Event>,
    /// What else is heard, and when that is.
    next: Vec<Heard>,
    late: Vec<Event>,
    choices: Vec<u8>,
    ended: Ended,
}

impl Told {
    pub fn new(events: Vec<Event>, choices: &[u8]) -> Told {
        let mut dice = Dice(choices);
        let kinds = [
            SourceKind::Cache,
            SourceKind::Process,
            SourceKind::Recording,
        ];
        let playing = dice.chance(2).then(|| Playing {
            at_us: dice.number(),
            end_us: dice.number(),
            speed: dice.number() as f64,
            read: f64::from(dice.byte()) / 255.0,
        });
        let about = About {
            name: dice.text(),
            kind: kinds[dice.below(3)],
            pid: dice.chance(2).then(|| dice.number() as u32),
            takes_requests: dice.byte() % 4 > 0,
            playing,
            troubles: (0..dice.byte() % 3).map(|_| dice.text()).collect(),
        };
        Told {
            about,
            events: events.into_iter(),
            next: Vec::new(),
            late: Vec::new(),
            ended: Ended {
                why: dice.text(),
                in_order: dice.chance(2),
            },
            choices: choices.to_vec(),
        }
    }
}

impl Source for Told {
    fn about(&self) -> About {
        self.about.clone()
    }

    fn hear(&mut self, _: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError> {
        into.extend(self.events.by_ref().take(BATCH));
        into.append(&mut self.late);
        if !into.is_empty() {
            return Ok(Heard::Events);
        }
        Ok(match self.next.pop() {
            Some(heard) => heard,
            None => Heard::Ended(self.ended.clone()),
        })
    }

    fn control(&mut self, control: Control) {
        let some = self.choices.len().min(1);
        self.choices.rotate_left(some);
        let choices = self.choices.clone();
        let mut dice = Dice(&choices);
        match control {
            Control::Chunks { arena, from, to } => {
                let chunks = chunks(&mut dice, arena, from..to);
                self.next.push(Heard::Chunks(chunks.map(Box::new)));
            }
            Control::Request { id, .. } => {
                let answer = Answer {
                    id,
                    said: dice.text(),
                    took_us: dice.number(),
                    refused: dice.chance(2),
                    ..Answer::default()
                };
                self.late.push(Event {
                    v: VERSION,
                    seq: dice.number(),
                    at_us: dice.number(),
                    kind: Kind::Answer(Box::new(answer)),
                });
            }
            Control::Seek(_) | Control::SeekTo(_) | Control::Jump { .. } => {
                self.next.push(Heard::State(Box::<State>::default()));
            }
            _ => {}
        }
    }
}

/// Chunks that somebody found in a stretch, or says that he did.
fn chunks(
    dice: &mut Dice<'_>,
    arena: usize,
    range: std::ops::Range<u64>,
) -> Result<ChunksSeen, String> {
    if dice.chance(4) {
        return Err(dice.text());
    }
    let states = [
        ChunkState::InUse,
        ChunkState::Cached,
        ChunkState::Free,
        ChunkState::Top,
    ];
    let mut at = range.start;
    let mut chunks = Vec::new();
    for _ in 0..dice.byte() {
        let chunk = Chunk {
            address: if dice.chance(8) { dice.number() } else { at },
            size: dice.number(),
            state: states[dice.below(states.len())],
            resident: dice.number(),
        };
        at = chunk.address.saturating_add(chunk.size);
        chunks.push(chunk);
    }
    Ok(ChunksSeen {
        arena: if dice.chance(4) {
            dice.below(300)
        } else {
            arena
        },
        range,
        chunks,
        beyond: dice.number(),
        notes: (0..dice.byte() % 3).map(|_| dice.text()).collect(),
    })
}
