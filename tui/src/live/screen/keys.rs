//! The one table of keys. Input, the help, the footer and the config file are made from it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key, a click or the config may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Leave.
    Quit,
    /// Show or hide the help.
    Help,
    /// Go to the next panel.
    NextPanel,
    /// Go to the panel before.
    PreviousPanel,
    /// Go to a panel by its number, from 0: the verdict.
    Panel(u8),
    /// Give the panel the whole screen, or take it back.
    Expand,
    /// Open the selected thing.
    Open,
    /// Close what is open.
    Back,
    /// Select what is above, or scroll.
    Up,
    /// Select what is below.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the first.
    First,
    /// To the last.
    Last,
    /// To the left: pan, move in a map.
    Left,
    /// To the right.
    Right,
    /// Closer.
    ZoomIn,
    /// Further away.
    ZoomOut,
    /// Type a filter.
    Filter,
    /// Sort by the next column.
    Sort,
    /// Sort the other way round.
    Reverse,
    /// Freeze everything, or go on. A recording stands still.
    Freeze,
    /// Back in a recording.
    SeekBack,
    /// On in a recording.
    SeekOn,
    /// Far back in a recording.
    SeekFarBack,
    /// Far on in a recording.
    SeekFarOn,
    /// Play slower.
    Slower,
    /// Play faster.
    Faster,
    /// To the next decision of the kind that is filtered for.
    JumpOn,
    /// To the one before.
    JumpBack,
    /// Remember this moment.
    Mark,
    /// Show what changed since the mark, or how it is.
    Diff,
    /// The next arena.
    Arena,
    /// The next theme.
    Theme,
    /// Look into the process now.
    Look,
    /// Ask freed memory back.
    Trim,
    /// Evict the selected model.
    Evict,
    /// Drop the selected model.
    Drop,
    /// Change a budget.
    Budget,
    /// Write what is shown to a file.
    Save,
}

/// Under which heading of the help a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Getting around.
    Move,
    /// What is shown, and how.
    Show,
    /// Time: freezing, marks, recordings.
    Time,
    /// What changes something.
    Act,
}

impl Group {
    /// All, in the order of the help.
    pub const ALL: [Group; 4] = [Group::Move, Group::Show, Group::Time, Group::Act];

    /// Its heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Group::Move => "Getting around",
            Group::Show => "What is shown",
            Group::Time => "Time",
            Group::Act => "Acting (asks first; not on foreign processes, not with --readonly)",
        }
    }
}

/// One entry of the table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What it asks for.
    pub action: Action,
    /// Its name in the config file.
    pub name: &'static str,
    /// The keys it has where the config says nothing, in the config's words.
    pub keys: &'static [&'static str],
    /// Its heading in the help.
    pub group: Group,
    /// What it does, for the help and the config file.
    pub help: &'static str,
}

macro_rules! table {
    ($($group:ident $action:expr, $name:literal, [$($key:literal),+], $help:literal;)+) => {
        /// All keys there are.
        pub const TABLE: &[Entry] = &[$(Entry {
            action: $action,
            name: $name,
            keys: &[$($key),+],
            group: Group::$group,
            help: $help,
        }),+];
    };
}

table! {
    Move Action::Quit, "quit", ["q", "ctrl-c"], "leave";
    Move Action::Help, "help", ["?", "f1"], "this help";
    Move Action::NextPanel, "next-panel", ["tab"], "the next panel";
    Move Action::PreviousPanel, "previous-panel", ["shift-tab"], "the panel before";
    Move Action::Panel(0), "verdict", ["0"], "VERDICT: what is wrong, and what to do";
    Move Action::Panel(1), "headroom", ["1"], "HEADROOM: which limit kills, how far, how soon";
    Move Action::Panel(2), "timeline", ["2"], "TIMELINE: what changed, and when";
    Move Action::Panel(3), "allocator", ["3"], "ALLOCATOR: in use, free but resident, pinned";
    Move Action::Panel(4), "heap-map", ["4"], "HEAP MAP: where, and what pins it";
    Move Action::Panel(5), "models", ["5"], "MODELS: who owns it, what is unattributed";
    Move Action::Panel(6), "decisions", ["6"], "DECISIONS: why it was evicted, skipped, refused";
    Move Action::Up, "up", ["up", "k"], "up";
    Move Action::Down, "down", ["down", "j"], "down";
    Move Action::Left, "left", ["left", "h"], "left: earlier, lower addresses";
    Move Action::Right, "right", ["right", "l"], "right: later, higher addresses";
    Move Action::PageUp, "page-up", ["pgup", "ctrl-u"], "a page up";
    Move Action::PageDown, "page-down", ["pgdn", "ctrl-d"], "a page down";
    Move Action::First, "first", ["home", "g"], "to the first";
    Move Action::Last, "last", ["end", "G"], "to the last; the timeline follows again";
    Move Action::Open, "open", ["enter"], "open the selected model, decision, arena, moment";
    Move Action::Back, "back", ["esc", "backspace"], "close what is open, clear the filter";
    Show Action::Expand, "expand", ["e"], "give the panel the whole screen, or take it back";
    Show Action::ZoomIn, "zoom-in", ["+", "="], "closer: timeline, heap map (down to chunks)";
    Show Action::ZoomOut, "zoom-out", ["-"], "further away";
    Show Action::Filter, "filter", ["/"], "filter rows by text";
    Show Action::Sort, "sort", ["o"], "sort by the next column; kinds of decision; curves";
    Show Action::Reverse, "reverse", ["O"], "sort the other way round";
    Show Action::Arena, "arena", ["a"], "the next arena in the heap map";
    Show Action::Theme, "theme", ["T"], "the next theme";
    Time Action::Freeze, "freeze", ["space"], "freeze everything, or go on";
    Time Action::Mark, "mark", ["m"], "remember this moment";
    Time Action::Diff, "diff", ["d"], "what changed since the mark, or how it is";
    Time Action::SeekBack, "seek-back", ["["], "recording: back by a twentieth";
    Time Action::SeekOn, "seek-on", ["]"], "recording: on by a twentieth";
    Time Action::SeekFarBack, "seek-start", ["{"], "recording: to its beginning";
    Time Action::SeekFarOn, "seek-end", ["}"], "recording: to its end";
    Time Action::Slower, "slower", ["<", ","], "recording: half as fast";
    Time Action::Faster, "faster", [">", "."], "recording: twice as fast";
    Time Action::JumpOn, "jump-on", ["n"], "recording: to the next decision (of the kind shown)";
    Time Action::JumpBack, "jump-back", ["N"], "recording: to the decision before";
    Act Action::Look, "look", ["r"], "walk the heap now";
    Act Action::Save, "save", ["w"], "write what is shown to a file, as JSON";
    Act Action::Trim, "trim", ["t"], "have the allocator give free memory back";
    Act Action::Evict, "evict", ["x"], "evict the selected model";
    Act Action::Drop, "drop", ["X"], "drop the selected model, when its leases end";
    Act Action::Budget, "budget", ["b"], "give a tier another budget";
}

/// A key, as the config names it: `q`, `ctrl-c`, `space`, `pgdn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    code: KeyCode,
    ctrl: bool,
    alt: bool,
}

const NAMED: [(&str, KeyCode); 17] = [
    ("space", KeyCode::Char(' ')),
    ("tab", KeyCode::Tab),
    ("shift-tab", KeyCode::BackTab),
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("insert", KeyCode::Insert),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("pgup", KeyCode::PageUp),
    ("pgdn", KeyCode::PageDown),
    ("comma", KeyCode::Char(',')),
];

impl Key {
    /// The key that was pressed.
    #[must_use]
    pub fn of(event: &KeyEvent) -> Key {
        // Shift is in the character already, and Shift-Tab has a code of its own.
        let code = match (event.code, event.modifiers.contains(KeyModifiers::SHIFT)) {
            (KeyCode::Tab, true) => KeyCode::BackTab,
            (code, _) => code,
        };
        Key {
            code,
            ctrl: event.modifiers.contains(KeyModifiers::CONTROL),
            alt: event.modifiers.contains(KeyModifiers::ALT),
        }
    }

    /// The event of its press.
    #[must_use]
    pub fn event(self) -> KeyEvent {
        let mut modifiers = KeyModifiers::NONE;
        modifiers.set(KeyModifiers::CONTROL, self.ctrl);
        modifiers.set(KeyModifiers::ALT, self.alt);
        KeyEvent::new(self.code, modifiers)
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Key, String> {
        let (mut rest, mut ctrl, mut alt) = (text, false, false);
        loop {
            if let Some(after) = rest.strip_prefix("ctrl-").filter(|after| !after.is_empty()) {
                (rest, ctrl) = (after, true);
            } else if let Some(after) = rest.strip_prefix("alt-").filter(|after| !after.is_empty())
            {
                (rest, alt) = (after, true);
            } else {
                break;
            }
        }
        let named = NAMED.iter().find(|(name, _)| *name == rest);
        let function = rest
            .strip_prefix('f')
            .and_then(|number| number.parse().ok())
            .filter(|number| (1..=12).contains(number));
        let mut chars = rest.chars();
        let code = match (named, function, chars.next(), chars.next()) {
            (Some((_, code)), ..) => *code,
            (None, Some(number), ..) => KeyCode::F(number),
            (None, None, Some(c), None) if !c.is_control() => KeyCode::Char(c),
            _ => {
                return Err(format!(
                    "`{}` is no key: a character, f1 to f12, or one of {}; ctrl- and alt- may \
                     stand before it",
                    text.escape_debug(),
                    NAMED.map(|(name, _)| name).join(", ")
                ));
            }
        };
        Ok(Key { code, ctrl, alt })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ctrl {
            f.write_str("ctrl-")?;
        }
        if self.alt {
            f.write_str("alt-")?;
        }
        match self.code {
            KeyCode::F(number) => write!(f, "f{number}"),
            KeyCode::Char(',') => f.write_str(","),
            code => match (NAMED.iter().find(|(_, named)| *named == code), code) {
                (Some((name, _)), _) => f.write_str(name),
                (None, KeyCode::Char(c)) => write!(f, "{c}"),
                (None, _) => f.write_str("?"),
            },
        }
    }
}

/// Which key does what: the table, with what the config changes of it.
#[derive(Debug, Clone)]
pub struct Keys {
    bound: Vec<(Key, Action)>,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys::with(&BTreeMap::new()).unwrap_or(Keys { bound: Vec::new() })
    }
}

impl Keys {
    /// The table with other keys for some names.
    ///
    /// # Errors
    /// A name or key that does not exist, or a key for two things.
    pub fn with(changed: &BTreeMap<String, Vec<String>>) -> Result<Keys, String> {
        if let Some(name) = changed.keys().find(|name| entry(name).is_none()) {
            let names: Vec<&str> = TABLE.iter().map(|entry| entry.name).collect();
            return Err(format!(
                "keys: there is no `{}` to bind; there are {}",
                name.escape_debug(),
                names.join(", ")
            ));
        }
        let mut bound: Vec<(Key, Action)> = Vec::new();
        let mut owners: Vec<(Key, &str)> = Vec::new();
        for entry in TABLE {
            let keys: Vec<&str> = match changed.get(entry.name) {
                Some(keys) => keys.iter().map(String::as_str).collect(),
                None => entry.keys.to_vec(),
            };
            for text in keys {
                let key: Key = text
                    .parse()
                    .map_err(|error| format!("keys.{}: {error}", entry.name))?;
                let taken = owners.iter().find(|(other, _)| *other == key);
                if let Some((_, other)) = taken {
                    return Err(format!(
                        "keys: `{key}` is bound to both {other} and {}; bind one of them to \
                         another key",
                        entry.name
                    ));
                }
                owners.push((key, entry.name));
                bound.push((key, entry.action));
            }
        }
        Ok(Keys { bound })
    }

    /// What a key asks for.
    #[must_use]
    pub fn action(&self, key: Key) -> Option<Action> {
        let found = self.bound.iter().find(|(bound, _)| *bound == key);
        found.map(|(_, action)| *action)
    }

    /// The keys of an action, the first of which is shown where there is room for one.
    pub fn of(&self, action: Action) -> impl Iterator<Item = Key> {
        let bound = self.bound.iter();
        bound
            .filter(move |(_, bound)| *bound == action)
            .map(|(key, _)| *key)
    }
}

fn entry(name: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_table_is_a_key_and_none_is_there_twice() {
        assert!(!Keys::with(&BTreeMap::new()).unwrap().bound.is_empty());
        for entry in TABLE {
            for text in entry.keys {
                let key: Key = text.parse().unwrap();
                assert_eq!(key.to_string(), *text);
                assert_eq!(Key::of(&key.event()), key);
            }
        }
    }

    #[test]
    fn what_cannot_be_bound_is_said() {
        let bind = |name: &str, key: &str| {
            let changed = BTreeMap::from([(name.to_owned(), vec![key.to_owned()])]);
            Keys::with(&changed)
        };
        let frozen = bind("freeze", "f").unwrap();
        assert_eq!(frozen.action("f".parse().unwrap()), Some(Action::Freeze));
        assert_eq!(frozen.action("space".parse().unwrap()), None);
        assert!(bind("fly", "f").unwrap_err().contains("trim"));
        assert!(
            bind("freeze", "q")
                .unwrap_err()
                .contains("both quit and freeze")
        );
        for wrong in ["", "\u{1b}", "ctrl-", "f13", "spacebar"] {
            assert!(bind("freeze", wrong).is_err(), "{wrong:?}");
        }
    }
}
