//! A row per model: order, filter, cells.

use plimsoll_events::PlacePicture;
use unicode_width::UnicodeWidthStr;

use super::measured::{bar_of, bytes, next_to_go, reload_us, score};
use super::order::{By, Order};
use crate::decision::seconds;
use crate::inspect::prose::{compact, compact_metric};
use crate::live::screen::theme::Role;
use crate::live::state::{Moved, Row, State};
use crate::live::view::Scene;
use crate::live::view::draw::{self, Column, Pen, figures, matches};

/// What a column shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    State,
    /// Of a tier, by its index.
    Bar(usize),
    Ram,
    Device,
    Leases,
    Last,
    Score,
    Reload,
    Since,
    Move,
    Freed,
    Returned,
}

/// Tiers that have a bar, at most; the others are in the sums.
const BARS: usize = 9;

impl Kind {
    pub(super) fn sorts(self) -> Option<By> {
        match self {
            Kind::Name => Some(By::Name),
            Kind::State => Some(By::State),
            Kind::Ram => Some(By::Ram),
            Kind::Device => Some(By::Device),
            Kind::Last => Some(By::Last),
            Kind::Score => Some(By::Score),
            Kind::Reload => Some(By::Reload),
            _ => None,
        }
    }
}

/// The columns, with what they show.
pub(super) fn columns(state: &State, since: bool) -> Vec<(Kind, Column<'_>)> {
    let several = state.tiers.len() > 1;
    let mut columns = vec![
        (Kind::Name, Column::left("MODEL", 10).up_to(36).sorts()),
        (Kind::State, Column::left("STATE", 8).rank(3).sorts()),
    ];
    for (at, tier) in state.tiers.iter().enumerate().take(BARS) {
        let bar = Column::left(tier.tier.as_str(), 6).rank(8 + at as u8);
        columns.push((Kind::Bar(at), bar.up_to(if several { 12 } else { 20 })));
    }
    columns.push((Kind::Ram, Column::right("RAM", 7).rank(1).sorts()));
    if several {
        columns.push((Kind::Device, Column::right("DEVICE", 7).rank(2).sorts()));
    }
    columns.push((Kind::Leases, Column::right("LEASES", 6).rank(5)));
    columns.push((Kind::Last, Column::right("LAST", 5).rank(6).sorts()));
    columns.push((Kind::Score, Column::right("SCORE", 8).rank(7).sorts()));
    columns.push((Kind::Reload, Column::right("RELOAD", 8).rank(20).sorts()));
    if since {
        columns.push((Kind::Since, Column::left("SINCE MARK", 20).rank(4)));
    }
    columns.push((
        Kind::Move,
        Column::left("LAST LOAD/UNLOAD", 16).up_to(24).rank(23),
    ));
    columns.push((Kind::Freed, Column::right("FREED", 7).rank(22)));
    columns.push((Kind::Returned, Column::right("RETURNED", 8).rank(21)));
    columns
}

/// The models that are shown, in their order.
pub(super) struct List<'a> {
    state: &'a State,
    since: Option<&'a State>,
    now_us: u64,
    unicode: bool,
    kinds: &'a [Kind],
    rows: Vec<&'a Row>,
    next: Vec<Option<&'a str>>,
}

impl<'a> List<'a> {
    /// With all that cells need.
    pub(super) fn of(scene: &Scene<'a>, filter: &str, order: Order, kinds: &'a [Kind]) -> List<'a> {
        List {
            since: scene.since,
            now_us: scene.now_us,
            unicode: scene.theme.unicode,
            kinds,
            next: next_to_go(scene.state),
            ..List::keys_of(scene.state, filter, order)
        }
    }

    /// To move in, and not to be drawn.
    pub(super) fn keys_of(state: &'a State, filter: &str, order: Order) -> List<'a> {
        let rows: Vec<&Row> = state
            .models
            .iter()
            .filter(|row| matches(&row.name, filter) || row.state() == filter)
            .collect();
        // Rows come by name, which settles what is equal.
        let mut keys: Vec<((bool, u64, u64), usize)> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| (order.key(row), at))
            .collect();
        keys.sort_unstable();
        let mut rows: Vec<&Row> = keys.into_iter().map(|(_, at)| rows[at]).collect();
        if order.by == By::Name && order.reversed {
            rows.reverse();
        }
        List {
            state,
            since: None,
            now_us: 0,
            unicode: false,
            kinds: &[],
            rows,
            next: Vec::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    fn bar(&self, row: &Row, tier: usize, pen: &mut Pen<'_>) {
        let Some(picture) = self.state.tiers.get(tier) else {
            return;
        };
        let columns = pen.room().saturating_sub(1);
        bar_of(pen, columns, row, place(row, &picture.tier), picture);
        if self.next.get(tier).copied().flatten() == Some(row.name.as_str()) {
            pen.write(Role::Evict, if self.unicode { "◂" } else { "<" });
        }
    }

    fn last(&self, row: &Row) -> String {
        match row.used_us {
            _ if row.leases() > 0 => "now".to_owned(),
            Some(used) => figures::age(self.now_us, used),
            None => "-".to_owned(),
        }
    }

    fn since(&self, row: &Row, pen: &mut Pen<'_>) {
        let nothing = Row::default();
        let Some(before) = self.since else { return };
        let before = before.models.get(&row.name).unwrap_or(&nothing);
        let all = |row: &Row| {
            let (ram, device) = bytes(row);
            i128::from(ram) + i128::from(device)
        };
        let grown = all(row) - all(before);
        let loads = row.loads.saturating_sub(before.loads);
        let evictions = row.evictions.saturating_sub(before.evictions);
        let role = match grown {
            0 => Role::Faint,
            1.. => Role::Load,
            _ => Role::Evict,
        };
        let change = match grown {
            0 => "=".to_owned(),
            _ => figures::change(grown),
        };
        pen.write(role, &format!("{change:<8}"));
        if loads > 0 {
            pen.write(Role::Load, &format!(" {loads} in"));
        }
        if evictions > 0 {
            pen.write(Role::Evict, &format!(" {evictions} out"));
        }
    }

    fn moved(&self, moved: &Moved, pen: &mut Pen<'_>) {
        let (role, word) = match (&moved.error, moved.came) {
            (Some(_), _) => (Role::Bad, "FAILED"),
            (None, true) => (Role::Load, "load"),
            (None, false) => (Role::Evict, "unload"),
        };
        pen.write(role, word);
        let age = format!(" {}", figures::age(self.now_us, moved.at_us));
        let tier = format!(" {}", moved.tier);
        // Where both have no room, when says more than where.
        if tier.width() + age.len() <= pen.room().into() {
            pen.write(Role::Text, &tier);
        }
        pen.write(Role::Faint, &age);
    }

    /// Whether the system got back what it should have: nine tenths of what was due. `None` where
    /// that cannot be told.
    fn came_back(moved: &Moved) -> Option<bool> {
        enough(moved.returned.bytes()?, moved.due_bytes)
    }
}

/// Whether so much is nine tenths of what was due; `None` where nothing was.
pub(in crate::live::view) fn enough(returned: u64, due: u64) -> Option<bool> {
    (due > 0).then(|| u128::from(returned) * 10 >= u128::from(due) * 9)
}

fn place<'r>(row: &'r Row, tier: &str) -> Option<&'r PlacePicture> {
    row.places.iter().find(|place| place.tier == tier)
}

/// The colour of a model's state.
pub(in crate::live::view) fn state_role(state: &str) -> Role {
    match state {
        "leased" => Role::Good,
        "loading" => Role::Load,
        "evicting" => Role::Evict,
        "gone" => Role::Faint,
        _ => Role::Text,
    }
}

/// Bytes, or a dash for none.
fn some(bytes: u64) -> (Role, String) {
    match bytes {
        0 => (Role::Faint, "-".to_owned()),
        _ => (Role::Text, compact(bytes)),
    }
}

impl draw::List for List<'_> {
    type Key = String;

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn key(&self, row: usize) -> Option<String> {
        self.rows.get(row).map(|row| row.name.clone())
    }

    fn find(&self, key: &String) -> Option<usize> {
        self.rows.iter().position(|row| row.name == *key)
    }

    fn cell(&self, row: usize, column: usize, pen: &mut Pen<'_>) {
        let (Some(row), Some(kind)) = (self.rows.get(row), self.kinds.get(column)) else {
            return;
        };
        let paint = pen.theme.paint(0);
        let dash = |pen: &mut Pen<'_>| pen.write(Role::Faint, "-");
        match kind {
            Kind::Name if row.dropped => pen.write(Role::Warn, &row.name),
            Kind::Name if row.places.is_empty() => pen.write(Role::Faint, &row.name),
            Kind::Name => pen.write(Role::Text, &row.name),
            Kind::State if row.dropped => pen.write(Role::Warn, "dropped"),
            Kind::State => pen.write(state_role(row.state()), row.state()),
            Kind::Bar(tier) => self.bar(row, *tier, pen),
            Kind::Ram => {
                let (role, text) = some(bytes(row).0);
                pen.write(role, &text);
            }
            Kind::Device => {
                let (role, text) = some(bytes(row).1);
                pen.write(role, &text);
            }
            Kind::Leases => match row.leases() {
                0 => dash(pen),
                leases => pen.write(Role::Strong, &leases.to_string()),
            },
            Kind::Last => pen.write(Role::Text, &self.last(row)),
            Kind::Score => match score(row) {
                Some(score) if self.next.contains(&Some(row.name.as_str())) => {
                    pen.write(Role::Evict, &figures::score(score));
                }
                Some(score) => pen.write(Role::Text, &figures::score(score)),
                None => dash(pen),
            },
            Kind::Reload => match reload_us(row) {
                Some(reload) => pen.write(Role::Text, &seconds(reload)),
                None => dash(pen),
            },
            Kind::Since => self.since(row, pen),
            Kind::Move => match &row.moved {
                Some(moved) => self.moved(moved, pen),
                None => dash(pen),
            },
            Kind::Freed | Kind::Returned => match &row.moved {
                Some(moved) if !moved.came && *kind == Kind::Freed => {
                    pen.write(Role::Text, &compact(moved.bytes));
                }
                Some(moved) if !moved.came => {
                    let role = match Self::came_back(moved) {
                        Some(true) => Role::Good,
                        Some(false) => Role::Warn,
                        None => Role::Text,
                    };
                    pen.write(role, &compact_metric(&paint, moved.returned));
                }
                _ => dash(pen),
            },
        }
    }
}
