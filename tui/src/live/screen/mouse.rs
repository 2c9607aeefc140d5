//! Clicks and the wheel.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::keys::Action;
use super::reader::Picture;
use super::ui::{Effect, Ui};
use crate::live::view::Click;

/// Rows that a wheel scrolls.
const WHEEL: usize = 3;

impl Ui {
    pub(super) fn mouse(&mut self, mouse: MouseEvent, picture: &Picture) -> Vec<Effect> {
        let at = Position::new(mouse.column, mouse.row);
        let panel = self.areas.iter().find(|(_, area)| area.contains(at));
        let panel = panel.map(|(panel, _)| *panel);
        match mouse.kind {
            MouseEventKind::ScrollDown | MouseEventKind::ScrollUp => {
                let action = if mouse.kind == MouseEventKind::ScrollUp {
                    Action::Up
                } else {
                    Action::Down
                };
                for _ in 0..WHEEL {
                    match (&mut self.page, panel) {
                        (Some(page), _) => {
                            page.view().act(action, &picture.state);
                        }
                        (None, Some(panel)) => {
                            self.panels.get(panel).act(action, &picture.state);
                        }
                        (None, None) => {}
                    }
                }
                Vec::new()
            }
            MouseEventKind::Down(MouseButton::Left) => {
                if self.prompt.is_some() {
                    return Vec::new();
                }
                if self.help.take().is_some() {
                    return Vec::new();
                }
                self.click(at, panel, picture)
            }
            _ => Vec::new(),
        }
    }

    fn click(&mut self, at: Position, panel: Option<u8>, picture: &Picture) -> Vec<Effect> {
        if let Some(panel) = panel.filter(|_| self.page.is_none()) {
            self.focus = panel;
        }
        // What was drawn last lies on top.
        let mut hits = self.hits.iter().rev();
        let found = hits.find(|(_, hit)| hit.area.contains(at));
        let Some((owner, does)) = found.map(|(owner, hit)| (*owner, hit.does.clone())) else {
            return Vec::new();
        };
        if let Click::Action(action) = does {
            return self.act(action, picture);
        }
        let wish = match &mut self.page {
            Some(page) => page.view().click(&does, &picture.state),
            None => self.panels.get(owner).click(&does, &picture.state),
        };
        self.grant(wish, picture)
    }
}
