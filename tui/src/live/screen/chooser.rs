//! What to look at, where nothing was named: caches that publish, and processes.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind, MouseEventKind};
use malloc_stats::Metric;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde::Serialize;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGTSTP};

use super::chrome::frame;
use super::config::Config;
use super::keys::{Action, Key};
use super::layout::fits;
use super::session::gone;
use super::terminal::{self, Screen, Taken, TerminalError};
use super::theme::{Role, Theme};
use super::wakes::{Wake, Wakes};
use crate::inspect::prose::compact_metric;
use crate::live::view::put;

/// Something that can be looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The process.
    pub pid: u32,
    /// Its short name, control characters and all.
    pub name: String,
    /// The name or number of its user.
    pub user: String,
    /// What is resident.
    pub rss: Metric,
    /// What the limit leaves that leaves least.
    pub left: Metric,
    /// Which limit that is, in few words.
    pub bound: String,
    /// The socket of its cache, where it publishes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// What came of choosing.
#[derive(Debug, Clone, PartialEq)]
pub enum Chosen {
    /// This one.
    One(Choice),
    /// None: the user left, or a signal came.
    Left(Option<i32>),
}

/// How often the list is made anew.
const AGAIN: Duration = Duration::from_secs(2);
/// A longer filter is none.
const LONGEST_FILTER: usize = 100;

/// Columns: heading, width, whether flush right.
const COLUMNS: [(&str, u16, bool); 6] = [
    ("PID", 8, true),
    ("NAME", 18, false),
    ("USER", 12, false),
    ("RSS", 9, true),
    ("LEFT", 9, true),
    ("", 6, false),
];

#[derive(Default)]
struct Chooser {
    list: Vec<Choice>,
    /// The process that is selected, and its socket: rows come and go.
    selected: Option<(u32, Option<PathBuf>)>,
    filter: String,
    typing: bool,
    /// The first row that is shown, and where rows were drawn.
    from: usize,
    rows: Rect,
}

/// Shows what can be looked at until something is chosen. `list` is called again and again, on a
/// thread of its own.
///
/// # Errors
/// [`TerminalError`]: there is no terminal, or it is of no use.
pub fn choose(
    config: &Config,
    list: impl Fn() -> Vec<Choice> + Send + 'static,
) -> Result<Chosen, TerminalError> {
    terminal::check()?;
    let theme = config.theme(true);
    let taken = terminal::take(config.mouse)?;
    let wakes = Wakes::begin()?;
    let made: Arc<Mutex<Option<Vec<Choice>>>> = Arc::default();
    let (stop, stopped) = channel::<()>();
    let lister = {
        let (made, sender) = (Arc::clone(&made), wakes.sender());
        std::thread::Builder::new()
            .name("plimsoll-lister".to_owned())
            .spawn(move || {
                loop {
                    let found = list();
                    *made.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                    let gone = sender.send(Wake::Changed).is_err();
                    if gone || stopped.recv_timeout(AGAIN) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })?
    };
    let mut screen = taken.screen()?;
    let mut chooser = Chooser::default();
    let chosen = loop {
        let drawn = terminal::draw(&mut screen, |buffer| chooser.draw(&theme, config, buffer));
        if let Err(error) = drawn {
            break Chosen::Left(gone(error)?);
        }
        match wakes.woken.recv() {
            Err(_) => break Chosen::Left(None),
            Ok(Wake::Gone) => break Chosen::Left(Some(SIGHUP)),
            Ok(Wake::Changed) => {
                let found = made.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(found) = found {
                    chooser.take(found);
                }
            }
            Ok(Wake::Signal(SIGTSTP)) => suspend(&taken, &mut screen)?,
            Ok(Wake::Signal(SIGCONT)) => resume(&taken, &mut screen)?,
            Ok(Wake::Signal(signal)) => break Chosen::Left(Some(signal)),
            Ok(Wake::Input(Input::Key(key))) if key.kind != KeyEventKind::Release => {
                if Ok(Key::of(&key)) == "ctrl-z".parse() {
                    suspend(&taken, &mut screen)?;
                } else if let Some(chosen) = chooser.key(config, &key) {
                    break chosen;
                }
            }
            Ok(Wake::Input(Input::Mouse(mouse))) => {
                if let Some(chosen) = chooser.mouse(mouse.kind, mouse.column, mouse.row) {
                    break chosen;
                }
            }
            Ok(Wake::Input(_)) => {}
        }
    };
    // A list that is being made is not waited for.
    drop((stop, lister));
    // While there are wakes, a terminal that takes nothing is not waited for long.
    drop(taken);
    drop(wakes);
    Ok(chosen)
}

/// Stops, as Ctrl-Z has any program stop, with the terminal as it was.
fn suspend(taken: &Taken, screen: &mut Screen) -> io::Result<()> {
    terminal::give_back();
    signal_hook::low_level::emulate_default_handler(SIGTSTP)?;
    resume(taken, screen)
}

/// Whoever had the terminal meanwhile may have changed it.
fn resume(taken: &Taken, screen: &mut Screen) -> io::Result<()> {
    terminal::give_back();
    taken.enter()?;
    terminal::clear(screen)
}

impl Chooser {
    fn take(&mut self, list: Vec<Choice>) {
        self.list = list;
        let is_there = self.at().is_some();
        if !is_there {
            self.select(0);
        }
    }

    /// Those that the filter lets through.
    fn shown(&self) -> Vec<&Choice> {
        let passes = |choice: &&Choice| {
            self.filter.is_empty()
                || choice.name.to_lowercase().contains(&self.filter)
                || choice.user.to_lowercase().contains(&self.filter)
                || choice.pid.to_string().contains(&self.filter)
        };
        self.list.iter().filter(passes).collect()
    }

    /// Where the selected one is.
    fn at(&self) -> Option<usize> {
        let (pid, socket) = self.selected.as_ref()?;
        let mut shown = self.shown().into_iter();
        shown.position(|choice| choice.pid == *pid && choice.socket == *socket)
    }

    fn select(&mut self, at: usize) {
        let shown = self.shown();
        let choice = shown.get(at.min(shown.len().saturating_sub(1)));
        self.selected = choice.map(|choice| (choice.pid, choice.socket.clone()));
    }

    fn step(&mut self, by: isize) {
        let at = self.at().unwrap_or(0);
        self.select(at.saturating_add_signed(by));
    }

    fn open(&self) -> Option<Chosen> {
        let at = self.at()?;
        self.shown()
            .get(at)
            .map(|choice| Chosen::One((*choice).clone()))
    }

    fn key(&mut self, config: &Config, event: &KeyEvent) -> Option<Chosen> {
        if self.typing {
            match event.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.filter.clear();
                    self.typing = false;
                }
                KeyCode::Backspace => {
                    self.filter.pop();
                }
                KeyCode::Char(c) if self.filter.len() < LONGEST_FILTER => {
                    self.filter.extend(c.to_lowercase());
                }
                _ => {}
            }
            if self.at().is_none() {
                self.select(0);
            }
            return None;
        }
        let page = isize::try_from(self.rows.height).unwrap_or(1).max(1);
        match config.keys.action(Key::of(event))? {
            Action::Quit => return Some(Chosen::Left(None)),
            Action::Back if self.filter.is_empty() => return Some(Chosen::Left(None)),
            Action::Back => self.filter.clear(),
            Action::Open => return self.open(),
            Action::Up => self.step(-1),
            Action::Down => self.step(1),
            Action::PageUp => self.step(-page),
            Action::PageDown => self.step(page),
            Action::First => self.select(0),
            Action::Last => self.select(usize::MAX),
            Action::Filter => self.typing = true,
            _ => {}
        }
        None
    }

    fn mouse(&mut self, kind: MouseEventKind, column: u16, row: u16) -> Option<Chosen> {
        match kind {
            MouseEventKind::ScrollUp => self.step(-3),
            MouseEventKind::ScrollDown => self.step(3),
            MouseEventKind::Down(_) if self.rows.contains((column, row).into()) => {
                let at = self.from + usize::from(row - self.rows.y);
                if self.at() == Some(at) {
                    return self.open();
                }
                self.select(at);
            }
            _ => {}
        }
        None
    }

    fn draw(&mut self, theme: &Theme, config: &Config, buffer: &mut Buffer) {
        let area = buffer.area;
        if !fits(area) || area.height < 5 {
            put(buffer, (0, 0), area.width, "too small", theme, Role::Warn);
            return;
        }
        let body = Rect {
            height: area.height - 1,
            ..area
        };
        let caption = "caches that publish, then processes by resident memory";
        let inner = frame(theme, (None, "plimsoll top", caption), true, body, buffer);
        let mut x = inner.x + 1;
        for (heading, width, right) in COLUMNS {
            let text = if right {
                format!("{heading:>columns$}", columns = usize::from(width))
            } else {
                heading.to_owned()
            };
            put(buffer, (x, inner.y), width, &text, theme, Role::Faint);
            x += width + 2;
        }
        self.rows = Rect {
            y: inner.y + 1,
            height: inner.height.saturating_sub(1),
            ..inner
        };
        let at = self.at();
        let visible = usize::from(self.rows.height);
        if let Some(at) = at {
            self.from = self.from.min(at).max((at + 1).saturating_sub(visible));
        }
        let shown = self.shown();
        for (row, choice) in shown.iter().enumerate().skip(self.from).take(visible) {
            let y = self.rows.y + (row - self.from) as u16;
            let role = match (at == Some(row), &choice.socket) {
                (true, _) => Role::Selected,
                (false, Some(_)) => Role::Strong,
                (false, None) => Role::Text,
            };
            draw_row(theme, choice, role, (inner.x + 1, y, inner.right()), buffer);
        }
        if self.list.is_empty() {
            let text = "looking for processes";
            put(
                buffer,
                (inner.x + 1, inner.y + 1),
                inner.width,
                text,
                theme,
                Role::Faint,
            );
        }
        let key = |action| {
            config
                .keys
                .of(action)
                .next()
                .map_or(String::new(), |key| key.to_string())
        };
        let footer = if self.typing {
            format!("filter: {}_  enter keeps it, esc clears it", self.filter)
        } else {
            format!(
                "{} attach  {} filter  {} quit",
                key(Action::Open),
                key(Action::Filter),
                key(Action::Quit)
            )
        };
        put(
            buffer,
            (1, area.bottom() - 1),
            area.width,
            &footer,
            theme,
            Role::Key,
        );
    }
}

fn draw_row(
    theme: &Theme,
    choice: &Choice,
    role: Role,
    (mut x, y, until): (u16, u16, u16),
    buffer: &mut Buffer,
) {
    let paint = theme.paint(100);
    let what = match (&choice.socket, choice.bound.as_str()) {
        (Some(_), _) => "cache".to_owned(),
        (None, bound) => bound.to_owned(),
    };
    let cells = [
        choice.pid.to_string(),
        choice.name.clone(),
        choice.user.clone(),
        compact_metric(&paint, choice.rss),
        compact_metric(&paint, choice.left),
        what,
    ];
    for (at, (cell, (_, width, right))) in cells.iter().zip(COLUMNS).enumerate() {
        let last = at + 1 == COLUMNS.len();
        let width = if last { until.saturating_sub(x) } else { width };
        let cell = crate::paint::safe(cell);
        let text = if right {
            format!("{cell:>columns$}  ", columns = usize::from(width))
        } else {
            format!("{cell:<columns$}  ", columns = usize::from(width))
        };
        let room = (width + 2).min(until.saturating_sub(x));
        put(buffer, (x, y), room, &text, theme, role);
        x += width + 2;
    }
}
