//! What colours mean, and how they look here.

use ratatui::style::{Color, Modifier, Style};

use crate::paint::{Paint, Tone};

/// What something on the screen is. Its colour follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Plain text.
    Text,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// A heading, a number that matters.
    Strong,
    /// Less important than what is around it.
    Faint,
    /// A key to press, something to click.
    Key,
    /// The frame of a panel.
    Frame,
    /// The frame of the panel that has the focus.
    Focus,
    /// The selected row.
    Selected,
    /// Memory that is in use; the curve of `in_use`.
    InUse,
    /// Resident memory; the curve of RSS.
    Rss,
    /// What the cache holds.
    Live,
    /// What devices hold.
    Device,
    /// Free and resident.
    Waste,
    /// Given back, absent.
    Released,
    /// A load.
    Load,
    /// An eviction.
    Evict,
    /// What only pretends.
    Simulated,
    /// Anonymous memory, and what else cannot be dropped.
    Anon,
    /// Page cache, and what else can be dropped.
    File,
    /// Shared memory.
    Shmem,
    /// The rest of what is taken: the kernel's own, and what nobody told.
    Rest,
    /// What is charged to the cgroup; its curve.
    Charged,
}

/// How many colours the terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Depth {
    /// None: `NO_COLOR`, or a terminal without.
    #[default]
    None,
    /// The sixteen of the terminal's own palette.
    Sixteen,
    /// 256.
    TwoHundred,
    /// 24 bits.
    True,
}

/// The themes there are.
pub const NAMES: [&str; 4] = ["dark", "light", "contrast", "colour-blind"];

/// A theme by its name.
///
/// # Errors
/// What names there are.
pub fn named(name: &str) -> Result<&'static str, String> {
    let found = NAMES.into_iter().find(|known| *known == name);
    found.ok_or_else(|| {
        let name = name.escape_debug();
        format!("there is no theme `{name}`; there are {}", NAMES.join(", "))
    })
}

/// How things look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Its name.
    pub name: &'static str,
    /// How many colours there are.
    pub depth: Depth,
    /// Whether characters beyond ASCII may be used.
    pub unicode: bool,
}

/// A colour by how many there are: of 24 bits, of 256, of 16.
type Colour = ((u8, u8, u8), u8, Color);

const GREEN: Colour = ((0x7f, 0xc9, 0x7f), 114, Color::Green);
const YELLOW: Colour = ((0xe6, 0xc0, 0x5c), 179, Color::Yellow);
const RED: Colour = ((0xf0, 0x71, 0x6a), 203, Color::LightRed);
const BLUE: Colour = ((0x6c, 0xb0, 0xf5), 75, Color::LightBlue);
const CYAN: Colour = ((0x62, 0xc8, 0xc8), 80, Color::Cyan);
const VIOLET: Colour = ((0xc3, 0x9b, 0xf0), 141, Color::Magenta);
const GREY: Colour = ((0x87, 0x8d, 0x96), 245, Color::DarkGray);
const TEAL: Colour = ((0x4a, 0x7d, 0x8c), 66, Color::DarkGray);
const LINE: Colour = ((0x4c, 0x52, 0x5c), 240, Color::DarkGray);

const DARK_GREEN: Colour = ((0x1d, 0x7a, 0x2e), 28, Color::Green);
const DARK_YELLOW: Colour = ((0x96, 0x66, 0x00), 94, Color::Yellow);
const DARK_RED: Colour = ((0xb8, 0x1d, 0x13), 124, Color::Red);
const DARK_BLUE: Colour = ((0x0b, 0x57, 0xb0), 25, Color::Blue);
const DARK_CYAN: Colour = ((0x00, 0x70, 0x78), 30, Color::Cyan);
const DARK_VIOLET: Colour = ((0x7a, 0x3e, 0xb1), 97, Color::Magenta);
const DARK_GREY: Colour = ((0x5f, 0x65, 0x6d), 241, Color::DarkGray);
const DARK_LINE: Colour = ((0xa8, 0xad, 0xb4), 248, Color::Gray);

const WHITE: Colour = ((0xff, 0xff, 0xff), 231, Color::White);
const PURE_GREEN: Colour = ((0x00, 0xff, 0x5f), 47, Color::LightGreen);
const PURE_YELLOW: Colour = ((0xff, 0xff, 0x00), 226, Color::LightYellow);
const PURE_RED: Colour = ((0xff, 0x5f, 0x5f), 203, Color::LightRed);
const PURE_CYAN: Colour = ((0x00, 0xff, 0xff), 51, Color::LightCyan);

// The palette of Okabe and Ito, which those tell apart who do not see red from green.
const SKY: Colour = ((0x56, 0xb4, 0xe9), 74, Color::LightBlue);
const ORANGE: Colour = ((0xe6, 0x9f, 0x00), 178, Color::Yellow);
const VERMILION: Colour = ((0xd5, 0x5e, 0x00), 166, Color::LightRed);
const BLUISH: Colour = ((0x00, 0x9e, 0x73), 36, Color::Cyan);
const PURPLE: Colour = ((0xcc, 0x79, 0xa7), 175, Color::Magenta);
const DEEP: Colour = ((0x3a, 0x9a, 0xd9), 32, Color::Blue);

impl Theme {
    /// No colours, ASCII.
    #[must_use]
    pub const fn plain() -> Theme {
        Theme {
            name: NAMES[0],
            depth: Depth::None,
            unicode: false,
        }
    }

    /// What the environment asks for: no colours where `NO_COLOR` is set, `TERM` is `dumb`, or the
    /// output is no terminal; as many as `COLORTERM` and `TERM` promise; no Unicode where the
    /// locale has none.
    #[must_use]
    pub fn detect(name: &'static str, is_terminal: bool) -> Theme {
        let paint = Paint::detect(is_terminal);
        let variable = |name| std::env::var(name).unwrap_or_default();
        let depth = match (paint.colour, variable("COLORTERM").as_str()) {
            (false, _) => Depth::None,
            (true, "truecolor" | "24bit") => Depth::True,
            (true, _) if variable("TERM").contains("256") => Depth::TwoHundred,
            (true, _) => Depth::Sixteen,
        };
        Theme {
            name,
            depth,
            unicode: paint.unicode,
        }
    }

    /// The theme after this one.
    #[must_use]
    pub fn next(self) -> Theme {
        let at = NAMES.iter().position(|name| *name == self.name);
        Theme {
            name: NAMES[at.map_or(0, |at| (at + 1) % NAMES.len())],
            ..self
        }
    }

    /// How something looks.
    #[must_use]
    pub fn style(&self, role: Role) -> Style {
        let plain = Style::new();
        match role {
            Role::Text => return plain,
            Role::Selected => return plain.add_modifier(Modifier::REVERSED),
            Role::Strong => return plain.add_modifier(Modifier::BOLD),
            // Without colours the focus and what is wrong still stand out.
            Role::Focus | Role::Bad | Role::Key if self.depth == Depth::None => {
                return plain.add_modifier(Modifier::BOLD);
            }
            _ if self.depth == Depth::None => return plain,
            _ => {}
        }
        let colour = match self.name {
            "light" => light(role),
            "contrast" => contrast(role),
            "colour-blind" => colour_blind(role),
            _ => dark(role),
        };
        let style = plain.fg(self.colour(colour));
        match role {
            Role::Bad | Role::Key | Role::Focus => style.add_modifier(Modifier::BOLD),
            _ => style,
        }
    }

    fn colour(&self, ((red, green, blue), indexed, named): Colour) -> Color {
        match self.depth {
            Depth::True => Color::Rgb(red, green, blue),
            Depth::TwoHundred => Color::Indexed(indexed),
            Depth::Sixteen | Depth::None => named,
        }
    }

    /// The style of a tone of text.
    #[must_use]
    pub fn tone(&self, tone: Tone) -> Style {
        self.style(match tone {
            Tone::Good => Role::Good,
            Tone::Warn => Role::Warn,
            Tone::Bad => Role::Bad,
            Tone::Strong => Role::Strong,
            Tone::Faint => Role::Faint,
        })
    }

    /// The same for what is made of text, without colours of its own.
    #[must_use]
    pub fn paint(&self, width: usize) -> Paint {
        Paint {
            colour: false,
            unicode: self.unicode,
            width,
        }
    }
}

fn dark(role: Role) -> Colour {
    match role {
        Role::Good | Role::InUse => GREEN,
        Role::Warn | Role::Waste | Role::Evict => YELLOW,
        Role::Bad => RED,
        Role::Rss | Role::Anon | Role::Key => BLUE,
        Role::Live | Role::Load | Role::Focus => CYAN,
        Role::Device | Role::Simulated | Role::Shmem => VIOLET,
        Role::Frame => LINE,
        Role::File => TEAL,
        Role::Faint | Role::Released | Role::Rest | Role::Charged => GREY,
        Role::Text | Role::Strong | Role::Selected => WHITE,
    }
}

fn light(role: Role) -> Colour {
    match role {
        Role::Good | Role::InUse => DARK_GREEN,
        Role::Warn | Role::Waste | Role::Evict => DARK_YELLOW,
        Role::Bad => DARK_RED,
        Role::Rss | Role::Anon | Role::Key => DARK_BLUE,
        Role::Live | Role::Load | Role::Focus => DARK_CYAN,
        Role::Device | Role::Simulated | Role::Shmem => DARK_VIOLET,
        Role::Frame | Role::File => DARK_LINE,
        Role::Faint | Role::Released | Role::Rest | Role::Charged => DARK_GREY,
        Role::Text | Role::Strong | Role::Selected => DARK_GREY,
    }
}

fn contrast(role: Role) -> Colour {
    match role {
        Role::Good | Role::InUse => PURE_GREEN,
        Role::Warn | Role::Waste | Role::Evict | Role::Key | Role::Focus => PURE_YELLOW,
        Role::Bad => PURE_RED,
        Role::Rss
        | Role::Anon
        | Role::Live
        | Role::Load
        | Role::Device
        | Role::Shmem
        | Role::Simulated => PURE_CYAN,
        _ => WHITE,
    }
}

fn colour_blind(role: Role) -> Colour {
    match role {
        Role::Good | Role::InUse => BLUISH,
        Role::Warn | Role::Waste | Role::Evict => ORANGE,
        Role::Bad => VERMILION,
        Role::Rss | Role::Anon | Role::Key | Role::Focus => SKY,
        Role::Live | Role::Load => DEEP,
        Role::Device | Role::Simulated | Role::Shmem => PURPLE,
        Role::Frame | Role::File => LINE,
        Role::Faint | Role::Released | Role::Rest | Role::Charged => GREY,
        Role::Text | Role::Strong | Role::Selected => WHITE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colours_what_is_wrong_still_stands_out() {
        let plain = Theme::plain();
        assert_eq!(plain.style(Role::Good), Style::new());
        assert_ne!(plain.style(Role::Bad), Style::new());
        assert_ne!(plain.style(Role::Selected), Style::new());
    }

    #[test]
    fn every_theme_follows_the_one_before() {
        let mut theme = Theme::plain();
        for name in NAMES {
            assert_eq!(theme.name, name);
            theme = theme.next();
        }
        assert_eq!(theme.name, NAMES[0]);
        assert!(named("dark").is_ok() && named("pink").is_err());
    }
}
