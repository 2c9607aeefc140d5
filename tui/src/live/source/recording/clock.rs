//! Which moment of a recording is shown, and how fast it goes.

use std::time::{Duration, Instant};

use super::SPEEDS;

/// Tells how much time has passed, and waits.
pub trait Clock: Send {
    /// Time since some moment. It MUST NOT go back.
    fn now(&self) -> Duration;

    /// Waits until so much more time has passed.
    fn wait(&self, time: Duration);
}

/// The clock of the system that does not jump.
#[derive(Debug)]
pub(super) struct Steady(Instant);

impl Default for Steady {
    fn default() -> Self {
        Steady(Instant::now())
    }
}

impl Clock for Steady {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The moment that is shown: it goes on with the clock, so many times as fast.
#[derive(Debug)]
pub(super) struct Head {
    at_us: u64,
    /// When it was there, by the clock.
    since: Duration,
    speed: f64,
    paused: bool,
}

impl Head {
    pub(super) fn new(now: Duration, speed: f64, paused: bool) -> Head {
        let mut head = Head {
            at_us: 0,
            since: now,
            speed: 1.0,
            paused,
        };
        head.set_speed(now, speed);
        head
    }

    /// The moment shown now.
    pub(super) fn at(&self, now: Duration) -> u64 {
        if self.paused {
            return self.at_us;
        }
        let passed = now.saturating_sub(self.since).as_secs_f64() * 1e6 * self.speed;
        // A cast of a float ends at the bounds of the integer.
        self.at_us.saturating_add(passed as u64)
    }

    /// How long until a moment is shown; at least a microsecond.
    pub(super) fn until(&self, now: Duration, at_us: u64) -> Duration {
        if self.paused {
            return Duration::MAX;
        }
        let left = at_us.saturating_sub(self.at(now)) as f64 / self.speed;
        Duration::try_from_secs_f64(left / 1e6)
            .unwrap_or(Duration::MAX)
            .max(Duration::from_micros(1))
    }

    /// Shows a moment, and goes on from there.
    pub(super) fn set(&mut self, now: Duration, at_us: u64) {
        self.at_us = at_us;
        self.since = now;
    }

    /// Has not moved until now.
    pub(super) fn hold(&mut self, now: Duration) {
        self.since = now;
    }

    pub(super) fn pause(&mut self, now: Duration, paused: bool) {
        self.set(now, self.at(now));
        self.paused = paused;
    }

    /// Goes so many times as fast, within [`SPEEDS`]; what is no number changes nothing.
    pub(super) fn set_speed(&mut self, now: Duration, speed: f64) {
        if !speed.is_nan() {
            self.set(now, self.at(now));
            self.speed = speed.clamp(SPEEDS.0, SPEEDS.1);
        }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// How fast it goes: 0 while it stands still.
    pub(super) fn speed(&self) -> f64 {
        if self.paused { 0.0 } else { self.speed }
    }
}
