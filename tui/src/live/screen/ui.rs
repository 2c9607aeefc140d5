//! What the user chose: panels, focus, pages, filters, marks; and what keys and clicks do to it.

use std::time::{Duration, Instant};

use crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind};
use ratatui::layout::Rect;

use super::config::Config;
use super::keys::{Action, Key};
use super::layout::PANELS;
use super::prompt::Prompt;
use super::reader::Picture;
use super::theme::{Role, Theme};
use crate::live::source::{Control, SourceKind};
use crate::live::state::State;
use crate::live::view::allocator::Allocator;
use crate::live::view::decision_page::DecisionPage;
use crate::live::view::decisions::DecisionList;
use crate::live::view::headroom::Headroom;
use crate::live::view::heap_map::HeapMap;
use crate::live::view::model_page::ModelPage;
use crate::live::view::models::ModelTable;
use crate::live::view::timeline::Timeline;
use crate::live::view::verdict::VerdictLine;
use crate::live::view::{Hit, View, Wish};

/// What is to be done about an input, besides drawing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Effect {
    Quit,
    Suspend,
    Save,
    Control(Control),
}

/// A page over the panels.
pub(super) enum Page {
    Model(ModelPage),
    Decision(DecisionPage),
}

impl Page {
    pub(super) fn view(&mut self) -> &mut dyn View {
        match self {
            Page::Model(page) => page,
            Page::Decision(page) => page,
        }
    }
}

/// The panels, the verdict first.
#[derive(Default)]
pub(super) struct Panels {
    verdict: VerdictLine,
    headroom: Headroom,
    timeline: Timeline,
    allocator: Allocator,
    heap_map: HeapMap,
    pub(super) models: ModelTable,
    pub(super) decisions: DecisionList,
}

impl Panels {
    /// Whether time can be gone back in.
    pub(super) fn seeks(&mut self, seeks: bool) {
        self.timeline.seeks = seeks;
    }

    pub(super) fn get(&mut self, number: u8) -> &mut dyn View {
        match number {
            0 => &mut self.verdict,
            1 => &mut self.headroom,
            2 => &mut self.timeline,
            3 => &mut self.allocator,
            4 => &mut self.heap_map,
            5 => &mut self.models,
            _ => &mut self.decisions,
        }
    }
}

/// A sentence at the bottom, for a while.
pub(super) struct Message {
    pub(super) text: String,
    pub(super) role: Role,
    until: Instant,
}

/// For so long a message stays.
const MESSAGE: Duration = Duration::from_secs(6);
/// A longer filter is none.
pub(super) const LONGEST_FILTER: usize = 100;

/// Everything about the screen that is not in the state.
pub(super) struct Ui {
    pub(super) config: Config,
    pub(super) theme: Theme,
    pub(super) panels: Panels,
    pub(super) focus: u8,
    pub(super) expanded: bool,
    pub(super) page: Option<Page>,
    /// The help, and from which line on.
    pub(super) help: Option<usize>,
    pub(super) help_beyond: usize,
    pub(super) prompt: Option<Prompt>,
    /// Filters by panel.
    pub(super) filters: [String; PANELS as usize + 1],
    pub(super) typing: bool,
    pub(super) frozen: Option<Box<Picture>>,
    pub(super) mark: Option<Box<State>>,
    pub(super) diff: bool,
    pub(super) message: Option<Message>,
    /// What ends with the screen, where something does.
    pub(super) ends: Option<String>,
    /// What was drawn where, and whose it is.
    pub(super) hits: Vec<(u8, Hit)>,
    pub(super) areas: Vec<(u8, Rect)>,
    /// Whether the first thing that came was looked at for what to show first.
    pub(super) settled: bool,
    /// The number of the next request.
    pub(super) next_id: u64,
}

impl Ui {
    pub(super) fn new(config: Config, theme: Theme, ends: Option<String>) -> Ui {
        Ui {
            config,
            theme,
            panels: Panels::default(),
            focus: 1,
            expanded: false,
            page: None,
            help: None,
            help_beyond: 0,
            prompt: None,
            filters: Default::default(),
            typing: false,
            frozen: None,
            mark: None,
            diff: false,
            message: None,
            ends,
            hits: Vec::new(),
            areas: Vec::new(),
            settled: false,
            next_id: 1,
        }
    }

    /// When something on the screen changes by itself.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.message.as_ref().map(|message| message.until)
    }

    pub(super) fn say(&mut self, role: Role, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            role,
            until: Instant::now() + MESSAGE,
        });
    }

    /// Lets go of what was said long enough.
    pub(super) fn hush(&mut self) {
        if self.deadline().is_some_and(|until| until <= Instant::now()) {
            self.message = None;
        }
    }

    /// Whether something may be asked of the source.
    pub(super) fn may_act(&self, picture: &Picture) -> bool {
        picture.about.takes_requests && !self.config.readonly && picture.state.ended.is_none()
    }

    /// Takes an input; what is to be done about it.
    pub(super) fn input(&mut self, input: &Input, picture: &Picture) -> Vec<Effect> {
        match input {
            Input::Key(key) if key.kind != KeyEventKind::Release => self.key(key, picture),
            Input::Mouse(mouse) => self.mouse(*mouse, picture),
            _ => Vec::new(),
        }
    }

    fn key(&mut self, event: &KeyEvent, picture: &Picture) -> Vec<Effect> {
        let key = Key::of(event);
        let suspend = "ctrl-z".parse() == Ok(key);
        if suspend {
            return vec![Effect::Suspend];
        }
        let action = self.config.keys.action(key);
        if self.prompt.is_some() {
            return self.answer(event);
        }
        if self.typing {
            self.type_filter(event);
            return Vec::new();
        }
        if let Some(from) = self.help {
            self.help = match action {
                Some(Action::Down) => Some((from + 1).min(self.help_beyond)),
                Some(Action::Up) => Some(from.saturating_sub(1)),
                Some(Action::PageDown) => Some((from + 10).min(self.help_beyond)),
                Some(Action::PageUp) => Some(from.saturating_sub(10)),
                _ => None,
            };
            return Vec::new();
        }
        action.map_or_else(Vec::new, |action| self.act(action, picture))
    }

    fn type_filter(&mut self, event: &KeyEvent) {
        let filter = &mut self.filters[usize::from(self.focus)];
        match event.code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                filter.clear();
                self.typing = false;
            }
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Char(c) if filter.len() < LONGEST_FILTER => filter.extend(c.to_lowercase()),
            _ => {}
        }
    }

    /// Does as a key says.
    pub(super) fn act(&mut self, action: Action, picture: &Picture) -> Vec<Effect> {
        match action {
            Action::Quit => return self.quit(picture),
            Action::Help => self.help = Some(0),
            Action::NextPanel => self.go(if self.focus >= PANELS {
                0
            } else {
                self.focus + 1
            }),
            Action::PreviousPanel => {
                self.go(self.focus.checked_sub(1).unwrap_or(PANELS));
            }
            Action::Panel(panel) => self.go(panel.min(PANELS)),
            Action::Expand => self.expanded = !self.expanded,
            Action::Back => self.back(picture),
            Action::Filter => self.typing = true,
            Action::Theme => {
                self.theme = self.theme.next();
                self.say(Role::Text, format!("theme {}", self.theme.name));
            }
            Action::Freeze => return self.freeze(picture),
            Action::Mark => {
                self.mark = Some(Box::new(picture.state.clone()));
                self.say(Role::Text, "marked; d shows what changed since");
            }
            Action::Diff if self.mark.is_none() => {
                self.say(Role::Warn, "nothing is marked: m marks this moment");
            }
            Action::Diff => self.diff = !self.diff,
            Action::Save => return vec![Effect::Save],
            Action::Look if picture.about.kind == SourceKind::Recording => {
                self.say(Role::Warn, "a recording: there is no process to walk");
            }
            Action::Look if picture.state.ended.is_some() => {
                self.say(Role::Warn, "it has ended: there is no process to walk");
            }
            Action::Look => {
                self.say(Role::Text, "walking the heap");
                return vec![Effect::Control(Control::LookNow)];
            }
            Action::Trim | Action::Evict | Action::Drop | Action::Budget => {
                self.ask(action, picture);
            }
            Action::SeekBack
            | Action::SeekOn
            | Action::SeekFarBack
            | Action::SeekFarOn
            | Action::Slower
            | Action::Faster
            | Action::JumpOn
            | Action::JumpBack => return self.seek(action, picture),
            _ => {
                let wish = self.view().act(action, &picture.state);
                return self.grant(wish, picture);
            }
        }
        Vec::new()
    }

    /// The view that has the focus.
    fn view(&mut self) -> &mut dyn View {
        match &mut self.page {
            Some(page) => page.view(),
            None => self.panels.get(self.focus),
        }
    }

    fn go(&mut self, panel: u8) {
        self.page = None;
        self.focus = panel;
    }

    fn back(&mut self, picture: &Picture) {
        if self.page.is_some() {
            self.page = None;
        } else if self.view().act(Action::Back, &picture.state) != Wish::Ignored {
            // It closed something of its own.
        } else if !self.filters[usize::from(self.focus)].is_empty() {
            self.filters[usize::from(self.focus)].clear();
        } else if self.expanded {
            self.expanded = false;
        } else {
            self.diff = false;
        }
    }

    fn freeze(&mut self, picture: &Picture) -> Vec<Effect> {
        if let Some(playing) = &picture.about.playing {
            return vec![Effect::Control(Control::Pause(playing.speed != 0.0))];
        }
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => Some(Box::new(picture.clone())),
        };
        Vec::new()
    }

    /// Does what a view asks for.
    pub(super) fn grant(&mut self, wish: Wish, picture: &Picture) -> Vec<Effect> {
        if let Some(arena) = self.panels.allocator.chosen.take() {
            self.panels.heap_map.arena = Some(arena);
        }
        match wish {
            Wish::Ignored | Wish::Redraw => {}
            Wish::Model(model) => self.page = Some(Page::Model(ModelPage::of(model))),
            Wish::Decision(seq) => self.page = Some(Page::Decision(DecisionPage::of(seq))),
            Wish::SeekTo(at_us) if picture.about.playing.is_some() => {
                return vec![Effect::Control(Control::SeekTo(at_us))];
            }
            Wish::SeekTo(_) => {}
            Wish::Chunks { arena, from, to } => {
                return vec![Effect::Control(Control::Chunks { arena, from, to })];
            }
        }
        Vec::new()
    }
}
