//! What keys ask of the source: questions before it, seeking, leaving.

use crossterm::event::{KeyCode, KeyEvent};
use plimsoll_events::Request;

use super::keys::Action;
use super::prompt::{Answered, Prompt};
use super::reader::Picture;
use super::theme::Role;
use super::ui::{Effect, LONGEST_FILTER, Page, Ui};
use crate::live::source::{Control, SourceKind};

/// Steps of a recording.
const SEEKS: u64 = 20;

impl Ui {
    /// A key at a question.
    pub(super) fn answer(&mut self, event: &KeyEvent) -> Vec<Effect> {
        let Some(prompt) = &mut self.prompt else {
            return Vec::new();
        };
        let yes = match (&mut prompt.input, event.code) {
            (_, KeyCode::Esc) => false,
            (Some(_), KeyCode::Enter) => true,
            (Some(input), KeyCode::Char(c)) if input.len() < LONGEST_FILTER => {
                input.push(c);
                return Vec::new();
            }
            (Some(input), KeyCode::Backspace) => {
                input.pop();
                return Vec::new();
            }
            (Some(_), _) => return Vec::new(),
            (None, KeyCode::Char('y' | 'Y')) => true,
            (None, _) => false,
        };
        if !yes {
            self.prompt = None;
            return Vec::new();
        }
        let Some(answered) = prompt.answered() else {
            return Vec::new();
        };
        self.prompt = None;
        match answered {
            Answered::Quit => vec![Effect::Quit],
            Answered::Request(request) => self.request(request),
        }
    }

    fn request(&mut self, request: Request) -> Vec<Effect> {
        let id = self.next_id;
        self.next_id += 1;
        self.say(Role::Text, "asked; the answer comes as a note");
        vec![Effect::Control(Control::Request { id, request })]
    }

    pub(super) fn quit(&mut self, picture: &Picture) -> Vec<Effect> {
        match &self.ends {
            Some(ends) if picture.state.ended.is_none() => {
                self.prompt = Some(Prompt::quit(ends));
                Vec::new()
            }
            _ => vec![Effect::Quit],
        }
    }

    /// Asks before something is done.
    pub(super) fn ask(&mut self, action: Action, picture: &Picture) {
        if !picture.about.takes_requests {
            let why = match picture.about.kind {
                SourceKind::Recording => "a recording is read only",
                SourceKind::Process => {
                    "a process that publishes no cache is read only: nothing is injected"
                }
                SourceKind::Cache => "this cache takes no requests",
            };
            return self.say(Role::Warn, why);
        }
        if self.config.readonly {
            return self.say(Role::Warn, "read only, as --readonly or the config says");
        }
        if picture.state.ended.is_some() {
            return self.say(Role::Warn, "it has ended");
        }
        let state = &picture.state;
        let prompt = match action {
            Action::Trim => Prompt::trim(state),
            Action::Budget => Prompt::budget(state),
            _ => {
                let open = match &self.page {
                    Some(Page::Model(page)) => Some(page.model.clone()),
                    _ => self.panels.models.selected().map(str::to_owned),
                };
                let Some(model) = open else {
                    return self.say(Role::Warn, "select a model in MODELS first");
                };
                Prompt::evict(state, &model, action == Action::Drop)
            }
        };
        self.prompt = Some(prompt);
    }

    pub(super) fn seek(&mut self, action: Action, picture: &Picture) -> Vec<Effect> {
        let Some(playing) = picture.about.playing else {
            self.say(
                Role::Warn,
                "only a recording can be sought in; space freezes",
            );
            return Vec::new();
        };
        let step = i64::try_from(playing.end_us / SEEKS)
            .unwrap_or(i64::MAX)
            .max(1);
        let control = match action {
            Action::SeekBack => Control::Seek(-step),
            Action::SeekOn => Control::Seek(step),
            Action::SeekFarBack => Control::SeekTo(0),
            Action::SeekFarOn => Control::SeekTo(u64::MAX),
            Action::Slower if playing.speed == 0.0 => {
                self.say(Role::Text, "it stands still; space goes on");
                return Vec::new();
            }
            Action::Slower => Control::Speed((playing.speed / 2.0).max(1.0 / 64.0)),
            Action::Faster if playing.speed == 0.0 => Control::Pause(false),
            Action::Faster => Control::Speed((playing.speed * 2.0).min(1024.0)),
            _ => Control::Jump {
                on: action == Action::JumpOn,
                kind: self.panels.decisions.kind.map(str::to_owned),
            },
        };
        vec![Effect::Control(control)]
    }
}
