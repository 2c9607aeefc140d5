//! A frame: everything that is shown, into a buffer.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::{Clear, Widget};

use super::chrome;
use super::help;
use super::layout::{LEAST, Place, fits, layout};
use super::reader::Picture;
use super::theme::Role;
use super::ui::{Page, Ui};
use crate::live::view::{Hit, Scene, View, put};

impl Ui {
    /// Draws a frame of what was heard.
    pub(super) fn draw(&mut self, live: &Picture, buffer: &mut Buffer) {
        let area = buffer.area;
        self.hits.clear();
        self.areas.clear();
        if !fits(area) {
            return self.too_small(area, buffer);
        }
        // What is frozen is taken out for as long as it is drawn.
        let frozen = self.frozen.take();
        let shown = frozen.as_deref().unwrap_or(live);
        let now_us = match frozen {
            Some(_) => shown.state.at_us,
            None => shown.now_us(),
        };
        self.settle(shown);
        self.panels.seeks(shown.about.playing.is_some());
        self.panels(shown, now_us, buffer);
        let is_frozen = frozen.is_some();
        let page_open = self.page.is_some();
        let places = self.layout_of(shown, area);
        chrome::header(
            &self.theme,
            (&shown.state, &shown.about),
            (now_us, is_frozen),
            places.header,
            buffer,
        );
        self.footer(shown, page_open, places.footer, buffer);
        if let Some(from) = self.help {
            self.help_beyond = help::draw(&self.theme, &self.config.keys, from, area, buffer);
        }
        if let Some(prompt) = &self.prompt {
            prompt.draw(&self.theme, area, buffer);
        }
        self.frozen = frozen;
    }

    /// What the focus is on at first hangs on what it is.
    fn settle(&mut self, shown: &Picture) {
        if !self.settled && shown.state.sums.events > 0 {
            self.settled = true;
            if !shown.state.tiers.is_empty() {
                self.focus = 5;
            }
        }
    }

    fn layout_of(&self, shown: &Picture, area: Rect) -> super::layout::Layout {
        let state = &shown.state;
        let findings = state.findings.len() + usize::from(state.ended.is_some());
        let alone = self.expanded && self.page.is_none();
        layout(area, findings, self.focus, alone, !state.tiers.is_empty())
    }

    fn panels(&mut self, shown: &Picture, now_us: u64, buffer: &mut Buffer) {
        let layout = self.layout_of(shown, buffer.area);
        let body = (layout.places.iter().skip(1)).fold(Rect::ZERO, |all, place| {
            if all.is_empty() {
                place.area
            } else {
                all.union(place.area)
            }
        });
        let mut page = self.page.take();
        for place in &layout.places {
            if place.panel == 0 || page.is_none() {
                self.panel(place, shown, now_us, buffer);
            }
        }
        if let Some(page) = &mut page {
            self.page(page, (shown, now_us), body, buffer);
        }
        self.page = page;
    }

    fn panel(&mut self, place: &Place, shown: &Picture, now_us: u64, buffer: &mut Buffer) {
        let number = place.panel;
        let focused = self.focus == number && self.page.is_none();
        let filter = std::mem::take(&mut self.filters[usize::from(number)]);
        self.areas.push((number, place.area));
        let mut hits = Vec::new();
        let since = self.mark.as_deref().filter(|_| self.diff);
        let mut scene = Scene {
            state: &shown.state,
            since,
            theme: self.theme,
            now_us,
            focused,
            expanded: self.expanded && focused,
            filter: &filter,
            hits: &mut hits,
        };
        let view = self.panels.get(number);
        let theme = scene.theme;
        let caption = match place.collapsed {
            true => view.brief(&scene),
            false => caption(view, &scene),
        };
        if place.collapsed {
            chrome::collapsed(&theme, (number, view.title(), &caption), place.area, buffer);
        } else {
            let title = (Some(number), view.title(), caption.as_str());
            let inner = chrome::frame(&theme, title, focused, place.area, buffer);
            view.draw(&mut scene, inner, buffer);
        }
        self.hits.extend(hits.into_iter().map(|hit| (number, hit)));
        self.filters[usize::from(number)] = filter;
    }

    fn page(
        &mut self,
        page: &mut Page,
        (shown, now_us): (&Picture, u64),
        area: Rect,
        buffer: &mut Buffer,
    ) {
        Clear.render(area, buffer);
        let mut hits = Vec::new();
        let mut scene = Scene {
            state: &shown.state,
            since: self.mark.as_deref().filter(|_| self.diff),
            theme: self.theme,
            now_us,
            focused: true,
            expanded: true,
            filter: &self.filters[usize::from(self.focus)],
            hits: &mut hits,
        };
        let view = page.view();
        let caption = caption(view, &scene);
        let title = (None, view.title(), caption.as_str());
        let inner = chrome::frame(&self.theme, title, true, area, buffer);
        view.draw(&mut scene, inner, buffer);
        let focus = self.focus;
        self.hits.extend(hits.into_iter().map(|hit| (focus, hit)));
    }

    fn footer(&mut self, shown: &Picture, page_open: bool, area: Rect, buffer: &mut Buffer) {
        let theme = self.theme;
        let at = (area.x, area.y);
        if self.typing {
            let filter = &self.filters[usize::from(self.focus)];
            let cursor = if theme.unicode { "▏" } else { "_" };
            let text = format!("filter: {filter}{cursor}  enter keeps it, esc clears it");
            put(buffer, at, area.width, &text, &theme, Role::Strong);
            return;
        }
        if let Some(message) = &self.message {
            put(buffer, at, area.width, &message.text, &theme, message.role);
            return;
        }
        let acts = self.may_act(shown);
        let mut hits: Vec<Hit> = Vec::new();
        let keys = &self.config.keys;
        let what = (&shown.about, page_open, acts);
        chrome::hints(&theme, keys, what, area, &mut hits, buffer);
        self.hits.extend(hits.into_iter().map(|hit| (0, hit)));
    }

    fn too_small(&self, area: Rect, buffer: &mut Buffer) {
        let text = format!(
            "{}x{} is too small: {}x{} is needed",
            area.width, area.height, LEAST.0, LEAST.1
        );
        // Word by word: there is little room.
        let (mut x, mut y) = (area.x, area.y);
        for word in text.split(' ') {
            if x > area.x && usize::from(area.right() - x) < word.len() {
                (x, y) = (area.x, y + 1);
            }
            let room = area.right() - x;
            x += put(buffer, (x, y), room, word, &self.theme, Role::Warn);
            x = (x + 1).min(area.right());
        }
    }
}

/// What stands behind a title, with the filter and the mark where there are any.
fn caption(view: &dyn View, scene: &Scene<'_>) -> String {
    let mut caption = view.caption(scene);
    if !scene.filter.is_empty() {
        caption = format!("filter: {}  {caption}", scene.filter);
    }
    if scene.since.is_some() {
        caption = format!("since the mark  {caption}");
    }
    caption
}
