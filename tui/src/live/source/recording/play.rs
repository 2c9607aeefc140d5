//! What is heard of a recording, and when.

use std::time::Duration;

use plimsoll_events::Event;

use super::tape::Ahead;
use super::{Budget, POLL, QUIET, RecordingSource};
use crate::live::source::{About, Control, Heard, Playing, Source, SourceError, SourceKind};
use crate::live::state::Ended;

impl Source for RecordingSource {
    fn about(&self) -> About {
        let now = self.clock.now();
        let end_us = self.end_us();
        let mut troubles = self.tape.troubles();
        troubles.extend(self.tape.failed().map(str::to_owned));
        if self.fruitless {
            troubles.push(self.wanted.clone());
        }
        let read = self.tape.read() as f64 / self.size.max(1) as f64;
        About {
            name: self.name.clone(),
            kind: SourceKind::Recording,
            pid: None,
            takes_requests: false,
            playing: Some(Playing {
                at_us: self.shown_us(now).min(end_us),
                end_us,
                speed: if self.following && self.quiet.is_some() {
                    0.0
                } else {
                    self.head.speed()
                },
                read: read.min(1.0),
            }),
            troubles,
        }
    }

    fn hear(&mut self, within: Duration, into: &mut Vec<Event>) -> Result<Heard, SourceError> {
        if std::mem::take(&mut self.refused) {
            let why = "a recording has no memory to look into".to_owned();
            return Ok(Heard::Chunks(Err(why)));
        }
        if self.clock.now() >= self.next_poll {
            self.look_at_size();
        }
        if let Some(goal) = self.goal.take() {
            return Ok(self.go_on(goal));
        }
        Ok(self.play(self.clock.now().saturating_add(within), into))
    }

    fn control(&mut self, control: Control) {
        let now = self.clock.now();
        if self.goal.is_some() {
            self.head.hold(now);
        }
        match control {
            Control::Seek(by_us) => self.seek_to(self.head.at(now).saturating_add_signed(by_us)),
            Control::SeekTo(at_us) => self.seek_to(at_us),
            Control::Pause(paused) => {
                self.following = false;
                self.head.pause(now, paused);
            }
            Control::Speed(speed) => self.head.set_speed(now, speed),
            Control::Jump { on, kind } => self.jump(on, kind.as_deref()),
            Control::Chunks { .. } => self.refused = true,
            // The past takes no requests, as `About::takes_requests` says.
            Control::Request { .. } | Control::LookNow => {}
        }
    }
}

impl RecordingSource {
    /// Gives out what is due by its own clock, and waits for it.
    fn play(&mut self, until: Duration, into: &mut Vec<Event>) -> Heard {
        let mut budget = Budget::new(self.clock.now());
        loop {
            let now = self.clock.now();
            let ahead = self.tape.ahead();
            if ahead != Ahead::End {
                self.quiet = None;
                // It has grown after all: what was said of its end is taken back.
                if std::mem::take(&mut self.told_end) {
                    return Heard::State(Box::new(self.tape.now().state().clone()));
                }
            }
            let wait = match ahead {
                Ahead::Skipped => Duration::ZERO,
                Ahead::Event(at_us) if self.is_due(now, at_us) => {
                    into.extend(self.tape.advance());
                    if self.following {
                        self.head.set(now, at_us);
                    }
                    Duration::ZERO
                }
                Ahead::Event(at_us) => self.head.until(now, at_us),
                Ahead::End => {
                    if !self.head.is_paused() {
                        self.following = true;
                        self.head.set(now, self.tape.now().at_us());
                    }
                    if into.is_empty()
                        && let Some(ended) = self.ending(now)
                    {
                        return Heard::Ended(ended);
                    }
                    self.next_poll
                        .saturating_sub(now)
                        .max(Duration::from_millis(1))
                }
            };
            if wait.is_zero() {
                if !budget.spend(&*self.clock) {
                    // Faster than it can be read: the clock does not run away from what is shown.
                    if let Ahead::Event(at_us) = ahead {
                        self.head.set(self.clock.now(), at_us);
                    }
                    return Heard::Events;
                }
            } else if !into.is_empty() || now >= until {
                return Heard::Events;
            } else {
                self.clock.wait(wait.min(until.saturating_sub(now)));
                if self.clock.now() >= self.next_poll {
                    self.look_at_size();
                }
            }
        }
    }

    /// The moment that is shown: while it goes somewhere, or lags behind, how far it is.
    fn shown_us(&self, now: Duration) -> u64 {
        let head = self.head.at(now);
        let lags = !self.head.is_paused() && self.tape.next_us().is_some_and(|next| next <= head);
        if self.goal.is_some() || lags {
            self.tape.now().at_us().max(self.first_us)
        } else {
            head
        }
    }

    fn is_due(&self, now: Duration, at_us: u64) -> bool {
        !self.head.is_paused() && (self.following || at_us <= self.head.at(now))
    }

    /// That it has ended, once.
    fn ending(&mut self, now: Duration) -> Option<Ended> {
        let quiet = now.saturating_sub(*self.quiet.get_or_insert(now));
        let in_order = self.tape.now().is_closed();
        if self.told_end || !(in_order || quiet >= QUIET) {
            return None;
        }
        self.told_end = true;
        Some(Ended {
            why: match self.tape.failed() {
                _ if in_order => "end of the recording".to_owned(),
                Some(why) => why.to_owned(),
                None => "the recording ends here without its end: the program was killed, or is \
                         still writing"
                    .to_owned(),
            },
            in_order,
        })
    }

    /// Its end, as far as is known.
    fn end_us(&self) -> u64 {
        self.last_us.max(self.tape.read_us())
    }

    /// Looks whether the file has grown.
    pub(super) fn look_at_size(&mut self) {
        self.next_poll = self.clock.now().saturating_add(POLL);
        self.tape.try_again();
        let Ok(size) = self.tape.replay().size() else {
            return;
        };
        if size != self.size {
            self.size = size;
            if let Ok(Some(last_us)) = self.tape.replay().last_at_us() {
                self.last_us = self.last_us.max(last_us);
            }
        }
    }
}
