//! One frame, without a terminal: as text, as a picture, as numbers.

use std::str::FromStr;
use std::time::{Duration, Instant};

use crossterm::event::Event as Input;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::config::Config;
use super::keys::Key;
use super::reader::Picture;
use super::svg;
use super::theme::Theme;
use super::ui::{Effect, Ui};
use crate::live::source::{Source, SourceError};
use crate::live::state::State;
use crate::live::summary::Summary;

/// How long a source is listened to at a time.
const LISTEN: Duration = Duration::from_millis(20);
/// The largest frame, columns and rows: more is no picture any more.
const LARGEST: (u16, u16) = (500, 200);

/// Keys to press before the frame is drawn, as the config file names them, with blanks between.
#[derive(Debug, Clone, Default)]
pub struct Script(Vec<Key>);

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Script, String> {
        let keys = text.split_ascii_whitespace().map(str::parse);
        keys.collect::<Result<_, _>>().map(Script)
    }
}

/// A source, heard for a while, and the screen of it.
pub struct Still {
    picture: Picture,
    source: Box<dyn Source>,
    ui: Ui,
}

impl Still {
    /// Hears a source until `enough`, its end, or the time is up.
    ///
    /// # Errors
    /// [`SourceError`], where there is nothing to show.
    pub fn take(
        mut source: Box<dyn Source>,
        config: &Config,
        patience: Duration,
        enough: impl Fn(&State) -> bool,
    ) -> Result<Still, SourceError> {
        let mut picture = Picture::default();
        let until = Instant::now() + patience;
        let mut ended = false;
        while !ended && !enough(&picture.state) && Instant::now() < until {
            ended = hear(&mut *source, &mut picture)?;
        }
        picture.state.conclude();
        Ok(Still {
            picture,
            source,
            ui: Ui::new(config.clone(), config.theme(false), None),
        })
    }

    /// What is known.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.picture.state
    }

    /// What was wrong with the source, without ending it.
    #[must_use]
    pub fn troubles(&self) -> &[String] {
        &self.picture.about.troubles
    }

    /// Everything that is known, for JSON.
    #[must_use]
    pub fn summary(&self) -> Summary<'_> {
        Summary::of(&self.picture.state, &self.picture.about)
    }

    /// The frame as text.
    ///
    /// # Errors
    /// As [`Still::take`]: keys may ask for more of the source.
    pub fn text(&mut self, size: (u16, u16), script: &Script) -> Result<String, SourceError> {
        let buffer = self.frame(size, script)?;
        Ok(text(&buffer))
    }

    /// The frame as an SVG picture, in colours.
    ///
    /// # Errors
    /// As [`Still::text`].
    pub fn svg(&mut self, size: (u16, u16), script: &Script) -> Result<String, SourceError> {
        self.ui.theme = Theme {
            depth: super::theme::Depth::True,
            unicode: self.ui.config.unicode.unwrap_or(true),
            ..self.ui.theme
        };
        let buffer = self.frame(size, script)?;
        Ok(svg::picture(&buffer, &self.ui.theme))
    }

    /// Draws the screen as it is now.
    pub fn draw(&mut self, buffer: &mut Buffer) {
        self.ui.draw(&self.picture, buffer);
    }

    fn frame(
        &mut self,
        (columns, rows): (u16, u16),
        script: &Script,
    ) -> Result<Buffer, SourceError> {
        let area = Rect::new(0, 0, columns.min(LARGEST.0), rows.min(LARGEST.1));
        let ui = &mut self.ui;
        let mut buffer = Buffer::empty(area);
        ui.draw(&self.picture, &mut buffer);
        for key in &script.0 {
            let shown = ui.frozen.take();
            let effects = ui.input(&Input::Key(key.event()), &self.picture);
            drop(shown);
            for effect in effects {
                if let Effect::Control(control) = effect {
                    self.source.control(control);
                    // What it leads to comes with the next few turns.
                    for _ in 0..TURNS {
                        hear(&mut *self.source, &mut self.picture)?;
                    }
                    self.picture.state.conclude();
                }
            }
            // A view learns its size by being drawn.
            buffer.reset();
            ui.draw(&self.picture, &mut buffer);
        }
        ui.message = None;
        buffer.reset();
        ui.draw(&self.picture, &mut buffer);
        Ok(buffer)
    }
}

/// How often a source is heard for what a key asked of it.
const TURNS: usize = 25;

/// Hears a source once; whether it has ended.
fn hear(source: &mut dyn Source, picture: &mut Picture) -> Result<bool, SourceError> {
    let mut batch = Vec::new();
    let heard = source.hear(LISTEN, &mut batch)?;
    Ok(picture.take(source.about(), &batch, heard).ended)
}

/// A frame as lines of text.
fn text(buffer: &Buffer) -> String {
    let mut out = String::new();
    for row in 0..buffer.area.height {
        let mut line = String::new();
        let mut skip = 0;
        for column in 0..buffer.area.width {
            let symbol = buffer[(column, row)].symbol();
            // The cell behind a wide character is a part of it.
            if skip > 0 {
                skip -= 1;
                continue;
            }
            skip = unicode_width::UnicodeWidthStr::width(symbol).saturating_sub(1);
            line.push_str(symbol);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
