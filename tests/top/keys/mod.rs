//! Every key of the table, pressed in a terminal, with what is seen of it.

mod foreign;
mod live;
mod recorded;

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

use plimsoll_tui::live::screen::keys::TABLE;

use crate::terminal::Terminal;

/// A terminal in which keys are pressed, and those that did what they are for.
pub struct Keyboard {
    terminal: Terminal,
    pressed: BTreeSet<String>,
}

impl Keyboard {
    pub fn at(terminal: Terminal) -> Keyboard {
        Keyboard {
            terminal,
            pressed: BTreeSet::new(),
        }
    }

    /// Presses a key and waits for what it does, which must not have been so before.
    pub fn press(&mut self, key: &str, does: impl Fn(&str) -> bool) -> String {
        let before = self.text();
        assert!(!does(&before), "before {key} it is so already:\n{before}");
        self.send(&bytes(key));
        let after = self.wait_for(&format!("what {key} does"), does);
        self.pressed.insert(key.to_owned());
        after
    }

    /// Presses a key and waits for a text that was not there.
    pub fn shows(&mut self, key: &str, text: &str) -> String {
        self.press(key, |screen| screen.contains(text))
    }

    /// Presses a key and waits until a text is gone.
    pub fn hides(&mut self, key: &str, text: &str) -> String {
        self.press(key, |screen| !screen.contains(text))
    }

    /// Presses a key that leaves; the keys that were pressed.
    pub fn leave(mut self, key: &str) -> BTreeSet<String> {
        self.send(&bytes(key));
        assert_eq!(self.wait().code(), Some(0), "{}", self.text());
        assert_eq!(self.damage(), [""; 0]);
        self.pressed.insert(key.to_owned());
        self.pressed
    }
}

impl Deref for Keyboard {
    type Target = Terminal;

    fn deref(&self) -> &Terminal {
        &self.terminal
    }
}

impl DerefMut for Keyboard {
    fn deref_mut(&mut self) -> &mut Terminal {
        &mut self.terminal
    }
}

/// What a terminal sends for a key, as xterm does.
fn bytes(key: &str) -> String {
    let named = match key {
        "space" => " ",
        "tab" => "\t",
        "shift-tab" => "\x1b[Z",
        "enter" => "\r",
        "esc" => "\x1b",
        "backspace" => "\x7f",
        "up" => "\x1b[A",
        "down" => "\x1b[B",
        "right" => "\x1b[C",
        "left" => "\x1b[D",
        "home" => "\x1b[H",
        "end" => "\x1b[F",
        "pgup" => "\x1b[5~",
        "pgdn" => "\x1b[6~",
        "f1" => "\x1bOP",
        _ => "",
    };
    if !named.is_empty() {
        return named.to_owned();
    }
    match key.strip_prefix("ctrl-") {
        Some(letter) => char::from(letter.as_bytes()[0] & 0x1f).to_string(),
        None => key.to_owned(),
    }
}

#[test]
fn every_key_of_the_table_does_what_it_is_for() {
    let pressed: BTreeSet<String> = std::thread::scope(|scope| {
        let all = [
            scope.spawn(recorded::keys),
            scope.spawn(live::keys),
            scope.spawn(foreign::keys),
        ];
        // Each tells what went wrong with it.
        let all = all.map(|one| one.join().unwrap());
        all.into_iter().flatten().collect()
    });
    let table = TABLE.iter().flat_map(|entry| entry.keys);
    let missed: Vec<_> = table.filter(|key| !pressed.contains(**key)).collect();
    assert!(missed.is_empty(), "not pressed: {missed:?}");
}
