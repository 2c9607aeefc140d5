//! How a cell looks.

use malloc_stats::heap::{ChunkState, Shares};

use super::picture::Became;
use crate::live::screen::theme::{Role, Theme};
use crate::live::view::draw::Line;

/// In use; mostly; partly; a little; free and resident; given back: as `inspect --map` has them.
const BLOCKS: [char; 6] = ['█', '▓', '▒', '∶', '░', ' '];
const ASCII: [char; 6] = ['#', '*', '+', ':', '.', ' '];

const fn marks(theme: &Theme) -> [char; 6] {
    if theme.unicode { BLOCKS } else { ASCII }
}

/// The mark of a pin.
pub(super) const PIN: char = 'P';

/// A cell by what is in it. The colour of what is partly in use says whether the rest costs RAM.
pub(super) fn cell(theme: &Theme, shares: &Shares) -> (char, Role) {
    let [full, mostly, partly, little, free, released] = marks(theme);
    let (used, resident) = (u128::from(shares.in_use), u128::from(shares.free_resident));
    let all = used + resident + u128::from(shares.free_released);
    let is_resident = resident * 2 >= all - used;
    let role = match (is_resident, used * 2 >= all) {
        (true, _) => Role::Waste,
        (false, true) => Role::InUse,
        (false, false) => Role::Released,
    };
    if used * 8 >= all * 7 && used > 0 {
        (full, Role::InUse)
    } else if used * 2 >= all && used > 0 {
        (mostly, role)
    } else if used * 8 >= all && used > 0 {
        (partly, role)
    } else if used > 0 {
        (little, role)
    } else if resident * 8 >= all && resident > 0 {
        (free, Role::Waste)
    } else {
        (released, Role::Released)
    }
}

/// A cell that changed since the mark. Letters, so that it is seen without colours too.
pub(super) const fn changed(became: Became) -> (char, Role) {
    match became {
        Became::Used => ('n', Role::Load),
        Became::Freed => ('f', Role::Evict),
        Became::Returned => ('r', Role::Good),
        Became::Touched => ('t', Role::Bad),
    }
}

/// What marks mean, in so few words that a panel has room for them.
pub(super) fn legend(theme: &Theme, diff: bool, columns: u16) -> Line {
    let [full, mostly, partly, little, free, _] = marks(theme);
    let mut line = Line::default();
    if diff {
        for (became, words) in [
            (Became::Used, " new in use  "),
            (Became::Freed, " freed  "),
            (Became::Returned, " given back  "),
            (Became::Touched, " free, resident again"),
        ] {
            let (mark, role) = changed(became);
            line = line.and(role, mark.to_string()).and(Role::Faint, words);
        }
        return line;
    }
    let is_short = columns < 68;
    for (mark, role, words) in [
        (full.to_string(), Role::InUse, " in use  "),
        (
            format!("{mostly}{partly}{little}"),
            Role::Waste,
            if is_short { " part  " } else { " partly  " },
        ),
        (
            free.to_string(),
            Role::Waste,
            if is_short {
                " free  "
            } else {
                " free, resident  "
            },
        ),
        (
            "blank".to_owned(),
            Role::Released,
            if is_short { " back  " } else { " given back  " },
        ),
        (PIN.to_string(), Role::Bad, " pin"),
    ] {
        line = line.and(role, mark).and(Role::Faint, words);
    }
    line
}

/// A chunk by its state: the mark of what is resident, its colour, its name.
pub(super) const fn chunk(theme: &Theme, state: ChunkState) -> (char, Role, &'static str) {
    match (state, theme.unicode) {
        (ChunkState::InUse, true) => ('█', Role::InUse, "in use"),
        (ChunkState::InUse, false) => ('#', Role::InUse, "in use"),
        (ChunkState::Cached, true) => ('▓', Role::Warn, "thread cache"),
        (ChunkState::Cached, false) => ('*', Role::Warn, "thread cache"),
        (ChunkState::Free, true) => ('░', Role::Waste, "free"),
        (ChunkState::Free, false) => ('.', Role::Waste, "free"),
        (ChunkState::Top, true) => ('·', Role::Released, "top"),
        (ChunkState::Top, false) => ('-', Role::Released, "top"),
    }
}
