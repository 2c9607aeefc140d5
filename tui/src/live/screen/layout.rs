//! Where the panels lie, by the size of the terminal.

use ratatui::layout::Rect;

/// A smaller terminal shows nothing but that it is too small.
pub const LEAST: (u16, u16) = (60, 18);
/// From this size on all panels are open.
const ROOMY: (u16, u16) = (100, 28);
/// Panels, besides the verdict.
pub const PANELS: u8 = 6;

/// A panel's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The panel's number; 0 is the verdict.
    pub panel: u8,
    /// Where it lies, its frame included.
    pub area: Rect,
    /// Whether only its title is shown.
    pub collapsed: bool,
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The line at the top.
    pub header: Rect,
    /// The panels, from the top.
    pub places: Vec<Place>,
    /// The line at the bottom.
    pub footer: Rect,
}

/// Whether there is room for anything.
#[must_use]
pub fn fits(area: Rect) -> bool {
    area.width >= LEAST.0 && area.height >= LEAST.1
}

/// Where everything lies: `findings` lines are wanted for the verdict, `focus` is the panel that
/// keeps its room where there is little, `alone` whether it has all of it.
#[must_use]
pub fn layout(area: Rect, findings: usize, focus: u8, alone: bool, is_cache: bool) -> Layout {
    let row = |y: u16, height: u16| Rect {
        y: area.y + y,
        height,
        ..area
    };
    let roomy = area.width >= ROOMY.0 && area.height >= ROOMY.1;
    let most = if area.height >= 50 { 4 } else { 2 };
    let lines = u16::try_from(findings).unwrap_or(most).clamp(1, most);
    let verdict = lines + 2;
    let body = area.height.saturating_sub(2 + verdict);
    let top = 1 + verdict;
    let mut places = vec![Place {
        panel: 0,
        area: row(1, verdict),
        collapsed: false,
    }];
    if alone && focus == 0 {
        places[0].area = row(1, verdict + body);
    } else if alone {
        places.push(Place {
            panel: focus,
            area: row(top, body),
            collapsed: false,
        });
    } else if roomy {
        open(&mut places, row(top, body), is_cache);
    } else {
        stacked(&mut places, row(top, body), focus);
    }
    Layout {
        header: row(0, 1),
        places,
        footer: row(area.height.saturating_sub(1), 1),
    }
}

/// All panels: two rows of two, and two of one.
fn open(places: &mut Vec<Place>, area: Rect, is_cache: bool) {
    let weights: [u16; 4] = if is_cache {
        [8, 9, 8, 7]
    } else {
        [8, 11, 7, 5]
    };
    let heights = shares(area.height, weights);
    let left = area.width / 2 + area.width % 2;
    let mut y = area.y;
    for (at, height) in heights.into_iter().enumerate() {
        let whole = Rect { y, height, ..area };
        let mut put = |panel, area| {
            places.push(Place {
                panel,
                area,
                collapsed: false,
            });
        };
        let first = Rect {
            width: left,
            ..whole
        };
        let second = Rect {
            x: area.x + left,
            width: area.width - left,
            ..whole
        };
        match at {
            0 => {
                put(1, first);
                put(2, second);
            }
            1 => {
                put(3, first);
                put(4, second);
            }
            2 => put(5, whole),
            _ => put(6, whole),
        }
        y += height;
    }
}

/// Titles of all panels, and the focused one in full.
fn stacked(places: &mut Vec<Place>, area: Rect, focus: u8) {
    // With the focus on the verdict something else may use the room.
    let focus = if focus == 0 { 1 } else { focus };
    let open = area.height.saturating_sub(u16::from(PANELS) - 1);
    let mut y = area.y;
    for panel in 1..=PANELS {
        let height = if panel == focus { open } else { 1 };
        let height = height.min(area.bottom().saturating_sub(y));
        places.push(Place {
            panel,
            area: Rect { y, height, ..area },
            collapsed: panel != focus,
        });
        y += height;
    }
}

/// A height shared out by weights, to the last row.
fn shares<const N: usize>(height: u16, weights: [u16; N]) -> [u16; N] {
    let all: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
    let (mut seen, mut given) = (0_u32, 0_u16);
    weights.map(|weight| {
        seen += u32::from(weight);
        let until = (u32::from(height) * seen / all.max(1)) as u16;
        let share = until - given;
        given = until;
        share
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(layout: &Layout, area: Rect) -> bool {
        let panels = layout.places.iter().map(|place| place.area);
        let all: Vec<Rect> = panels.chain([layout.header, layout.footer]).collect();
        let cells: u32 = all.iter().map(|rect| rect.area()).sum();
        let apart = all.iter().enumerate().all(|(at, one)| {
            let mut others = all[at + 1..].iter();
            others.all(|other| one.intersection(*other).area() == 0)
        });
        let within = all.iter().all(|rect| area.union(*rect) == area);
        cells == area.area() && apart && within
    }

    proptest! {
        #[test]
        fn every_cell_belongs_to_one_part(
            width in LEAST.0..=400, height in LEAST.1..=200,
            findings in 0_usize..20, focus in 0..=PANELS, alone: bool, is_cache: bool,
        ) {
            let area = Rect::new(0, 0, width, height);
            let layout = layout(area, findings, focus, alone, is_cache);
            prop_assert!(covers(&layout, area), "{:?}", layout);
            let shown = layout.places.iter().find(|place| place.panel == focus);
            prop_assert!(shown.is_some_and(|place| place.area.height >= 3));
        }
    }
}
